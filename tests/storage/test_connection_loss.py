"""MultiplexedConnection when its connection breaks: which commands are sent again, and which outcomes are unknown."""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop
from structlog.testing import capture_logs

from service.domain.errors.storage import OutcomeUnknown
from service.engine.launcher import run_engine
from service.storage.connection import MultiplexedConnection
from tests.support.network import (
    LONG_TIMEOUT,
    MEBIBYTE,
    Network,
    connect_through,
    count_at,
    has_noticed_loss,
    outcome,
    wait_for_count,
)
from tests.support.waiting import eventually


@pytest.mark.parametrize("executed", [0, 1])
async def test_a_sent_command_has_an_unknown_outcome_and_is_not_sent_again_when_the_connection_breaks(
    network: Network, engine: MultiplexedConnection, executed: int
) -> None:
    async with connect_through(network) as connection:
        await connection.send("PING")
        network.chunks.clear()
        (network.replies_pass if executed else network.commands_pass).clear()
        command = connection.send("INCR", "count")
        await eventually(lambda: network.chunks, "the command")
        await wait_for_count(engine, executed)
        network.cut()
        with pytest.raises(OutcomeUnknown) as error:
            await command
        assert error.value.reason
        network.commands_pass.set()
        network.replies_pass.set()
        assert await connection.send("ECHO", "next") == "next"
    assert b"".join(network.chunks).count(b"INCR") == 1
    assert await count_at(engine) == executed


async def test_the_outcome_is_unknown_when_the_connection_is_cut_during_a_write(
    network: Network, engine: MultiplexedConnection
) -> None:
    script = "return redis.call('INCR', KEYS[1])"
    async with connect_through(network) as connection:
        await connection.send("PING")
        network.chunks.clear()
        network.cut_after = MEBIBYTE // 2
        complete = connection.send("INCR", "count")
        incomplete = connection.send("EVAL", script, 1, "half", b"x" * MEBIBYTE)
        assert [await outcome(command) for command in (complete, incomplete)] in (
            [1, OutcomeUnknown],
            [OutcomeUnknown] * 2,
        )
        assert await connection.send("ECHO", "next") == "next"
    assert b"".join(network.chunks).count(b"EVAL") == 1
    assert (await count_at(engine), await count_at(engine, "half")) == (1, 0)


async def test_a_command_that_is_safe_to_repeat_is_sent_again_when_the_connection_breaks(
    network: Network, engine: MultiplexedConnection
) -> None:
    async with connect_through(network) as connection:
        await connection.send("PING")
        network.replies_pass.clear()
        command = connection.send("INCR", "count", safe_to_repeat=True)
        await wait_for_count(engine, 1)
        network.cut()
        network.replies_pass.set()
        assert await command == 2


async def test_replies_reach_their_own_commands_in_order_when_some_commands_are_sent_again(
    network: Network, engine: MultiplexedConnection
) -> None:
    async with connect_through(network) as connection:
        await connection.send("PING")
        network.replies_pass.clear()
        commands = [connection.send("RPUSH", "list", number, safe_to_repeat=number % 2 == 0) for number in range(100)]
        commands.append(connection.send("INCR", "count"))
        await wait_for_count(engine, 1)
        network.cut()
        late = connection.send("ECHO", "late")
        network.replies_pass.set()
        outcomes = [await outcome(command) for command in commands[:-1]]
        assert await outcome(late) in ("late", OutcomeUnknown)  # it was sent before or after the cut was noticed
        assert await outcome(commands[-1]) is OutcomeUnknown
    # The first connection pushed 100 numbers. The second connection pushed the even numbers again.
    assert outcomes == [101 + number // 2 if number % 2 == 0 else OutcomeUnknown for number in range(100)]
    assert await engine.send("LRANGE", "list", 100, -1) == [str(number) for number in range(0, 100, 2)]


async def test_a_cancelled_command_that_is_safe_to_repeat_is_not_sent_again(
    network: Network, engine: MultiplexedConnection
) -> None:
    async with connect_through(network) as connection:
        await connection.send("PING")
        network.replies_pass.clear()
        command = connection.send("INCR", "count", safe_to_repeat=True)
        await wait_for_count(engine, 1)
        command.cancel()
        network.cut()
        network.replies_pass.set()
        await connection.send("PING", safe_to_repeat=True)
    assert await count_at(engine) == 1


async def test_a_command_that_arrives_before_the_first_connection_waits_for_the_connection(network: Network) -> None:
    async with connect_through(network) as connection:
        command = connection.send("ECHO", "early")
        assert not network.accepted
        assert await command == "early"


async def test_an_unsent_command_is_sent_once_after_the_reconnect(
    network: Network, engine: MultiplexedConnection
) -> None:
    with capture_logs() as logs:
        async with connect_through(network) as connection:
            await connection.send("PING")
            await network.close()
            await eventually(lambda: has_noticed_loss(logs), "the loss")
            commands = [connection.send("INCR", "count") for _ in range(3)]
            await network.open()
            assert await asyncio.gather(*commands) == [1, 2, 3]
    assert await count_at(engine) == 3


async def test_an_idle_connection_that_was_cut_reopens_before_the_next_command(network: Network) -> None:
    async with connect_through(network) as connection:
        await connection.send("PING")
        network.cut()
        await eventually(lambda: network.accepted == 2, "another connection")
        assert await connection.send("ECHO", "next") == "next"


async def test_no_command_is_executed_twice_when_the_connection_is_cut_many_times(
    network: Network, engine: MultiplexedConnection
) -> None:
    async with connect_through(network) as connection:
        answered = unknown = 0
        for _ in range(20):
            commands = [connection.send("INCR", "count") for _ in range(50)]
            await commands[0]
            commands += [connection.send("INCR", "count") for _ in range(50)]
            network.cut()
            outcomes = [await outcome(command) for command in commands]
            answered += sum(isinstance(result, int) for result in outcomes)
            unknown += outcomes.count(OutcomeUnknown)
        assert answered + unknown == 2000
    assert answered <= await count_at(engine) <= 2000


async def test_the_connection_recovers_when_another_engine_replaces_the_first(tmp_path: Path) -> None:
    with run_engine(tmp_path, "none") as url:
        connection = MultiplexedConnection(url, timeout=LONG_TIMEOUT, max_in_flight=10)
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(connection)
            assert await connection.send("SET", "kept", "x") == "OK"
            stack.push_async_callback(stack.pop_all().aclose)
            open_connection = stack.pop_all()
    try:
        with run_engine(tmp_path, "none"):
            assert await connection.send("GET", "kept", safe_to_repeat=True) == "x"
    finally:
        await open_connection.aclose()


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_commands_during_a_cut_cause_no_exception_in_the_event_loop(
    engine_url: str, loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """uvloop, which the service runs on, notices the cut before MultiplexedConnection does, and refuses to write."""
    contexts: list[dict[str, Any]] = []

    async def send_during_cuts() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: contexts.append(context))
        async with Network(engine_url) as network, connect_through(network) as connection:
            for _ in range(20):
                await connection.send("PING", safe_to_repeat=True)
                with capture_logs() as logs:
                    commands = [connection.send("PING")]
                    network.cut()
                    while not has_noticed_loss(logs):
                        await asyncio.sleep(0)
                        commands.append(connection.send("PING"))
                outcomes = {await outcome(command) for command in commands}
                assert outcomes <= {"PONG", OutcomeUnknown}

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(send_during_cuts())
    assert contexts == []

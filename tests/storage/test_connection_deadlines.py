"""MultiplexedConnection when the engine hangs, is slow or cannot be reached: each command ends at its deadline."""

import asyncio
import time

import pytest
from structlog.testing import capture_logs

from service.domain.errors.storage import OutcomeUnknown, StorageError, StorageUnavailable
from service.storage.connection import MultiplexedConnection
from tests.support.network import (
    MARGIN,
    SHORT_TIMEOUT,
    Network,
    connect_through,
    count_at,
    has_noticed_loss,
    outcome,
    wait_for_recovery,
)
from tests.support.waiting import eventually


@pytest.mark.parametrize(("safe_to_repeat", "error"), [(False, OutcomeUnknown), (True, StorageUnavailable)])
@pytest.mark.parametrize("held_back", ["commands", "replies"])
async def test_a_sent_command_without_a_reply_ends_at_its_deadline(
    network: Network, held_back: str, safe_to_repeat: bool, error: type[StorageError]
) -> None:
    async with connect_through(network, SHORT_TIMEOUT) as connection:
        await connection.send("PING")
        passes = network.commands_pass if held_back == "commands" else network.replies_pass
        passes.clear()
        started = time.monotonic()
        with pytest.raises(error) as raised:
            await connection.send("INCR", "count", safe_to_repeat=safe_to_repeat)
        assert SHORT_TIMEOUT * 0.9 < time.monotonic() - started < SHORT_TIMEOUT + MARGIN
        assert raised.value.reason
        passes.set()
        await wait_for_recovery(connection)


async def test_an_unsent_command_ends_at_its_deadline_and_is_never_sent(
    network: Network, engine: MultiplexedConnection
) -> None:
    with capture_logs() as logs:
        async with connect_through(network, SHORT_TIMEOUT) as connection:
            await connection.send("PING")
            await network.close()
            await eventually(lambda: has_noticed_loss(logs), "the loss")
            started = time.monotonic()
            with pytest.raises(StorageUnavailable) as error:
                await connection.send("INCR", "count")
            assert time.monotonic() - started < SHORT_TIMEOUT + MARGIN
            assert error.value.reason
            await network.open()
            await wait_for_recovery(connection)
    assert await count_at(engine) == 0


async def test_a_command_that_arrives_while_redis_hangs_is_never_sent(
    network: Network, engine: MultiplexedConnection
) -> None:
    """A new connection opens, but the engine does not answer the PING that must come first."""
    async with connect_through(network, SHORT_TIMEOUT) as connection:
        await connection.send("PING")
        network.commands_pass.clear()
        assert await outcome(connection.send("INCR", "count")) is OutcomeUnknown
        network.chunks.clear()
        await eventually(lambda: network.accepted == 2, "another connection")
        assert await outcome(connection.send("INCR", "other")) is StorageUnavailable
        assert b"INCR" not in b"".join(network.chunks)
        network.commands_pass.set()
        await wait_for_recovery(connection)
    assert await count_at(engine, "other") == 0


async def test_commands_fail_immediately_after_redis_was_unreachable_for_the_timeout(network: Network) -> None:
    await network.close()
    async with connect_through(network, SHORT_TIMEOUT) as connection:
        assert await outcome(connection.send("PING", safe_to_repeat=True)) is StorageUnavailable
        commands = [connection.send("PING"), connection.send("PING", safe_to_repeat=True)]
        assert all(command.done() for command in commands)
        assert [await outcome(command) for command in commands] == [StorageUnavailable] * 2
        await network.open()
        await wait_for_recovery(connection)


async def test_commands_fail_immediately_after_redis_was_hanging_for_the_timeout(network: Network) -> None:
    async with connect_through(network, SHORT_TIMEOUT) as connection:
        await connection.send("PING")
        network.commands_pass.clear()
        for _ in range(3):
            await outcome(connection.send("PING", safe_to_repeat=True))
        command = connection.send("PING")
        assert command.done()
        assert await outcome(command) is StorageUnavailable


async def test_replies_that_arrive_when_the_connection_is_given_up_are_not_called_unexpected(engine_url: str) -> None:
    """A busy process reads the replies and notices the timeout at the same moment."""
    with capture_logs() as logs:
        async with MultiplexedConnection(engine_url, timeout=SHORT_TIMEOUT, max_in_flight=10) as connection:
            await connection.send("PING")
            late = connection.send("BLPOP", "nothing", str(2 * SHORT_TIMEOUT))
            await asyncio.sleep(0)
            for _ in range(2):  # the first time, replies that came meanwhile are waited for
                time.sleep(1.5 * SHORT_TIMEOUT)  # noqa: ASYNC251  # the process is busy with something else
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            assert await outcome(late) is OutcomeUnknown
            await wait_for_recovery(connection)
    [reason] = [entry["reason"] for entry in logs if "reason" in entry]
    assert reason == f"no reply within {SHORT_TIMEOUT} s"


@pytest.mark.parametrize("fault", ["closes connections", "sends garbage"])
async def test_reconnecting_slows_down_when_the_server_ends_every_connection(network: Network, fault: str) -> None:
    """A Redis at its maxclients limit ends them. The pause doubles from 10 ms, so eight attempts take half a second."""
    network.closes_new_connections = True
    with capture_logs() as logs:
        async with connect_through(network) as connection:
            if fault == "sends garbage":
                network.closes_new_connections = False
                network.replies_pass.clear()
            started = time.monotonic()

            def eight_attempts() -> bool:
                network.send_to_service(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                return network.accepted >= 8

            await eventually(eight_attempts, "eight attempts")
            assert time.monotonic() - started > 0.4
            network.closes_new_connections = False
            network.replies_pass.set()
            await wait_for_recovery(connection)
    assert not any("Traceback" in str(entry) for entry in logs)


async def test_a_slow_connection_is_kept_while_replies_arrive(network: Network, engine: MultiplexedConnection) -> None:
    """A reply of megabytes delays the replies after it. Commands end at their deadlines, but the connection stays."""
    await engine.send("SET", "large", b"x" * 4_000_000)
    network.reply_bytes = 64 * 1024
    network.replies_pass.clear()
    async with connect_through(network, SHORT_TIMEOUT) as connection:
        network.replies_pass.set()
        assert await connection.send("PING") == "PONG"
        network.replies_pass.clear()
        large, counted = connection.send("GET", "large", safe_to_repeat=True), connection.send("INCR", "count")
        with capture_logs() as logs:
            while not counted.done():  # some bytes arrive again and again, so the connection is never silent for long
                network.replies_pass.set()
                await asyncio.sleep(0)
                network.replies_pass.clear()
                await asyncio.wait([counted], timeout=0.05)
            network.replies_pass.set()
            assert await outcome(large) is StorageUnavailable
            assert await outcome(counted) is OutcomeUnknown
            while await outcome(connection.send("PING", safe_to_repeat=True)) != "PONG":
                pass  # the connection reads the overdue replies first
        assert not has_noticed_loss(logs)
    assert network.accepted == 1
    assert await count_at(engine) == 1


async def test_a_blocked_event_loop_is_not_mistaken_for_a_hanging_redis(
    engine_url: str, engine: MultiplexedConnection
) -> None:
    """The reply came in time, but the blocked event loop could not read it."""
    timeout = 0.2
    async with MultiplexedConnection(engine_url, timeout=timeout, max_in_flight=10) as connection:
        assert await connection.send("PING") == "PONG"
        with capture_logs() as logs:
            counted = connection.send("INCR", "count")
            await asyncio.sleep(0)  # the command is written
            time.sleep(2 * timeout)  # noqa: ASYNC251
            assert await counted == 1
        assert not has_noticed_loss(logs)
    assert await count_at(engine) == 1

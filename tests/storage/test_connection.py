"""MultiplexedConnection, on the real engine, and through a network that breaks in the ways that networks do."""

import asyncio
import contextlib
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, unquote

import pytest
import uvloop
from structlog.testing import capture_logs

from service.domain.errors.storage import OutcomeUnknown, Overloaded, StorageError, StorageUnavailable
from service.engine.launcher import run_engine
from service.storage.connection import MultiplexedConnection
from service.storage.sender import ErrorReply
from tests.support.waiting import eventually

TIMEOUT = 0.3
"""Of the calls, where a test waits for it to pass."""

LONG = 10.0
"""Of the calls, where a test must not see it pass."""

MARGIN = 1.0
"""Seconds a busy machine may be late."""

BIG = 1024 * 1024


class Network:
    """A TCP port in front of the engine. Commands or replies can be held up, and connections cut."""

    def __init__(self, engine_url: str, tls: ssl.SSLContext | None = None) -> None:
        self.engine_path = unquote(engine_url.removeprefix("unix://"))
        self.tls = tls
        self.port = 0
        self.chunks: list[bytes] = []
        """What came from the service, as it came."""
        self.accepted = 0
        self.commands_pass, self.replies_pass = asyncio.Event(), asyncio.Event()
        self.commands_pass.set()
        self.replies_pass.set()
        self.reply_bytes = BIG
        """How many bytes of a reply travel at a time."""
        self.cut_after: int | None = None
        """Bytes of commands that get through before the line is cut."""
        self.stop_at: bytes | None = None
        """Commands from this one on are held up."""
        self.hang_up = False
        self.lines: dict[asyncio.StreamWriter, list[asyncio.Task[None]]] = {}
        """Open connections, each with what carries its commands and its replies."""
        self.tasks: set[asyncio.Task[None]] = set()
        self.server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"{'rediss' if self.tls else 'redis'}://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def open(self) -> None:
        self.server = await asyncio.start_server(self._connected, "127.0.0.1", self.port, ssl=self.tls)
        self.port = self.server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Nobody answers at this port any more."""
        if self.server is not None:
            self.server.close()
            self.server = None
        self.cut()

    def cut(self) -> None:
        """Ends all connections at once; what is held up is lost."""
        for writer, pumps in self.lines.items():
            writer.transport.abort()
            for pump in pumps:
                pump.cancel()

    def say(self, reply: bytes) -> None:
        """Sends the service what the engine never said."""
        for writer in self.lines:
            writer.write(reply)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self.hang_up:
            writer.close()
            return
        task = asyncio.create_task(self._serve(reader, writer))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        engine_reader, engine_writer = await asyncio.open_unix_connection(self.engine_path)
        pumps = [
            asyncio.create_task(self._pump_commands(reader, engine_writer)),
            asyncio.create_task(self._pump_replies(engine_reader, writer)),
        ]
        self.lines[writer] = pumps
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        del self.lines[writer]
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        for end in (writer, engine_writer):
            end.transport.abort()
            with contextlib.suppress(OSError):
                await end.wait_closed()

    async def _pump_commands(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(BIG):
            self.chunks.append(data)
            if self.stop_at is not None and self.stop_at in data:
                self.commands_pass.clear()
            await self.commands_pass.wait()
            if self.cut_after is not None:
                data, self.cut_after = data[: self.cut_after], self.cut_after - len(data)
            writer.write(data)
            await writer.drain()
            if self.cut_after is not None and self.cut_after <= 0:
                self.cut_after = None
                return

    async def _pump_replies(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(self.reply_bytes):
            await self.replies_pass.wait()
            writer.write(data)
            await writer.drain()


@pytest.fixture
async def network(engine_url: str, wire: MultiplexedConnection) -> AsyncIterator[Network]:
    """A network to the real engine, which is empty. `wire` goes past it."""
    async with Network(engine_url) as network:
        yield network


def far_wire(network: Network, timeout: float = LONG, max_in_flight: int = 100_000) -> MultiplexedConnection:
    """A MultiplexedConnection through the network. It has not connected yet."""
    return MultiplexedConnection(network.url, timeout=timeout, max_in_flight=max_in_flight)


async def outcome(reply: asyncio.Future[Any]) -> Any:
    """The reply, or the kind of its error."""
    await asyncio.wait([reply])
    if reply.cancelled():
        return asyncio.CancelledError
    error = reply.exception()
    return reply.result() if error is None else type(error)


async def count(wire: MultiplexedConnection, key: str = "count") -> int:
    return int(await wire.send("GET", key) or 0)


async def until_executed(wire: MultiplexedConnection, times: int, key: str = "count") -> None:
    give_up = time.monotonic() + LONG
    while await count(wire, key) != times:
        assert time.monotonic() < give_up, f"{key} is {await count(wire, key)}, not {times}"


def lost(logs: list[Any]) -> bool:
    """The MultiplexedConnection has noticed that its connection broke."""
    return any(entry["event"] == "redis_lost" for entry in logs)


# Replies and their callers


async def test_each_of_ten_thousand_concurrent_calls_gets_its_own_reply(wire: MultiplexedConnection) -> None:
    replies = await asyncio.gather(*(wire.send("ECHO", number) for number in range(10_000)))
    assert replies == [str(number) for number in range(10_000)]


@pytest.mark.parametrize("argument", ["text", "snow ☃", "\x00\r\n", "snow ☃".encode(), 2**53, -1, ""])
async def test_text_bytes_and_integers_arrive_as_they_are(
    wire: MultiplexedConnection, argument: str | bytes | int
) -> None:
    expected = argument.decode() if isinstance(argument, bytes) else str(argument)
    assert await wire.send("ECHO", argument) == expected


async def test_what_is_no_utf_8_is_read_with_the_place_marked(wire: MultiplexedConnection) -> None:
    assert await wire.send("ECHO", b"M\xfcg") == "M\N{REPLACEMENT CHARACTER}g"


@pytest.mark.parametrize("reply_bytes", [1, 7, 4096])
async def test_replies_that_arrive_in_pieces_are_put_together(network: Network, reply_bytes: int) -> None:
    network.reply_bytes = reply_bytes
    async with far_wire(network) as wire:
        replies = await asyncio.gather(*(wire.send("ECHO", f"reply {number}") for number in range(50)))
    assert replies == [f"reply {number}" for number in range(50)]


async def test_big_values_travel_between_small_ones(network: Network) -> None:
    values = [chr(number) * BIG for number in range(8)]
    async with far_wire(network) as wire:
        calls = [
            future
            for number, value in enumerate(values)
            for future in (wire.send("SET", f"big:{number}", value), wire.send("ECHO", number))
        ]
        assert await asyncio.gather(*calls) == [part for number in range(8) for part in ("OK", str(number))]
        assert await asyncio.gather(*(wire.send("GET", f"big:{number}") for number in range(8))) == values


async def test_commands_of_one_tick_leave_together(network: Network) -> None:
    async with far_wire(network) as wire:
        await wire.send("PING")
        network.chunks.clear()

        async def request(number: int) -> Any:
            return await wire.send("ECHO", number)

        replies = await asyncio.gather(*(request(number) for number in range(100)))
    assert replies == [str(number) for number in range(100)]
    # So many that Redis has something to do while the rest is made. They may arrive in one piece.
    assert b"".join(network.chunks).count(b"ECHO") == 100
    assert len(network.chunks) <= 4


async def test_commands_are_executed_in_the_order_of_their_calls(wire: MultiplexedConnection) -> None:
    await asyncio.gather(*(wire.send("RPUSH", "list", number) for number in range(1000)))
    assert await wire.send("LRANGE", "list", 0, -1) == [str(number) for number in range(1000)]


@pytest.mark.parametrize(
    ("command", "code", "text"),
    [
        (("HGET", "text", "field"), "WRONGTYPE", "wrong kind of value"),
        (("NOTHING",), "ERR", "unknown command"),
        (("EVALSHA", "0" * 40, 0), "NOSCRIPT", "No matching script"),
        (("EVAL", "return redis.error_reply('NOPERM no')", 0), "NOPERM", "no"),
        (("EVAL", "return redis.error_reply('OOM full')", 0), "OOM", "full"),
        (("EVAL", "return redis.error_reply('READONLY replica')", 0), "READONLY", "replica"),
    ],
)
async def test_an_error_reply_is_an_error_of_its_own_call_only(
    wire: MultiplexedConnection, command: tuple[str | int, ...], code: str, text: str
) -> None:
    await wire.send("SET", "text", "x")
    calls = [wire.send("ECHO", "before"), wire.send(*command), wire.send("ECHO", "after")]
    with pytest.raises(ErrorReply) as failed:
        await calls[1]
    assert [await calls[0], await calls[2]] == ["before", "after"]
    assert failed.value.code == code
    assert text in str(failed.value)


async def test_an_error_inside_of_a_reply_leaves_the_others_matched(wire: MultiplexedConnection) -> None:
    await wire.send("SET", "text", "x")
    commands = [("MULTI",), ("INCR", "text"), ("EXEC",), ("ECHO", "after")]
    replies = await asyncio.gather(*(wire.send(*command) for command in commands))
    assert replies[:2] == ["OK", "QUEUED"]
    assert [type(reply) for reply in replies[2]] == [ErrorReply]
    assert replies[3] == "after"


async def test_an_unasked_reply_is_never_taken_for_an_answer(network: Network) -> None:
    async with far_wire(network) as wire:
        await wire.send("PING")
        network.say(b"+SURPRISE\r\n")
        await eventually(lambda: network.accepted == 2, "another connection")
        assert await wire.send("ECHO", "mine") == "mine"


# Callers that go away


async def test_a_call_cancelled_before_it_was_sent_is_not_sent(network: Network, wire: MultiplexedConnection) -> None:
    async with far_wire(network) as far:
        await far.send("PING")
        network.chunks.clear()
        calls = [far.send("INCR", "count") for _ in range(3)]
        calls[1].cancel()
        assert [await outcome(call) for call in calls] == [1, asyncio.CancelledError, 2]
    assert b"".join(network.chunks).count(b"INCR") == 2
    assert await count(wire) == 2


async def test_a_call_cancelled_after_it_was_sent_leaves_its_reply_to_nobody(network: Network) -> None:
    async with far_wire(network) as wire:
        await wire.send("PING")
        network.chunks.clear()
        network.replies_pass.clear()
        calls = [wire.send("ECHO", number) for number in range(100)]
        await eventually(lambda: network.chunks, "the commands")
        for call in calls[::3]:
            call.cancel()
        late = wire.send("ECHO", "late")
        network.replies_pass.set()
        outcomes = [await outcome(call) for call in calls]
        assert await late == "late"
    assert outcomes == [asyncio.CancelledError if number % 3 == 0 else str(number) for number in range(100)]


async def test_a_cancelled_caller_of_an_error_reply_disturbs_nobody(network: Network) -> None:
    async with far_wire(network) as wire:
        await wire.send("PING")
        network.chunks.clear()
        network.replies_pass.clear()
        gone, stays = wire.send("NOTHING"), wire.send("ECHO", "stays")
        await eventually(lambda: network.chunks, "the commands")
        gone.cancel()
        network.replies_pass.set()
        assert await stays == "stays"


# Connections that break


@pytest.mark.parametrize("executed", [0, 1])
async def test_a_sent_call_whose_connection_breaks_is_unknown_and_never_sent_again(
    network: Network, wire: MultiplexedConnection, executed: int
) -> None:
    async with far_wire(network) as far:
        await far.send("PING")
        network.chunks.clear()
        (network.replies_pass if executed else network.commands_pass).clear()
        call = far.send("INCR", "count")
        await eventually(lambda: network.chunks, "the command")
        await until_executed(wire, executed)
        network.cut()
        with pytest.raises(OutcomeUnknown) as error:
            await call
        assert error.value.reason
        network.commands_pass.set()
        network.replies_pass.set()
        assert await far.send("ECHO", "next") == "next"
    assert b"".join(network.chunks).count(b"INCR") == 1
    assert await count(wire) == executed


async def test_a_connection_cut_in_the_middle_of_a_write_leaves_the_outcome_unknown(
    network: Network, wire: MultiplexedConnection
) -> None:
    script = "return redis.call('INCR', KEYS[1])"
    async with far_wire(network) as far:
        await far.send("PING")
        network.chunks.clear()
        network.cut_after = BIG // 2
        whole, half = far.send("INCR", "count"), far.send("EVAL", script, 1, "half", b"x" * BIG)
        assert [await outcome(call) for call in (whole, half)] in ([1, OutcomeUnknown], [OutcomeUnknown] * 2)
        assert await far.send("ECHO", "next") == "next"
    assert b"".join(network.chunks).count(b"EVAL") == 1
    assert (await count(wire), await count(wire, "half")) == (1, 0)


async def test_a_repeatable_call_is_sent_again_when_its_connection_breaks(
    network: Network, wire: MultiplexedConnection
) -> None:
    async with far_wire(network) as far:
        await far.send("PING")
        network.replies_pass.clear()
        call = far.send("INCR", "count", idempotent=True)
        await until_executed(wire, 1)
        network.cut()
        network.replies_pass.set()
        assert await call == 2


async def test_calls_stay_matched_and_in_order_when_some_of_them_are_sent_again(
    network: Network, wire: MultiplexedConnection
) -> None:
    async with far_wire(network) as far:
        await far.send("PING")
        network.replies_pass.clear()
        calls = [far.send("RPUSH", "list", number, idempotent=number % 2 == 0) for number in range(100)]
        calls.append(far.send("INCR", "count"))
        await until_executed(wire, 1)
        network.cut()
        late = far.send("ECHO", "late")
        network.replies_pass.set()
        outcomes = [await outcome(call) for call in calls[:-1]]
        assert await outcome(late) in ("late", OutcomeUnknown)  # sent just before the cut was noticed, or after
        assert await outcome(calls[-1]) is OutcomeUnknown
    # The first round pushed 100 numbers, the second one every other one.
    assert outcomes == [101 + number // 2 if number % 2 == 0 else OutcomeUnknown for number in range(100)]
    assert await wire.send("LRANGE", "list", 100, -1) == [str(number) for number in range(0, 100, 2)]


async def test_a_repeatable_call_of_a_caller_that_went_away_is_not_sent_again(
    network: Network, wire: MultiplexedConnection
) -> None:
    async with far_wire(network) as far:
        await far.send("PING")
        network.replies_pass.clear()
        call = far.send("INCR", "count", idempotent=True)
        await until_executed(wire, 1)
        call.cancel()
        network.cut()
        network.replies_pass.set()
        await far.send("PING", idempotent=True)
    assert await count(wire) == 1


async def test_calls_before_the_first_connection_wait_for_it(network: Network) -> None:
    async with far_wire(network) as wire:
        call = wire.send("ECHO", "early")
        assert not network.accepted
        assert await call == "early"


async def test_an_unsent_call_survives_a_reconnect_and_is_sent_once(
    network: Network, wire: MultiplexedConnection
) -> None:
    with capture_logs() as logs:
        async with far_wire(network) as far:
            await far.send("PING")
            await network.close()
            await eventually(lambda: lost(logs), "the loss")
            calls = [far.send("INCR", "count") for _ in range(3)]
            await network.open()
            assert await asyncio.gather(*calls) == [1, 2, 3]
    assert await count(wire) == 3


async def test_an_idle_connection_that_was_cut_is_opened_again_before_anybody_asks(network: Network) -> None:
    async with far_wire(network) as wire:
        await wire.send("PING")
        network.cut()
        await eventually(lambda: network.accepted == 2, "another connection")
        assert await wire.send("ECHO", "next") == "next"


async def test_it_recovers_from_many_cuts_and_never_executes_a_call_twice(
    network: Network, wire: MultiplexedConnection
) -> None:
    async with far_wire(network) as far:
        answered = unknown = 0
        for _ in range(20):
            calls = [far.send("INCR", "count") for _ in range(50)]
            await calls[0]
            calls += [far.send("INCR", "count") for _ in range(50)]
            network.cut()
            outcomes = [await outcome(call) for call in calls]
            answered += sum(isinstance(result, int) for result in outcomes)
            unknown += outcomes.count(OutcomeUnknown)
        assert answered + unknown == 2000
    assert answered <= await count(wire) <= 2000


async def test_it_recovers_when_another_engine_takes_the_place_of_the_first(tmp_path: Path) -> None:
    with run_engine(tmp_path, "none") as url:
        wire = MultiplexedConnection(url, timeout=LONG, max_in_flight=10)
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(wire)
            assert await wire.send("SET", "kept", "x") == "OK"
            stack.push_async_callback(stack.pop_all().aclose)
            again = stack.pop_all()
    try:
        with run_engine(tmp_path, "none"):
            assert await wire.send("GET", "kept", idempotent=True) == "x"
    finally:
        await again.aclose()


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_calls_in_the_very_moment_of_a_cut_end_without_an_exception_in_the_event_loop(
    engine_url: str, loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """uvloop, which serves, knows of the cut before the MultiplexedConnection does, and refuses to write."""
    faults: list[dict[str, Any]] = []

    async def call_all_the_time() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
        async with Network(engine_url) as network, far_wire(network) as wire:
            for _ in range(20):
                await wire.send("PING", idempotent=True)
                with capture_logs() as logs:
                    calls = [wire.send("PING")]
                    network.cut()
                    while not lost(logs):
                        await asyncio.sleep(0)
                        calls.append(wire.send("PING"))
                outcomes = {await outcome(call) for call in calls}
                assert outcomes <= {"PONG", OutcomeUnknown}

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(call_all_the_time())
    assert faults == []


# A server that hangs


@pytest.mark.parametrize(("idempotent", "error"), [(False, OutcomeUnknown), (True, StorageUnavailable)])
@pytest.mark.parametrize("held", ["commands", "replies"])
async def test_a_sent_call_without_a_reply_ends_at_its_deadline(
    network: Network, held: str, idempotent: bool, error: type[StorageError]
) -> None:
    async with far_wire(network, TIMEOUT) as wire:
        await wire.send("PING")
        gate = network.commands_pass if held == "commands" else network.replies_pass
        gate.clear()
        started = time.monotonic()
        with pytest.raises(error) as raised:
            await wire.send("INCR", "count", idempotent=idempotent)
        assert TIMEOUT * 0.9 < time.monotonic() - started < TIMEOUT + MARGIN
        assert raised.value.reason
        gate.set()
        await recovered(wire)


async def test_an_unsent_call_ends_at_its_deadline_and_is_never_sent(
    network: Network, wire: MultiplexedConnection
) -> None:
    with capture_logs() as logs:
        async with far_wire(network, TIMEOUT) as far:
            await far.send("PING")
            await network.close()
            await eventually(lambda: lost(logs), "the loss")
            started = time.monotonic()
            with pytest.raises(StorageUnavailable) as error:
                await far.send("INCR", "count")
            assert time.monotonic() - started < TIMEOUT + MARGIN
            assert error.value.reason
            await network.open()
            await recovered(far)
    assert await count(wire) == 0


async def test_a_call_made_while_redis_hangs_is_not_sent_after_the_lost_ones(
    network: Network, wire: MultiplexedConnection
) -> None:
    """A new connection is opened, but nothing proves that anybody answers it."""
    async with far_wire(network, TIMEOUT) as far:
        await far.send("PING")
        network.commands_pass.clear()
        assert await outcome(far.send("INCR", "count")) is OutcomeUnknown
        network.chunks.clear()
        await eventually(lambda: network.accepted == 2, "another connection")
        assert await outcome(far.send("INCR", "other")) is StorageUnavailable
        assert b"INCR" not in b"".join(network.chunks)
        network.commands_pass.set()
        await recovered(far)
    assert await count(wire, "other") == 0


async def test_calls_fail_at_once_when_redis_was_away_for_longer_than_the_timeout(network: Network) -> None:
    await network.close()
    async with far_wire(network, TIMEOUT) as wire:
        assert await outcome(wire.send("PING", idempotent=True)) is StorageUnavailable
        calls = [wire.send("PING"), wire.send("PING", idempotent=True)]
        assert all(call.done() for call in calls)
        assert [await outcome(call) for call in calls] == [StorageUnavailable] * 2
        await network.open()
        await recovered(wire)


async def test_calls_fail_at_once_when_redis_hangs_for_longer_than_the_timeout(network: Network) -> None:
    async with far_wire(network, TIMEOUT) as wire:
        await wire.send("PING")
        network.commands_pass.clear()
        for _ in range(3):
            await outcome(wire.send("PING", idempotent=True))
        call = wire.send("PING")
        assert call.done()
        assert await outcome(call) is StorageUnavailable


@pytest.mark.parametrize("misbehaviour", ["hang_up", "garbage"])
async def test_a_server_that_ends_every_connection_is_asked_less_and_less_often(
    network: Network, misbehaviour: str
) -> None:
    """As a Redis does that has reached its maxclients: doubling from 10 ms, eight attempts take half a second."""
    network.hang_up = True
    with capture_logs() as logs:
        async with far_wire(network) as wire:
            if misbehaviour == "garbage":
                network.hang_up = False
                network.replies_pass.clear()
            started = time.monotonic()

            def eight_attempts() -> bool:
                network.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                return network.accepted >= 8

            await eventually(eight_attempts, "eight attempts")
            assert time.monotonic() - started > 0.4
            network.hang_up = False
            network.replies_pass.set()
            await recovered(wire)
    assert not any("Traceback" in str(entry) for entry in logs)


async def recovered(wire: MultiplexedConnection) -> None:
    """The MultiplexedConnection works again, without anybody having told it to."""
    give_up = time.monotonic() + LONG
    while await outcome(wire.send("PING", idempotent=True)) != "PONG":
        assert time.monotonic() < give_up, "it does not recover"
        await asyncio.sleep(0.005)  # where calls fail at once
    assert await wire.send("ECHO", "well") == "well"


# The bound


async def test_calls_beyond_the_bound_are_refused_unsent_and_welcome_again_later(
    network: Network, wire: MultiplexedConnection
) -> None:
    async with far_wire(network, max_in_flight=10) as far:
        await far.send("PING")
        network.replies_pass.clear()
        calls = [far.send("INCR", "count") for _ in range(5)]
        await until_executed(wire, 5)
        calls += [far.send("INCR", "count") for _ in range(5)]  # sent and unsent ones count
        for idempotent in (False, True):
            with pytest.raises(Overloaded) as error:
                far.send("INCR", "count", idempotent=idempotent)
            assert "10" in error.value.reason
        network.replies_pass.set()
        assert await asyncio.gather(*calls) == list(range(1, 11))
        assert await far.send("INCR", "count") == 11
    assert await count(wire) == 11


async def test_the_bound_holds_while_redis_is_away(network: Network) -> None:
    await network.close()
    async with far_wire(network, max_in_flight=3) as wire:
        calls = [wire.send("PING") for _ in range(3)]
        with pytest.raises(Overloaded):
            wire.send("PING")
        await network.open()
        assert await asyncio.gather(*calls) == ["PONG"] * 3


async def test_a_connection_that_is_slow_but_brings_replies_is_kept(
    network: Network, wire: MultiplexedConnection
) -> None:
    """Megabytes are on their way, and what waits behind them is overdue. Only that ends."""
    await wire.send("SET", "large", b"x" * 4_000_000)
    network.reply_bytes = 64 * 1024
    network.replies_pass.clear()
    async with far_wire(network, timeout=0.3) as far:
        network.replies_pass.set()
        assert await far.send("PING") == "PONG"
        network.replies_pass.clear()
        large, counted = far.send("GET", "large", idempotent=True), far.send("INCR", "count")
        with capture_logs() as logs:
            while not counted.done():  # a piece now and then, so that it is never silent for long
                network.replies_pass.set()
                await asyncio.sleep(0)
                network.replies_pass.clear()
                await asyncio.wait([counted], timeout=0.05)
            network.replies_pass.set()
            assert await outcome(large) is StorageUnavailable
            assert await outcome(counted) is OutcomeUnknown
            while await outcome(far.send("PING", idempotent=True)) != "PONG":
                pass  # overdue replies are consumed first
        assert not lost(logs)
    assert network.accepted == 1
    assert await count(wire) == 1


async def test_a_worker_that_was_held_up_itself_does_not_blame_redis(
    engine_url: str, wire: MultiplexedConnection
) -> None:
    """The reply came in time, but nobody was there to read it."""
    timeout = 0.2
    async with MultiplexedConnection(engine_url, timeout=timeout, max_in_flight=10) as held_up:
        assert await held_up.send("PING") == "PONG"
        with capture_logs() as logs:
            counted = held_up.send("INCR", "count")
            await asyncio.sleep(0)  # it leaves
            time.sleep(2 * timeout)  # noqa: ASYNC251
            assert await counted == 1
        assert not lost(logs)
    assert await count(wire) == 1


# Kinds of connections


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate of 127.0.0.1, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=127.0.0.1"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key


@pytest.fixture
async def tls_network(
    engine_url: str, wire: MultiplexedConnection, certificate: tuple[Path, Path]
) -> AsyncIterator[Network]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    async with Network(engine_url, context) as network:
        yield network


@pytest.mark.parametrize("kind", ["unix", "tcp", "tls, trusted", "tls, unchecked"])
async def test_it_speaks_over_unix_sockets_tcp_and_tls(
    engine_url: str, network: Network, tls_network: Network, certificate: tuple[Path, Path], kind: str
) -> None:
    url = {
        "unix": engine_url,
        "tcp": network.url,
        "tls, trusted": f"{tls_network.url}?ssl_ca_certs={quote(str(certificate[0]))}",
        "tls, unchecked": f"{tls_network.url}?ssl_cert_reqs=none&ssl_check_hostname=false",
    }[kind]
    async with MultiplexedConnection(url, timeout=LONG, max_in_flight=1000) as wire:
        replies = await asyncio.gather(*(wire.send("ECHO", number) for number in range(500)))
        assert replies == [str(number) for number in range(500)]
        big = "x" * BIG
        assert await wire.send("ECHO", big) == big


async def test_a_broken_tls_connection_is_opened_again(tls_network: Network) -> None:
    async with MultiplexedConnection(f"{tls_network.url}?ssl_cert_reqs=none", timeout=LONG, max_in_flight=10) as wire:
        await wire.send("PING")
        tls_network.cut()
        await eventually(lambda: tls_network.accepted == 2, "another connection")
        assert await wire.send("ECHO", "next") == "next"


@pytest.mark.parametrize("database", ["/3", "?db=3"])
async def test_the_database_of_the_url_is_used(network: Network, wire: MultiplexedConnection, database: str) -> None:
    async with MultiplexedConnection(network.url + database, timeout=LONG, max_in_flight=10) as far:
        await far.send("SET", "key", "in database 3")
        network.cut()  # and after a reconnect
        assert await far.send("GET", "key", idempotent=True) == "in database 3"
    assert await wire.send("GET", "key") is None


@pytest.mark.parametrize(
    ("server", "client", "reason"),
    [
        ("tls", "rediss://127.0.0.1:{port}", "certificate verify failed"),
        ("tls", "rediss://127.0.0.1:{port}?ssl_ca_certs=/nowhere.pem", ""),
        ("tcp", "rediss://127.0.0.1:{port}", ""),
        ("none", "redis://127.0.0.1:{port}", "127.0.0.1"),
        ("none", "redis://nowhere.invalid:6379", "nowhere.invalid"),
        ("none", "unix:///nowhere/engine.sock", "/nowhere/engine.sock"),
    ],
)
async def test_a_server_that_cannot_be_reached_is_unavailable_for_a_reason(
    network: Network, tls_network: Network, server: str, client: str, reason: str
) -> None:
    port = {"tls": tls_network.port, "tcp": network.port, "none": 1}[server]
    async with MultiplexedConnection(client.format(port=port), timeout=TIMEOUT, max_in_flight=10) as wire:
        with pytest.raises(StorageUnavailable) as error:
            await wire.send("INCR", "count")
        # One attempt to connect may take as long as a call may wait.
        give_up = time.monotonic() + LONG
        while error.value.reason == "not connected yet" and time.monotonic() < give_up:
            with pytest.raises(StorageUnavailable) as error:
                await wire.send("INCR", "count")
            await asyncio.sleep(0.005)
        assert reason in error.value.reason
        assert error.value.reason not in ("", "not connected yet")


PASSWORD = "p@ss:w/rd?#%&"


@pytest.fixture
async def clerk(wire: MultiplexedConnection) -> AsyncIterator[str]:
    """A user of the engine that needs a password."""
    await wire.send("ACL", "SETUSER", "clerk", "reset", "on", f">{PASSWORD}", "~*", "+@all", "-client", "-hello")
    yield "clerk"
    await wire.send("ACL", "DELUSER", "clerk")


@pytest.mark.parametrize("kind", ["unix", "tcp"])
async def test_user_and_password_of_the_url_are_used(engine_url: str, network: Network, clerk: str, kind: str) -> None:
    login = f"{clerk}:{quote(PASSWORD, safe='')}@"
    url = (engine_url if kind == "unix" else network.url).replace("://", f"://{login}")
    async with MultiplexedConnection(url, timeout=LONG, max_in_flight=10) as wire:
        assert await wire.send("ACL", "WHOAMI") == "clerk"


async def test_a_wrong_password_is_unavailable_for_a_reason_until_it_is_right(
    network: Network, wire: MultiplexedConnection, clerk: str
) -> None:
    url = network.url.replace("://", f"://{clerk}:other@")
    async with MultiplexedConnection(url, timeout=TIMEOUT, max_in_flight=10) as far:
        for _ in range(2):
            with pytest.raises(StorageUnavailable) as error:
                await far.send("PING")
            assert "invalid username-password pair" in error.value.reason
        await wire.send("ACL", "SETUSER", clerk, ">other")
        await recovered(far)


async def test_what_the_user_may_not_do_is_an_error_of_that_call(
    network: Network, wire: MultiplexedConnection, clerk: str
) -> None:
    await wire.send("ACL", "SETUSER", clerk, "-incr")
    url = network.url.replace("://", f"://{clerk}:{quote(PASSWORD, safe='')}@")
    async with MultiplexedConnection(url, timeout=LONG, max_in_flight=10) as far:
        with pytest.raises(ErrorReply):
            await far.send("INCR", "count")
        assert await far.send("PING") == "PONG"


# The end


async def test_closing_ends_all_calls_under_way(network: Network, wire: MultiplexedConnection) -> None:
    async with far_wire(network) as far:
        await far.send("PING")
        network.replies_pass.clear()
        sent, idempotent = far.send("INCR", "count"), far.send("INCR", "other", idempotent=True)
        await until_executed(wire, 1)
    assert sent.done()
    assert idempotent.done()
    assert [await outcome(call) for call in (sent, idempotent)] == [OutcomeUnknown, StorageUnavailable]
    assert await count(wire) == 1


@pytest.mark.parametrize("state", ["refused", "hanging"])
async def test_closing_does_not_wait_for_a_server_that_is_not_there(network: Network, clerk: str, state: str) -> None:
    if state == "refused":
        await network.close()
    network.commands_pass.clear()
    url = network.url.replace("://", f"://{clerk}:{quote(PASSWORD, safe='')}@")
    started = time.monotonic()
    async with MultiplexedConnection(url, timeout=LONG, max_in_flight=10) as wire:
        call = wire.send("PING")
        if state == "hanging":
            await eventually(lambda: network.chunks, "the password")
    assert time.monotonic() - started < LONG / 2
    assert await outcome(call) is StorageUnavailable


async def test_closing_leaves_no_connection_open(network: Network) -> None:
    async with far_wire(network) as wire:
        await wire.send("PING")
        assert network.lines
    await eventually(lambda: not network.lines, "the end of the connection")

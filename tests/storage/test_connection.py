"""MultiplexedConnection on the real engine: replies, cancelled commands, the limit of commands, and closing."""

import asyncio
import time
from typing import Any
from urllib.parse import quote

import pytest

from service.domain.errors.storage import OutcomeUnknown, Overloaded, StorageUnavailable
from service.storage.connection import MultiplexedConnection
from service.storage.sender import ErrorReply
from tests.support.network import (
    CLERK_PASSWORD,
    LONG_TIMEOUT,
    MEBIBYTE,
    Network,
    connect_through,
    count_at,
    outcome,
    wait_for_count,
)
from tests.support.waiting import eventually

# Replies


async def test_each_of_ten_thousand_concurrent_commands_gets_its_own_reply(engine: MultiplexedConnection) -> None:
    replies = await asyncio.gather(*(engine.send("ECHO", number) for number in range(10_000)))
    assert replies == [str(number) for number in range(10_000)]


@pytest.mark.parametrize("argument", ["text", "snow ☃", "\x00\r\n", "snow ☃".encode(), 2**53, -1, ""])
async def test_text_bytes_and_integers_arrive_unchanged(
    engine: MultiplexedConnection, argument: str | bytes | int
) -> None:
    expected = argument.decode() if isinstance(argument, bytes) else str(argument)
    assert await engine.send("ECHO", argument) == expected


async def test_bytes_that_are_not_utf_8_become_the_replacement_character(engine: MultiplexedConnection) -> None:
    assert await engine.send("ECHO", b"M\xfcg") == "M\N{REPLACEMENT CHARACTER}g"


@pytest.mark.parametrize("reply_bytes", [1, 7, 4096])
async def test_replies_that_arrive_in_pieces_are_put_together(network: Network, reply_bytes: int) -> None:
    network.reply_bytes = reply_bytes
    async with connect_through(network) as connection:
        replies = await asyncio.gather(*(connection.send("ECHO", f"reply {number}") for number in range(50)))
    assert replies == [f"reply {number}" for number in range(50)]


async def test_large_and_small_values_can_be_mixed(network: Network) -> None:
    values = [chr(number) * MEBIBYTE for number in range(8)]
    async with connect_through(network) as connection:
        commands = [
            command
            for number, value in enumerate(values)
            for command in (connection.send("SET", f"large:{number}", value), connection.send("ECHO", number))
        ]
        assert await asyncio.gather(*commands) == [part for number in range(8) for part in ("OK", str(number))]
        assert await asyncio.gather(*(connection.send("GET", f"large:{number}") for number in range(8))) == values


async def test_commands_of_one_event_loop_round_are_written_together(network: Network) -> None:
    async with connect_through(network) as connection:
        await connection.send("PING")
        network.chunks.clear()

        async def request(number: int) -> Any:
            return await connection.send("ECHO", number)

        replies = await asyncio.gather(*(request(number) for number in range(100)))
    assert replies == [str(number) for number in range(100)]
    # More than one write is allowed: Redis begins with the first commands while Python packs the last.
    assert b"".join(network.chunks).count(b"ECHO") == 100
    assert len(network.chunks) <= 4


async def test_commands_are_executed_in_the_order_in_which_they_were_sent(engine: MultiplexedConnection) -> None:
    await asyncio.gather(*(engine.send("RPUSH", "list", number) for number in range(1000)))
    assert await engine.send("LRANGE", "list", 0, -1) == [str(number) for number in range(1000)]


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
async def test_an_error_reply_fails_only_its_own_command(
    engine: MultiplexedConnection, command: tuple[str | int, ...], code: str, text: str
) -> None:
    await engine.send("SET", "text", "x")
    commands = [engine.send("ECHO", "before"), engine.send(*command), engine.send("ECHO", "after")]
    with pytest.raises(ErrorReply) as failed:
        await commands[1]
    assert [await commands[0], await commands[2]] == ["before", "after"]
    assert failed.value.code == code
    assert text in str(failed.value)


async def test_replies_after_a_nested_error_still_reach_their_own_commands(engine: MultiplexedConnection) -> None:
    await engine.send("SET", "text", "x")
    commands = [("MULTI",), ("INCR", "text"), ("EXEC",), ("ECHO", "after")]
    replies = await asyncio.gather(*(engine.send(*command) for command in commands))
    assert replies[:2] == ["OK", "QUEUED"]
    assert [type(reply) for reply in replies[2]] == [ErrorReply]
    assert replies[3] == "after"


async def test_an_unexpected_reply_is_never_given_to_a_later_command(network: Network) -> None:
    async with connect_through(network) as connection:
        await connection.send("PING")
        network.send_to_service(b"+SURPRISE\r\n")
        await eventually(lambda: network.accepted == 2, "another connection")
        assert await connection.send("ECHO", "own reply") == "own reply"


# Cancelled commands


async def test_a_command_cancelled_before_it_was_sent_is_not_sent(
    network: Network, engine: MultiplexedConnection
) -> None:
    async with connect_through(network) as connection:
        await connection.send("PING")
        network.chunks.clear()
        commands = [connection.send("INCR", "count") for _ in range(3)]
        commands[1].cancel()
        assert [await outcome(command) for command in commands] == [1, asyncio.CancelledError, 2]
    assert b"".join(network.chunks).count(b"INCR") == 2
    assert await count_at(engine) == 2


async def test_the_reply_to_a_cancelled_command_is_dropped(network: Network) -> None:
    async with connect_through(network) as connection:
        await connection.send("PING")
        network.chunks.clear()
        network.replies_pass.clear()
        commands = [connection.send("ECHO", number) for number in range(100)]
        await eventually(lambda: network.chunks, "the commands")
        for command in commands[::3]:
            command.cancel()
        late = connection.send("ECHO", "late")
        network.replies_pass.set()
        outcomes = [await outcome(command) for command in commands]
        assert await late == "late"
    assert outcomes == [asyncio.CancelledError if number % 3 == 0 else str(number) for number in range(100)]


async def test_an_error_reply_to_a_cancelled_command_affects_no_other_command(network: Network) -> None:
    async with connect_through(network) as connection:
        await connection.send("PING")
        network.chunks.clear()
        network.replies_pass.clear()
        cancelled, other = connection.send("NOTHING"), connection.send("ECHO", "other")
        await eventually(lambda: network.chunks, "the commands")
        cancelled.cancel()
        network.replies_pass.set()
        assert await other == "other"


# The limit of running commands


async def test_commands_beyond_the_limit_are_refused_until_earlier_commands_have_ended(
    network: Network, engine: MultiplexedConnection
) -> None:
    async with connect_through(network, max_in_flight=10) as connection:
        await connection.send("PING")
        network.replies_pass.clear()
        commands = [connection.send("INCR", "count") for _ in range(5)]
        await wait_for_count(engine, 5)
        commands += [connection.send("INCR", "count") for _ in range(5)]  # the limit counts sent and unsent commands
        for safe_to_repeat in (False, True):
            with pytest.raises(Overloaded) as error:
                connection.send("INCR", "count", safe_to_repeat=safe_to_repeat)
            assert "10" in error.value.reason
        network.replies_pass.set()
        assert await asyncio.gather(*commands) == list(range(1, 11))
        assert await connection.send("INCR", "count") == 11
    assert await count_at(engine) == 11


async def test_the_limit_applies_while_redis_is_unreachable(network: Network) -> None:
    await network.close()
    async with connect_through(network, max_in_flight=3) as connection:
        commands = [connection.send("PING") for _ in range(3)]
        with pytest.raises(Overloaded):
            connection.send("PING")
        await network.open()
        assert await asyncio.gather(*commands) == ["PONG"] * 3


# Closing


async def test_closing_ends_all_running_commands(network: Network, engine: MultiplexedConnection) -> None:
    async with connect_through(network) as connection:
        await connection.send("PING")
        network.replies_pass.clear()
        sent, safe_to_repeat = connection.send("INCR", "count"), connection.send("INCR", "other", safe_to_repeat=True)
        await wait_for_count(engine, 1)
    assert sent.done()
    assert safe_to_repeat.done()
    assert [await outcome(command) for command in (sent, safe_to_repeat)] == [OutcomeUnknown, StorageUnavailable]
    assert await count_at(engine) == 1


@pytest.mark.parametrize("state", ["unreachable", "hanging"])
async def test_closing_does_not_wait_for_a_server_that_does_not_answer(
    network: Network, clerk: str, state: str
) -> None:
    if state == "unreachable":
        await network.close()
    network.commands_pass.clear()
    url = network.url.replace("://", f"://{clerk}:{quote(CLERK_PASSWORD, safe='')}@")
    started = time.monotonic()
    async with MultiplexedConnection(url, timeout=LONG_TIMEOUT, max_in_flight=10) as connection:
        command = connection.send("PING")
        if state == "hanging":
            await eventually(lambda: network.chunks, "the password")
    assert time.monotonic() - started < LONG_TIMEOUT / 2
    assert await outcome(command) is StorageUnavailable


async def test_closing_leaves_no_connection_open(network: Network) -> None:
    async with connect_through(network) as connection:
        await connection.send("PING")
        assert network.connections
    await eventually(lambda: not network.connections, "the end of the connection")

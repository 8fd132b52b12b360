"""RedisClient: how it runs commands and scripts, and which error replies mean that nothing was executed."""

import asyncio
from collections import deque
from collections.abc import Awaitable
from typing import Any

import pytest

from service.domain.errors.storage import (
    OutcomeUnknown,
    Overloaded,
    StorageError,
    StorageUnavailable,
    UnsupportedRedis,
)
from service.domain.times import Milliseconds
from service.storage.client import RedisClient
from service.storage.connection import MultiplexedConnection
from service.storage.requirements import SCHEMA_VERSION
from service.storage.sender import ErrorReply
from tests.support.balance import assert_balanced
from tests.support.clock import Clock
from tests.support.engine_memory import full_memory
from tests.support.redis_content import dump
from tests.support.scripts import SCRIPTS, run_add_product
from tests.support.shop import SHOP, make_store, new_order

INFO = "redis_version:8.0.0"
CHECKS = {
    "INFO": INFO,
    "CONFIG": ["maxmemory", "0"],
    "HMGET": [str(SCHEMA_VERSION), None, None],
}
"""The replies to the check of the engine."""

NOT_EXECUTED = [
    *("ASK", "MOVED", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN", "READONLY", "NOREPLICAS"),
    *("LOADING", "BUSY", "UNKILLABLE", "MISCONF", "OOM", "NOAUTH", "WRONGPASS"),
]
"""Codes of error replies that mean that nothing was executed."""


class Replies:
    """A CommandSender that gives the next reply to each command, or raises it if it is an error.

    `sent` has the commands without those of the check, each with its `safe_to_repeat`.
    """

    def __init__(self, *replies: object, info: str = INFO) -> None:
        self.replies = deque(replies)
        self.checks: dict[str, object] = {**CHECKS, "INFO": info}
        self.check_commands = 0
        self.sent: list[tuple[tuple[bytes | str | int, ...], bool]] = []

    def send(self, *command: bytes | str | int, safe_to_repeat: bool = False) -> Awaitable[Any]:
        reply = asyncio.get_running_loop().create_future()
        if command[0] in self.checks:
            self.check_commands += 1
            reply.set_result(self.checks[str(command[0])])
            return reply
        self.sent.append((command, safe_to_repeat))
        result = self.replies.popleft()
        if isinstance(result, Exception):
            reply.set_exception(result)
        else:
            reply.set_result(result)
        return reply


def client_of(replies: Replies, clock: Clock | None = None) -> RedisClient:
    return RedisClient(replies, shop=SHOP, durability="none", events_max=1000, refusals_max=1000, clock=clock)


def evalsha(*rest: str | int) -> tuple[str | int, ...]:
    return ("EVALSHA", SCRIPTS["read_hashes"].sha, *rest)


# Error replies


@pytest.mark.parametrize("code", NOT_EXECUTED)
async def test_a_command_that_was_not_executed_raises_storage_unavailable(code: str) -> None:
    replies = Replies(ErrorReply(f"{code} not now"))
    with pytest.raises(StorageUnavailable) as raised:
        await client_of(replies).send("PING")
    assert raised.value.reason == f"{code} not now"
    assert replies.sent == [(("PING",), False)]


@pytest.mark.parametrize("code", NOT_EXECUTED)
async def test_a_script_that_was_not_executed_raises_storage_unavailable(code: str) -> None:
    replies = Replies(ErrorReply(f"{code} not now"))
    with pytest.raises(StorageUnavailable) as raised:
        await client_of(replies).run("read_hashes", ["key"], ["field"])
    assert raised.value.reason == f"{code} not now"
    assert replies.sent == [(evalsha(1, "key", "field"), False)]


@pytest.mark.parametrize("code", ["ERR", "WRONGTYPE", "NOPERM", "EXECABORT", "NOSCRIPT", "OOMX", "oom", ""])
async def test_every_other_error_reply_to_a_command_is_raised_unchanged(code: str) -> None:
    error = ErrorReply(f"{code} OOM is only in the text")
    with pytest.raises(ErrorReply) as raised:
        await client_of(Replies(error)).send("PING")
    assert raised.value is error


@pytest.mark.parametrize("code", ["ERR", "WRONGTYPE", "NOPERM"])
async def test_every_other_error_reply_to_a_script_is_raised_unchanged(code: str) -> None:
    error = ErrorReply(f"{code} NOSCRIPT is only in the text")
    replies = Replies(error)
    with pytest.raises(ErrorReply) as raised:
        await client_of(replies).run("read_hashes", ["key"], ["field"])
    assert raised.value is error
    assert len(replies.sent) == 1


@pytest.mark.parametrize("error", [Overloaded("busy"), StorageUnavailable("away"), OutcomeUnknown("cut")])
async def test_an_error_of_the_connection_is_raised_unchanged(error: StorageError) -> None:
    replies = Replies(error, error)
    with pytest.raises(type(error)) as raised:
        await client_of(replies).send("PING")
    assert raised.value is error
    with pytest.raises(type(error)) as raised:
        await client_of(replies).run("read_hashes", ["key"], ["field"])
    assert raised.value is error
    assert len(replies.sent) == 2


# Scripts


@pytest.mark.parametrize("safe_to_repeat", [False, True])
async def test_a_script_that_the_engine_does_not_know_is_loaded_by_eval_once(safe_to_repeat: bool) -> None:
    replies = Replies(ErrorReply("NOSCRIPT No matching script."), ["reply"])
    client = client_of(replies)
    assert await client.run("read_hashes", ["k1", "k2"], ["field", 7], safe_to_repeat=safe_to_repeat) == ["reply"]
    assert replies.sent == [
        (evalsha(2, "k1", "k2", "field", 7), safe_to_repeat),
        (("EVAL", SCRIPTS["read_hashes"].source, 2, "k1", "k2", "field", 7), safe_to_repeat),
    ]


async def test_a_script_that_the_engine_knows_is_not_sent_as_source() -> None:
    replies = Replies(["reply"])
    assert await client_of(replies).run("read_hashes", ["key"], ["field"]) == ["reply"]
    assert replies.sent == [(evalsha(1, "key", "field"), False)]


@pytest.mark.parametrize("code", ["NOSCRIPT", "WRONGTYPE"])
async def test_an_error_reply_to_eval_is_raised_and_eval_is_not_sent_again(code: str) -> None:
    replies = Replies(ErrorReply("NOSCRIPT No matching script."), ErrorReply(f"{code} of EVAL"))
    with pytest.raises(ErrorReply, match="of EVAL"):
        await client_of(replies).run("read_hashes", ["key"], ["field"])
    assert [command[0] for command, _ in replies.sent] == ["EVALSHA", "EVAL"]


async def test_an_eval_that_was_not_executed_raises_storage_unavailable() -> None:
    replies = Replies(ErrorReply("NOSCRIPT No matching script."), ErrorReply("OOM full"))
    with pytest.raises(StorageUnavailable, match="OOM"):
        await client_of(replies).run("read_hashes", ["key"], ["field"])


async def test_read_hashes_returns_the_rows_without_the_word_of_the_reply() -> None:
    replies = Replies(["rows", ["1", None], [None, None]])
    client = client_of(replies)
    assert await client.read_hashes(["k1", "k2"], ["f1", "f2"]) == [["1", None], [None, None]]
    assert replies.sent == [(evalsha(2, "k1", "k2", "f1", "f2"), True)]


async def test_read_hashes_of_no_keys_sends_nothing() -> None:
    replies = Replies()
    assert await client_of(replies).read_hashes([], ["field"]) == []
    assert replies.sent == []


# The check of the engine


async def test_the_engine_is_checked_before_the_first_command_and_not_again() -> None:
    replies = Replies("PONG", "PONG")
    client = client_of(replies)
    assert await client.send("PING") == "PONG"
    assert replies.check_commands == 4
    assert await client.send("PING") == "PONG"
    assert replies.check_commands == 4


async def test_no_command_is_sent_to_an_unsupported_engine() -> None:
    replies = Replies("PONG", info="redis_version:6.2.0")
    client = client_of(replies)
    for _ in range(2):
        with pytest.raises(UnsupportedRedis):
            await client.send("PING")
    assert replies.sent == []
    replies.checks["INFO"] = "redis_version:7.0.0"
    assert await client.send("PING") == "PONG"


# Time


async def test_the_time_is_that_of_the_engine() -> None:
    replies = Replies(["1754000000", "123999"])
    client = client_of(replies)
    assert await client.now() == 1_754_000_000_123
    assert client.clock_argument() == ""
    assert replies.sent == [(("TIME",), True)]


async def test_a_clock_of_the_test_replaces_the_time_of_the_engine() -> None:
    replies = Replies()
    client = client_of(replies, Clock(Milliseconds(5)))
    assert await client.now() == 5
    assert client.clock_argument() == 5
    assert replies.sent == []


# On the real engine


async def test_an_order_that_fails_for_lack_of_memory_uses_neither_its_key_nor_its_id(
    engine: MultiplexedConnection,
) -> None:
    store = make_store(engine)
    await run_add_product(engine, 7)
    first = await store.orders.place(new_order((7, 1)))
    before = await dump(engine)
    async with full_memory(engine):
        with pytest.raises(StorageUnavailable, match="OOM"):
            await store.orders.place(new_order((7, 1)), "k-1")
        assert await dump(engine) == before
        assert (await store.orders.get(first.order.id)) == first.order
    second = await store.orders.place(new_order((7, 1)), "k-1")
    assert (second.order.id, second.replayed) == (first.order.id + 1, False)
    await assert_balanced(engine)


async def test_the_store_loads_a_script_again_after_the_engine_has_lost_it(engine: MultiplexedConnection) -> None:
    store = make_store(engine)
    await run_add_product(engine, 7)
    for _ in range(2):
        await engine.send("SCRIPT", "FLUSH")
        assert list(await engine.send("SCRIPT", "EXISTS", SCRIPTS["place_order"].sha)) == [0]
        await store.orders.place(new_order((7, 1)))
        assert list(await engine.send("SCRIPT", "EXISTS", SCRIPTS["place_order"].sha)) == [1]
    await assert_balanced(engine)


class FullAfter(Replies):
    """Replies that arrive later, and refuse further commands when this number of commands has been sent."""

    def __init__(self, limit: int, *replies: object) -> None:
        super().__init__(*replies)
        self.limit = limit
        self.ended = 0

    def send(self, *command: bytes | str | int, safe_to_repeat: bool = False) -> Awaitable[Any]:
        if len(self.sent) == self.limit and command[0] not in self.checks:
            raise Overloaded("too many commands wait")
        reply = super().send(*command, safe_to_repeat=safe_to_repeat)
        return reply if command[0] in self.checks else asyncio.ensure_future(self._end_later(reply))

    async def _end_later(self, reply: Awaitable[Any]) -> Any:
        await asyncio.sleep(0)
        self.ended += 1
        return await reply


@pytest.mark.parametrize("second", ["done", ErrorReply("NOSCRIPT No matching script")])
async def test_when_redis_is_overloaded_calls_that_were_sent_end_before_the_error_is_raised(second: object) -> None:
    sender = FullAfter(2, "done", second)
    with pytest.raises(Overloaded):
        await client_of(sender).run_many("read_hashes", [(("a",), ("f",))] * 4)
    assert len(sender.sent) == sender.ended == 2


async def test_if_redis_does_not_execute_one_of_many_calls_the_storage_is_unavailable() -> None:
    sender = Replies("done", ErrorReply("OOM too much memory"), ErrorReply("OOM too much memory"))
    with pytest.raises(StorageUnavailable, match="OOM"):
        await client_of(sender).run_many("read_hashes", [(("a",), ("f",))] * 2)

"""Order ids: workers reserve them in blocks, and no order is overwritten if the counter is lost."""

import asyncio
import json
import re
from collections.abc import Awaitable, Iterable
from typing import Any

import pytest

from service.domain.errors.order_refusals import InsufficientStock
from service.domain.errors.storage import StorageUnavailable
from service.domain.limits import MAX_ID
from service.domain.requests import OrdersQuery
from service.ops.audit import audit
from service.ops.export import export
from service.storage import keys, order_ids
from service.storage.connection import MultiplexedConnection
from service.storage.order_ids import OrderIds
from service.storage.sender import CommandSender
from service.storage.store import Store
from tests.support.balance import assert_balanced
from tests.support.redis_content import KeyContent, dump
from tests.support.shop import SHOP, add_mugs, make_store, new_order
from tests.support.waiting import eventually

BLOCK = 32
"""Ids that a worker reserves at a time in these tests. tests/api/test_concurrency.py uses the real number."""


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let workers reserve few ids at a time: less to place until they need the next ones."""
    monkeypatch.setattr(order_ids, "ID_BLOCK_SIZE", BLOCK)


async def test_the_next_order_uses_the_id_of_a_refused_order(store: Store) -> None:
    mugs = await add_mugs(store, stock=1000)
    first = await store.orders.place(new_order((mugs, 1)))
    for key in (None, "k-1", "k-1"):
        with pytest.raises(InsufficientStock):
            await store.orders.place(new_order((mugs, 1001)), key)
    second = await store.orders.place(new_order((mugs, 1)))
    assert second.order.id == first.order.id + 1


async def test_a_replay_uses_no_order_id(store: Store, redis: CommandSender) -> None:
    mugs = await add_mugs(store, stock=1000)
    first = await store.orders.place(new_order((mugs, 1)), "k-1")
    assert await store.orders.place(new_order((mugs, 1)), "k-1") == (first.order, True)
    assert (await store.orders.place(new_order((mugs, 1)))).order.id == first.order.id + 1
    other = make_store(redis)
    assert await other.orders.place(new_order((mugs, 1)), "k-1") == (first.order, True)
    assert (await other.orders.place(new_order((mugs, 1)))).order.id == BLOCK + 1


async def test_each_worker_reserves_order_ids_in_blocks(redis: CommandSender) -> None:
    first, second = make_store(redis), make_store(redis)
    mugs = await add_mugs(first, stock=1000)
    ids = [
        (await store.orders.place(new_order((mugs, 1)))).order.id
        for store in (first, second, first, second, *(first for _ in range(BLOCK)))
    ]
    assert ids[:4] == [1, BLOCK + 1, 2, BLOCK + 2]
    assert ids[4:] == [*range(3, BLOCK + 1), 2 * BLOCK + 1, 2 * BLOCK + 2]
    assert int(await redis.send("GET", keys.order_ids(SHOP))) == 3 * BLOCK


class SenderWithFailingCounter:
    """A CommandSender on which the counter of order ids answers the first command and fails all later commands."""

    def __init__(self, sender: CommandSender) -> None:
        self.sender = sender
        self.counter_commands = 0

    def send(self, *command: bytes | str | int, safe_to_repeat: bool = False) -> Awaitable[Any]:
        if command[0] == "INCRBY" and command[1] == keys.order_ids(SHOP):
            self.counter_commands += 1
            if self.counter_commands > 1:
                return fail()
        return self.sender.send(*command, safe_to_repeat=safe_to_repeat)


async def fail() -> Any:
    raise StorageUnavailable("the test lets the counter fail")


async def test_orders_that_wait_for_ids_share_one_reservation(engine: MultiplexedConnection) -> None:
    mugs = await add_mugs(make_store(engine), stock=5000)
    store = make_store(engine)
    before = await engine.send("INFO", "commandstats")
    placed = await asyncio.gather(*(store.orders.place(new_order((mugs, 1))) for _ in range(4000)))
    after = await engine.send("INFO", "commandstats")
    commands = [
        int(found[1]) if (found := re.search(r"cmdstat_incrby:calls=(\d+)", text)) else 0 for text in (before, after)
    ]
    assert commands[1] - commands[0] <= 3
    assert len({order.id for order, _ in placed}) == 4000


async def test_no_order_waits_for_the_counter_while_reserved_ids_are_left(redis: CommandSender) -> None:
    mugs = await add_mugs(make_store(redis), stock=1000)
    sender = SenderWithFailingCounter(redis)
    store = make_store(sender)
    ids = [(await store.orders.place(new_order((mugs, 1)))).order.id for _ in range(BLOCK)]
    assert ids == list(range(1, BLOCK + 1))
    assert sender.counter_commands > 1  # the worker asked for the next block before it was needed
    with pytest.raises(StorageUnavailable):
        await store.orders.place(new_order((mugs, 1)))
    sender.counter_commands = 0
    assert (await store.orders.place(new_order((mugs, 1)))).order.id == BLOCK + 1


@pytest.mark.parametrize("set_back_to", [None, 1, BLOCK])
async def test_no_order_is_overwritten_when_the_id_counter_is_lost(
    redis: CommandSender, set_back_to: int | None
) -> None:
    store = make_store(redis)
    mugs = await add_mugs(store, stock=1000)
    for _ in range(2 * BLOCK + 3):
        await store.orders.place(new_order((mugs, 1)))
    before = await assert_balanced(redis)
    if set_back_to is None:
        await redis.send("DEL", keys.order_ids(SHOP))
    else:
        await redis.send("SET", keys.order_ids(SHOP), set_back_to)
    restarted = make_store(redis)
    placed = [(await restarted.orders.place(new_order((mugs, 1)))).order for _ in range(3)]
    after = await assert_balanced(redis)
    assert len(after.orders) == len(before.orders) + 3
    assert after.orders.items() >= before.orders.items()
    listed, _ = await restarted.orders.list(OrdersQuery.model_validate({"limit": "3"}))
    assert [order.json for order in listed] == [order.json() for order in placed[::-1]]


# Other data under a running worker: FLUSHALL, a restored backup, a counter that somebody has set


async def delete_all_data(redis: CommandSender, store: Store) -> int:
    """Delete all data, and add mugs again. Return their id."""
    await redis.send("FLUSHALL")
    return await add_mugs(store, stock=100_000)


async def placed_ids(store: Store, mugs: int, count: int) -> list[int]:
    return [(await store.orders.place(new_order((mugs, 1)))).order.id for _ in range(count)]


async def listed_ids(store: Store) -> list[int]:
    page, _ = await store.orders.list(OrdersQuery.model_validate({"limit": "1000"}))
    return [order.id for order in page]


async def check_and_reserve(stores: Iterable[Store], redis: CommandSender, ids: Iterable[int]) -> None:
    """Let all workers check Redis, and wait until the counter is not below these ids any more."""
    for store in stores:
        await store.check()

    async def counter_is_past_the_ids() -> bool:
        return int(await redis.send("GET", keys.order_ids(SHOP)) or 0) >= max(ids)

    await eventually(counter_is_past_the_ids)


async def assert_all_orders_are_seen(redis: CommandSender, expected: set[int]) -> None:
    """Assert that a new worker lists and exports all orders, and that the audit has no finding."""
    reader = make_store(redis)
    assert await listed_ids(reader) == sorted(expected, reverse=True)
    exported = [json.loads(line)["id"] async for line in export(reader, "orders")]
    assert exported == sorted(expected, reverse=True)
    assert (await audit(reader, SHOP)).findings == []
    await assert_balanced(redis)


async def test_two_workers_reserve_ids_again_after_all_data_were_deleted(redis: CommandSender) -> None:
    first, second = make_store(redis), make_store(redis)
    mugs = await add_mugs(first, stock=100_000)
    await placed_ids(first, mugs, 3)
    await placed_ids(second, mugs, 3)
    mugs = await delete_all_data(redis, first)
    unnoticed = {*await placed_ids(first, mugs, 2), *await placed_ids(second, mugs, 2)}
    await check_and_reserve((first, second), redis, unnoticed)
    await assert_all_orders_are_seen(redis, unnoticed)
    later = await placed_ids(first, mugs, BLOCK + 8) + await placed_ids(second, mugs, BLOCK + 8)
    assert len({*unnoticed, *later}) == len(unnoticed) + 2 * BLOCK + 16
    assert min(later) > max(unnoticed)
    await assert_all_orders_are_seen(redis, {*unnoticed, *later})


async def test_two_workers_reserve_ids_again_after_a_backup_was_restored(redis: CommandSender) -> None:
    first, second = make_store(redis), make_store(redis)
    mugs = await add_mugs(first, stock=100_000)
    before = await placed_ids(first, mugs, 5)
    backup = await dump(redis)
    await placed_ids(first, mugs, BLOCK + 8)
    await placed_ids(second, mugs, BLOCK + 8)
    await restore(redis, backup)
    unnoticed = {*await placed_ids(first, mugs, 2), *await placed_ids(second, mugs, 2)}
    await check_and_reserve((first, second), redis, unnoticed)
    await assert_all_orders_are_seen(redis, {*before, *unnoticed})
    third = make_store(redis)
    later = [order_id for store in (first, second, third) for order_id in await placed_ids(store, mugs, BLOCK)]
    assert min(later) > max(unnoticed)
    await assert_all_orders_are_seen(redis, {*before, *unnoticed, *later})


async def test_ids_are_not_reserved_twice_before_a_check_has_noticed_other_data(redis: CommandSender) -> None:
    store = make_store(redis)
    mugs = await add_mugs(store, stock=100_000)
    before = await placed_ids(store, mugs, 5)
    mugs = await delete_all_data(redis, store)
    after = await placed_ids(store, mugs, 2 * BLOCK)
    assert min(after) > max(before)
    assert len({*after}) == len(after)
    await assert_all_orders_are_seen(redis, {*after})


async def restore(redis: CommandSender, content: dict[str, KeyContent]) -> None:
    """Replace all data by those of a dump, as a restored backup does."""
    await redis.send("FLUSHALL")
    for name, (key_type, value, _) in content.items():
        match key_type, value:
            case "hash", dict():
                await redis.send("HSET", name, *(part for pair in value.items() for part in pair))
            case "zset", dict():
                for member, score in value.items():
                    await redis.send("ZADD", name, score, member)
            case "stream", list():
                for entry_id, fields in value:
                    await redis.send("XADD", name, entry_id, *(part for pair in fields.items() for part in pair))
            case _:
                await redis.send("SET", name, str(value))


async def test_an_export_and_the_audit_see_orders_of_a_worker_that_ended_before_it_noticed(
    redis: CommandSender,
) -> None:
    ended = make_store(redis)
    mugs = await add_mugs(ended, stock=100_000)
    await placed_ids(ended, mugs, 3)
    mugs = await delete_all_data(redis, ended)
    placed = await placed_ids(ended, mugs, 3)
    reader = make_store(redis)
    assert [json.loads(line)["id"] async for line in export(reader, "orders")] == placed[::-1]
    findings = (await audit(reader, SHOP)).findings
    assert {finding.what for finding in findings} == {f"is not listed by GET /orders: {keys.order_ids(SHOP)} is only 0"}
    # The next worker meets these orders as soon as it would use their ids.
    await placed_ids(make_store(redis), mugs, 4)
    assert (await audit(reader, SHOP)).findings == []


async def test_a_check_without_a_change_reserves_nothing(redis: CommandSender) -> None:
    store = make_store(redis)
    mugs = await add_mugs(store, stock=100_000)
    await placed_ids(store, mugs, 3)
    before = await dump(redis)
    for _ in range(3):
        await store.check()
    assert await dump(redis) == before
    assert await placed_ids(store, mugs, 1) == [4]


async def test_an_id_that_is_given_back_after_it_was_dropped_is_not_used_again() -> None:
    """An order that is refused gives its id back, but meanwhile Redis may have other data."""
    firsts = iter([1, 1000])

    async def reserve(count: int) -> int:
        return next(firsts)

    ids = OrderIds(reserve)
    kept, dropped = await ids.take(), await ids.take()
    ids.give_back(kept)
    assert await ids.take() == kept
    ids.drop()
    ids.give_back(dropped)
    assert [await ids.take(), await ids.take()] == [1000, 1001]


@pytest.mark.parametrize("counter", [MAX_ID, MAX_ID - BLOCK // 2, 2**60, -1000])
async def test_a_counter_of_order_ids_that_somebody_has_set_gives_only_valid_ids(
    redis: CommandSender, counter: int
) -> None:
    mugs = await add_mugs(make_store(redis), stock=1000)
    placed = await placed_ids(make_store(redis), mugs, 3)
    await redis.send("SET", keys.order_ids(SHOP), counter)
    later = await placed_ids(make_store(redis), mugs, 3)
    assert later == [4, 5, 6]
    await assert_all_orders_are_seen(redis, {*placed, *later})


async def test_no_order_is_placed_when_no_order_ids_are_left(redis: CommandSender) -> None:
    mugs = await add_mugs(make_store(redis), stock=1000)
    await redis.send("SET", keys.order_ids(SHOP), MAX_ID - BLOCK)
    store = make_store(redis)
    assert max(await placed_ids(store, mugs, BLOCK)) == MAX_ID
    for worker in (store, make_store(redis)):
        with pytest.raises(StorageUnavailable, match="no order ids are left"):
            await worker.orders.place(new_order((mugs, 1)))
    await assert_balanced(redis)


@pytest.mark.parametrize("counter", ["many", str(2**63 - 1)])
async def test_a_counter_of_order_ids_that_cannot_count_is_named(redis: CommandSender, counter: str) -> None:
    store = make_store(redis)
    mugs = await add_mugs(store)
    await redis.send("SET", keys.order_ids(SHOP), counter)
    with pytest.raises(StorageUnavailable, match="ids:orders cannot be counted up"):
        await store.orders.place(new_order((mugs, 1)))


@pytest.mark.parametrize("command", [("SET", "many"), ("HSET", "a", "b")])
async def test_a_damaged_counter_of_order_ids_stops_orders_only(redis: CommandSender, command: tuple[str, ...]) -> None:
    store = make_store(redis)
    mugs = await add_mugs(store)
    [placed] = await placed_ids(store, mugs, 1)
    await redis.send("DEL", keys.order_ids(SHOP))
    await redis.send(command[0], keys.order_ids(SHOP), *command[1:])
    await store.check()
    assert (await store.orders.get(placed)).id == placed
    with pytest.raises(StorageUnavailable, match="ids:orders cannot be counted up"):
        await store.orders.place(new_order((mugs, 1)))

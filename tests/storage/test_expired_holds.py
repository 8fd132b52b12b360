"""Store.expired_holds.expire_due: overdue orders expire, the oldest first, and no damage stops them."""

import math
import random
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any

import pytest
from structlog.testing import capture_logs

from service.domain.errors.storage import StorageUnavailable
from service.storage import keys
from service.storage.connection import MultiplexedConnection
from service.storage.expired_holds import RETRY_SECONDS
from service.storage.sender import CommandSender
from service.storage.store import Store
from tests.support.balance import Units, assert_balanced
from tests.support.clock import Clock
from tests.support.engine_memory import full_memory
from tests.support.holds import (
    DAMAGES,
    ObservedSender,
    count_holds,
    damage_data,
    place_many_pending,
    place_pending,
    status_of,
)
from tests.support.shop import SHOP, add_mugs, expire_all_due, make_store, new_order


@pytest.fixture
def store(redis: CommandSender, clock: Clock) -> Store:
    """A Store on both kinds of Redis, with a clock that stands still."""
    return make_store(redis, clock=clock)


async def test_the_next_deadline_is_infinity_when_no_stock_is_held(store: Store) -> None:
    assert await store.expired_holds.expire_due(100) == math.inf
    mugs = await add_mugs(store)
    await store.holds.complete(await place_pending(store, mugs))
    await store.holds.cancel(await place_pending(store, mugs))
    assert await store.expired_holds.expire_due(100) == math.inf


async def test_expire_due_returns_the_seconds_until_the_next_deadline(
    store: Store, redis: CommandSender, clock: Clock
) -> None:
    mugs = await add_mugs(store)
    for seconds in (60, 7, 900):
        await place_pending(store, mugs, seconds=seconds)
    assert await store.expired_holds.expire_due(100) == 7
    clock.forward(6.999)
    assert await store.expired_holds.expire_due(100) == 0.001
    assert (await assert_balanced(redis)).statuses() == {"pending": 3}
    clock.forward(0.001)
    assert await store.expired_holds.expire_due(100) == 53
    assert (await assert_balanced(redis)).statuses() == {"expired": 1, "pending": 2}


@pytest.mark.parametrize("limit", [1, 7, 100, 1000])
async def test_expire_due_expires_no_more_orders_than_its_limit(
    store: Store, redis: CommandSender, clock: Clock, limit: int
) -> None:
    mugs = await add_mugs(store)
    await place_many_pending(store, mugs, 30)
    clock.forward(900)
    for expired in range(0, 30, limit):
        assert (await assert_balanced(redis)).statuses()["expired"] == expired
        assert await store.expired_holds.expire_due(limit) == (0 if expired + limit < 30 else math.inf)
    contents = await assert_balanced(redis)
    assert (contents.units[mugs], contents.statuses()) == (Units(10_000, 0, 0, 10_000), {"expired": 30})


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_order_does_not_prevent_other_orders_from_expiring(
    store: Store, redis: CommandSender, clock: Clock, damage: str
) -> None:
    pots, mugs = await add_mugs(store), await add_mugs(store)
    before = await place_many_pending(store, mugs, 3)
    damaged = await place_pending(store, pots)
    after = await place_many_pending(store, mugs, 3)
    await damage_data(redis, damage, damaged, pots)
    clock.forward(900)
    with capture_logs():
        for _ in range(3):
            await store.expired_holds.expire_due(100)
    assert [await status_of(redis, order_id) for order_id in before + after] == ["expired"] * 6
    assert await redis.send("HMGET", keys.product(SHOP, mugs), "stock", "held") == ["10000", "0"]


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_hold_that_cannot_be_released_does_not_keep_the_sweeper_busy(
    store: Store, redis: CommandSender, clock: Clock, damage: str
) -> None:
    pots, mugs = await add_mugs(store), await add_mugs(store)
    damaged = await place_pending(store, pots)
    await place_pending(store, mugs, seconds=905)
    await damage_data(redis, damage, damaged, pots)
    clock.forward(900)
    with capture_logs():
        rounds = [await store.expired_holds.expire_due(100) for _ in range(3)]
    assert rounds[-1] == 5


async def test_a_hold_that_cannot_be_released_is_logged(store: Store, redis: CommandSender, clock: Clock) -> None:
    mugs = await add_mugs(store)
    await damage_data(redis, "a product without its held units", await place_pending(store, mugs), mugs)
    clock.forward(900)
    with capture_logs() as logs:
        await store.expired_holds.expire_due(100)
    assert [(entry["event"], entry["log_level"], entry["count"]) for entry in logs if "count" in entry] == [
        ("holds_not_released", "error", 1)
    ]


@pytest.mark.parametrize("limit", [1, 3, 5, 100])
async def test_damaged_orders_older_than_all_others_do_not_prevent_them_from_expiring(
    store: Store, redis: CommandSender, clock: Clock, limit: int
) -> None:
    pots, mugs = await add_mugs(store), await add_mugs(store)
    damaged = await place_many_pending(store, pots, 6)
    clock.forward(0.001)
    undamaged = await place_many_pending(store, mugs, 3)
    await damage_data(redis, "a product without its held units", 0, pots)
    clock.forward(900)
    with capture_logs():
        for _ in range(-(-9 // limit)):
            await store.expired_holds.expire_due(limit)
    assert [await status_of(redis, order_id) for order_id in undamaged] == ["expired"] * 3
    assert [await status_of(redis, order_id) for order_id in damaged] == ["pending"] * 6


async def test_a_repaired_order_expires_some_seconds_later(store: Store, redis: CommandSender, clock: Clock) -> None:
    pots = await add_mugs(store)
    await place_many_pending(store, pots, 6)
    await damage_data(redis, "a product without its held units", 0, pots)
    clock.forward(900)
    with capture_logs() as logs:
        for _ in range(5):
            await store.expired_holds.expire_due(3)
    assert sum(entry["count"] for entry in logs) == 6  # each was tried once
    await redis.send("HSET", keys.product(SHOP, pots), "held", 6)
    clock.forward(RETRY_SECONDS)
    await store.expired_holds.expire_due(3)  # notices that the time is over
    await expire_all_due(store)
    assert (await assert_balanced(redis)).statuses() == {"expired": 6}


async def test_a_foreign_entry_in_the_index_of_holds_does_not_prevent_orders_from_expiring(
    store: Store, redis: CommandSender, clock: Clock
) -> None:
    mugs = await add_mugs(store)
    await redis.send("ZADD", keys.holds(SHOP), 1, "not an order")
    order_id = await place_pending(store, mugs)
    clock.forward(900)
    with capture_logs() as logs:
        assert await store.expired_holds.expire_due(100) == math.inf
    assert await status_of(redis, order_id) == "expired"
    assert [(entry["count"], entry["first_order"]) for entry in logs] == [(1, "not an order")]


async def test_the_hold_of_an_order_that_has_expired_before_does_not_prevent_orders_from_being_placed(
    store: Store, redis: CommandSender, clock: Clock
) -> None:
    mugs = await add_mugs(store)
    ended = await place_pending(store, mugs)
    clock.forward(900)
    await expire_all_due(store)
    await redis.send("ZADD", keys.holds(SHOP), 1, ended)
    order_id = await place_pending(store, mugs)
    clock.forward(900)
    with capture_logs() as logs:
        for _ in range(3):
            await store.expired_holds.expire_due(100)
            await place_pending(store, mugs)
    assert await status_of(redis, order_id) == "expired"
    assert [(entry["event"], entry["first_order"]) for entry in logs] == [("holds_not_released", str(ended))]


async def test_the_oldest_holds_are_released_first(store: Store, redis: CommandSender, clock: Clock) -> None:
    mugs = await add_mugs(store)
    by_deadline = {}
    for seconds in random.Random(1).sample(range(1, 101), 20):
        by_deadline[seconds] = await place_pending(store, mugs, seconds=seconds)
    clock.forward(900)
    expected = [by_deadline[seconds] for seconds in sorted(by_deadline)]
    for count in range(3, 21, 3):
        await store.expired_holds.expire_due(3)
        statuses = [await status_of(redis, order_id) for order_id in expected]
        assert statuses == ["expired"] * count + ["pending"] * (20 - count)


async def test_orders_with_very_many_lines_expire_in_several_scripts(
    store: Store, redis: CommandSender, clock: Clock
) -> None:
    products = [await add_mugs(store) for _ in range(150)]
    for number in range(12):
        lines = [(product_id, 1 + number) for product_id in products[number * 4 : number * 4 + 100]]
        await store.orders.place(new_order(*lines, status="pending"))
    clock.forward(900)
    sender = ObservedSender(redis)
    await expire_all_due(make_store(sender, clock=clock))
    assert 1 < sender.sent["EVALSHA"] + sender.sent["EVAL"] < 30
    contents = await assert_balanced(redis)
    assert contents.statuses() == {"expired": 12}
    assert {contents.units[product_id] for product_id in products} == {Units(10_000, 0, 0, 10_000)}


async def test_a_worker_that_another_has_overtaken_continues_with_younger_holds(
    store: Store, redis: CommandSender, clock: Clock
) -> None:
    mugs = await add_mugs(store)
    orders = await place_many_pending(store, mugs, 60)
    clock.forward(900)
    other = make_store(redis, clock=clock)

    class OvertakenSender(ObservedSender):
        """Another worker expires the first batch after this one has found it, and before it reads it."""

        def send(self, *command: bytes | str | int, safe_to_repeat: bool = False) -> Awaitable[Any]:
            async def overtake() -> Any:
                if await count_holds(redis) == 60 and any(":order:" in str(part) for part in command):
                    await other.expired_holds.expire_due(5)
                return await super_send(*command, safe_to_repeat=safe_to_repeat)

            super_send = super().send
            return overtake()

    overtaken = make_store(OvertakenSender(redis), clock=clock)
    oldest = sorted(orders, key=str)  # as Redis sorts the same deadline
    assert await overtaken.expired_holds.expire_due(5) == 0
    assert await count_holds(redis) == 55
    assert await overtaken.expired_holds.expire_due(5) == 0
    assert (await count_holds(redis), await status_of(redis, oldest[5])) == (50, "pending")
    assert await overtaken.expired_holds.expire_due(5) == 0
    assert (await count_holds(redis), await status_of(redis, oldest[5])) == (45, "expired")
    await expire_all_due(overtaken)
    assert (await assert_balanced(redis)).statuses() == {"expired": 60}


async def test_orders_that_a_failed_round_left_pending_expire_later(
    store: Store, redis: CommandSender, clock: Clock
) -> None:
    mugs = await add_mugs(store)
    await place_many_pending(store, mugs, 20)
    clock.forward(900)
    numbers = iter(range(1000))

    def error_for_every_second_script(command: str) -> Exception | None:
        return StorageUnavailable("cut") if command == "EVALSHA" and next(numbers) % 2 else None

    unlucky = make_store(ObservedSender(redis, error_for_every_second_script), clock=clock)
    for _ in range(10):
        with suppress(StorageUnavailable):
            await unlucky.expired_holds.expire_due(5)
    assert await count_holds(redis) == 20
    await expire_all_due(store)
    contents = await assert_balanced(redis)
    assert (contents.units[mugs], contents.statuses()) == (Units(10_000, 0, 0, 10_000), {"expired": 20})


async def test_overdue_orders_expire_also_while_the_memory_of_redis_is_full(
    engine: MultiplexedConnection, clock: Clock
) -> None:
    store = make_store(engine, clock=clock)
    mugs = await add_mugs(store)
    await place_many_pending(store, mugs, 30)
    clock.forward(900)
    async with full_memory(engine):
        assert await store.expired_holds.expire_due(100) == math.inf
    assert (await assert_balanced(engine)).statuses() == {"expired": 30}

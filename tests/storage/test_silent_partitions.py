"""What orders of a shop with partitions get if a partition does not answer, or if units are lost between partitions."""

import asyncio
import time
from collections.abc import AsyncIterator
from math import inf

import pytest

from service.domain.errors.storage import Overloaded, StorageError, StorageUnavailable
from service.domain.requests import StockChange
from service.storage import keys
from service.storage.exchange import MAX_LINES, MAX_WAITING
from service.storage.partitioned import PartitionedStore
from service.storage.transfers import Wish
from tests.support.fake_redis import FakeRedis
from tests.support.partitions import assert_nothing_is_lost, key_of, make_partitioned_store
from tests.support.shop import SHOP, new_mug, new_order
from tests.support.waiting import eventually
from tests.support.ways import COUNT, Way, works

TIMEOUT = 1.0


@pytest.fixture
async def store(ways: list[Way]) -> AsyncIterator[PartitionedStore]:
    store = make_partitioned_store(*ways, count=COUNT, timeout=TIMEOUT)
    yield store
    await store.all.exchange.close()


def refuses_connections(_: str) -> StorageError:
    return StorageUnavailable("connection refused")


async def stocks(fake_redis: FakeRedis, product_id: int) -> list[int]:
    """Return the units of a product in each partition."""
    names = [keys.product(keys.partition(SHOP, number), product_id) for number in range(COUNT)]
    return [int(await fake_redis.send("HGET", name, "stock") or 0) for name in names]


async def put_in(store: PartitionedStore, partition: int, units: int) -> int:
    """Return a new product whose units are all in one partition."""
    mugs = (await store.products.add(new_mug(stock=0))).id
    change = StockChange.model_construct(change=units, reason="")
    await store.stock.change(mugs, change, key_of(store, partition))
    return mugs


async def test_an_order_gets_the_units_of_others_although_a_silent_partition_has_given_some_of_them(
    fake_redis: FakeRedis, ways: list[Way], store: PartitionedStore
) -> None:
    mugs = await put_in(store, 3, 100)
    await store.orders.place(new_order((mugs, 10)), key_of(store, 1))
    await store.deliver()
    there = await stocks(fake_redis, mugs)
    assert there[1] > 0
    # All units were brought into partition 3, so without it the sum of stock - moved is 0 or less.
    moved = [
        int(await fake_redis.send("HGET", keys.product(keys.partition(SHOP, n), mugs), "moved") or 0) for n in range(3)
    ]
    assert sum(there[:3]) - sum(moved) < there[1]
    ways[3].fails = refuses_connections
    placed = await store.orders.place(new_order((mugs, there[1])), key_of(store, 2))
    assert placed.order.id % COUNT == 2
    ways[3].fails = works
    await assert_nothing_is_lost(fake_redis, store)


async def test_an_order_of_a_product_that_only_a_silent_partition_has_is_not_tried_again_and_again(
    fake_redis: FakeRedis, ways: list[Way], store: PartitionedStore
) -> None:
    mugs = await put_in(store, 0, 100)
    await store.orders.place(new_order((mugs, 10)), key_of(store, 3))  # partition 3 takes more than it needs
    await store.deliver()
    there = await stocks(fake_redis, mugs)
    assert there[3] > 0
    for number in range(3):
        if there[number]:
            await store.partitions[number].orders.place(new_order((mugs, there[number])), "the rest")
    ways[3].fails = refuses_connections
    for way in ways:
        way.ran.clear()
    with pytest.raises(StorageUnavailable):
        await store.orders.place(new_order((mugs, 1)), key_of(store, 1))
    # For the others it looks as if the units were on their way, so they try it a few times.
    assert sum(way.ran.count("place_order") for way in ways) <= 3
    assert sum(len(way.ran) for way in ways) < 40


async def test_orders_that_wait_for_a_unit_that_is_lost_try_it_less_and_less_often(
    fake_redis: FakeRedis, ways: list[Way], store: PartitionedStore
) -> None:
    mugs = await put_in(store, 0, 5)
    [transfer] = await store.all.exchange.partitions[0].give(2, "0", [Wish(mugs, 5, 0, 0)])
    await fake_redis.send("ZREM", keys.outgoing(keys.partition(SHOP, 0), 2), " ".join(map(str, transfer)))
    pots = (await store.products.add(new_mug(stock=4))).id
    for way in ways:
        way.ran.clear()
    waiting = asyncio.create_task(store.orders.place(new_order((mugs, 1)), key_of(store, 1)))
    await store.orders.place(new_order((pots, 4)), key_of(store, 1, "pots"))  # it does not wait for the other
    with pytest.raises(StorageUnavailable):
        await waiting
    placings = ways[1].ran.count("place_order")
    # With a pause as long as at the beginning, there would be 200 or more in a second.
    assert 3 < placings < 80


async def test_an_order_that_may_run_anywhere_has_one_deadline_for_all_partitions(
    fake_redis: FakeRedis, ways: list[Way], store: PartitionedStore
) -> None:
    mugs = await put_in(store, 0, 5)
    [transfer] = await store.all.exchange.partitions[0].give(2, "0", [Wish(mugs, 5, 0, 0)])
    await fake_redis.send("ZREM", keys.outgoing(keys.partition(SHOP, 0), 2), " ".join(map(str, transfer)))
    for way in ways:
        way.ran.clear()
    with pytest.raises(StorageUnavailable, match="run holdfast audit"):
        await store.orders.place(new_order((mugs, 1)))
    # The first waits for the units, which are lost. The second has no time left to wait for them again.
    tries = sorted(way.ran.count("place_order") for way in ways)
    assert tries[:3] == [0, 0, 1]
    assert tries[3] > 1


async def test_only_the_first_orders_wait_long_for_a_silent_partition(ways: list[Way]) -> None:
    store = make_partitioned_store(*ways, count=COUNT, timeout=2)
    mugs = (await store.products.add(new_mug(stock=0))).id
    ways[3].is_silent, ways[3].silent_seconds = True, 3600
    ways[3].ran.clear()
    began = time.monotonic()
    waiting = [store.all.exchange.gather(0, {mugs: 1}, {mugs: 0}, 1, inf) for _ in range(6 * MAX_LINES)]
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(result) for result in results} == {StorageUnavailable}
    assert ways[3].ran == ["HMGET"] * 6
    assert time.monotonic() - began < 5  # each look in turn waits a second otherwise
    await store.all.exchange.close()


async def test_an_overdue_order_waits_for_no_further_cycle(ways: list[Way], store: PartitionedStore) -> None:
    mugs = (await store.products.add(new_mug(stock=0))).id
    for way in ways:
        way.ran.clear()
    with pytest.raises(StorageUnavailable, match="in time"):
        await store.all.exchange.gather(0, {mugs: 1}, {mugs: 0}, 1, asyncio.get_running_loop().time() - 1)
    assert [way.ran for way in ways] == [[]] * COUNT


async def test_more_orders_than_can_be_answered_in_time_are_refused_at_once(
    ways: list[Way], store: PartitionedStore
) -> None:
    mugs = (await store.products.add(new_mug(stock=0))).id
    waiting = [
        asyncio.create_task(store.all.exchange.gather(0, {mugs: 1}, {mugs: 0}, 1, inf)) for _ in range(MAX_WAITING)
    ]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await store.all.exchange.gather(1, {mugs: 1}, {mugs: 0}, 1, inf)
    assert await asyncio.gather(*waiting) == [{mugs: 0}] * MAX_WAITING


async def test_a_partition_that_was_silent_is_waited_for_again_when_it_has_answered(ways: list[Way]) -> None:
    store = make_partitioned_store(*ways, count=COUNT, timeout=0.2)
    mugs = (await store.products.add(new_mug(stock=4))).id
    look = store.all.exchange.looks.look
    ways[3].is_silent = True
    assert [row is None for row in await look([mugs])] == [False, False, False, True]
    ways[3].is_silent = False

    async def answers() -> bool:
        return None not in await look([mugs])

    await eventually(answers)
    assert not store.all.exchange.looks.silent
    await store.all.exchange.close()


async def test_a_partition_that_has_answered_too_late_is_waited_for_again(ways: list[Way]) -> None:
    store = make_partitioned_store(*ways, count=COUNT, timeout=0.2)
    mugs = (await store.products.add(new_mug(stock=4))).id
    may_arrive = asyncio.Event()

    async def hold_back(*_: object) -> None:
        await may_arrive.wait()

    ways[3].before_reply = hold_back
    looks = store.all.exchange.looks
    assert [row is None for row in await looks.look([mugs])] == [False, False, False, True]
    assert looks.silent == {3}
    may_arrive.set()
    await eventually(lambda: not looks.silent)
    await store.all.exchange.close()

"""Orders of a shop with four partitions: where they run, what is refused, and what an Idempotency-Key remembers."""

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any
from zlib import crc32

import pytest

from service.domain.errors.obstacles import TooLittleStock
from service.domain.errors.order_refusals import (
    CustomerLimitExceeded,
    InsufficientStock,
    OrderPlacementRefusal,
    ProductsNotFound,
    UnavailableLines,
)
from service.domain.errors.refusals import IdempotencyKeyReused, OrderCancelled
from service.domain.order import ListedOrder
from service.domain.requests import OrdersQuery, StockChange
from service.storage import keys
from service.storage.connection import MultiplexedConnection
from service.storage.partitioned import PartitionedStore
from service.storage.sender import CommandSender
from tests.support.partitions import assert_nothing_is_lost, make_partitioned_store
from tests.support.shop import SHOP, make_store, new_mug, new_order

COUNT = 4


@pytest.fixture
async def store(redis: CommandSender) -> AsyncIterator[PartitionedStore]:
    store = make_partitioned_store(redis, count=COUNT)
    yield store
    await store.all.exchange.close()


async def add(store: PartitionedStore, stock: int, **fields: object) -> int:
    return (await store.products.add(new_mug(stock=stock, **fields))).id


async def ids(store: PartitionedStore, **query: object) -> list[int]:
    return [order.id for order in (await page(store, **query))[0]]


async def page(store: PartitionedStore, **query: object) -> tuple[list[ListedOrder], int | None]:
    values: dict[str, Any] = {"limit": 100, "before": None, "status": None, "customer": None, "reference": None}
    return await store.orders.list(OrdersQuery.model_construct(**{**values, **query}))


def units_left(error: UnavailableLines) -> dict[int, int]:
    """Return the units that each refused line names."""
    found = [(line.product_id, line.obstacle) for line in error.lines]
    return {product_id: obstacle.available for product_id, obstacle in found if isinstance(obstacle, TooLittleStock)}


async def test_an_order_runs_in_the_partition_of_its_customer_else_of_its_key(store: PartitionedStore) -> None:
    mugs = await add(store, 100)
    for name in ("anna", "ben", "carla"):
        placed = await store.orders.place(new_order((mugs, 1), customer=name), "a-key")
        assert placed.order.id % COUNT == crc32(name.encode()) % COUNT
    for key in ("k1", "k2", "k3"):
        placed = await store.orders.place(new_order((mugs, 1)), key)
        assert placed.order.id % COUNT == crc32(key.encode()) % COUNT


async def test_orders_without_customer_and_key_run_in_each_partition_in_turn(store: PartitionedStore) -> None:
    mugs = await add(store, 100)
    found = [(await store.orders.place(new_order((mugs, 1)))).order.id % COUNT for _ in range(2 * COUNT)]
    assert sorted(found) == sorted([*range(COUNT), *range(COUNT)])


async def test_all_units_are_sold_whatever_partition_they_are_in_and_then_none(
    redis: CommandSender, store: PartitionedStore
) -> None:
    mugs = await add(store, 10)
    for number in range(10):
        await store.orders.place(new_order((mugs, 1)), f"key-{number}")
    with pytest.raises(InsufficientStock) as refused:
        await store.orders.place(new_order((mugs, 1)), "key-10")
    assert units_left(refused.value) == {mugs: 0}
    assert (await store.stock.levels(mugs))[:4] == (0, 0, 10, 10)
    await assert_nothing_is_lost(redis, store)


async def test_an_order_for_more_than_one_partition_has_gets_units_of_all(
    redis: CommandSender, store: PartitionedStore
) -> None:
    mugs, pots = await add(store, 10), await add(store, 7)
    placed = await store.orders.place(new_order((mugs, 10), (pots, 6)), "all")
    assert placed.order.units() == 16
    with pytest.raises(InsufficientStock) as refused:
        await store.orders.place(new_order((mugs, 1), (pots, 2)), "more")
    assert units_left(refused.value) == {mugs: 0, pots: 1}
    await assert_nothing_is_lost(redis, store)


async def test_a_repeated_key_gets_the_first_result(store: PartitionedStore) -> None:
    mugs = await add(store, 2)
    first = await store.orders.place(new_order((mugs, 2)), "one")
    again = await store.orders.place(new_order((mugs, 2)), "one")
    assert (again.order.id, again.replayed) == (first.order.id, True)
    with pytest.raises(InsufficientStock):
        await store.orders.place(new_order((mugs, 1)), "two")
    await store.stock.change(mugs, change(+5))
    with pytest.raises(InsufficientStock) as refused:
        await store.orders.place(new_order((mugs, 1)), "two")
    assert refused.value.replayed
    with pytest.raises(IdempotencyKeyReused):
        await store.orders.place(new_order((mugs, 2)), "two")


@pytest.mark.parametrize("seed", range(5))
async def test_a_key_remembers_a_refusal_in_the_same_text_as_in_a_shop_without_partitions(
    redis: CommandSender, seed: int
) -> None:
    rng = random.Random(seed)
    store, plain = make_partitioned_store(redis, count=3), make_store(redis, shop="plain")
    products = [new_mug(id=id_, stock=rng.choice((0, 1, 5)), price=2) for id_ in rng.sample(range(1, 40), 12)]
    products += [new_mug(id=id_, stock=9, limit_per_customer=1) for id_ in (50, 51)]
    for product in products:
        await store.products.add(product)
        await plain.products.add(product)
    known = [product.id or 0 for product in products]
    for number in range(30):
        chosen = rng.sample(known + [60, 61] * (number % 3 == 0), rng.randint(1, 6))
        body = new_order(*[(id_, rng.randint(1, 7)) for id_ in set(chosen)], total_price=1)
        for shop in (store, plain):
            with pytest.raises(OrderPlacementRefusal):
                await shop.orders.place(body, f"key-{number}")
        partition = keys.partition(SHOP, crc32(f"key-{number}".encode()) % 3)
        names = [keys.idempotency(shop, f"key-{number}") for shop in (partition, "plain")]
        texts = [await redis.send("HGET", name, "refusal") for name in names]
        assert texts[0] == texts[1] is not None


async def test_a_refusal_for_another_reason_shows_the_units_of_all_partitions(store: PartitionedStore) -> None:
    mugs, pots = await add(store, 8), await add(store, 5)
    with pytest.raises(ProductsNotFound) as refused:
        await store.orders.place(new_order((mugs, 8), (pots, 6), (99, 1)), "key")
    # There are enough mugs, though not in one partition.
    assert {line.product_id for line in refused.value.lines} == {pots, 99}
    assert units_left(refused.value) == {pots: 5}


async def test_orders_end_and_are_listed_where_they_are(redis: CommandSender, store: PartitionedStore) -> None:
    mugs = await add(store, 100)
    placed = [
        (await store.orders.place(new_order((mugs, 1), status="pending", hold_seconds=900, reference="r"))).order.id
        for _ in range(9)
    ]
    assert await ids(store) == sorted(placed, reverse=True) == await ids(store, status="pending")
    assert await ids(store, reference="r", limit=100) == sorted(placed, reverse=True)
    await store.holds.cancel(placed[0])
    assert (await store.holds.complete(placed[1])).status == "completed"
    with pytest.raises(OrderCancelled):
        await store.orders.get(placed[0])
    assert (await store.orders.get(placed[1])).status == "completed"
    assert await ids(store, status="pending") == sorted(placed[2:], reverse=True)
    assert (await store.stock.levels(mugs))[:4] == (92, 7, 1, 100)
    await assert_nothing_is_lost(redis, store)


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 50])
async def test_the_pages_of_orders_are_one_sorted_list(store: PartitionedStore, limit: int) -> None:
    mugs = await add(store, 1000)
    placed = [
        (await store.orders.place(new_order((mugs, 1)), f"k{number}" if number % 3 else None)).order.id
        for number in range(23)
    ]
    found: list[int] = []
    before = None
    while True:
        orders, before = await page(store, limit=limit, before=before)
        assert len(orders) <= limit
        found += [order.id for order in orders]
        if before is None:
            break
    assert found == sorted(placed, reverse=True)


async def test_a_limit_per_customer_counts_all_orders_of_the_customer(store: PartitionedStore) -> None:
    mugs = await add(store, 100, limit_per_customer=3)
    for number in range(3):
        await store.orders.place(new_order((mugs, 1), customer="anna"), f"key-{number}")
    with pytest.raises(CustomerLimitExceeded):
        await store.orders.place(new_order((mugs, 1), customer="anna"), "key-3")
    await store.orders.place(new_order((mugs, 3), customer="ben"))


async def test_two_workers_sell_every_unit_once(engine_url: str, engine: MultiplexedConnection) -> None:
    async with MultiplexedConnection(engine_url, timeout=10, max_in_flight=100_000) as other:
        workers = [make_partitioned_store(each, count=COUNT, timeout=20) for each in (engine, other)]
        mugs, pots = await add(workers[0], 60), await add(workers[0], 45)
        results: list[object] = []

        async def buy(number: int) -> None:
            lines = ((mugs, 1), (pots, 1)) if number % 2 else ((pots, 1),)
            key = f"key-{number}" if number % 3 else None
            try:
                results.append((await workers[number % 2].orders.place(new_order(*lines), key)).order)
            except InsufficientStock as error:
                results.append(error)

        await asyncio.gather(*[buy(number) for number in range(200)])
        sold = sum(1 for result in results if not isinstance(result, InsufficientStock))
        assert sold == 45  # each order needs a pot
        for worker in workers:
            assert (await worker.stock.levels(pots))[:4] == (0, 0, 45, 45)
            await assert_nothing_is_lost(engine, worker)
            await worker.all.exchange.close()


async def test_orders_that_need_each_others_units_all_end(engine_url: str, engine: MultiplexedConnection) -> None:
    async with MultiplexedConnection(engine_url, timeout=10, max_in_flight=100_000) as other:
        workers = [make_partitioned_store(each, count=2, timeout=20) for each in (engine, other)]
        for _repetition in range(20):
            mugs, pots = await add(workers[0], 2), await add(workers[0], 2)

            async def buy(number: int, *lines: tuple[int, int]) -> bool:
                customer = next(name for name in map(str, range(100)) if crc32(name.encode()) % 2 == number)
                try:
                    await workers[number].orders.place(new_order(*lines, customer=customer))
                except InsufficientStock:
                    return False
                return True

            # One unit of each in each partition, and each order wants both: so exactly one can be placed.
            both = (mugs, 2), (pots, 2)
            placed = await asyncio.gather(buy(0, *both), buy(1, *reversed(both)))
            assert sorted(placed) == [False, True]
        await assert_nothing_is_lost(engine, workers[0])
        for worker in workers:
            await worker.all.exchange.close()


def change(units: int) -> StockChange:
    return StockChange.model_construct(change=units, reason="")

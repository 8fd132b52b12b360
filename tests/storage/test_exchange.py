"""The exchange of units between partitions: many orders at the same time, and how it ends."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from math import inf
from typing import Any
from zlib import crc32

import pytest

from service.domain.errors.order_refusals import InsufficientStock
from service.domain.errors.storage import StorageUnavailable
from service.storage import keys
from service.storage.exchange import MAX_LINES
from service.storage.orders import PlacedOrder
from service.storage.partitioned import PartitionedStore
from service.storage.sender import CommandSender
from tests.support.partitions import assert_nothing_is_lost, key_of, make_partitioned_store
from tests.support.shop import SHOP, add_mugs, new_order
from tests.support.waiting import eventually

COUNT = 2


@pytest.fixture
async def store(engine: CommandSender) -> AsyncIterator[PartitionedStore]:
    store = make_partitioned_store(engine, count=COUNT, timeout=20)
    yield store
    await store.all.exchange.close()


def customers_of(partition: int) -> list[str]:
    return [name for name in map(str, range(1000)) if crc32(name.encode()) % COUNT == partition]


async def test_very_many_lines_that_miss_units_at_the_same_moment_do_not_make_a_script_too_large(
    engine: CommandSender, store: PartitionedStore
) -> None:
    # Products of which partition 0 has two units, and partition 1 none: written as an import would, but faster.
    count = 4200
    for number, stock in enumerate(("2", "0")):
        name = keys.partition(SHOP, number)
        await asyncio.gather(
            *[
                engine.send(
                    "HSET", keys.product(name, id_), "id", id_, "name", "Mug", "description", "", "price", "1.00",
                    "stock", stock, "held", "0", "sold", "0", "received", stock, "withdrawn", "0", "version", "1",
                )
                for id_ in range(1, count + 1)
            ]
        )  # fmt: skip
        await engine.send("ZADD", keys.products(name), 1, 1, count, count)
    orders = [
        store.orders.place(new_order(*[(id_, 1) for id_ in range(first, first + 100)], customer=customer))
        for first, customer in zip(range(1, count + 1, 100), customers_of(1), strict=False)
    ]
    placed = [each.order.id for each in await asyncio.gather(*orders)]
    assert len(placed) == count // 100
    assert count > 4 * MAX_LINES  # with fewer, one cycle would not be too large
    await assert_nothing_is_lost(engine, store)


@pytest.mark.parametrize(("field", "value"), [("moved", "x"), ("stock", "x"), ("received", "x"), (None, "x")])
async def test_a_product_that_is_damaged_in_another_partition_fails_no_order_of_other_products(
    engine: CommandSender, store: PartitionedStore, field: str | None, value: str
) -> None:
    mugs, pots = await add_mugs(store, 4), await add_mugs(store, 4)
    name = keys.product(keys.partition(SHOP, 0), pots)
    if field is None:
        await engine.send("DEL", name)
        await engine.send("SET", name, value)
    else:
        await engine.send("HSET", name, field, value)
    numbers = range(8)
    results = await asyncio.gather(
        *[
            store.orders.place(new_order((mugs if n else pots, 1 if n else 3)), key_of(store, 1, str(n)))
            for n in numbers
        ],
        return_exceptions=True,
    )
    assert Counter(map(type, results[1:])) == {PlacedOrder: 4, InsufficientStock: 3}
    assert isinstance(results[0], StorageUnavailable)


class SilentRedis:
    """A CommandSender that never replies."""

    was_asked = False

    def send(self, *command: bytes | str | int, safe_to_repeat: bool = False) -> asyncio.Future[Any]:
        self.was_asked = True
        return asyncio.get_running_loop().create_future()


async def test_orders_that_wait_for_units_are_answered_when_the_exchange_is_closed() -> None:
    exchange = make_partitioned_store(SilentRedis(), count=COUNT).all.exchange
    waiting = asyncio.create_task(exchange.gather(1, {7: 2}, {7: 1}, 0, inf))
    await asyncio.sleep(0.05)
    await exchange.close()
    with pytest.raises(StorageUnavailable):
        await asyncio.wait_for(waiting, 10)


@pytest.mark.parametrize("patience", [0.02, 20], ids=["later", "while an order waits for it"])
@pytest.mark.parametrize("attempt", [0, 1], ids=["units", "a look"])
async def test_no_task_waits_for_a_silent_partition_after_the_exchange_is_closed(attempt: int, patience: float) -> None:
    redis = SilentRedis()
    exchange = make_partitioned_store(redis, count=COUNT, timeout=patience).all.exchange
    before = asyncio.all_tasks()
    waiting = asyncio.create_task(exchange.gather(0, {7: 2}, {7: 1}, attempt, inf))
    await eventually(lambda: redis.was_asked)
    if patience < 1:
        await asyncio.wait([waiting])
    await exchange.close()
    await asyncio.wait([waiting])
    assert asyncio.all_tasks() == before
    assert isinstance(waiting.exception(), StorageUnavailable) or (patience < 1 and attempt == 0)

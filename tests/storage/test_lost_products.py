"""A product that a partition of a shop does not have any more: the partition may have sold its units already."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from decimal import Decimal

import pytest
from structlog.testing import capture_logs

from service.domain.errors.base import HoldfastError
from service.domain.errors.order_refusals import ProductsNotFound
from service.domain.errors.refusals import ProductIdTaken, ProductNotFound
from service.domain.errors.storage import StorageError, StorageUnavailable
from service.domain.requests import ProductChange, StockChange
from service.storage import keys
from service.storage.partitioned import PartitionedStore
from service.storage.sender import CommandSender
from service.storage.transfers import Wish
from tests.support.partitions import assert_nothing_is_lost, home_of, key_of, make_partitioned_store
from tests.support.shop import SHOP, new_mug, new_order

COUNT = 3
MUGS = 4
"""A product whose home is partition 1."""


@pytest.fixture
async def store(redis: CommandSender) -> AsyncIterator[PartitionedStore]:
    store = make_partitioned_store(redis, count=COUNT, timeout=20)
    await store.products.add(new_mug(id=MUGS, stock=30))
    yield store
    await store.all.exchange.close()


async def lose(redis: CommandSender, partition: int) -> None:
    assert await redis.send("DEL", keys.product(keys.partition(SHOP, partition), MUGS)) == 1


async def place(store: PartitionedStore, units: int, key: str | None = None) -> int:
    """Return how many units were sold: all or none."""
    try:
        await store.orders.place(new_order((MUGS, units)), key)
    except HoldfastError:
        return 0
    return units


def price(text: str) -> ProductChange:
    return ProductChange.model_validate({"price": Decimal(text)})


@pytest.mark.parametrize("partition", range(COUNT))
async def test_no_unit_is_sold_twice_whichever_partition_loses_a_product(
    redis: CommandSender, store: PartitionedStore, partition: int
) -> None:
    sold = sum([await place(store, 1) for _ in range(30)])
    assert sold == 30
    await lose(redis, partition)
    for number in range(COUNT):
        assert not await place(store, 1, key_of(store, number))
    assert not any(await asyncio.gather(*[place(store, units) for units in (1, 2, 5) for _ in range(4)]))
    for verb in (store.products.change(MUGS, price("1.00")), store.products.add(new_mug(id=MUGS, stock=30))):
        with pytest.raises((StorageError, ProductIdTaken)):
            await verb
    with suppress(StorageError):
        await store.deliver()
    assert not any([await place(store, units) for units in (1, 2, 5) for _ in range(4)])


async def test_a_share_that_an_older_program_has_not_removed_is_given_to_nobody(
    redis: CommandSender, store: PartitionedStore
) -> None:
    await redis.send("HSET", keys.product(keys.partition(SHOP, 1), MUGS), "share", 10)
    await lose(redis, 2)
    with pytest.raises(StorageUnavailable, match="is lost"):
        await store.orders.place(new_order((MUGS, 1)), key_of(store, 2))


@pytest.mark.parametrize("partition", range(COUNT))
async def test_orders_for_a_lost_product_are_placed_in_the_other_partitions(
    redis: CommandSender, store: PartitionedStore, partition: int
) -> None:
    await lose(redis, partition)
    with capture_logs() as log, pytest.raises(StorageUnavailable, match="is lost"):
        await store.orders.place(new_order((MUGS, 1)), key_of(store, partition))
    assert [line["key"] for line in log] == [keys.product(keys.partition(SHOP, partition), MUGS)]
    for _ in range(20):
        assert (await store.orders.place(new_order((MUGS, 1)))).order.id % COUNT != partition
    with pytest.raises(StorageUnavailable, match="is lost"):
        await store.orders.place(new_order((MUGS, 1)))


@pytest.mark.parametrize("partition", range(COUNT))
async def test_a_lost_product_is_never_called_unknown(
    redis: CommandSender, store: PartitionedStore, partition: int
) -> None:
    await lose(redis, partition)
    found = await asyncio.gather(*[store.products.get(MUGS) for _ in range(COUNT)], return_exceptions=True)
    assert [isinstance(product, StorageUnavailable) for product in found].count(True) == 1
    assert not any(isinstance(product, ProductNotFound) for product in found)
    with pytest.raises(StorageUnavailable):
        await store.stock.change(MUGS, StockChange.model_construct(change=1, reason=""), key_of(store, partition))
    if partition == store.all.pushes.home(MUGS):
        for verb in (
            store.stock.levels(MUGS),
            store.products.change(MUGS, price("1.00")),
            store.products.withdraw(MUGS),
        ):
            with pytest.raises(StorageUnavailable):
                await verb


async def test_a_product_that_there_never_was_is_unknown_in_each_partition(store: PartitionedStore) -> None:
    for number in range(COUNT):
        with pytest.raises(ProductsNotFound):
            await store.orders.place(new_order((77, 1)), key_of(store, number))
        with pytest.raises(ProductNotFound):
            await store.products.get(77)
    for verb in (store.stock.levels(77), store.products.change(77, price("1.00")), store.products.withdraw(77)):
        with pytest.raises(ProductNotFound):
            await verb


async def test_a_partition_from_an_older_copy_is_noticed_by_the_sweeper(
    redis: CommandSender, store: PartitionedStore
) -> None:
    exchange = store.all.exchange
    for _ in range(2):
        [transfer] = await exchange.partitions[2].give(0, "0", [Wish(MUGS, 1, 0, 0)])
        with capture_logs() as log:
            await store.deliver()
            await store.deliver()
        assert log == []
    await redis.send("HSET", keys.sent(keys.partition(SHOP, 2)), 0, 17)
    with capture_logs() as log:
        for _ in range(3):
            await store.deliver()
    assert [(line["event"], line["partition"], line["reason"]) for line in log] == [
        (
            "partition_is_older",
            2,
            f"partition 0 has taken in transfer {transfer.id} from here, but the last that was given is 17",
        )
    ]


async def test_an_add_that_many_end_at_the_same_time_gives_each_partition_its_share_once(
    redis: CommandSender, store: PartitionedStore
) -> None:
    other = make_partitioned_store(redis, count=COUNT)
    for product_id in range(10, 20):
        await home_of(store, product_id).products.add(new_mug(id=product_id, stock=31))  # and it is interrupted
        await asyncio.gather(
            store.deliver(),
            other.deliver(),
            other.products.change(product_id, price("2.00")),
            store.orders.place(new_order((product_id, 20)), key_of(store, product_id % COUNT, str(product_id))),
            *[expect_taken(some, product_id) for some in (store, other)],
        )
        assert [(await some.stock.levels(product_id))[:4] for some in (store, other)] == [(11, 0, 20, 31)] * 2
        name = keys.product(keys.partition(SHOP, store.all.pushes.home(product_id)), product_id)
        assert await redis.send("HGET", name, "share") is None
    await assert_nothing_is_lost(redis, store)
    await other.all.exchange.close()


async def expect_taken(store: PartitionedStore, product_id: int) -> None:
    with pytest.raises(ProductIdTaken):
        await store.products.add(new_mug(id=product_id, stock=31))

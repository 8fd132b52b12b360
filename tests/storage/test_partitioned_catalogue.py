"""Products and stock of a shop with several partitions: changes reach all of them, and interrupted ones end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from service.domain.errors.order_refusals import PriceChanged, ProductsNotFound
from service.domain.errors.refusals import IdempotencyKeyReused, ProductIdTaken, ProductNotFound
from service.domain.errors.stock_refusals import StockChangeRefusal
from service.domain.errors.storage import OutcomeUnknown, StorageUnavailable, UnsupportedRedis
from service.domain.requests import ProductChange, ProductsQuery, StockChange, StockCount
from service.engine.launcher import run_engines
from service.settings import Settings
from service.storage import keys
from service.storage.opening import open_store
from service.storage.partitioned import PartitionedStore
from service.storage.sender import CommandSender
from service.storage.transfers import Transfers, Wish
from tests.support.partitions import assert_nothing_is_lost, home_of, make_partitioned_store
from tests.support.shop import SHOP, new_mug, new_order

COUNT = 3


@pytest.fixture
async def store(redis: CommandSender) -> AsyncIterator[PartitionedStore]:
    store = make_partitioned_store(redis, count=COUNT)
    yield store
    await store.all.exchange.close()


def change(units: int, reason: str = "") -> StockChange:
    return StockChange.model_construct(change=units, reason=reason)


def price(amount: str) -> ProductChange:
    return ProductChange.model_validate({"price": Decimal(amount)})


async def add(store: PartitionedStore, stock: int = 10, **fields: object) -> int:
    return (await store.products.add(new_mug(stock=stock, **fields))).id


async def fields_of(redis: CommandSender, product_id: int, *fields: str) -> list[list[str | None]]:
    """Return these fields of a product in each partition."""
    names = [keys.product(keys.partition(SHOP, number), product_id) for number in range(COUNT)]
    return [await redis.send("HMGET", name, *fields) for name in names]


async def test_a_new_product_begins_with_the_same_units_in_each_partition(
    redis: CommandSender, store: PartitionedStore
) -> None:
    mugs = await add(store, 11)
    assert sorted(await fields_of(redis, mugs, "stock", "received")) == [["3", "3"], ["3", "3"], ["5", "5"]]
    assert (await store.products.get(mugs)).stock == 11
    await assert_nothing_is_lost(redis, store)


async def test_an_add_that_was_interrupted_ends_when_it_is_repeated(store: PartitionedStore) -> None:
    await home_of(store, 7).products.add(new_mug(id=7))
    with pytest.raises(ProductIdTaken):
        await store.products.add(new_mug(id=7))
    for _ in range(COUNT):
        assert (await store.products.get(7)).stock == new_mug().stock


async def test_ids_that_clients_choose_are_skipped_and_never_given_away_twice(store: PartitionedStore) -> None:
    assert [await add(store, id=2), await add(store), await add(store)] == [2, 1, 3]
    with pytest.raises(ProductIdTaken):
        await add(store, id=3)


@pytest.mark.parametrize("new", ["19.99", "20.00"])
async def test_all_partitions_have_a_change_when_it_is_answered_also_one_that_changes_nothing(
    redis: CommandSender, store: PartitionedStore, new: str
) -> None:
    mugs = await add(store)
    home = home_of(store, mugs).products
    await home.change(mugs, price(new))  # interrupted before it reached the others
    assert (await store.products.change(mugs, price(new))).price == round(Decimal(new) * 100)
    assert [row[0] for row in await fields_of(redis, mugs, "price")] == [new] * COUNT
    shop = keys.partition(SHOP, store.all.pushes.home(mugs))
    assert await redis.send("ZCARD", keys.unpropagated(shop)) == 0


async def test_a_changed_product_shows_the_stock_of_all_partitions(store: PartitionedStore) -> None:
    mugs = await add(store, 10)
    assert (await store.products.change(mugs, price("5.00"))).stock == 10
    page, _ = await store.products.list(ProductsQuery.model_construct(limit=10, after=0, in_stock=None))
    assert [product.stock for product in page] == [10]


async def test_rules_about_a_sale_reach_all_partitions_and_are_removed_from_all(
    redis: CommandSender, store: PartitionedStore
) -> None:
    mugs = await add(store, limit_per_customer=2)
    assert [row[0] for row in await fields_of(redis, mugs, "sale_rules")] == ["limit_per_customer: 2"] * COUNT
    await store.products.change(mugs, ProductChange.model_validate({"limit_per_customer": None}))
    assert [row[0] for row in await fields_of(redis, mugs, "sale_rules")] == [None] * COUNT


async def test_a_withdrawn_product_is_in_no_list_and_no_partition_sells_it(store: PartitionedStore) -> None:
    mugs = await add(store)
    await store.products.withdraw(mugs)
    page, _ = await store.products.list(ProductsQuery.model_construct(limit=10, after=0, in_stock=None))
    assert not page
    with pytest.raises(ProductNotFound):
        await store.products.get(mugs)
    for _ in range(COUNT):
        with pytest.raises(ProductsNotFound):
            await store.orders.place(new_order((mugs, 1)))


async def test_an_order_at_the_new_price_is_placed_though_its_partition_has_the_old_one(
    store: PartitionedStore,
) -> None:
    mugs = await add(store, price=2)
    await home_of(store, mugs).products.change(mugs, price("3.00"))
    for _ in range(COUNT):
        placed = await store.orders.place(new_order((mugs, 1), total_price=3))
        assert placed.order.total_price == 300
    with pytest.raises(PriceChanged):
        await store.orders.place(new_order((mugs, 1), total_price=2))


async def test_an_order_for_a_product_that_is_only_at_its_home_is_placed(store: PartitionedStore) -> None:
    [product] = [new_mug(id=7, stock=9)]
    await home_of(store, 7).products.add(product)
    for _ in range(COUNT):
        await store.orders.place(new_order((7, 1)))
    assert (await store.stock.levels(7)).stock == 6


async def test_the_sweeper_ends_a_change_that_was_interrupted(redis: CommandSender, store: PartitionedStore) -> None:
    mugs = await add(store)
    await home_of(store, mugs).products.change(mugs, price("3.00"))
    await store.deliver()
    assert [row[0] for row in await fields_of(redis, mugs, "price")] == ["3.00"] * COUNT


async def test_the_sweeper_of_another_worker_brings_units_that_were_given_and_not_taken(
    redis: CommandSender, store: PartitionedStore
) -> None:
    mugs = await add(store, 9)
    [transfer] = await store.all.exchange.partitions[0].give(2, "0", [Wish(mugs, 2, 0, 0)])
    assert (await store.products.get(mugs)).stock == 9  # units on their way count
    other = make_partitioned_store(redis, count=COUNT)
    await other.deliver()
    assert [row[0] for row in await fields_of(redis, mugs, "stock")] == ["1", "3", "5"]
    late = await store.all.exchange.partitions[2].take(0, [transfer])
    assert late == (transfer.id, 0)
    assert [row[0] for row in await fields_of(redis, mugs, "stock")] == ["1", "3", "5"]
    await assert_nothing_is_lost(redis, store)


async def test_units_on_their_way_are_sold(redis: CommandSender, store: PartitionedStore) -> None:
    mugs = await add(store, 3)
    transfers: list[Transfers] = store.all.exchange.partitions
    for source in (0, 1):
        await transfers[source].give(2, "0", [Wish(mugs, 1, 0, 0)])
    customer = next(name for name in map(str, range(99)) if crc32(name.encode()) % COUNT == 1)
    placed = await store.orders.place(new_order((mugs, 3), customer=customer))
    assert placed.order.id % COUNT == 1
    await assert_nothing_is_lost(redis, store)


# Stock


async def test_units_are_added_and_removed_wherever_they_are(redis: CommandSender, store: PartitionedStore) -> None:
    mugs = await add(store, 9)
    assert (await store.stock.change(mugs, change(-8))).product.stock == 1
    with pytest.raises(StockChangeRefusal) as refused:
        await store.stock.change(mugs, change(-2))
    assert refused.value.stock == 1  # type: ignore[attr-defined]
    assert (await store.stock.change(mugs, change(5))).product.stock == 6
    assert (await store.stock.change(mugs, StockCount.model_construct(count=2, reason="counted"))).product.stock == 2
    assert (await store.stock.levels(mugs))[:4] == (2, 0, 0, 2)
    await assert_nothing_is_lost(redis, store)


async def test_a_stock_change_with_a_key_is_made_once_and_its_refusal_is_remembered(store: PartitionedStore) -> None:
    mugs = await add(store, 9)
    assert not (await store.stock.change(mugs, change(-7), "one")).replayed
    again = await store.stock.change(mugs, change(-7), "one")
    assert (again.replayed, again.product.stock) == (True, 2)
    with pytest.raises(StockChangeRefusal):
        await store.stock.change(mugs, change(-3), "two")
    await store.stock.change(mugs, change(100))
    with pytest.raises(StockChangeRefusal) as refused:
        await store.stock.change(mugs, change(-3), "two")
    assert refused.value.replayed
    with pytest.raises(IdempotencyKeyReused):
        await store.stock.change(mugs, change(-4), "two")
    with pytest.raises(IdempotencyKeyReused):
        await store.orders.place(new_order((mugs, 1)), "one")


async def test_a_stock_change_of_an_absent_product_or_an_unexpected_stock_is_refused(store: PartitionedStore) -> None:
    mugs = await add(store, 9)
    for units in (-1, 1):
        with pytest.raises(StockChangeRefusal, match="99"):
            await store.stock.change(99, change(units))
    with pytest.raises(StockChangeRefusal):
        await store.stock.change(mugs, change(1), None, [8])
    assert (await store.stock.change(mugs, change(1), None, [8, 9])).product.stock == 10
    with pytest.raises(StockChangeRefusal):
        await store.stock.change(mugs, change(1_000_000_000))
    assert (await store.stock.levels(mugs)).stock == 10


# The number of partitions


async def test_the_number_of_partitions_cannot_be_changed(tmp_path: Path) -> None:
    with run_engines(tmp_path / "data", 4, "none") as url:
        four = replace(Settings(), redis_url=url, partitions=4, durability="none")
        async with open_store(four) as store:
            await store.products.add(new_mug())
        for count in (2, 3):
            async with open_store(replace(four, partitions=count)) as store:
                with pytest.raises(
                    UnsupportedRedis, match=f"is {count}.*data of a partition are missing, see docs/scale"
                ):
                    await store.products.add(new_mug())
        one = replace(four, partitions=1, redis_url=url.replace("{partition}", "0"))
        async with open_store(one) as store:
            with pytest.raises(UnsupportedRedis, match="has 4 partitions, but HOLDFAST_PARTITIONS is 1"):
                await store.products.add(new_mug())


async def test_a_shop_without_partitions_cannot_be_divided(redis: CommandSender, tmp_path: Path) -> None:
    with run_engines(tmp_path / "data", 2, "none") as url:
        one = replace(Settings(), redis_url=url.replace("{partition}", "0"), durability="none")
        async with open_store(one) as store:
            await store.products.add(new_mug())
        async with open_store(replace(one, redis_url=url, partitions=2)) as store:
            with pytest.raises(UnsupportedRedis, match="has no partitions, but HOLDFAST_PARTITIONS is 2"):
                await store.products.list(ProductsQuery.model_construct(limit=10, after=0, in_stock=None))
        await asyncio.sleep(0)


class Losing:
    """A sender that loses reads as soon as it is told to: nobody answers them."""

    def __init__(self, sender: CommandSender) -> None:
        self._sender = sender
        self.loses_reads = False

    def send(self, *command: bytes | str | int, safe_to_repeat: bool = False) -> Awaitable[Any]:
        if self.loses_reads and safe_to_repeat:
            return self._lose()
        return self._sender.send(*command, safe_to_repeat=safe_to_repeat)

    async def _lose(self) -> None:
        raise StorageUnavailable("no reply")


async def test_a_change_whose_result_cannot_be_read_is_not_called_undone(redis: CommandSender) -> None:
    sender = Losing(redis)
    store = make_partitioned_store(sender, count=COUNT)
    mugs = await add(store)
    await store.stock.change(mugs, change(1), "key")
    changes = (
        lambda: store.stock.change(mugs, change(1), "key"),
        lambda: store.products.change(mugs, price("7.00")),
        lambda: store.products.withdraw(mugs),
    )
    for make in changes:
        sender.loses_reads = True
        with pytest.raises(OutcomeUnknown):
            await make()
        sender.loses_reads = False
    await store.deliver()
    assert [row[0] for row in await fields_of(redis, mugs, "price")] == ["7.00"] * COUNT


async def test_an_order_that_no_partition_can_decide_is_answered_with_unavailable(redis: CommandSender) -> None:
    sender = Losing(redis)
    store = make_partitioned_store(sender, count=COUNT)
    mugs = await add(store, 3 + COUNT)
    for _ in range(COUNT):
        await store.orders.place(new_order((mugs, 1)))  # now each partition has reserved ids
    sender.loses_reads = True
    with pytest.raises(StorageUnavailable, match="does not answer"):
        await store.orders.place(new_order((mugs, 4)))
    with pytest.raises(StorageUnavailable, match="does not answer"):
        await store.orders.place(new_order((mugs, 4)), "key")
    sender.loses_reads = False
    await store.stock.change(mugs, change(1))
    await store.orders.place(new_order((mugs, 4)), "key")
    await assert_nothing_is_lost(redis, store)

"""Orders of a shop with partitions whose products change, or are added, while they are decided."""

from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal
from typing import Any

import pytest

from service.domain.errors.order_refusals import PriceChanged, ProductsNotFound
from service.domain.errors.storage import Overloaded, StorageUnavailable, UnsupportedRedis
from service.domain.requests import ProductChange, StockChange
from service.storage import keys
from service.storage.engine_check import EngineCheck
from service.storage.partitioned import PartitionedStore
from tests.support.fake_redis import FakeRedis
from tests.support.partitions import assert_nothing_is_lost, home_of, key_of, make_partitioned_store
from tests.support.shop import SHOP, make_store, new_mug, new_order
from tests.support.ways import COUNT, Way, works


@pytest.fixture
async def store(ways: list[Way]) -> AsyncIterator[PartitionedStore]:
    store = make_partitioned_store(*ways, count=COUNT, timeout=60)
    yield store
    await store.all.exchange.close()


def once(way: Way, script: str, work: Callable[[], Awaitable[object]]) -> None:
    """Do something when a script has run, before its reply arrives."""

    async def do(name: str, _: Any) -> None:
        if name == script:
            way.before_reply = None
            await work()

    way.before_reply = do


def price(amount: str) -> ProductChange:
    return ProductChange.model_validate({"price": Decimal(amount)})


async def test_an_order_is_not_refused_for_a_price_that_its_partition_has_not_any_more(
    ways: list[Way], store: PartitionedStore, undisturbed: PartitionedStore
) -> None:
    mugs = (await store.products.add(new_mug(stock=40, price=2))).id
    at = (mugs + 1) % COUNT
    await home_of(undisturbed, mugs).products.change(mugs, price("3.00"))
    once(ways[at], "place_order", lambda: undisturbed.all.pushes.push(mugs))
    placed = await store.orders.place(new_order((mugs, 1), total_price=3), key_of(store, at))
    assert placed.order.total_price == 300


async def test_an_order_is_not_refused_for_a_product_that_comes_while_it_is_decided(
    ways: list[Way], store: PartitionedStore, undisturbed: PartitionedStore
) -> None:
    await home_of(undisturbed, 77).products.add(new_mug(id=77, stock=40))
    at = 78 % COUNT
    once(ways[at], "place_order", lambda: undisturbed.all.pushes.push(77))
    await store.orders.place(new_order((77, 1)), key_of(store, at))


async def test_a_stock_change_is_not_refused_for_a_product_that_comes_while_it_is_decided(
    ways: list[Way], store: PartitionedStore, undisturbed: PartitionedStore
) -> None:
    await home_of(undisturbed, 77).products.add(new_mug(id=77, stock=40))
    at = 78 % COUNT
    once(ways[at], "move_stock", lambda: undisturbed.all.pushes.push(77))
    changed = await store.stock.change(77, StockChange.model_construct(change=2, reason=""), key_of(store, at))
    assert changed.product.stock == 42


@pytest.mark.parametrize(("partition", "placings"), [(1, 1), (2, 2)])
async def test_an_order_that_is_refused_is_tried_once_more_unless_the_product_is_changed_there(
    ways: list[Way], store: PartitionedStore, partition: int, placings: int
) -> None:
    mugs = (await store.products.add(new_mug(id=1, price=2))).id
    await store.orders.place(new_order((mugs, 1)), key_of(store, partition, "first"))  # now Redis has the script
    for order, refusal in ((new_order((mugs, 1), total_price=3), PriceChanged), (new_order((5, 1)), ProductsNotFound)):
        ways[partition].ran.clear()
        with pytest.raises(refusal):
            await store.orders.place(order, key_of(store, partition, refusal.__name__))
        assert ways[partition].ran.count("place_order") == placings


async def test_an_order_gets_the_units_of_a_product_whose_add_was_interrupted(
    fake_redis: FakeRedis, store: PartitionedStore
) -> None:
    await home_of(store, 77).products.add(new_mug(id=77, stock=8))  # 2 units are there, and 6 come with the push
    await store.orders.place(new_order((77, 5)), key_of(store, 77 % COUNT))
    assert (await store.stock.levels(77)).stock == 3
    await assert_nothing_is_lost(fake_redis, store)


async def test_units_are_removed_from_a_product_whose_add_was_interrupted(
    fake_redis: FakeRedis, store: PartitionedStore
) -> None:
    await home_of(store, 77).products.add(new_mug(id=77, stock=8))
    change = StockChange.model_construct(change=-5, reason="")
    assert (await store.stock.change(77, change, key_of(store, 77 % COUNT))).product.stock == 3
    await assert_nothing_is_lost(fake_redis, store)


async def test_an_order_is_not_refused_if_its_product_does_not_reach_all_partitions_in_time(ways: list[Way]) -> None:
    store = make_partitioned_store(*ways, count=COUNT, timeout=0.5)
    await home_of(store, 77).products.add(new_mug(id=77, stock=8))
    ways[2].fails = lambda name: Overloaded("no room") if name == "push_product" else None
    with pytest.raises(StorageUnavailable):
        await store.orders.place(new_order((77, 8)), key_of(store, 77 % COUNT))
    ways[2].fails = works
    await store.orders.place(new_order((77, 8)), key_of(store, 77 % COUNT))
    await store.all.exchange.close()


async def test_of_two_services_that_begin_a_shop_with_different_numbers_of_partitions_one_is_refused(
    fake_redis: FakeRedis, ways: list[Way]
) -> None:
    first, second = [make_store(ways[0], engine_check=EngineCheck(SHOP, "none", partitions=count)) for count in (4, 8)]
    once(ways[0], "HMGET", second.check)  # the first has seen that there is no shop
    with pytest.raises(UnsupportedRedis, match="has 8 partitions, but HOLDFAST_PARTITIONS is 4"):
        await first.check()
    await second.check()
    assert await fake_redis.send("HGET", keys.meta(SHOP), "partitions") == "8"

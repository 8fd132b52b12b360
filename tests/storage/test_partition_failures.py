"""What a shop with partitions answers if one of them does not answer, or has no room for more commands."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from service.domain.errors.obstacles import TooLittleStock
from service.domain.errors.order_refusals import InsufficientStock, ProductsNotFound
from service.domain.errors.remembered_refusals import RememberedRefusal
from service.domain.errors.stock_refusals import StockChangeRefusal
from service.domain.errors.storage import (
    OutcomeUnknown,
    Overloaded,
    StorageError,
    StorageUnavailable,
    UnsupportedRedis,
)
from service.domain.requests import NewOrder, ProductChange, StockChange
from service.ops.audit_partitions import audit_whole_shop
from service.storage import keys
from service.storage.partitioned import PartitionedStore
from service.storage.sender import ErrorReply
from service.storage.transfers import Wish
from tests.support.fake_redis import FakeRedis
from tests.support.partitions import assert_nothing_is_lost, home_of, make_partitioned_store
from tests.support.shop import SHOP, new_mug, new_order
from tests.support.waiting import eventually
from tests.support.ways import COUNT, Way, works
from tests.support.ways import SILENT_SECONDS as TIMEOUT


@pytest.fixture
async def store(ways: list[Way]) -> AsyncIterator[PartitionedStore]:
    store = make_partitioned_store(*ways, count=COUNT, timeout=TIMEOUT)
    yield store
    await store.all.exchange.close()


@pytest.fixture
async def patient_store(ways: list[Way]) -> AsyncIterator[PartitionedStore]:
    """A store that does not give up, however busy the machine is."""
    store = make_partitioned_store(*ways, count=COUNT, timeout=60)
    yield store
    await store.all.exchange.close()


async def add(store: PartitionedStore, stock: int) -> int:
    return (await store.products.add(new_mug(stock=stock))).id


def change(units: int) -> StockChange:
    return StockChange.model_construct(change=units, reason="")


ERRORS = [StorageUnavailable, Overloaded, UnsupportedRedis]


@pytest.mark.parametrize("error", ERRORS)
async def test_a_stock_change_that_was_made_is_never_answered_with_nothing_was_done(
    ways: list[Way], store: PartitionedStore, error: type[StorageError]
) -> None:
    mugs = await add(store, 8)
    looks = 0

    def fails(name: str) -> StorageError | None:
        """Let everything fail from the second look at a partition on: it comes after the change."""
        nonlocal looks
        looks += name == "HMGET"
        return error("no reply") if looks > 1 else None

    ways[3].fails = fails  # the change is made in another one
    with pytest.raises(OutcomeUnknown):
        await store.stock.change(mugs, change(5))
    ways[3].fails = works
    assert (await store.stock.levels(mugs)).stock == 13


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("failing", ["push_product", "HMGET", "note_propagated"])
async def test_a_change_of_a_product_that_was_made_is_never_answered_with_nothing_was_done(
    ways: list[Way], store: PartitionedStore, error: type[StorageError], failing: str
) -> None:
    mugs = await add(store, 8)
    for way in ways:
        way.fails = lambda name: error("no reply") if name == failing else None
    for verb in (
        store.products.change(mugs, ProductChange.model_validate({"name": "Cup"})),
        store.products.withdraw(mugs),
        store.products.add(new_mug()),
    ):
        with pytest.raises(OutcomeUnknown):
            await verb
    for way in ways:
        way.fails = works
    await store.deliver()
    assert [await store.products.read_many([mugs]) for _ in range(COUNT)] == [[None]] * COUNT
    assert {(await store.products.get(mugs + 1)).name for _ in range(COUNT)} == {"Mug"}


async def test_an_order_is_placed_with_the_units_of_the_partitions_that_answer(
    fake_redis: FakeRedis, ways: list[Way], store: PartitionedStore
) -> None:
    mugs = await add(store, 40)
    ways[3].is_silent = True
    placed = await store.orders.place(new_order((mugs, 25)), "key-1")
    assert placed.order.id % COUNT != 3
    with pytest.raises(StorageUnavailable):  # 15 are left, 10 of them in the silent partition
        await store.orders.place(new_order((mugs, 7)), "key-1b")
    ways[3].is_silent = False
    await store.orders.place(new_order((mugs, 7)), "key-1b")
    with pytest.raises(InsufficientStock):
        await store.orders.place(new_order((mugs, 9)), "key-2")
    await assert_nothing_is_lost(fake_redis, store)


async def test_an_order_that_may_run_anywhere_is_placed_although_a_partition_does_not_answer(
    ways: list[Way], store: PartitionedStore
) -> None:
    mugs = await add(store, 40)
    ways[2].is_silent = True
    found = {(await store.orders.place(new_order((mugs, 1)))).order.id % COUNT for _ in range(8)}
    assert found == {0, 1, 3}


@pytest.mark.parametrize("error", ERRORS)
async def test_an_order_that_may_run_anywhere_is_placed_although_a_partition_cannot_be_used(
    ways: list[Way], store: PartitionedStore, error: type[StorageError]
) -> None:
    mugs = await add(store, 40)
    ways[2].fails = lambda name: error("not now") if name == "place_order" else None
    found = {(await store.orders.place(new_order((mugs, 1)))).order.id % COUNT for _ in range(8)}
    assert found == {0, 1, 3}


@pytest.mark.parametrize("error", ERRORS)
async def test_an_order_that_may_run_anywhere_fails_if_no_partition_can_be_used(
    ways: list[Way], store: PartitionedStore, error: type[StorageError]
) -> None:
    mugs = await add(store, 40)
    for way in ways:
        way.fails = lambda name: error("not now") if name == "place_order" else None
        way.ran.clear()
    with pytest.raises(error):
        await store.orders.place(new_order((mugs, 1)))
    assert [way.ran.count("place_order") for way in ways] == [1] * COUNT


async def test_an_order_without_a_key_is_not_tried_for_longer_than_a_command_may_take(fake_redis: FakeRedis) -> None:
    ways = [Way(fake_redis) for _ in range(12)]
    store = make_partitioned_store(*ways, count=12, timeout=TIMEOUT)
    mugs = await add(store, 12)
    ways[5].is_silent = True
    begin = time.monotonic()
    with pytest.raises(StorageUnavailable):  # nobody knows whether there are 13
        await store.orders.place(new_order((mugs, 13)))
    assert time.monotonic() - begin < 3 * TIMEOUT
    await store.all.exchange.close()


@pytest.mark.parametrize("order", [new_order((1, 9)), new_order((99, 1))])
async def test_a_refusal_that_a_key_may_remember_is_not_called_undone(
    ways: list[Way], patient_store: PartitionedStore, order: NewOrder
) -> None:
    await add(patient_store, 8)
    for way in ways:
        way.loses_reply_to = "refuse"
    with pytest.raises(OutcomeUnknown):
        await patient_store.orders.place(order, "key-1")
    for way in ways:
        way.loses_reply_to = ""
    await patient_store.products.add(new_mug(id=99))
    await patient_store.stock.change(1, change(5))
    with pytest.raises((InsufficientStock, ProductsNotFound)) as refusal:
        await patient_store.orders.place(order, "key-1")
    assert isinstance(refusal.value, RememberedRefusal)
    assert refusal.value.replayed


async def test_a_refusal_of_a_stock_change_that_a_key_may_remember_is_not_called_undone(
    ways: list[Way], patient_store: PartitionedStore
) -> None:
    mugs = await add(patient_store, 8)
    for way in ways:
        way.loses_reply_to = "refuse"
    with pytest.raises(OutcomeUnknown):
        await patient_store.stock.change(mugs, change(-9), "key-1")
    for way in ways:
        way.loses_reply_to = ""
    await patient_store.stock.change(mugs, change(5))
    with pytest.raises(StockChangeRefusal) as refusal:
        await patient_store.stock.change(mugs, change(-9), "key-1")
    assert refusal.value.replayed


async def test_a_repeated_stock_change_is_not_called_undone_if_its_first_result_cannot_be_read(
    ways: list[Way], patient_store: PartitionedStore
) -> None:
    mugs = await add(patient_store, 8)
    await patient_store.stock.change(mugs, change(-8), "key-1")
    for way in ways:
        way.fails = lambda name: StorageUnavailable("no reply") if name == "refuse" else None
    with pytest.raises(OutcomeUnknown):  # the stock is too low now, but only the key knows that the change was made
        await patient_store.stock.change(mugs, change(-8), "key-1")
    for way in ways:
        way.fails = works
    assert (await patient_store.stock.change(mugs, change(-8), "key-1")).replayed


async def test_a_stock_change_is_undone_if_the_product_does_not_reach_its_partition(
    fake_redis: FakeRedis, ways: list[Way], patient_store: PartitionedStore
) -> None:
    mugs = await add(patient_store, 8)
    key = next(key for key in map(str, range(99)) if patient_store.all.of_text(key) != mugs % COUNT)
    await fake_redis.send("DEL", keys.product(keys.partition(SHOP, patient_store.all.of_text(key)), mugs))
    for way in ways:
        way.loses_reply_to = "push_product"
    with pytest.raises(StorageUnavailable):
        await patient_store.stock.change(mugs, change(1), key)


async def test_a_silent_partition_does_not_delay_units_on_their_way_between_others(
    fake_redis: FakeRedis, ways: list[Way], patient_store: PartitionedStore
) -> None:
    mugs = await add(patient_store, 8)
    transfers = patient_store.all.exchange.partitions
    for source in (0, 1, 2):
        for to in (3, (source + 1) % 3):
            await transfers[source].give(to, "0", [Wish(mugs, 1, 0, 0)])
    ways[3].is_silent = True
    ways[3].silent_seconds = 3600
    delivering = asyncio.create_task(patient_store.deliver())

    async def others_have_arrived() -> bool:
        names = [keys.outgoing(keys.partition(SHOP, number), (number + 1) % 3) for number in range(3)]
        return not any([await fake_redis.send("ZCARD", name) for name in names])

    await eventually(others_have_arrived)
    delivering.cancel()
    ways[3].is_silent = False
    await assert_nothing_is_lost(fake_redis, patient_store)


async def test_a_delivery_that_fails_names_the_partition(ways: list[Way], patient_store: PartitionedStore) -> None:
    mugs = await add(patient_store, 8)
    for number, failing in ((2, "read_outgoing"), (3, "take_units")):
        await patient_store.all.exchange.partitions[0].give(3, "0", [Wish(mugs, 1, 0, 0)])
        ways[number].fails = lambda name, failing=failing: (  # type: ignore[misc]
            StorageUnavailable("no reply") if name == failing else None
        )
        with pytest.raises(StorageUnavailable, match=f"^partition {number}: no reply"):
            await patient_store.deliver()
        ways[number].fails = works


async def test_a_product_that_cannot_be_pushed_keeps_no_other_from_being_pushed(
    fake_redis: FakeRedis, patient_store: PartitionedStore
) -> None:
    store = patient_store
    products = [await add(store, 4) for _ in range(6)]
    for product_id in products:
        await home_of(store, product_id).products.change(product_id, ProductChange.model_validate({"name": "Cup"}))
    damaged = keys.product(keys.partition(SHOP, (products[0] + 1) % COUNT), products[0])
    await fake_redis.send("DEL", damaged)
    await fake_redis.send("SET", damaged, "x")
    with pytest.raises(ErrorReply, match="WRONGTYPE"):
        await store.deliver()
    left = [await fake_redis.send("ZRANGE", keys.unpropagated(keys.partition(SHOP, n)), 0, -1) for n in range(COUNT)]
    assert [product_id for found in left for product_id in found] == [str(products[0])]


async def test_damaged_data_are_reported_although_a_partition_does_not_answer(
    fake_redis: FakeRedis, ways: list[Way], patient_store: PartitionedStore
) -> None:
    mugs = await add(patient_store, 4)
    await home_of(patient_store, mugs).products.change(mugs, ProductChange.model_validate({"name": "Cup"}))
    damaged = keys.product(keys.partition(SHOP, (mugs + 1) % COUNT), mugs)
    await fake_redis.send("DEL", damaged)
    await fake_redis.send("SET", damaged, "x")
    ways[(mugs + 2) % COUNT].fails = lambda name: StorageUnavailable("no reply") if name == "read_outgoing" else None
    with pytest.raises(ErrorReply, match="WRONGTYPE"):
        await patient_store.deliver()


async def test_an_order_gets_units_that_are_on_their_way_elsewhere_although_a_partition_is_silent(
    fake_redis: FakeRedis, ways: list[Way], patient_store: PartitionedStore
) -> None:
    mugs = await add(patient_store, 3)
    [home] = [number for number in range(COUNT) if number == mugs % COUNT]
    key = next(key for key in map(str, range(99)) if patient_store.all.of_text(key) not in (home, 3))
    transfers = patient_store.all.exchange.partitions
    other = next(number for number in range(3) if number not in (home, patient_store.all.of_text(key)))
    await transfers[home].give(other, "0", [Wish(mugs, 3, 0, 0)])
    ways[3].is_silent = True
    await patient_store.orders.place(new_order((mugs, 3)), key)
    ways[3].is_silent = False
    await assert_nothing_is_lost(fake_redis, patient_store)


async def test_no_stock_is_shown_below_0_although_a_failover_has_doubled_units(
    fake_redis: FakeRedis, patient_store: PartitionedStore
) -> None:
    mugs = await add(patient_store, 8)
    await patient_store.orders.place(new_order((mugs, 8)))
    # Partition 0 has taken in two units, but the partition that gave them does not know of that any more.
    name = keys.product(keys.partition(SHOP, 0), mugs)
    for field in ("moved", "received", "sold"):
        await fake_redis.send("HINCRBY", name, field, 2)
    levels = await patient_store.stock.levels(mugs)
    assert (levels.stock, levels.received) == (0, levels.held + levels.sold)
    [row] = await patient_store.board.products([mugs])
    assert row is not None
    assert row.stock == 0
    changed = await patient_store.stock.change(mugs, change(5))
    assert changed.product.stock >= 0


async def test_units_that_a_failover_has_lost_are_written_off_as_the_document_says(
    fake_redis: FakeRedis, store: PartitionedStore, patient_store: PartitionedStore
) -> None:
    mugs = await add(patient_store, 8)
    [transfer] = await patient_store.all.exchange.partitions[0].give(1, "0", [Wish(mugs, 2, 0, 0)])
    await fake_redis.send("ZREM", keys.outgoing(keys.partition(SHOP, 0), 1), f"{transfer.id} {mugs} {transfer.units}")
    with pytest.raises(StorageUnavailable):  # as far as the partitions know, the units are on their way
        await store.orders.place(new_order((mugs, 7)))
    [finding] = (await audit_whole_shop(patient_store, SHOP)).findings
    assert f"off by {-transfer.units:+} units" in finding.what
    await fake_redis.send("HINCRBY", keys.product(keys.partition(SHOP, 0), mugs), "moved", transfer.units)
    assert (await audit_whole_shop(patient_store, SHOP)).findings == []
    with pytest.raises(InsufficientStock) as refusal:
        await patient_store.orders.place(new_order((mugs, 7)))
    [line] = refusal.value.lines
    assert line.obstacle == TooLittleStock(available=8 - transfer.units)
    await patient_store.orders.place(new_order((mugs, 6)))

"""Messages between partitions are lost, or come late: no unit is lost, and no order is refused wrongly."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from service.domain.errors.storage import OutcomeUnknown, StorageUnavailable
from service.domain.requests import StockChange
from service.metrics.families import ROUNDS
from service.storage import keys
from service.storage.partitioned import PartitionedStore
from service.storage.transfers import Wish
from tests.support.fake_redis import FakeRedis
from tests.support.partitions import assert_nothing_is_lost, key_of, make_partitioned_store
from tests.support.shop import SHOP, add_mugs, new_order
from tests.support.waiting import eventually
from tests.support.ways import Way, works

COUNT = 2


@pytest.fixture
def ways(fake_redis: FakeRedis) -> list[Way]:
    return [Way(fake_redis) for _ in range(COUNT)]


@pytest.fixture
async def store(ways: list[Way]) -> AsyncIterator[PartitionedStore]:
    store = make_partitioned_store(*ways, count=COUNT, timeout=20)
    yield store
    await store.all.exchange.close()


def change(units: int) -> StockChange:
    return StockChange.model_construct(change=units, reason="")


async def move_one(store: PartitionedStore, product_id: int) -> None:
    """Move a unit from partition 0 to partition 1."""
    await store.all.exchange.deliveries.move({(0, 1): {product_id: Wish(product_id, 1, 0, 0)}})


async def test_units_whose_give_was_not_answered_arrive_with_the_next_transfer(
    fake_redis: FakeRedis, ways: list[Way], store: PartitionedStore
) -> None:
    mugs = await add_mugs(store, 8)
    ways[0].loses_reply_to = "give_units"
    await move_one(store, mugs)
    ways[0].loses_reply_to = ""
    await move_one(store, mugs)

    name = keys.product(keys.partition(SHOP, 1), mugs)
    await eventually(lambda: fake_redis.send("HEXISTS", name, "moved"), "the units")
    assert await fake_redis.send("HGET", name, "moved") == "2"
    await assert_nothing_is_lost(fake_redis, store)


async def test_a_transfer_does_not_settle_an_earlier_one_that_may_not_have_arrived(
    fake_redis: FakeRedis, ways: list[Way], store: PartitionedStore
) -> None:
    mugs = await add_mugs(store, 8)
    ways[1].fails = lambda name: StorageUnavailable("no reply") if name == "take_units" else None
    await move_one(store, mugs)
    await eventually(lambda: "take_units" in ways[1].ran)
    ways[1].fails = works
    await move_one(store, mugs)
    await assert_nothing_is_lost(fake_redis, store)


async def test_a_new_transfer_is_taken_in_if_its_source_lost_an_earlier_one_in_a_failover(
    fake_redis: FakeRedis, store: PartitionedStore
) -> None:
    mugs = await add_mugs(store, 8)
    transfers = store.all.exchange.partitions
    assert (await transfers[1].take(0, await transfers[0].give(1, "0", [Wish(mugs, 2, 0, 0)]))).units == 2
    source = keys.partition(SHOP, 0)
    await fake_redis.send("DEL", keys.sent(source), keys.outgoing(source, 1))  # as if the replica had not had them
    assert (await transfers[1].take(0, await transfers[0].give(1, "0", [Wish(mugs, 1, 0, 0)]))).units == 1


async def test_an_order_is_not_refused_because_of_a_look_that_began_before_it(
    ways: list[Way], store: PartitionedStore, undisturbed: PartitionedStore
) -> None:
    mugs = await add_mugs(store, 0)
    # After this order, partition 1 has order ids.
    await store.orders.place(new_order((await add_mugs(store), 1)), key_of(store, 1, "first"))
    has_seen_0 = asyncio.Event()
    late: list[asyncio.Task[object]] = []

    async def note_reading(name: str, _: object) -> None:
        if name == "HMGET":
            has_seen_0.set()

    async def add_a_unit_where_the_look_was(name: str) -> None:
        if name == "HMGET" and not late:
            await has_seen_0.wait()
            await undisturbed.stock.change(mugs, change(1), key_of(store, 0, "add"))
            rounds_before = rounds_of(store)
            late.append(asyncio.create_task(store.orders.place(new_order((mugs, 1)), key_of(store, 1, "late"))))
            await eventually(lambda: rounds_of(store) > rounds_before, "the order that waits for units")

    ways[0].before_reply, ways[1].before_run = note_reading, add_a_unit_where_the_look_was
    await asyncio.gather(store.orders.place(new_order((mugs, 1)), key_of(store, 0)), return_exceptions=True)
    ways[0].before_reply = ways[1].before_run = None
    await late[0]


def rounds_of(store: PartitionedStore) -> float:
    """Return how often orders have begun to wait for units."""
    [rounds] = [sum(numbers[()]) for family, numbers in store.metrics.read() if family is ROUNDS]
    return rounds


async def test_a_request_that_another_worker_has_done_meanwhile_is_not_refused(
    ways: list[Way], store: PartitionedStore, undisturbed: PartitionedStore
) -> None:
    mugs = await add_mugs(store, 1)
    key = key_of(store, 0)

    async def place_it(name: str) -> None:
        if name == "refuse":
            ways[0].before_run = None
            await undisturbed.stock.change(mugs, change(1))
            await undisturbed.orders.place(new_order((mugs, 2)), key)

    ways[0].before_run = place_it
    assert (await store.orders.place(new_order((mugs, 2)), key)).replayed


async def test_an_order_that_may_have_been_placed_is_not_placed_in_another_partition(
    ways: list[Way], store: PartitionedStore, undisturbed: PartitionedStore
) -> None:
    mugs = await add_mugs(store, 8)
    ways[0].loses_reply_to = ways[1].loses_reply_to = "place_order"
    with pytest.raises(OutcomeUnknown):
        await store.orders.place(new_order((mugs, 1)))
    assert (await undisturbed.stock.levels(mugs)).sold == 1


async def test_units_on_their_way_can_be_removed_from_the_stock(fake_redis: FakeRedis, store: PartitionedStore) -> None:
    mugs = await add_mugs(store, 8)
    await store.all.exchange.partitions[0].give(1, "0", [Wish(mugs, 4, 0, 0)])
    assert (await store.stock.change(mugs, change(-8))).product.stock == 0
    await assert_nothing_is_lost(fake_redis, store)

"""What partitions believe only if a replica has it, and claims: units could be doubled, or taken for ever, without."""

from collections.abc import AsyncIterator
from decimal import Decimal

import pytest

from service.domain.errors.storage import OutcomeUnknown, StorageUnavailable
from service.domain.requests import ProductChange, StockChange
from service.storage import keys
from service.storage.connection import MultiplexedConnection
from service.storage.engine_check import EngineCheck
from service.storage.partitioned import PartitionedStore
from service.storage.replication import Replication
from service.storage.sender import CommandSender
from service.storage.transfers import Wish
from tests.support.fake_redis import FakeRedis
from tests.support.partitions import assert_nothing_is_lost, home_of, key_of, make_partitioned_store
from tests.support.shop import SHOP, add_mugs, new_mug, new_order
from tests.support.waiting import eventually
from tests.support.ways import Way

COUNT = 2


@pytest.fixture
async def store(engine: MultiplexedConnection) -> AsyncIterator[PartitionedStore]:
    store = make_partitioned_store(engine, count=COUNT, timeout=20)
    yield store
    await store.all.exchange.close()


@pytest.fixture
def replication() -> Replication:
    """A Replication that waits for a replica. There is no replica, as if a primary had been cut off and replaced."""
    return Replication(1, keys.partition(SHOP, 0), timeout=0.5)


@pytest.fixture
async def connection(engine_url: str, replication: Replication) -> AsyncIterator[MultiplexedConnection]:
    """A connection over which no change is confirmed."""
    async with MultiplexedConnection(engine_url, timeout=0.5, max_in_flight=1000, replication=replication) as opened:
        yield opened


def waiting_store(*senders: CommandSender) -> PartitionedStore:
    """Return a store that waits for replicas. Each of its partitions uses one of the senders."""
    checks = EngineCheck(SHOP, "none", waits_for_replicas=True)
    return make_partitioned_store(*senders, count=COUNT, timeout=0.5, engine_check=checks)


@pytest.fixture
async def without_replica(connection: MultiplexedConnection) -> AsyncIterator[PartitionedStore]:
    """A store whose partitions have no replica."""
    store = waiting_store(connection)
    yield store
    await store.all.exchange.close()


@pytest.fixture
async def half_without(
    engine: MultiplexedConnection, connection: MultiplexedConnection
) -> AsyncIterator[PartitionedStore]:
    """A store whose partition 0 waits for no replica. Its partition 1 waits for a replica, but there is none."""
    store = waiting_store(engine, connection)
    yield store
    await store.all.exchange.close()


async def test_a_look_is_not_believed_that_no_replica_confirms(
    store: PartitionedStore, without_replica: PartitionedStore
) -> None:
    mugs = await add_mugs(store, 4)
    assert None not in await store.all.exchange.looks.look([mugs])
    assert await without_replica.all.exchange.looks.look([mugs]) == [None] * COUNT


async def test_a_stock_change_is_not_refused_after_a_look_that_no_replica_confirms(
    store: PartitionedStore, without_replica: PartitionedStore
) -> None:
    mugs = await add_mugs(store, 4)
    with pytest.raises(StorageUnavailable):
        await without_replica.stock.change(mugs, StockChange.model_construct(change=-5, reason=""))


async def test_a_product_is_not_called_unknown_after_a_look_at_its_home_that_no_replica_confirms(
    half_without: PartitionedStore,
) -> None:
    assert half_without.all.pushes.home(99) == 1
    with pytest.raises(StorageUnavailable):
        await half_without.orders.place(new_order((99, 1)), key_of(half_without, 0))


async def test_a_refusal_that_no_replica_has_is_not_answered(
    store: PartitionedStore, connection: MultiplexedConnection, replication: Replication
) -> None:
    mugs = await add_mugs(store, 4)
    way = Way(connection)

    async def lose_the_replica_at_last(name: str) -> None:
        replication.replicas = 1 if name == "refuse" else 0

    way.before_run = lose_the_replica_at_last
    waiting = waiting_store(way)
    with pytest.raises(OutcomeUnknown):
        await waiting.orders.place(new_order((mugs, 5)), "key")
    assert "refuse" in way.ran
    await waiting.all.exchange.close()


async def test_a_sweeper_brings_no_units_of_which_no_replica_knows_that_they_were_given(
    store: PartitionedStore, without_replica: PartitionedStore
) -> None:
    mugs = await add_mugs(store, 4)
    await store.all.exchange.partitions[0].give(1, "0", [Wish(mugs, 2, 0, 0)])
    with pytest.raises((OutcomeUnknown, StorageUnavailable)):
        await without_replica.deliver()
    assert [units.stock for units in await store.all.exchange.partitions[1].units([mugs])] == [2]


async def test_a_change_is_not_pushed_that_no_replica_of_its_home_has(
    store: PartitionedStore, without_replica: PartitionedStore
) -> None:
    mugs = await add_mugs(store, 4)
    await home_of(store, mugs).products.change(mugs, ProductChange.model_validate({"price": Decimal("3.00")}))
    other = store.partitions[(mugs + 1) % COUNT].products
    before = (await other.get(mugs)).price
    with pytest.raises(OutcomeUnknown):
        await without_replica.all.pushes.push(mugs)
    assert (await other.get(mugs)).price == before
    await store.deliver()
    assert (await other.get(mugs)).price == 300


async def test_a_change_counts_as_unpropagated_if_no_replica_of_another_partition_has_it(
    engine: MultiplexedConnection, store: PartitionedStore, half_without: PartitionedStore
) -> None:
    await store.products.add(new_mug(id=2))
    await home_of(store, 2).products.change(2, ProductChange.model_validate({"price": Decimal("3.00")}))
    with pytest.raises(OutcomeUnknown):
        await half_without.all.pushes.push(2)
    assert await engine.send("ZCARD", keys.unpropagated(keys.partition(SHOP, 0))) == 1


async def test_units_are_not_settled_if_no_replica_knows_that_they_arrived(
    engine: MultiplexedConnection, store: PartitionedStore, half_without: PartitionedStore
) -> None:
    mugs = await add_mugs(store, 4)
    await store.all.exchange.partitions[0].give(1, "0", [Wish(mugs, 2, 0, 0)])
    with pytest.raises((OutcomeUnknown, StorageUnavailable)):
        await half_without.deliver()
    assert await engine.send("ZCARD", keys.outgoing(keys.partition(SHOP, 0), 1)) == 1
    await assert_nothing_is_lost(engine, store)


async def test_units_that_are_given_are_not_taken_if_no_replica_knows_that_they_left(
    store: PartitionedStore, without_replica: PartitionedStore
) -> None:
    mugs = await add_mugs(store, 4)
    with pytest.raises(OutcomeUnknown):
        await without_replica.all.exchange.partitions[0].give(1, "0", [Wish(mugs, 2, 0, 0)])
    assert [units.stock for units in await store.all.exchange.partitions[1].units([mugs])] == [2]


async def test_an_order_claims_units_that_another_partition_takes_from_it_again_and_again() -> None:
    redis = FakeRedis()
    ways = [Way(redis) for _ in range(COUNT)]
    store, thief = make_partitioned_store(*ways, count=COUNT, timeout=5), make_partitioned_store(redis, count=COUNT)
    mugs, pots = await add_mugs(store, 2), await add_mugs(store, 2)  # one unit in each partition
    await store.orders.place(new_order((pots, 1)), key_of(store, 0, "first"))  # now Redis has the script

    async def has_units() -> bool:
        [units] = await thief.all.exchange.partitions[0].units([mugs])
        return units.stock > 0

    async def take_a_unit_away(name: str) -> None:
        if name == "place_order":
            await eventually(has_units)  # those that were given to partition 0 arrive together with the order
            transfers = await thief.all.exchange.partitions[0].give(1, "0", [Wish(mugs, 1, 0, 0)])
            if transfers:
                taken = await thief.all.exchange.partitions[1].take(0, transfers)
                await thief.all.exchange.partitions[0].settle(1, taken.id)

    ways[0].before_run = take_a_unit_away
    placed = await store.orders.place(new_order((mugs, 2)), key_of(store, 0))
    assert placed.order.id % COUNT == 0
    ways[0].before_run = None
    await assert_nothing_is_lost(redis, store)
    await store.all.exchange.close()

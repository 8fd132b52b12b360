"""Shops on a real Redis Cluster of three nodes: where their commands go, also while slots move and nodes are away."""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from service.domain.errors.refusals import OrderArchived
from service.domain.errors.storage import OutcomeUnknown, StorageUnavailable, UnsupportedRedis
from service.ops.audit import audit
from service.settings import Settings
from service.storage import keys
from service.storage.cluster_topology import slot_of
from service.storage.opening import open_stores
from service.storage.partitioned import AnyStore, PartitionedStore
from service.storage.transfers import Wish
from tests.support.cluster import ClusterNode, EngineCluster, engine_cluster, move_at_once, move_key_by_key
from tests.support.processes import free_port
from tests.support.replicas import ReplicatedEngine
from tests.support.shop import new_mug, new_order
from tests.support.waiting import eventually

pytestmark = [pytest.mark.engine, pytest.mark.process, pytest.mark.slow]

STOCK = 1_000_000
_names = count(1)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineCluster]:
    with engine_cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture(scope="module")
def plain_engine_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    engine = ReplicatedEngine(tmp_path_factory.mktemp("plain"))
    yield engine.port
    engine.kill()


def settings_for(cluster: EngineCluster, **changes: Any) -> Settings:
    return replace(Settings(), redis_url=cluster.url, durability="none", **changes)


def new_shops(cluster: EngineCluster) -> list[str]:
    """Return the names of three shops, one for each node."""
    return [cluster.shop_at(number, f"test{next(_names)}-") for number in range(3)]


@asynccontextmanager
async def opened(cluster: EngineCluster, **changes: Any) -> AsyncIterator[tuple[str, AnyStore]]:
    """Yield a new shop at the first node, with one product."""
    shop = cluster.shop_at(0, f"test{next(_names)}-")
    async with open_stores(settings_for(cluster, **changes), [shop]) as stores:
        await stores[shop].products.add(new_mug(id=1, stock=STOCK))
        yield shop, stores[shop]


async def order(store: AnyStore, key: str | None = None) -> int:
    return (await store.orders.place(new_order((1, 1)), key)).order.id


class Buyers:
    """Buyers that order without a pause, each with a key of its own, and never repeat a request."""

    def __init__(self, store: AnyStore) -> None:
        self._store = store
        self._numbers = count(1)
        self._stopping = False
        self.placed: set[int] = set()
        self.errors: Counter[str] = Counter()

    async def __aenter__(self) -> "Buyers":
        self._tasks = [asyncio.create_task(self._buy()) for _ in range(8)]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let each buyer finish its order. Raise TimeoutError if one is never answered."""
        self._stopping = True
        async with asyncio.timeout(20):
            await asyncio.gather(*self._tasks)

    async def _buy(self) -> None:
        while not self._stopping:
            try:
                self.placed.add(await order(self._store, f"key-{next(self._numbers)}"))
            except (StorageUnavailable, OutcomeUnknown) as error:
                self.errors[repr(error)] += 1
                await asyncio.sleep(0.01)

    async def more(self) -> None:
        """Wait for twenty more orders."""
        wanted = len(self.placed) + 20
        await eventually(lambda: len(self.placed) >= wanted, "more orders")


async def test_each_shop_is_on_the_node_with_its_slot_and_nowhere_else(cluster: EngineCluster) -> None:
    shops = new_shops(cluster)
    async with open_stores(settings_for(cluster), shops) as stores:
        for shop in shops:
            await stores[shop].products.add(new_mug(id=1, stock=5))
            await order(stores[shop])
        assert [(await stores[shop].products.get(1)).stock for shop in shops] == [4, 4, 4]
    for shop, node in zip(shops, cluster.nodes, strict=True):
        with node.client() as client:
            assert client.hget(f"{{{shop}}}:product:1", "stock") == "4"
            others = tuple(f"{{{other}}}" for other in shops if other != shop)
            assert not [key for key in client.scan_iter() if key.startswith(others)]


@pytest.mark.parametrize("move", [move_key_by_key, move_at_once])
async def test_a_slot_that_moves_while_orders_are_placed_fails_no_order_and_places_none_twice(
    cluster: EngineCluster, move: Callable[[EngineCluster, int, ClusterNode, ClusterNode], None]
) -> None:
    first, second = cluster.nodes[:2]
    async with opened(cluster) as (shop, store):
        async with Buyers(store) as buyers:
            await buyers.more()
            await asyncio.to_thread(move, cluster, slot_of(shop), first, second)
            await buyers.more()
        assert not buyers.errors
        assert cluster.owner(shop) is second
        assert (await audit(store.partitions[0], shop)).findings == []
        stock = (await store.products.get(1)).stock
        assert STOCK - stock == len(buyers.placed)
        with first.client() as client:
            assert client.execute_command("CLUSTER", "COUNTKEYSINSLOT", slot_of(shop)) == 0
        await asyncio.to_thread(move_key_by_key, cluster, slot_of(shop), second, first)


async def test_a_node_that_is_away_stops_only_its_own_shops_and_they_go_on_when_it_is_back(
    cluster: EngineCluster,
) -> None:
    shops = new_shops(cluster)
    lost = cluster.nodes[2]
    # With everysec, a reply can be sent before its change is written, if the disk is busy.
    assert lost.replies("CONFIG", "SET", "appendfsync", "always") == "OK"
    async with open_stores(settings_for(cluster, redis_timeout=0.5), shops) as stores:
        for shop in shops:
            await stores[shop].products.add(new_mug(id=1, stock=STOCK))
        lost.kill()
        try:
            with pytest.raises((StorageUnavailable, OutcomeUnknown)):
                await order(stores[shops[2]])
            with pytest.raises(StorageUnavailable):
                await stores[shops[2]].check_writable()
            for shop in shops[:2]:
                await order(stores[shop])
                await stores[shop].check_writable()
        finally:
            await asyncio.to_thread(lost.start)
        await eventually(lambda: is_ready(stores[shops[2]]), "the shop of the node")
        await order(stores[shops[2]])


async def test_keys_that_have_moved_ahead_of_their_slot_are_used_where_they_are(cluster: EngineCluster) -> None:
    first, second = cluster.nodes[:2]
    async with opened(cluster) as (shop, store):
        slot, key = slot_of(shop), f"{{{shop}}}:product:1"
        assert second.replies("CLUSTER", "SETSLOT", slot, "IMPORTING", first.id) == "OK"
        assert first.replies("CLUSTER", "SETSLOT", slot, "MIGRATING", second.id) == "OK"
        try:
            assert first.replies("MIGRATE", "127.0.0.1", second.port, key, 0, 5000) == "OK"
            for _ in range(3):
                assert (await store.stock.levels(1)).stock == STOCK
        finally:
            await asyncio.to_thread(move_key_by_key, cluster, slot, first, second)
        await order(store)
        await asyncio.to_thread(move_key_by_key, cluster, slot, second, first)


@contextmanager
def leaving(cluster: EngineCluster, shop: str) -> Iterator[None]:
    """Let a slot be on its way to another node. All of its keys are still at the old one, which lets scripts use them.

    A key that does not exist belongs to the new node, also if a script that is running has just removed it.
    """
    slot, source = slot_of(shop), cluster.owner(shop)
    target = next(node for node in cluster.nodes if node is not source)
    assert target.replies("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id) == "OK"
    assert source.replies("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id) == "OK"
    try:
        yield
    finally:
        for node in (source, target):
            assert node.replies("CLUSTER", "SETSLOT", slot, "STABLE") == "OK"


@pytest.mark.parametrize("need", [0, 3])
async def test_units_can_be_given_when_all_given_before_have_arrived_and_the_slot_is_leaving(
    cluster: EngineCluster, need: int
) -> None:
    async with opened(cluster, partitions=2) as (shop, store):
        assert isinstance(store, PartitionedStore)
        source, other = store.all.exchange.partitions
        wishes = [Wish(product_id=1, need=need, wish=0, keep=0)]
        [transfer] = await source.give(1, "0", [Wish(product_id=1, need=5, wish=0, keep=0)])
        settled = (await other.take(0, [transfer])).id
        with leaving(cluster, keys.partition(shop, 0)):
            transfers = await source.give(1, settled, wishes)
        assert [transfer.units for transfer in transfers] == [need] * bool(need)
        await store.deliver()
        assert sum([(await partition.units([1]))[0].moved for partition in (source, other)]) == 0


async def test_the_ids_of_archived_orders_are_kept_when_the_slot_is_leaving(cluster: EngineCluster) -> None:
    async with opened(cluster) as (shop, store):
        ids = [await order(store), await order(store)]
        first, second = await store.archive.read(ids)
        assert first is not None
        assert second is not None
        assert await store.archive.remove([first], 0) == ["removed"]
        with leaving(cluster, shop):
            assert await store.archive.remove([second], 0) == ["removed"]
        for order_id in ids:
            with pytest.raises(OrderArchived):
                await store.orders.get(order_id)


async def test_a_move_that_only_the_old_node_knows_is_not_followed_in_a_loop(cluster: EngineCluster) -> None:
    first, second = cluster.nodes[:2]
    async with opened(cluster, redis_timeout=0.5) as (shop, store):
        slot = slot_of(shop)
        assert first.replies("CLUSTER", "SETSLOT", slot, "MIGRATING", second.id) == "OK"
        before = commands_of(second)
        try:
            with pytest.raises(StorageUnavailable, match=r"MOVED|ASK|TRYAGAIN|no reply"):
                await store.products.get(999)
        finally:
            assert first.replies("CLUSTER", "SETSLOT", slot, "STABLE") == "OK"
        assert commands_of(second) - before < 200
        await order(store)


def commands_of(node: ClusterNode) -> int:
    return int(node.replies("INFO", "stats")["total_commands_processed"])


async def test_a_connection_to_a_node_without_shops_is_closed(
    cluster: EngineCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.storage.cluster._KEEP_SECONDS", 0.5)
    monkeypatch.setattr("service.storage.cluster._REFRESH_SECONDS", 0.1)
    first, second = cluster.nodes[:2]
    others = clients_of(first)  # such as that of another node: after MIGRATE, it stays open for ten seconds
    async with opened(cluster, redis_timeout=0.3) as (shop, store):
        await order(store)
        before = clients_of(first) - others
        assert before
        await asyncio.to_thread(move_at_once, cluster, slot_of(shop), first, second)
        await order(store)
        await eventually(lambda: not before & clients_of(first), "the closing")
        await asyncio.to_thread(move_at_once, cluster, slot_of(shop), second, first)
        await order(store)
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith(("redis-", "cluster"))]


def clients_of(node: ClusterNode) -> set[str]:
    """Return the ids of all connections of a node, without the one that asks."""
    with node.client() as client:
        own = client.client_id()
        return {each["id"] for each in client.client_list(_type="normal") if each["id"] != str(own)}


async def test_a_shop_goes_on_on_the_replica_of_a_node_that_never_comes_back(tmp_path: Path) -> None:
    with engine_cluster(tmp_path, primaries=3, replicas=1, timeout_ms=500) as cluster:
        first, second = cluster.nodes[:2]
        async with opened(cluster, redis_timeout=10, wait_replicas=1) as (shop, store):
            async with Buyers(store) as buyers:
                await buyers.more()
                await asyncio.to_thread(move_at_once, cluster, slot_of(shop), first, second)
                await buyers.more()
                await asyncio.to_thread(move_at_once, cluster, slot_of(shop), second, first)
                await buyers.more()
            assert not buyers.errors
        async with opened(cluster, redis_timeout=10) as (shop, store):
            await order(store, "first")
            first.kill()
            orders = [asyncio.create_task(order(store, f"while-{number}")) for number in range(5)]
            await asyncio.wait(orders)
            failures = [task.exception() for task in orders if task.exception() is not None]
            assert all(isinstance(failure, OutcomeUnknown) for failure in failures), failures
            assert await order(store, "afterwards")
            assert cluster.shard_of(shop).primary() is not first


async def is_ready(store: AnyStore) -> bool:
    try:
        await store.check()
        await store.check_writable()
    except StorageUnavailable:
        return False
    return True


async def test_an_order_that_was_sent_when_its_node_froze_has_an_unknown_outcome_and_is_placed_once(
    cluster: EngineCluster,
) -> None:
    async with opened(cluster, redis_timeout=0.4) as (shop, store):
        node = cluster.owner(shop)
        await order(store, "first")
        node.freeze()
        try:
            with pytest.raises(OutcomeUnknown):
                await order(store, "second")
        finally:
            node.unfreeze()
        await eventually(lambda: is_ready(store), "the node")
        again = [await order(store, "second") for _ in range(2)]
        assert again[0] == again[1]
        assert (await store.products.get(1)).stock == STOCK - 2


async def test_a_shop_whose_slot_no_node_has_is_told_so_in_one_line(cluster: EngineCluster) -> None:
    async with opened(cluster, redis_timeout=0.3) as (shop, store):
        slot, node = slot_of(shop), cluster.owner(shop)
        for each in cluster.nodes:
            assert each.replies("CLUSTER", "DELSLOTS", slot) == "OK"
        try:
            await eventually(lambda: refusal_of(store, f"CLUSTERDOWN|no node of the cluster has the slot {slot}"), "it")
        finally:
            assert node.replies("CLUSTER", "ADDSLOTS", slot) == "OK"
        await eventually(lambda: is_ready(store), "the slot")


async def refusal_of(store: AnyStore, expected: str) -> bool:
    """Return whether a call is refused for such a reason."""
    try:
        await store.products.get(1)
    except StorageUnavailable as error:
        return re.search(expected, error.reason) is not None
    return False


async def test_seeds_that_are_gone_do_not_matter_if_one_answers(cluster: EngineCluster) -> None:
    shop = new_shops(cluster)[1]
    url = f"redis+cluster://127.0.0.1:{free_port()},127.0.0.1:{cluster.nodes[0].port}"
    async with open_stores(replace(settings_for(cluster), redis_url=url), [shop]) as stores:
        await stores[shop].check()


@pytest.mark.parametrize("kind", ["nobody", "no cluster"])
async def test_seeds_that_are_no_cluster_are_named(cluster: EngineCluster, kind: str, plain_engine_port: int) -> None:
    port = free_port() if kind == "nobody" else plain_engine_port
    changed = replace(settings_for(cluster, redis_timeout=0.3), redis_url=f"redis+cluster://127.0.0.1:{port}")
    with capture_logs() as logs:
        async with open_stores(changed, ["shop"]) as stores:
            with pytest.raises(StorageUnavailable) as refused:
                await stores["shop"].check()
    reason = {"nobody": "[Cc]onnect", "no cluster": "cluster support disabled"}[kind]
    assert f"127.0.0.1:{port}: " in refused.value.reason
    assert re.search(reason, refused.value.reason)
    assert [entry["event"] for entry in logs if entry["log_level"] == "warning"] == ["cluster_unreachable"]


async def test_an_unsafe_node_is_not_used_for_its_shop(cluster: EngineCluster) -> None:
    shops = new_shops(cluster)
    unsafe = cluster.nodes[1]
    assert unsafe.replies("CONFIG", "SET", "appendfsync", "no") == "OK"
    try:
        async with open_stores(replace(settings_for(cluster), durability="everysec"), shops) as stores:
            with pytest.raises(UnsupportedRedis, match="only configured for 'none'"):
                await stores[shops[1]].check()
            await stores[shops[0]].check()
    finally:
        unsafe.replies("CONFIG", "SET", "appendfsync", "everysec")


async def test_shops_of_a_pattern_are_found_on_all_nodes_and_absent_ones_leave_nothing(cluster: EngineCluster) -> None:
    shops = new_shops(cluster)
    async with open_stores(settings_for(cluster), shops) as stores:
        for shop in shops:
            await stores[shop].products.add(new_mug(id=1, stock=5))
    async with open_stores(settings_for(cluster), []) as stores:
        await stores.check_redis("shop")
        assert [await stores.open_existing(shop) for shop in shops] == [True] * 3
        for number in range(50):
            assert not await stores.open_existing(f"absent{number}")
        assert list(stores) == shops
        for shop in shops:
            await order(stores[shop])
            assert (await stores[shop].products.get(1)).stock == 4
    for node in cluster.nodes:
        with node.client() as client:
            assert not [key for key in client.scan_iter() if key.startswith("{absent")]

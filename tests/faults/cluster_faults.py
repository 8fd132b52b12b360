"""The faults of the set-up `cluster`: nodes are replaced by their replicas, and slots move. See `faults`."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

from service.storage.cluster_topology import slot_of
from tests.faults.world import NODE_TIMEOUT_MS, World
from tests.support.cluster import ClusterNode, EngineCluster, begin_move, move_at_once, move_key_by_key
from tests.support.replicas import ReplicatedEngine

_KEYS_AT_ONCE: Final = 100
"""So many keys move at a time, because each time waits for the disk."""

_MOVE_SECONDS: Final = 0.2
"""About so long a partition of the campaign is on its way to another node."""


async def _nodes(world: World) -> tuple[ReplicatedEngine, ReplicatedEngine]:
    """Return the primary of the partition, and its replica."""
    return world.primary, await asyncio.to_thread(lambda: world.replica)


async def _wait_until_primary(world: World, node: ReplicatedEngine) -> None:
    await world.wait(lambda: node.role() == "master", "the replica to take the place of its primary")


@asynccontextmanager
async def freeze_briefly(world: World, rng: random.Random, *_: object) -> AsyncIterator[None]:
    """Freeze a node, but not for so long that the others give it up."""
    world.primary.freeze()
    await asyncio.sleep(rng.uniform(0.1, 0.5) * NODE_TIMEOUT_MS / 1000)
    world.primary.unfreeze()
    yield


@asynccontextmanager
async def fail_over(world: World, *_: object) -> AsyncIterator[None]:
    """Kill a node, and start it again when its replica has taken its place."""
    old, new = await _nodes(world)
    await world.kill(old)
    await _wait_until_primary(world, new)
    yield
    await asyncio.to_thread(old.start)


@asynccontextmanager
async def fail_over_to_late_replica(world: World, *_: object) -> AsyncIterator[None]:
    """Kill a node whose replica lacks what was executed last."""
    old, new = await _nodes(world)
    new.freeze()
    old.replies("CLIENT", "KILL", "TYPE", "replica")  # otherwise, it reads what was sent to it when it goes on
    yield
    await world.kill(old)
    new.unfreeze()
    await _wait_until_primary(world, new)
    await asyncio.to_thread(old.start)


@asynccontextmanager
async def freeze_until_replaced(world: World, *_: object) -> AsyncIterator[None]:
    """Freeze a node until its replica has taken its place. When it goes on, it still believes to be the primary."""
    old, new = await _nodes(world)
    old.freeze()
    await _wait_until_primary(world, new)
    yield
    old.unfreeze()


@asynccontextmanager
async def planned_failover(world: World, *_: object) -> AsyncIterator[None]:
    """Let a node hand its slots over to its replica, as before maintenance."""
    _primary, new = await _nodes(world)
    assert new.replies("CLUSTER", "FAILOVER") == "OK"
    await _wait_until_primary(world, new)
    yield


@asynccontextmanager
async def kill_replica(world: World, *_: object) -> AsyncIterator[None]:
    """Kill a replica: until it is back, its primary cannot confirm anything."""
    _primary, replica = await _nodes(world)
    await world.kill(replica)
    yield
    await asyncio.to_thread(replica.start)


class _Move(NamedTuple):
    """A partition that is to move to another node."""

    cluster: EngineCluster
    slot: int
    source: ClusterNode
    target: ClusterNode


def _next_move(world: World, rng: random.Random) -> _Move:
    cluster, shop = world.cluster, world.shops()[world.target]
    assert cluster is not None
    source = cluster.owner(shop)
    others = [node for node in cluster.nodes if node is not source and node.role() == "master"]
    return _Move(cluster, slot_of(shop), source, rng.choice(others))


@asynccontextmanager
async def move_slot(world: World, rng: random.Random, *_: object) -> AsyncIterator[None]:
    """Move a partition to another node, as Valkey 9 can."""
    await asyncio.to_thread(lambda: move_at_once(*_next_move(world, rng)))
    yield


@asynccontextmanager
async def move_slot_key_by_key(world: World, rng: random.Random, *_: object) -> AsyncIterator[None]:
    """Move a partition to another node, as all versions can."""
    await asyncio.to_thread(lambda: move_key_by_key(*_next_move(world, rng), keys_at_once=_KEYS_AT_ONCE))
    yield


@asynccontextmanager
async def fail_over_while_slot_moves(world: World, rng: random.Random, *_: object) -> AsyncIterator[None]:
    """Kill a node while a partition moves from it to another node. Whether the move succeeds is left to chance."""

    def begin() -> None:
        _cluster, slot, source, target = _next_move(world, rng)
        begin_move(slot, source, target)

    await asyncio.to_thread(begin)
    await asyncio.sleep(rng.uniform(0, _MOVE_SECONDS))
    async with fail_over(world):
        yield


CLUSTER: Final = (
    *(freeze_briefly, fail_over, fail_over_to_late_replica, freeze_until_replaced, planned_failover, kill_replica),
    *(move_slot, move_slot_key_by_key, fail_over_while_slot_moves),
)

"""The faults. Each is a function: what is before its `yield` breaks something, what is behind it mends it."""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Final

from tests.faults.cluster_faults import CLUSTER
from tests.faults.history import FaultRecord
from tests.faults.world import World
from tests.support.service_process import workers_of

Fault = Callable[[World, random.Random, FaultRecord, Callable[[], float]], AbstractAsyncContextManager[None]]

_NOTICED_SECONDS: Final = 2.0
"""Holdfast checks Redis every second: so long after an unsafe change of its settings, it must not confirm changes."""


def _worker(world: World, rng: random.Random) -> int:
    return rng.choice(workers_of(world.service))


@asynccontextmanager
async def kill_worker(world: World, rng: random.Random, *_: object) -> AsyncIterator[None]:
    killed = _worker(world, rng)
    os.kill(killed, signal.SIGKILL)
    await world.wait(lambda: killed not in workers_of(world.service), "the end of the worker")
    yield
    await world.wait(lambda: len(workers_of(world.service)) == world.workers, "the new worker")


@asynccontextmanager
async def freeze_worker(world: World, rng: random.Random, *_: object) -> AsyncIterator[None]:
    frozen = _worker(world, rng)
    os.kill(frozen, signal.SIGSTOP)
    yield
    os.kill(frozen, signal.SIGCONT)


@asynccontextmanager
async def kill_service(world: World, *_: object) -> AsyncIterator[None]:
    yield
    await world.restart_service(signal.SIGKILL)


@asynccontextmanager
async def stop_service(world: World, *_: object) -> AsyncIterator[None]:
    yield
    await world.restart_service(signal.SIGTERM)


@asynccontextmanager
async def kill_engine(world: World, *_: object) -> AsyncIterator[None]:
    await world.kill_engine()
    yield


@asynccontextmanager
async def kill_engine_while_it_rewrites_its_file(world: World, *_: object) -> AsyncIterator[None]:
    await world.command("BGREWRITEAOF")
    await world.kill_engine()
    yield


@asynccontextmanager
async def freeze_engine(world: World, *_: object) -> AsyncIterator[None]:
    pid = await asyncio.to_thread(lambda: world.engine_pid)
    os.kill(pid, signal.SIGSTOP)
    yield
    os.kill(pid, signal.SIGCONT)


@asynccontextmanager
async def pause_writes(world: World, rng: random.Random, *_: object) -> AsyncIterator[None]:
    await world.command("CLIENT", "PAUSE", rng.randint(100, 900), "WRITE")
    yield


@asynccontextmanager
async def flush_scripts(world: World, *_: object) -> AsyncIterator[None]:
    await world.command("SCRIPT", "FLUSH")
    yield


@asynccontextmanager
async def kill_clients(world: World, *_: object) -> AsyncIterator[None]:
    for _repetition in range(3):
        await world.command("CLIENT", "KILL", "TYPE", "normal")
        await asyncio.sleep(0.05)
    yield


@asynccontextmanager
async def no_memory(world: World, *_: object) -> AsyncIterator[None]:
    await world.command("CONFIG", "SET", "maxmemory", 1)
    yield
    await world.command("CONFIG", "SET", "maxmemory", 0)


@asynccontextmanager
async def full_disk(world: World, *_: object) -> AsyncIterator[None]:
    ballast = world.service.data_dir / "ballast"

    def fill() -> None:
        with suppress(OSError), ballast.open("wb", buffering=0) as file:
            while file.write(bytes(1 << 16)):
                pass

    await asyncio.to_thread(fill)
    yield
    ballast.unlink()


@asynccontextmanager
async def step_clocks(world: World, rng: random.Random, *_: object) -> AsyncIterator[None]:
    """Set the clocks of API and engine forward or back, by up to an hour."""
    for _repetition in range(2):
        new = world.clock_file.with_suffix(".new")
        new.write_text(f"{rng.choice((-3600, -60, -2, 0, 2, 60, 3600)):+d}")
        new.replace(world.clock_file)
        await asyncio.sleep(0.2)
    yield


async def _unsafe(world: World, record: FaultRecord, now: Callable[[], float], setting: str, value: str) -> str:
    """Change a setting of the engine, and wait until Holdfast must have noticed it. Return the value before."""
    before = (await world.command("CONFIG", "GET", setting))[setting]
    await world.command("CONFIG", "SET", setting, value)
    await asyncio.sleep(_NOTICED_SECONDS)
    record.unsafe_from = now()
    return str(before)


@asynccontextmanager
async def no_fsync(
    world: World, _rng: random.Random, record: FaultRecord, now: Callable[[], float]
) -> AsyncIterator[None]:
    before = await _unsafe(world, record, now, "appendfsync", "no")
    yield
    record.undone = now()
    await world.command("CONFIG", "SET", "appendfsync", before)


@asynccontextmanager
async def eviction(
    world: World, _rng: random.Random, record: FaultRecord, now: Callable[[], float]
) -> AsyncIterator[None]:
    # So much memory that nothing is removed: what a Redis removes before Holdfast looks at it is lost.
    await world.command("CONFIG", "SET", "maxmemory", "100gb")
    before = await _unsafe(world, record, now, "maxmemory-policy", "allkeys-lru")
    yield
    record.undone = now()
    await world.command("CONFIG", "SET", "maxmemory-policy", before)
    await world.command("CONFIG", "SET", "maxmemory", 0)


# The network between the service and its engine


@asynccontextmanager
async def cut_before_write(world: World, *_: object) -> AsyncIterator[None]:
    world.network.commands_pass.clear()
    await asyncio.sleep(0.05)
    world.network.cut()
    world.network.commands_pass.set()
    yield


@asynccontextmanager
async def cut_during_write(world: World, rng: random.Random, *_: object) -> AsyncIterator[None]:
    for _repetition in range(5):
        world.network.cut_after = rng.randint(1, 2000)
        await asyncio.sleep(0.1)
    world.network.cut_after = None
    yield


@asynccontextmanager
async def cut_before_reply(world: World, *_: object) -> AsyncIterator[None]:
    for _repetition in range(3):
        world.network.replies_pass.clear()
        await asyncio.sleep(0.05)
        world.network.cut()
        world.network.replies_pass.set()
        await asyncio.sleep(0.1)
    yield


@asynccontextmanager
async def late_commands(world: World, *_: object) -> AsyncIterator[None]:
    """Hold commands back until the service has given up. Redis executes them then."""
    world.network.commands_pass.clear()
    yield
    world.network.commands_pass.set()


@asynccontextmanager
async def late_replies(world: World, *_: object) -> AsyncIterator[None]:
    world.network.replies_pass.clear()
    yield
    world.network.replies_pass.set()


@asynccontextmanager
async def slow_network(world: World, rng: random.Random, *_: object) -> AsyncIterator[None]:
    world.network.delay = rng.choice((0.05, 0.2, 0.6))
    yield
    world.network.delay = 0


@asynccontextmanager
async def small_pieces(world: World, rng: random.Random, *_: object) -> AsyncIterator[None]:
    world.network.reply_bytes, world.network.delay = rng.randint(1, 100), 0.001
    world.network.cut()
    yield
    world.network.reply_bytes, world.network.delay = 1 << 20, 0


@asynccontextmanager
async def no_network(world: World, *_: object) -> AsyncIterator[None]:
    await world.network.close()
    yield
    await world.network.open()


@asynccontextmanager
async def closed_at_once(world: World, *_: object) -> AsyncIterator[None]:
    world.network.closes_new_connections = True
    world.network.cut()
    yield
    world.network.closes_new_connections = False


# The replica


@asynccontextmanager
async def freeze_replica(world: World, *_: object) -> AsyncIterator[None]:
    replica = await asyncio.to_thread(lambda: world.replica)
    replica.freeze()
    yield
    replica.unfreeze()


@asynccontextmanager
async def promote_replica(world: World, *_: object) -> AsyncIterator[None]:
    await world.promote()
    yield


@asynccontextmanager
async def promote_late_replica(world: World, *_: object) -> AsyncIterator[None]:
    """Cut the replica off, and let it take the place of the primary when it lacks what was executed meanwhile."""
    world.engines[1].replies("REPLICAOF", "NO", "ONE")
    yield
    await world.promote()


_SEVERAL_WORKERS: Final[tuple[Fault, ...]] = (kill_worker,)
_EVERYWHERE: Final[tuple[Fault, ...]] = (
    *(freeze_worker, kill_service, stop_service, kill_engine, kill_engine_while_it_rewrites_its_file, freeze_engine),
    *(pause_writes, flush_scripts, kill_clients, no_memory, no_fsync, eviction),
)
_NETWORK: Final[tuple[Fault, ...]] = (
    *(cut_before_write, cut_during_write, cut_before_reply, late_commands, late_replies),
    *(slow_network, small_pieces, no_network, closed_at_once),
)
_REPLICA: Final[tuple[Fault, ...]] = (freeze_replica, promote_replica, promote_late_replica)
ALL: Final[dict[str, Fault]] = {
    fault.__name__: fault
    for fault in (*_SEVERAL_WORKERS, *_EVERYWHERE, full_disk, step_clocks, *_NETWORK, *_REPLICA, *CLUSTER)
}


def faults_for(world: World) -> list[str]:
    """Return the names of the faults that this set-up can have."""
    found = [*_EVERYWHERE]
    found += _SEVERAL_WORKERS if world.workers > 1 else ()
    found += (full_disk,) if world.has_disk else ()
    found += (step_clocks,) if world.has_clocks else ()
    found += _NETWORK if world.setup in ("own", "replica") else ()
    found += _REPLICA if world.setup == "replica" else ()
    if world.setup == "cluster":  # a node that is frozen for long is replaced: freeze_until_replaced
        found = [fault for fault in found if fault is not freeze_engine] + [freeze_replica, *CLUSTER]
    if world.partitions > 1:  # the others go on, and confirm orders
        found = [fault for fault in found if fault not in (no_fsync, eviction)]
    return [fault.__name__ for fault in found]


def plan(names: list[str], count: int, rng: random.Random) -> list[str]:
    """Return `count` of these faults in random order, each as often as the others."""
    assert names, "this set-up has none of these faults"
    planned: list[str] = []
    while len(planned) < count:
        planned += rng.sample(names, len(names))
    return planned[:count]

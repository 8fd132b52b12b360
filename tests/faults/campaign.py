"""Runs a campaign: clients, faults one after the other, and at the end the check."""

import asyncio
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from httpx2 import Client

from tests.faults.checker import State, summary, violations
from tests.faults.faults import ALL, faults_for, plan
from tests.faults.history import History
from tests.faults.workload import Clients
from tests.faults.world import HEALTHY_SECONDS, Setup, World
from tests.support.command_line import HoldfastCommand
from tests.support.service_process import NO_TLS
from tests.support.waiting import eventually


@dataclass
class Result:
    """What a run found. `violations`: texts by the name of the check. `missing`: what this machine does not have."""

    violations: dict[str, list[str]]
    summary: dict[str, Any]
    missing: dict[str, str]
    by_fault: dict[str, tuple[int, float]]
    """How often there was each fault, and the longest time in seconds until the service was healthy again."""


async def run(
    folder: Path,
    *,
    seed: int,
    setup: Setup,
    workers: int,
    faults: int,
    only: Sequence[str] = (),
    disk: bool = False,
    clocks: bool = False,
    longest: float = 1.2,
) -> Result:
    """Run one campaign. The existing folder gets the history, and the state at the end.

    `only`: these faults. `longest`: the seconds that a fault lasts at most; the pause behind it is up to half as long.
    """
    rng = random.Random(seed)
    history = History(folder / "history.jsonl")
    async with World(folder / "world", setup, workers, disk=disk, clocks=clocks) as world:
        async with Clients(world.service.port, history, seed=seed) as clients:
            await eventually(lambda: len(clients.placed) > 20, "the first orders")
            possible = [name for name in faults_for(world) if not only or name in only]
            for name in [*plan(possible, faults, rng), "kill_engine"]:
                if not await _break(world, clients, name, rng, longest):
                    break
        if (history.faults[-1].healthy or 0) > HEALTHY_SECONDS:  # then nothing can be read
            found = {"healthy_again": [f"the service was not healthy again after {history.faults[-1].name}"]}
        else:
            state = await asyncio.to_thread(_read_state, world)
            steps = [fault for fault in history.faults if fault.name == "step_clocks"]
            state.events_have_one_clock = world.partitions == 1 or not steps
            (folder / "state.json").write_text(json.dumps(vars(state), indent=1))
            found = violations(history, state)
    history.close()
    by_fault: dict[str, tuple[int, float]] = {}
    for fault in history.faults:
        count, seconds = by_fault.get(fault.name, (0, 0.0))
        by_fault[fault.name] = count + 1, max(seconds, fault.healthy or 0)
    return Result(found, summary(history), world.missing, by_fault)


async def _break(world: World, clients: Clients, name: str, rng: random.Random, longest: float) -> bool:
    """Let one fault happen for a random time. Return whether the service is healthy again soon."""
    history = clients.history
    await asyncio.to_thread(world.aim, rng.randrange(world.partitions))
    record = history.begin_fault(name)
    async with ALL[name](world, rng, record, history.now):
        await asyncio.sleep(rng.uniform(0.1, longest))
    record.undone = record.undone or history.now()
    record.healthy = await world.seconds_until_healthy(clients.placed)
    history.end_fault(record)
    if record.healthy > HEALTHY_SECONDS:
        return False
    await world.settle()
    await asyncio.sleep(rng.uniform(0, longest / 2))
    return True


def _read_state(world: World) -> State:
    """Wait until overdue holds are released and no units are on their way, and read everything."""
    redis = [world.client(number) for number in range(world.partitions)]
    places = list(zip(redis, world.shops(), strict=True))

    def now_ms() -> int:
        seconds, microseconds = redis[0].time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    def is_quiet() -> bool:
        moving = [client.zcard(f"{{{shop}}}:outgoing:{to}") for client, shop in places for to in range(len(places))]
        changes = [client.zcard(f"{{{shop}}}:unpropagated") for client, shop in places]
        return not any([client.zcount(f"{{{shop}}}:holds", 0, now_ms()) for client, shop in places] + moving + changes)

    give_up = time.monotonic() + 10
    while not is_quiet() and time.monotonic() < give_up:
        time.sleep(0.1)
    with Client(base_url=f"http://127.0.0.1:{world.service.port}", timeout=10, verify=NO_TLS) as client:
        listed: dict[int, str] = {}
        path = "/orders?limit=1000"
        while path:
            page = client.get(path)
            listed |= {order["id"]: order["status"] for order in page.json()}
            path = page.links.get("next", {}).get("url", "")
    while True:  # until no hold expires between two reads
        last = [client.xrevrange(f"{{{shop}}}:events", count=1) for client, shop in places]
        products = [_hashes(client, f"{{{shop}}}:product:") for client, shop in places]
        state = State(
            now_ms=now_ms(),
            products={int(name): add_up([of[name] for of in products]) for name in products[0]},
            orders=_joined([_hashes(client, f"{{{shop}}}:order:") for client, shop in places]),
            customers={
                name: fields
                for client, shop in places
                for name, fields in _hashes(client, f"{{{shop}}}:customer:").items()
            },
            events=_merged([_entries(client, shop) for client, shop in places]),
            listed=listed,
            reads_are_confirmed=not world.can_fail_over,
        )
        if [client.xrevrange(f"{{{shop}}}:events", count=1) for client, shop in places] == last:
            break
    url = world.engine_url
    audit = HoldfastCommand(world.folder, HOLDFAST_REDIS_URL=url, HOLDFAST_PARTITIONS=str(world.partitions))("audit")
    state.audit = "" if audit.returncode == 0 else (audit.stdout + audit.stderr)[-2000:]
    # Where no confirmed write is lost, no reserved id is taken by another order.
    marks = ["Traceback"] if world.can_fail_over else ["Traceback", "order_ids_dropped"]
    state.log = [line for line in world.service.stderr.splitlines() if any(mark in line for mark in marks)]
    return state


def add_up(rows: Sequence[dict[str, str]]) -> dict[str, str]:
    """Return a product with its units in all partitions. Without partitions, there is only one row.

    The sum of `moved` must be 0 when no units are on their way: otherwise, some were lost or doubled. Then `stock` is
    as many units too high or too low, which the check of conservation sees.
    """
    added = dict(rows[0])
    for name in ("stock", "held", "sold", "received"):
        added[name] = str(sum(int(row[name]) for row in rows))
    if len({row["price"] for row in rows}) > 1:
        added["price"] = " and ".join(row["price"] for row in rows)
    return added


def _joined(parts: Sequence[dict[str, dict[str, str]]]) -> dict[int, dict[str, str]]:
    """Return the orders of all partitions. Each id is in one, and says in which."""
    for number, orders in enumerate(parts):
        assert all(int(order_id) % len(parts) == number for order_id in orders), f"wrong orders in partition {number}"
    return {int(order_id): fields for orders in parts for order_id, fields in orders.items()}


def _entries(redis: Any, shop: str) -> list[tuple[str, dict[str, str]]]:
    return list(redis.xrange(f"{{{shop}}}:events"))


def _merged(streams: Sequence[list[tuple[str, dict[str, str]]]]) -> list[tuple[int, dict[str, str]]]:
    """Return the events of all partitions by time, and in the same millisecond first those that add units.

    So their sum never seems to be below 0 before units that were added in the same millisecond.
    """
    events = [(int(id_.split("-")[0]), fields) for stream in streams for id_, fields in stream]
    if len(streams) == 1:
        return events
    takes = ("order_placed",)
    return sorted(events, key=lambda event: (event[0], event[1]["event"] in takes))


def _hashes(redis: Any, prefix: str) -> dict[str, dict[str, str]]:
    names = list(redis.scan_iter(f"{prefix}*", count=1000))
    with redis.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.hgetall(name)
        return {name.removeprefix(prefix): fields for name, fields in zip(names, pipeline.execute(), strict=True)}

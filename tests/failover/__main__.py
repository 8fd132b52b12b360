"""Runs the long form: ten failovers, with and without HOLDFAST_WAIT_REPLICAS."""

import argparse
import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

from service.storage.cluster_topology import slot_of
from tests.failover.campaign import Clients, Faults, compare
from tests.support.cluster import EngineCluster, engine_cluster, move_at_once
from tests.support.command_line import HoldfastCommand
from tests.support.replicas import replicated_engines
from tests.support.service_process import HOLDFAST, ServiceProcess

FAULTS = ("kill", "freeze", "lag", "cut_off")

REST_SECONDS = 11.0
"""Between failovers. Sentinels ask replicas every 10 seconds how much they have, and promote the one that had most."""


async def run(
    folder: Path, *, failovers: int, orders: int, wait: int, minimum: int, clients: int, names: list[str], rest: float
) -> bool:
    """Run one campaign and print what became of the orders. Return whether nothing is lost."""
    options = ("--min-replicas-to-write", str(minimum), "--min-replicas-max-lag", "2")
    with replicated_engines(folder / "engines", replicas=2, sentinels=3, options=options) as engines:
        settings: dict[str, Any] = {
            "redis_url": engines.url(),
            "durability": "everysec",
            "redis_timeout": 1,
            "wait_replicas": wait,
        }
        service = ServiceProcess(folder, HOLDFAST, workers=2, log_format="json", **settings)
        try:
            service.wait_until_ready()
            started = time.monotonic()
            async with Clients(service.port, clients) as load:
                history, faults = load.history, Faults(engines, rest)
                for number in range(failovers):
                    target = orders * (number + 1) // (failovers + 1)
                    while len(history.placed) < target:  # noqa: ASYNC110
                        await asyncio.sleep(0.1)
                    fault = getattr(faults, names[number % len(names)])
                    began = time.monotonic()
                    history.fault = f"{number + 1} {fault.__name__}"
                    await fault()
                    await faults.bring_back()
                    print(
                        f"  {number + 1:2} {fault.__name__:8} {time.monotonic() - began:5.1f} s,"
                        f" {len(history.placed):,} orders confirmed",
                        flush=True,
                    )
                while len(history.placed) < orders:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            seconds = time.monotonic() - started
            primary = engines.primary()
            assert primary is not None
            verdict = compare(history, primary, "shop")
            audit = HoldfastCommand(folder, HOLDFAST_REDIS_URL=engines.url())("audit")
            print(f"  {verdict}")
            print(
                f"  {failovers} failovers in {seconds:.0f} s; longest pause {history.longest_pause:.1f} s; "
                f"answers {dict(history.answers)}; audit: exit code {audit.returncode}",
                flush=True,
            )
            if audit.returncode:
                print(audit.stdout[-2000:], audit.stderr[-500:])
            return not (verdict.lost or verdict.undone or verdict.doubled or audit.returncode)
        finally:
            service.close()


CLUSTER_FAULTS = ("kill_for_good", "freeze")


async def run_cluster(
    folder: Path, *, failovers: int, orders: int, wait: int, clients: int, replicas: int, names: list[str]
) -> bool:
    """Run a campaign on a cluster, and print what became of the orders. Return whether nothing is lost.

    The cluster has three primaries with replicas. After `kill_for_good`, the killed node stays dead until orders are
    confirmed without it: the pause is that of a node that is lost. With HOLDFAST_WAIT_REPLICAS=1, that needs two
    replicas. At the end, the slot of the shop moves to another node.
    """
    with engine_cluster(folder / "engines", primaries=3, replicas=replicas, timeout_ms=1000) as cluster:
        shard = cluster.shard_of("shop")
        settings: dict[str, Any] = {
            "redis_url": cluster.url,
            "durability": "everysec",
            "redis_timeout": 1,
            "wait_replicas": wait,
        }
        service = ServiceProcess(folder, HOLDFAST, workers=2, log_format="json", **settings)
        try:
            service.wait_until_ready()
            async with Clients(service.port, clients) as load:
                history, faults = load.history, Faults(shard)
                for number in range(failovers):
                    target = orders * (number + 1) // (failovers + 1)
                    while len(history.placed) < target:  # noqa: ASYNC110
                        await asyncio.sleep(0.1)
                    name = names[number % len(names)]
                    history.fault = f"{number + 1} {name}"
                    history.longest_pause = 0
                    began = time.monotonic()
                    await getattr(faults, name)()
                    more = len(history.placed) + 100
                    while len(history.placed) < more:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
                    pause, history.longest_pause = history.longest_pause, 0
                    await faults.bring_back()
                    print(
                        f"  {number + 1:2} {name:13} {time.monotonic() - began:5.1f} s, longest pause {pause:.2f} s, "
                        f"when the node was back {history.longest_pause:.2f} s, "
                        f"{len(history.placed):,} orders confirmed",
                        flush=True,
                    )
                while len(history.placed) < orders:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
                answers = dict(history.answers)
                history.fault, history.longest_pause = "move of the slot", 0
                await asyncio.to_thread(_move_slot, cluster)
                more = len(history.placed) + 500
                while len(history.placed) < more:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                moved = {name: count - answers.get(name, 0) for name, count in history.answers.items()}
                print(f"  move of the slot: longest pause {history.longest_pause:.2f} s, answers {moved}")
            verdict = compare(history, cluster.owner("shop"), "shop")
            audit = HoldfastCommand(folder, HOLDFAST_REDIS_URL=cluster.url)("audit")
            print(f"  {verdict}")
            print(f"  answers {dict(history.answers)}; audit: exit code {audit.returncode}", flush=True)
            if audit.returncode:
                print(audit.stdout[-2000:], audit.stderr[-500:])
            return not (verdict.lost or verdict.undone or verdict.doubled or audit.returncode)
        finally:
            service.close()


def _move_slot(cluster: EngineCluster) -> None:
    source = cluster.owner("shop")
    target = next(node for node in cluster.nodes if node.role() == "master" and node is not source)
    move_at_once(cluster, slot_of("shop"), source, target)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.failover", description=__doc__)
    parser.add_argument("--failovers", type=int, default=10)
    parser.add_argument("--orders", type=int, default=50_000)
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--only", choices=["wait-2", "wait-1", "min-replicas", "nothing"], action="append")
    parser.add_argument("--faults", nargs="+", choices=[*FAULTS, "kill_for_good"], help="which, in which order")
    parser.add_argument("--cluster", action="store_true", help="Redis Cluster instead of sentinels")
    parser.add_argument("--replicas", type=int, default=2, help="of each primary of the cluster")
    parser.add_argument("--rest", type=float, default=REST_SECONDS)
    options = parser.parse_args()
    cases = {"wait-2": (2, 1), "wait-1": (1, 1), "min-replicas": (0, 1), "nothing": (0, 0)}
    ok = True
    if options.cluster:
        for wait in (1, 0):
            print(f"Redis Cluster, HOLDFAST_WAIT_REPLICAS={wait}", flush=True)
            with tempfile.TemporaryDirectory(prefix="holdfast-failover-") as folder:
                safe = asyncio.run(
                    run_cluster(
                        Path(folder),
                        failovers=min(options.failovers, 5),
                        orders=options.orders,
                        wait=wait,
                        clients=options.clients,
                        replicas=options.replicas,
                        names=options.faults or list(CLUSTER_FAULTS),
                    )
                )
            ok = ok and (safe or not wait)
        return 0 if ok else 1
    for name in options.only or cases:
        wait, minimum = cases[name]
        print(f"HOLDFAST_WAIT_REPLICAS={wait}, min-replicas-to-write {minimum}", flush=True)
        with tempfile.TemporaryDirectory(prefix="holdfast-failover-") as folder:
            safe = asyncio.run(
                run(
                    Path(folder),
                    failovers=options.failovers,
                    orders=options.orders,
                    wait=wait,
                    minimum=minimum,
                    clients=options.clients,
                    rest=options.rest,
                    names=options.faults or list(FAULTS),
                )
            )
        ok = ok and (safe or not wait)
    return 0 if ok else 1


if __name__ == "__main__":
    raise SystemExit(main())

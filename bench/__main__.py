"""Runs the benchmark: writes results.json, the plots, and the tables of README.md.

Each group of cases starts all its servers and measures one after the other, round after round. So a disturbance of
the machine affects all servers. Ratios are computed within a round. At the end of a group, stock and orders of every
backend must agree.
"""

import argparse
import json
import os
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
from pathlib import Path
from typing import Any, Final

from bench import backends, report
from bench.backends import Backend, Durability, Engine
from bench.cases import ALL_SERVERS, Case, Group, Row, groups, result_row
from bench.data import LARGE_STOCK
from bench.load import Load, run_at_full_speed, run_at_rate
from bench.machine import describe_machine
from bench.openloop import compile_client
from bench.processes import cpu_seconds, on_cores, split_cores, wait_until_idle
from bench.servers import Server, ServerName, allow_many_connections, serve

MANY_CONNECTIONS: Final = 4096
"""So many connections take a part of a second to open, and to get their first answers: such a run lasts longer."""


@dataclass(slots=True)
class Bench:
    """Runs groups of cases with the same options, and counts the directories that it makes for backends."""

    folder: Path
    seconds: int
    repeats: int
    latency_rounds: int
    full: bool
    load_cores: set[int]
    pool_size: int = 20
    backends_started: int = 0

    def choose_pool_size(self) -> dict[str, Any]:
        """Find the size of SQLAlchemy's pool, per worker, with which the alternative is fastest."""
        rates = {}
        with ExitStack() as stack:
            backend = stack.enter_context(self.backend(Case("postgres")))
            for self.pool_size in (5, 10, 20, 40):
                with serve("postgres", backend, 1, self.pool_size) as server:
                    self.load(server, Case("postgres"), 1)  # warm up
                    rates[self.pool_size] = self.load(server, Case("postgres"), self.seconds)["rate"]
        self.pool_size = max(rates, key=lambda size: rates[size])
        return {"requests_per_second": rates, "chosen": self.pool_size}

    def measure(self, group: Group) -> list[Row]:
        """Run all rounds of a group, and check stock and orders. Raise AssertionError and OSError."""
        with ExitStack() as stack:
            started: dict[object, Backend] = {}
            servers: dict[object, Server] = {}

            def server_of(case: Case) -> Server:
                backend = None
                if case.server != "ceiling":
                    kind = "postgres" if case.server == "postgres" else "engine"
                    key = (kind, case.products, case.orders, case.durability, case.begins_sold_out)
                    if key not in started:
                        started[key] = stack.enter_context(self.backend(case))
                    backend = started[key]
                server_key = (case.server, backend, case.workers)
                if server_key not in servers:
                    servers[server_key] = stack.enter_context(serve(case.server, backend, case.workers, self.pool_size))
                return servers[server_key]

            expected_rates: dict[Server, float] = {}
            for case in group.cases:
                if server_of(case) not in expected_rates:  # new servers warm up
                    expected_rates[server_of(case)] = self.load(server_of(case), case, 1)["rate"]
            runs: dict[Case, list[Row]] = {case: [] for case in group.cases}
            failed: dict[Case, str] = {}
            for round_number in range(min(group.repeats or self.repeats, self.repeats)):
                for case in group.cases if round_number % 2 == 0 else reversed(group.cases):
                    if case in failed:
                        continue
                    server = server_of(case)
                    try:
                        if case.load == "flash":
                            run = self.flash_sale(server, case, int(expected_rates[server] * self.seconds * 0.05))
                        else:
                            run = self.load(
                                server, case, self.seconds * (1 if case.connections < MANY_CONNECTIONS else 3)
                            )
                        runs[case].append(run)
                    except AssertionError as error:
                        failed[case] = str(error)
            wait_until_idle(*(pid for server in servers.values() for pid in server.pids))
            balances = {id(backend): backend.check_balance() for backend in started.values()}
            return [
                {**asdict(case), "failed": failed[case]}
                if case in failed
                else result_row(case, runs[case], balance=balances.get(id(server_of(case).backend)))
                for case in group.cases
            ]

    def flash_sale(self, server: Server, case: Case, stock: int) -> Row:
        """Add units to the sold-out product and run the load. Exactly these units must be sold."""
        assert server.backend is not None
        wait_until_idle(*server.pids, idle_seconds=1)  # a late order of the run before would get one of the units
        server.backend.restock(stock)
        run = self.load(server, case, self.seconds)
        assert run["created"] == stock, f"{run['created']} of {stock} units were sold, {run['refused']} orders refused"
        return run

    def load(self, server: Server, case: Case, seconds: int, rate: float | None = None) -> Row:
        """Run one load: at a constant rate if there is one, otherwise at full speed."""
        wait_until_idle(*server.pids)
        load = Load(case.load, case.lines, case.products)
        engine = server.backend if isinstance(server.backend, Engine) else None
        busy_before = engine.busy_seconds() if engine else 0.0
        before, children_before = server.cpu_seconds(), os.times()
        if rate is None:
            run = run_at_full_speed(server.port, load, case.connections, seconds, self.load_cores)
        else:
            run = run_at_rate(server.port, load, case.connections, seconds, self.load_cores, rate)
        # The client's own time: run_at_rate also builds the requests before the load, and parses the answers after it.
        elapsed, children, after = run.pop("seconds"), os.times(), server.cpu_seconds()
        used = [(end - start) / run["requests"] * 1e6 for start, end in zip(before, after, strict=True)]
        generator_seconds = children.children_user + children.children_system
        generator_seconds -= children_before.children_user + children_before.children_system
        return {
            "rate": run.pop("requests") / elapsed,
            **run,
            "server_us": used[0],
            "backend_us": used[1] if len(used) > 1 else 0.0,
            "engine_busy": (engine.busy_seconds() - busy_before) / elapsed if engine else 0.0,
            "load_generator_core": generator_seconds / elapsed,
        }

    @contextmanager
    def backend(self, case: Case) -> Iterator[Backend]:
        """Start a backend in a new directory, and fill it for a case."""
        self.backends_started += 1
        start = backends.start_postgres if case.server == "postgres" else backends.start_engine
        with start(self.folder / str(self.backends_started), case.durability) as backend:
            backend.fill(case.products, case.orders, 0 if case.begins_sold_out else LARGE_STOCK)
            yield backend

    def latencies(self) -> list[Row]:
        """Measure latencies at constant rates, which are shares of the highest rate that each server reached before."""
        names: list[ServerName] = ["ceiling", "holdfast", "postgres"] if self.full else ["holdfast"]
        shares = (0.3, 0.5, 0.7) if self.full else (0.7,)
        with ExitStack() as stack:
            servers: dict[ServerName, Server] = {}
            max_rates: dict[ServerName, float] = {}
            for name in names:
                backend = None if name == "ceiling" else stack.enter_context(self.backend(Case(name)))
                servers[name] = stack.enter_context(serve(name, backend, 1, self.pool_size))
                self.load(servers[name], Case(name), 1)
                rates = [
                    self.load(servers[name], Case(name), self.seconds)["rate"] for _ in range(3 if self.full else 1)
                ]
                max_rates[name] = statistics.median(rates)
            runs: dict[tuple[ServerName, float], list[Row]] = {(name, share): [] for share in shares for name in names}
            for _ in range(self.latency_rounds):
                for name, share in runs:
                    runs[name, share].append(
                        self.load(servers[name], Case(name), self.seconds + 2, max_rates[name] * share)
                    )
            balances = {name: server.backend.check_balance() for name, server in servers.items() if server.backend}
            return [
                result_row(Case(name), found, share=share, max_rate=max_rates[name], balance=balances.get(name))
                for (name, share), found in runs.items()
            ]

    def engine_alone(self) -> list[Row]:
        """Run redis-benchmark with place_order.lua, pipelined, without HTTP: the highest rate of one engine."""
        rows: dict[tuple[int, Durability], list[Row]] = {}
        count = 40_000 * self.seconds
        durabilities: tuple[Durability, ...] = ("off", "always")
        with ExitStack() as stack:
            engines = {
                durability: stack.enter_context(self.backend(Case("holdfast", durability=durability)))
                for durability in durabilities
            }
            for _ in range(self.repeats):
                for durability, engine in engines.items():
                    for lines in (1, 2, 5) if self.full else (2,):
                        assert isinstance(engine, Engine)
                        rows.setdefault((lines, durability), []).append(self._engine_run(engine, lines, count))
        return [
            result_row(Case("holdfast", lines=lines, durability=durability), runs)
            for (lines, durability), runs in rows.items()
        ]

    def _engine_run(self, engine: Engine, lines: int, count: int) -> Row:
        command = engine.order_command(lines)
        before, sold_before = cpu_seconds(engine.pid), engine.units_sold(1)
        # -r is the range of the random order ids. redis-benchmark needs it below 2^31.
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
        elapsed, used, sold = (
            time.monotonic() - begin,
            cpu_seconds(engine.pid) - before,
            engine.units_sold(1) - sold_before,
        )
        # A few ids are drawn twice. The second order is not placed, because its id exists.
        assert 0.999 * count < sold <= count, f"{sold} of {count} orders were placed: {done.stdout}{done.stderr}"
        return {"rate": count / elapsed, "backend_us": used / count * 1e6}

    def memory(self) -> list[Row]:
        """Measure the memory of idle servers, of their connections, and of stored orders."""
        count, connections = (100_000, 1000) if self.full else (20_000, 500)
        rows = []
        for name in ALL_SERVERS if self.full else ("ceiling", "holdfast"):
            with ExitStack() as stack:
                backend = None if name == "ceiling" else stack.enter_context(self.backend(Case(name)))
                server = stack.enter_context(serve(name, backend, 1, self.pool_size))
                self.load(server, Case(name, "product"), 1)
                wait_until_idle(*server.pids)
                found: Row = server.memory_of_idle_connections(connections)
            if backend is not None and name != "pool":
                with self.backend(Case(name, orders=0)) as empty:
                    before = empty.data_bytes()
                with self.backend(Case(name, orders=count)) as filled:
                    found["bytes_per_order"] = (filled.data_bytes() - before) / count
            rows.append(result_row(Case(name), [found]))
        return rows


class GroupTimedOut(Exception):
    """A group took too long."""


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise GroupTimedOut if the block takes longer."""

    def stop(signum: int, frame: object) -> None:
        raise GroupTimedOut(f"more than {seconds} s")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def main() -> int:
    """Run the benchmark. Return 1 if a measurement failed."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--full", action="store_true", help="run all cases; takes about three quarters of an hour")
    parser.add_argument("--only", nargs="+", metavar="GROUP", help="run only these groups; needs --out")
    parser.add_argument("--seconds", type=int, help="seconds per run")
    parser.add_argument("--repeats", type=int, help="number of rounds")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent, help="directory for results.json and the plots"
    )
    options = parser.parse_args()
    if options.only and options.out == parser.get_default("out"):
        parser.error("--only needs --out: results of some groups must not replace the full results")

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that all started processes are stopped
    allow_many_connections()
    machine, (server_cores, load_cores) = describe_machine(), split_cores()
    os.sched_setaffinity(0, server_cores)  # inherited by all processes that are started from here
    begin, failed = time.monotonic(), 0
    # PostgreSQL runs as another user, which must be able to enter the directory.
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as folder:
        Path(folder).chmod(0o755)
        bench = Bench(
            Path(folder),
            seconds=options.seconds or (3 if options.full else 2),
            repeats=options.repeats or (5 if options.full else 2),
            latency_rounds=options.repeats or (10 if options.full else 2),
            full=options.full,
            load_cores=load_cores,
        )
        steps: dict[str, tuple[str, Callable[[], Any]]] = {
            **(
                {"pool-size": ("Size of the alternative's connection pool", bench.choose_pool_size)}
                if options.full
                else {}
            ),
            **{group.name: (group.title, _measure_later(bench, group)) for group in groups(options.full)},
            "latency": ("Latency at constant rates", bench.latencies),
            "engine": ("The engine alone", bench.engine_alone),
            "memory": ("Memory", bench.memory),
        }
        results: dict[str, Any] = {
            "taken_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "full": options.full,
            "machine": machine,
            "seconds_of_a_run": bench.seconds,
            "rounds": bench.repeats,
            "groups": {},
        }
        if not options.only or "latency" in options.only:
            compile_client()
        for key, (title, step) in steps.items():
            if options.only and key not in options.only:
                continue
            started = time.monotonic()
            found: dict[str, Any] = {"title": title}
            try:
                with time_limit(900 if options.full else 180):
                    found["rows"] = step()
                failed += any("failed" in row for row in found["rows"])
            except Exception as error:  # after any error, the other groups are still measured
                failed += 1
                found["failed"] = f"{type(error).__name__}: {error}"
            found["took_seconds"] = round(time.monotonic() - started, 1)
            results["groups"][key] = found
            print(f"{key}: {found.get('failed', 'done')} ({found['took_seconds']} s)", file=sys.stderr, flush=True)
    results["took_seconds"] = round(time.monotonic() - begin, 1)
    options.out.mkdir(exist_ok=True)
    (options.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    text = report.write_report(results, options.out)
    print(text)
    return 1 if failed else 0


def _measure_later(bench: Bench, group: Group) -> Callable[[], list[Row]]:
    """Return a function that measures the group."""
    return lambda: bench.measure(group)


if __name__ == "__main__":
    sys.exit(main())

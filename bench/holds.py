"""Measures how late the stock of expired holds is released under load, and what that costs the orders beside it.

Every order is pending, with a hold of one second. First without a break, which shows the highest rate; then at 70 % of
that rate; then completed orders at the same rate, for comparison. At the end, all holds are released and the audit
agrees. Beside the load, the oldest overdue hold is looked up ten times a second.
"""

import argparse
import itertools
import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from bench.backends import SHOP, Engine, start_engine
from bench.load import Load, run_at_full_speed, run_at_rate
from bench.openloop import compile_client, percentile
from bench.processes import split_cores
from bench.servers import serve
from service.storage import keys

SHARE: Final = 0.7
PRODUCTS: Final = 1000


class Watch(threading.Thread):
    """Looks at the index of holds until it is stopped."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(daemon=True)
        self.engine = engine
        self.late_seconds: list[float] = []
        self.overdue: list[int] = []
        self.stopped = threading.Event()

    def run(self) -> None:
        """Look ten times a second."""
        while not self.stopped.wait(0.1):
            seconds, microseconds = self.engine.client.time()
            now = seconds * 1000 + microseconds // 1000
            oldest: Any = self.engine.client.zrange(keys.holds(SHOP), 0, 0, withscores=True)
            self.late_seconds += [max(0.0, (now - deadline) / 1000) for _, deadline in oldest]
            self.overdue.append(int(self.engine.client.zcount(keys.holds(SHOP), "-inf", now)))


@contextmanager
def watching(engine: Engine, row: dict[str, Any]) -> Iterator[None]:
    """Add to the row how late holds were during the block."""
    watch = Watch(engine)
    watch.start()
    yield
    watch.stopped.set()
    watch.join()
    row["late_p50_s"] = percentile(watch.late_seconds, 0.5)
    row["late_max_s"] = max(watch.late_seconds, default=0)
    row["overdue_max"] = max(watch.overdue, default=0)
    row["overdue_at_end"] = watch.overdue[-1] if watch.overdue else 0


def measure(workers: int, connections: int, seconds: int) -> list[dict[str, Any]]:
    """Return a row of results for each load. Raise AssertionError if holds remain or the audit finds something."""
    rows: list[dict[str, Any]] = []
    _, load_cores = split_cores()
    pending, completed = Load("pending", 2, PRODUCTS), Load("orders", 2, PRODUCTS)

    def add(name: str, engine: Engine, run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        row: dict[str, Any] = {"load": name}
        rows.append(row)
        with watching(engine, row):
            row |= run()
        row["rate"] = row["created"] / row["seconds"]
        wait_for_release(engine)
        print(json.dumps({name: round(value, 3) if isinstance(value, float) else value for name, value in row.items()}))
        return row

    compile_client()
    with tempfile.TemporaryDirectory() as folder, start_engine(Path(folder) / "engine", "always") as engine:
        engine.fill(PRODUCTS)
        with serve("holdfast", engine, workers, 0) as server:
            port = server.port
            run_at_full_speed(port, completed, connections, 1, load_cores)
            full = add(
                "pending, no break", engine, lambda: run_at_full_speed(port, pending, connections, seconds, load_cores)
            )
            rate = full["rate"] * SHARE
            for name, load in (("pending", pending), ("completed", completed)):
                add(
                    f"{name}, {SHARE:.0%}",
                    engine,
                    lambda load=load: run_at_rate(port, load, connections, seconds, load_cores, rate),  # type: ignore[misc]
                )
        print(engine.check_balance())
    return rows


def wait_for_release(engine: Engine) -> None:
    """Wait until no hold is left. Raise AssertionError after 30 seconds."""
    for _ in itertools.repeat(None, 300):
        if not engine.client.zcard(keys.holds(SHOP)):
            return
        time.sleep(0.1)
    raise AssertionError(f"{engine.client.zcard(keys.holds(SHOP))} holds are left")


def main() -> None:
    """Measure with the numbers of the command line, and print a line of JSON per load."""
    parser = argparse.ArgumentParser(prog="python -m bench.holds", description=__doc__)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=int, default=10)
    given = parser.parse_args()
    measure(given.workers, given.connections, given.seconds)


if __name__ == "__main__":
    main()

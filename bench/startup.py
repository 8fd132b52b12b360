"""Measures how long commands and the start of the service take, and how fast import and audit are.

    python -m bench.startup [--orders 100000] [--rounds 5] [--against DIR]

All on embedded engines. `--against`: a checkout of another version, whose commands take turns with those of this one,
so that other programs on the machine disturb both. It prints one table:

- the CPU time (user and system) of each command on an empty shop, with the engine running: Python, imports, and the
  work. The engine's own time is not in it;
- products per second of an import, and orders per second of an audit, with the CPU time for each, without that of the
  engine, and the largest memory of the process;
- the time until `holdfast serve` is ready on a data directory with orders, and how much of it the engine needs alone.

bench/README.md has the results.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import NamedTuple

from service.engine.launcher import run_engine

HERE = Path(__file__).parents[1]

COMMANDS = (
    *(["--help"], ["audit", "--help"], ["import", "one.jsonl"], ["audit"], ["doctor"], ["events"], ["sales"]),
    *(["export", "products"], ["export", "orders"]),
)

PRODUCTS = 100_000


class Run(NamedTuple):
    """One run of a command: seconds, seconds of CPU, and the largest memory in MiB."""

    seconds: float
    cpu: float
    memory: float


def run(version: Path, folder: Path, arguments: Sequence[str], **variables: str) -> Run:
    """Run a command of a checkout to its end."""
    began_at = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "service", *arguments],
        cwd=folder,
        env=environment(version, **variables),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"holdfast {' '.join(arguments)} ended with {process.returncode}")
    return Run(time.perf_counter() - began_at, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def environment(version: Path, **variables: str) -> dict[str, str]:
    """Return the environment of a command. Bytecode is kept, as where Holdfast is installed."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**inherited, "PYTHONPATH": str(version), "HOLDFAST_DURABILITY": "none", **variables}


def commands(versions: Sequence[Path], rounds: int) -> None:
    """Print the CPU time of each command, and the speed of an import."""
    with tempfile.TemporaryDirectory() as name, run_engine(Path(name) / "data", "none") as url:
        folder = Path(name)
        (folder / "one.jsonl").write_text(_products(1))
        (folder / "many.jsonl").write_text(_products(PRODUCTS))
        for arguments in COMMANDS:
            runs: dict[Path, list[Run]] = defaultdict(list)
            for _ in range(rounds + 1):
                for version in versions:
                    runs[version].append(run(version, folder, arguments, HOLDFAST_REDIS_URL=url))
            _print(f"`holdfast {' '.join(arguments)}`, s of CPU", runs, lambda each: f"{each.cpu:.3f}")
        imports: dict[Path, list[Run]] = defaultdict(list)
        for number in range(rounds + 1):
            for place, version in enumerate(versions):
                shop = f"import{number}.{place}"
                variables = {"HOLDFAST_REDIS_URL": url, "HOLDFAST_SHOP": shop}
                imports[version].append(run(version, folder, ["import", "many.jsonl"], **variables))
        _print("import, products/s", imports, lambda each: f"{PRODUCTS / each.seconds:,.0f}")
        _print("import, µs of CPU per product", imports, lambda each: f"{each.cpu / PRODUCTS * 1e6:.0f}")
        _print("import, MiB", imports, lambda each: f"{each.memory:.0f}")


def on_orders(versions: Sequence[Path], rounds: int, orders: int) -> None:
    """Print the speed of an audit, and the time until the service is ready on a directory with orders."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = folder / "data"
        with _service(HERE, folder, data) as port:
            _place(port, orders)
        audits: dict[Path, list[Run]] = defaultdict(list)
        with run_engine(data, "none") as url:
            for _ in range(rounds + 1):
                for version in versions:
                    audits[version].append(run(version, folder, ["audit"], HOLDFAST_REDIS_URL=url))
        _print("audit, orders/s", audits, lambda each: f"{orders / each.seconds:,.0f}")
        _print("audit, µs of CPU per order", audits, lambda each: f"{each.cpu / orders * 1e6:.0f}")
        _print("audit, MiB", audits, lambda each: f"{each.memory:.0f}")
        ready: dict[Path, list[Run]] = defaultdict(list)
        loads = []
        for _ in range(rounds + 1):
            began_at = time.perf_counter()
            with run_engine(data, "none"):
                loads.append(time.perf_counter() - began_at)
            for version in versions:
                began_at = time.perf_counter()
                with _service(version, folder, data):
                    ready[version].append(Run(time.perf_counter() - began_at, 0, 0))
        load = statistics.median(loads[1:])
        _print("`holdfast serve` ready, s", ready, lambda each: f"{each.seconds:.2f}")
        _print(f"beyond the engine's {load:.2f} s, s", ready, lambda each: f"{each.seconds - load:.2f}")


def _print(what: str, runs: Mapping[Path, list[Run]], show: Callable[[Run], str]) -> None:
    """Print a row of the table: the median of each version. The first run only warms up."""
    cells = []
    for each in runs.values():
        median = sorted(each[1:])[(len(each) - 1) // 2]
        cells.append(show(median))
    print(f"| {what} | {' | '.join(cells)} |", flush=True)


def _products(count: int) -> str:
    product = {"name": "Mug", "description": "Holds coffee.", "price": 19.99, "stock": 1_000_000}
    return "".join(json.dumps({"id": number, **product}) + "\n" for number in range(1, count + 1))


@contextmanager
def _service(version: Path, folder: Path, data: Path) -> Iterator[int]:
    """Yield the port of a service that is ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    variables = {"HOLDFAST_PORT": str(port), "HOLDFAST_DATA_DIR": str(data)}
    process = subprocess.Popen(
        [sys.executable, "-m", "service", "serve"],
        cwd=folder,
        env=environment(version, **variables),
        stderr=subprocess.DEVNULL,
    )
    try:
        while _status(port) != 200:
            if process.poll() is not None:
                raise SystemExit(f"holdfast serve ended with {process.returncode}")
            time.sleep(0.005)
        yield port
    finally:
        process.terminate()
        process.wait()


def _status(port: int) -> int | None:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status
    except (OSError, HTTPException):
        return None
    finally:
        connection.close()


def _place(port: int, orders: int) -> None:
    """Add 100 products, and place orders of two lines, many requests in one write."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        _send(connection, "/products", [_products(100).split("\n")[number] for number in range(100)])
        for start in range(0, orders, 50):
            pairs = [(number % 50 + 1, number % 49 + 51) for number in range(start, start + 50)]
            lines = [[{"product_id": product_id, "quantity": 2} for product_id in pair] for pair in pairs]
            _send(connection, "/orders", [json.dumps({"products": each}) for each in lines])


def _send(connection: socket.socket, path: str, bodies: Sequence[str]) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: "
    connection.sendall("".join(f"{head}{len(body)}\r\n\r\n{body}" for body in bodies).encode())
    received = b""
    while received.count(b"HTTP/1.1 201 ") < len(bodies):
        part = connection.recv(1_000_000)
        if not part or b"HTTP/1.1 4" in part or b"HTTP/1.1 5" in part:
            raise SystemExit(f"not all were placed: {part[:500]!r}")
        received += part


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orders", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--against", type=Path)
    options = parser.parse_args()
    versions = [HERE] if options.against is None else [options.against.resolve(), HERE]
    print(f"| | {' | '.join(['before', 'now'][-len(versions) :])} |\n|---|{'---|' * len(versions)}")
    commands(versions, options.rounds)
    on_orders(versions, options.rounds, options.orders)


if __name__ == "__main__":
    main()

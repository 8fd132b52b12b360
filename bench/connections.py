"""Measures what many connections cost: the memory of the worker, and how long an order beside them takes.

    .venv/bin/python bench/connections.py [--idle 10000] [--busy 5000]

The service has one worker, and stores the orders in an embedded engine without syncing. It needs twice as many open
files as connections (`ulimit -n`). `docs/operations.md` has the results.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

HERE: Final = Path(__file__).parents[1]
PORT: Final = 18_080
_BODY: Final = json.dumps({"products": [{"product_id": 1, "quantity": 1}]}).encode()
_HEAD: Final = b"Host: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
ORDER: Final = b"POST /orders HTTP/1.1\r\n" + _HEAD % len(_BODY) + _BODY
HALF_ORDER: Final = b"POST /orders HTTP/1.1\r\n" + _HEAD % 60_000 + b" " * 30_000
PAGE: Final = b"GET /products?limit=100 HTTP/1.1\r\nHost: x\r\n\r\n"
_PAGES_PER_CLIENT: Final = 40
_BUSY_SECONDS: Final = 10.0
_TOGETHER: Final = 200
"""Connections that are opened at the same time: fewer than the listener lets wait."""

Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Row(NamedTuple):
    """Memory of the worker in MB, and the time of an order beside the connections in ms (median, longest)."""

    name: str
    memory_mb: float
    order_ms: float
    longest_ms: float


class Service:
    """A service with an engine in a folder of its own."""

    def __init__(self, folder: str) -> None:
        env = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
        env |= {"PYTHONPATH": str(HERE), "HOLDFAST_PORT": str(PORT), "HOLDFAST_LOG_LEVEL": "error"}
        env |= {"HOLDFAST_DURABILITY": "none", "HOLDFAST_MAX_CONNECTIONS": "1000000"}
        command = [sys.executable, "-m", "service", "serve"]
        self._process = subprocess.Popen(command, cwd=folder, env=env, stderr=subprocess.DEVNULL)
        for _ in range(200):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{PORT}/readyz")
                break
            except OSError:
                time.sleep(0.05)
        else:
            raise SystemExit("the service does not start")
        for number in range(1, 101):
            body = {"id": number, "name": "Mug", "description": "Holds coffee. " * 8, "price": 5, "stock": 10**9}
            request = urllib.request.Request(
                f"http://127.0.0.1:{PORT}/products", json.dumps(body).encode(), {"Content-Type": "application/json"}
            )
            urllib.request.urlopen(request).read()

    def memory_mb(self) -> float:
        """Return the resident memory of the worker, which is the only process of a service with one worker."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def close(self) -> None:
        """Stop the service."""
        self._process.terminate()
        self._process.wait()


async def connect(count: int) -> list[Client]:
    """Open connections."""
    clients: list[Client] = []
    while len(clients) < count:
        together = min(_TOGETHER, count - len(clients))
        clients += await asyncio.gather(*[asyncio.open_connection("127.0.0.1", PORT) for _ in range(together)])
    return clients


@asynccontextmanager
async def connected(count: int) -> AsyncIterator[list[Client]]:
    """Keep connections open, then close them."""
    clients = await connect(count)
    try:
        yield clients
    finally:
        for _, writer in clients:
            writer.transport.abort()
        await asyncio.sleep(1)


async def order(client: Client) -> int:
    """Order one unit, and return the status of the answer."""
    reader, writer = client
    writer.write(ORDER)
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
    return int(head[9:12])


async def measure(service: Service, name: str, count: int = 100) -> Row:
    """Order one after another over a connection of its own."""
    [client] = await connect(1)
    times = []
    for _ in range(count):
        start = time.perf_counter()
        await order(client)
        times.append((time.perf_counter() - start) * 1000)
    client[1].close()
    return Row(name, service.memory_mb(), statistics.median(times), max(times))


async def idle(service: Service, count: int) -> list[Row]:
    """Connections that have placed an order, and are silent since then."""
    async with connected(count) as clients:
        for start in range(0, count, _TOGETHER):
            await asyncio.gather(*[order(client) for client in clients[start : start + _TOGETHER]])
        open_row = await measure(service, f"{count:,} idle connections")
    return [open_row, await measure(service, "after they were closed")]


async def busy(service: Service, count: int) -> list[Row]:
    """Connections that all order without a pause. The row about them has the time of these orders, not of others."""
    times: list[float] = []
    refused = 0

    async def buy(client: Client, until: float) -> None:
        nonlocal refused
        while (start := time.perf_counter()) < until:
            if await order(client) == 201:
                times.append((time.perf_counter() - start) * 1000)
            else:
                refused += 1

    async with connected(count) as clients:
        until = time.perf_counter() + _BUSY_SECONDS
        await asyncio.gather(*[buy(client, until) for client in clients])
        share = refused / (len(times) + refused)
        name = f"{count:,} busy connections ({len(times) / _BUSY_SECONDS:,.0f} orders/s, {share:.1%} refused)"
        row = Row(name, service.memory_mb(), statistics.median(times), max(times))
    return [row, await measure(service, "after they were closed")]


async def slow_readers(service: Service, count: int = 1000) -> list[Row]:
    """Clients that ask for large pages and read nothing."""
    async with connected(count) as clients:
        for _, writer in clients:
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(PAGE * _PAGES_PER_CLIENT)
        await asyncio.sleep(3)
        return [await measure(service, f"{count:,} clients that ask for {_PAGES_PER_CLIENT} pages and read none")]


async def slow_writers(service: Service, count: int = 2000) -> list[Row]:
    """Clients that send half a body of 60 KB."""
    async with connected(count) as clients:
        for _, writer in clients:
            writer.write(HALF_ORDER)
        await asyncio.sleep(3)
        return [await measure(service, f"{count:,} clients that have sent 30 KB of 60 KB")]


async def run(idle_count: int, busy_count: int) -> None:
    """Print a row for each kind of connections. Each kind gets a new service."""
    kinds: list[Callable[[Service], Awaitable[list[Row]]]] = [
        lambda service: idle(service, idle_count),
        lambda service: busy(service, busy_count),
        slow_readers,
        slow_writers,
    ]
    for kind in kinds:
        with tempfile.TemporaryDirectory() as folder:
            service = Service(folder)
            try:
                for row in [await measure(service, "no other connection"), *await kind(service)]:
                    print(
                        f"| {row.name} | {row.memory_mb:.0f} MB | {row.order_ms:.1f} ms | {row.longest_ms:.0f} ms |",
                        flush=True,
                    )
            finally:
                service.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--idle", type=int, default=10_000)
    parser.add_argument("--busy", type=int, default=5_000)
    arguments = parser.parse_args()
    asyncio.run(run(arguments.idle, arguments.busy))

"""What an overloaded service still does: orders that are placed in time, and how long they take.

    .venv/bin/python bench/overload.py [--repeats 3] [--redis-bytes 250000] [--against DIRECTORY]

Redis is slowed down: it gets only so many bytes of commands per second. So Redis is the limit, as it is with several
workers or a slow disk, and not this client. First the capacity is measured, with as many clients as give most orders
per second. Then orders come at fixed moments (an open loop: nobody waits for the answer before him), at half, once,
twice and three times the capacity.

`--against`: another checkout, whose service is measured in turn with this one.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parents[1]
SECONDS = 6.0
CLIENT_TIMEOUT = 2.0


class Result(NamedTuple):
    """Orders per second that were placed within CLIENT_TIMEOUT; milliseconds of these; shares of all that were sent.

    `steady_p99`: without the orders of the first second, in which a queue is taken for a burst.
    """

    goodput: float
    p50: float
    p99: float
    steady_p99: float
    refused: float
    late: float


class Service:
    """A service whose Redis is slow: a process between them passes on `bytes_per_second` bytes of commands at most."""

    def __init__(self, checkout: Path, port: int, folder: Path, engine: Path, bytes_per_second: float) -> None:
        self.port = port
        env = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
        env |= {"PYTHONPATH": str(checkout), "HOLDFAST_PORT": str(port), "HOLDFAST_LOG_LEVEL": "error"}
        env |= {"HOLDFAST_SHOP": folder.name, "HOLDFAST_REDIS_URL": f"unix://{folder}/slow.sock"}
        slow = multiprocessing.Process(
            target=_slow_redis, args=(folder / "slow.sock", engine, bytes_per_second), daemon=True
        )
        slow.start()
        self.process = _start(env, folder)
        wait_until_ready(port)
        for number in range(1, 101):
            body = {"id": number, "name": "Mug", "description": "", "price": 5, "stock": 10**9}
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/products", json.dumps(body).encode(), {"Content-Type": "application/json"}
            )
            urllib.request.urlopen(request).read()

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()


def _start(env: dict[str, str], folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "service", "serve"], cwd=folder, env=env, stderr=subprocess.DEVNULL)


def wait_until_ready(port: int) -> None:
    for _ in range(200):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz")
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit("the service does not start")


def _slow_redis(path: Path, engine: Path, bytes_per_second: float) -> None:
    """Pass on what comes to `path`, so that Redis gets `bytes_per_second` of commands."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        replies, commands = await asyncio.open_unix_connection(str(engine))

        async def pass_replies() -> None:
            while data := await replies.read(65_536):
                writer.write(data)

        task = asyncio.create_task(pass_replies())
        free_at = 0.0
        while data := await reader.read(2048):
            commands.write(data)
            free_at = max(free_at, time.monotonic()) + len(data) / bytes_per_second
            if (wait := free_at - time.monotonic()) > 0.001:
                await asyncio.sleep(wait)
        task.cancel()

    async def serve() -> None:
        async with await asyncio.start_unix_server(connected, str(path), limit=4096) as server:
            await server.serve_forever()

    asyncio.run(serve())


class Pool:
    """Connections of a client that opens another one whenever all are in use, as independent buyers do."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def order(self, number: int) -> int:
        """Return the status of the answer. 0: there was none in time."""
        body = b'{"products":[{"product_id":%d,"quantity":1}]}' % (number % 100 + 1)
        head = b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        connection = None
        try:
            async with asyncio.timeout(CLIENT_TIMEOUT):
                if self._free:
                    connection = self._free.pop()
                else:
                    connection = await asyncio.open_connection("127.0.0.1", self._port)
                reader, writer = connection
                writer.write(head % len(body) + body)
                answer = await reader.readuntil(b"\r\n\r\n")
                fields = dict(line.split(b": ", 1) for line in answer.split(b"\r\n")[1:-2])
                await reader.readexactly(int(fields[b"content-length"]))
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            if connection is not None:
                connection[1].close()
            return 0
        self._free.append(connection)
        return int(answer[9:12])

    def close(self) -> None:
        for _, writer in self._free:
            writer.close()


def percentile(share: int, values: list[float]) -> float:
    return sorted(values)[len(values) * share // 100] if values else 0


async def closed_loop(port: int, clients: int) -> tuple[float, float]:
    """Return the orders per second of clients that each wait for their answer, and the 99th percentile in ms."""
    pool, ends, took = Pool(port), time.monotonic() + SECONDS / 2, list[float]()

    async def client(number: int) -> None:
        while (began := time.monotonic()) < ends:
            if await pool.order(number) == 201:
                took.append((time.monotonic() - began) * 1000)

    await asyncio.gather(*[client(number) for number in range(clients)])
    pool.close()
    return len(took) / (SECONDS / 2), percentile(99, took)


async def open_loop(port: int, rate: float) -> Result:
    """Send orders at a fixed rate."""
    pool, tasks = Pool(port), []
    statuses: list[tuple[int, float, float]] = []

    async def one(number: int, due: float) -> None:
        statuses.append((await pool.order(number), time.monotonic() - due, due - started))

    started, number = time.monotonic(), 0
    while (now := time.monotonic() - started) < SECONDS:
        while number < now * rate:
            tasks.append(asyncio.create_task(one(number, started + number / rate)))
            number += 1
        await asyncio.sleep(0.001)
    await asyncio.gather(*tasks)
    pool.close()
    placed = [(ms * 1000, due) for status, ms, due in statuses if status == 201 and ms < CLIENT_TIMEOUT]
    refused = sum(status == 503 for status, _, _ in statuses)
    return Result(
        len(placed) / SECONDS,
        percentile(50, [ms for ms, _ in placed]),
        percentile(99, [ms for ms, _ in placed]),
        percentile(99, [ms for ms, due in placed if due > 1]),
        refused / number,
        1 - (len(placed) + refused) / number,
    )


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--redis-bytes", type=float, default=250_000, help="bytes of commands for Redis per second")
    parser.add_argument("--against", type=Path)
    options = parser.parse_args()
    checkouts = {"this": HERE} | ({"other": options.against} if options.against else {})
    with tempfile.TemporaryDirectory() as folder:
        services = {}
        env = {**os.environ, "PYTHONPATH": str(HERE), "HOLDFAST_PORT": "8300", "HOLDFAST_LOG_LEVEL": "error"}
        with_engine = _start(env, Path(folder))
        wait_until_ready(8300)
        for number, (name, checkout) in enumerate(checkouts.items(), 1):
            own = Path(folder) / name
            own.mkdir()
            services[name] = Service(
                checkout, 8300 + number, own, Path(folder) / "data/engine.sock", options.redis_bytes
            )
        try:
            most = [max([await closed_loop(services["this"].port, clients) for clients in (32, 64)]) for _ in range(3)]
            capacity, p99 = statistics.median_low(most)
            print(f"capacity: {capacity:.0f} orders per second, 99 % of them within {p99:.0f} ms")
            print("load  service  placed/s  of capacity  p50 ms  p99 ms  p99 later  refused  late or lost")
            for factor in (0.5, 1, 2, 3):
                results: dict[str, list[Result]] = {name: [] for name in services}
                for _ in range(options.repeats):
                    for name, service in services.items():
                        results[name].append(await open_loop(service.port, factor * capacity))
                        await asyncio.sleep(0.5)
                for name, found in results.items():
                    m = Result(*[statistics.median(values) for values in zip(*found, strict=True)])
                    print(
                        f"{factor:<4}  {name:7}  {m.goodput:8.0f}  {m.goodput / capacity:11.2f}  {m.p50:6.0f}  "
                        f"{m.p99:6.0f}  {m.steady_p99:9.0f}  {m.refused:7.2f}  {m.late:12.2f}",
                        flush=True,
                    )
        finally:
            for service in services.values():
                service.close()
            with_engine.terminate()
            with_engine.wait()


if __name__ == "__main__":
    asyncio.run(main())

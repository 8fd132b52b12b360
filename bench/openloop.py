"""An HTTP client that sends on a schedule: request n is due at start + n / rate, and its latency counts from then.

When all connections are waiting for answers, requests queue in the client, and the time in the queue is part of
their latency. So a server that stalls is charged for every request that became due during the stall: there is no
"coordinated omission". If a request leaves late although a connection was free, the client itself is the cause.
This delay is reported, too. Requests that are due in the first half second are sent, but do not count: otherwise the
first requests on new connections would be most of the p99 of a short run.

The part that sends is openloop.c: if client and servers share the cores, every µs of the client is taken from the
servers. A loop in Python took two to three times as much CPU time: for a request, about as much as the ceiling needs
for an order.
"""

import atexit
import random
import shutil
import struct
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from bench.processes import end_with_parent, on_cores

WARM_UP_SECONDS = 0.5


def request_maker(kind: str, lines: int, products: int) -> Callable[[], bytes]:
    """Return a function that makes random requests, as load.lua does, for the kinds of load that are measured here."""
    draw = random.Random(1)

    def get(path: str) -> bytes:
        return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()

    def order(fields: str = "") -> bytes:
        chosen = draw.sample(range(1, products + 1), lines)
        body = ", ".join(f'{{"product_id": {number}, "quantity": {draw.randint(1, 3)}}}' for number in chosen)
        body = f'{{"products": [{body}]{fields}}}'
        return (
            "POST /orders HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        ).encode()

    makers: dict[str, Callable[[], bytes]] = {
        "orders": order,
        "pending": lambda: order(', "status": "pending", "hold_seconds": 1'),
        "page": lambda: get("/products?limit=100"),
        "order_pages": lambda: get(f"/orders?limit=100&before={draw.randint(102, products)}"),
        "pages": lambda: get(f"/products?limit=100&after={draw.randint(0, products - 100)}"),
        "product": lambda: get(f"/products/{draw.randint(1, products)}"),
    }
    return makers[kind]


@cache
def compile_client() -> Path:
    """Compile openloop.c, and return the program, which is removed when this process ends.

    Call it before the first measurement. Raise FileNotFoundError without a C compiler, and CalledProcessError if the
    compiler fails, for example without the headers of the C library.
    """
    folder = Path(tempfile.mkdtemp(prefix="holdfast-openloop-"))
    atexit.register(shutil.rmtree, folder)
    program = folder / "openloop"
    source = Path(__file__).with_name("openloop.c")
    subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, source], check=True)
    return program


def run(
    port: int, connections: int, seconds: float, rate: float, make_request: Callable[[], bytes], cores: set[int]
) -> dict[str, Any]:
    """Send requests at a constant rate, and return the counts of the answers and the latencies.

    Raise AssertionError if the client fails, for example because a connection was closed.
    """
    requests = [make_request() for _ in range(int(rate * seconds))]
    given = b"".join([struct.pack("=I", len(request)) + request for request in requests])
    command = [str(compile_client()), str(port), str(connections), str(seconds), str(rate)]
    done = subprocess.run(
        end_with_parent(on_cores(cores, command)), input=given, capture_output=True, timeout=seconds + 90, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.decode()}"
    statuses: Counter[int] = Counter()
    latencies, client_delays, took = [], [], 0.0
    for status, *times in map(bytes.split, done.stdout.splitlines()):
        statuses[int(status)] += 1
        due_at, latency, client_delay = map(float, times)
        took = max(took, due_at + latency)
        if status != b"0" and due_at >= WARM_UP_SECONDS:
            latencies.append(latency)
            client_delays.append(client_delay)
    broken = statuses.pop(0, 0)
    return {
        "requests": statuses.total(),
        "seconds": took,
        "ok": statuses.pop(200, 0),
        "created": statuses.pop(201, 0),
        "refused": statuses.pop(409, 0),
        "other": statuses.total(),
        "broken": broken,
        "p50_ms": percentile(latencies, 0.5) * 1000,
        "p99_ms": percentile(latencies, 0.99) * 1000,
        "p999_ms": percentile(latencies, 0.999) * 1000,
        "client_delay_p99_ms": percentile(client_delays, 0.99) * 1000,
    }


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which this share of the values lies, or 0 if there are no values."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0

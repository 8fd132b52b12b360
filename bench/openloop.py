"""An HTTP client that sends on a schedule: request n is due at start + n / rate, and its latency counts from then.

When all connections are waiting for answers, requests queue in the client, and the time in the queue is part of
their latency. So a server that stalls is charged for every request that became due during the stall: there is no
"coordinated omission". If a request leaves late although a connection was free, the client itself is the cause.
This delay is reported, too. Requests that are due in the first half second are sent, but do not count: otherwise the
first requests on new connections would be most of the p99 of a short run.

The client uses plain sockets instead of an event loop, because the timers of an event loop are only exact to a
millisecond.
"""

import gc
import json
import random
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence

MAX_WAIT_SECONDS = 60.0
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


def status_of(answer: bytes) -> int | None:
    """Return the status of an answer, or None if a part is still missing. All servers here send a Content-Length."""
    head, found, body = answer.partition(b"\r\n\r\n")
    if not found:
        return None
    length = int(head.lower().partition(b"\r\ncontent-length:")[2].split(b"\r\n", 1)[0])
    return int(head[9:12]) if len(body) >= length else None


def run(
    port: int, connections: int, seconds: float, rate: float, make_request: Callable[[], bytes]
) -> dict[str, object]:
    """Send requests at a constant rate, and return the counts of the answers and the latencies."""
    requests = [make_request() for _ in range(int(rate * seconds))]
    opened = [socket.create_connection(("127.0.0.1", port)) for _ in range(connections)]
    sockets = {connection.fileno(): connection for connection in opened}
    poll = select.epoll()
    for number, connection in sockets.items():
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        poll.register(number, select.EPOLLIN)

    free = deque(sockets)
    due_at: dict[int, float] = {}
    received = dict.fromkeys(sockets, b"")
    latencies: list[float] = []
    client_delays: list[float] = []
    statuses: dict[int, int] = {}
    broken = sent = answered = 0
    clock = time.perf_counter
    gc.disable()
    start = clock() + 0.05
    last_free = start
    while answered + broken < len(requests):
        now = clock()
        while free and sent < len(requests) and (due := start + sent / rate) <= now:
            number = free.popleft()
            due_at[number] = due
            if due >= start + WARM_UP_SECONDS:
                client_delays.append(now - max(due, last_free))
            sockets[number].send(requests[sent])
            sent += 1
            now = clock()
        next_due = start + sent / rate if free and sent < len(requests) else now + 1
        if next_due > now:
            # The timeout of select() is exact to microseconds, that of epoll only to milliseconds.
            select.select([poll], [], [], next_due - now)
        if clock() - start > seconds + MAX_WAIT_SECONDS:
            broken += len(requests) - answered - broken
        all_were_waiting = not free
        for number, _ in poll.poll(0):
            data = sockets[number].recv(262_144)
            if not data:
                poll.unregister(number)
                broken += 1
                continue
            received[number] += data
            if (status := status_of(received[number])) is not None:
                answered += 1
                if due_at[number] >= start + WARM_UP_SECONDS:
                    latencies.append(clock() - due_at[number])
                statuses[status] = statuses.get(status, 0) + 1
                received[number] = b""
                free.append(number)
        if all_were_waiting and free:
            last_free = clock()
    return {
        "requests": answered,
        "seconds": clock() - start,
        "ok": statuses.pop(200, 0),
        "created": statuses.pop(201, 0),
        "refused": statuses.pop(409, 0),
        "other": sum(statuses.values()),
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


if __name__ == "__main__":
    port, connections, seconds, rate, kind, lines, products = sys.argv[1:]
    maker = request_maker(kind, int(lines), int(products))
    print(json.dumps(run(int(port), int(connections), float(seconds), float(rate), maker)))

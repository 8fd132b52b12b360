"""An HTTP client with a schedule: request n is due at start + n / rate, and its latency counts from then.

Where all connections wait for answers, requests queue, and that is part of their latency: a server that
stalls is charged for everything that became due meanwhile (no coordinated omission). How late requests
left though a connection was free is our own fault, and reported, too. What was due in the first half
second is sent, but does not count: with it, the first requests of new connections would be most of a short run's p99.

Plain sockets rather than an event loop, whose timers know milliseconds only.
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

LONGEST_WAIT = 60.0
WARM_UP = 0.5


def make_requests(kind: str, lines: int, products: int) -> Callable[[], bytes]:
    """As load.lua, as far as latencies are measured."""
    draw = random.Random(1)

    def get(path: str) -> bytes:
        return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()

    def order() -> bytes:
        chosen = draw.sample(range(1, products + 1), lines)
        body = ", ".join(f'{{"product_id": {number}, "quantity": {draw.randint(1, 3)}}}' for number in chosen)
        body = f'{{"products": [{body}]}}'
        return (
            "POST /orders HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        ).encode()

    makers: dict[str, Callable[[], bytes]] = {
        "orders": order,
        "page": lambda: get("/products?limit=100"),
        "pages": lambda: get(f"/products?limit=100&after={draw.randint(0, products - 100)}"),
        "product": lambda: get(f"/products/{draw.randint(1, products)}"),
    }
    return makers[kind]


def status_of(answer: bytes) -> int | None:
    """None if it is not all there. These servers all send a Content-Length."""
    head, found, body = answer.partition(b"\r\n\r\n")
    if not found:
        return None
    length = int(head.lower().partition(b"\r\ncontent-length:")[2].split(b"\r\n", 1)[0])
    return int(head[9:12]) if len(body) >= length else None


def run(port: int, connections: int, seconds: float, rate: float, request: Callable[[], bytes]) -> dict[str, object]:
    requests = [request() for _ in range(int(rate * seconds))]
    sockets = {one.fileno(): one for one in (socket.create_connection(("127.0.0.1", port)) for _ in range(connections))}
    poll = select.epoll()
    for number, one in sockets.items():
        one.setblocking(False)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        poll.register(number, select.EPOLLIN)

    free = deque(sockets)
    due_at: dict[int, float] = {}
    answers = dict.fromkeys(sockets, b"")
    latencies: list[float] = []
    lateness: list[float] = []
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
            if due >= start + WARM_UP:
                lateness.append(now - max(due, last_free))
            sockets[number].send(requests[sent])
            sent += 1
            now = clock()
        next_due = start + sent / rate if free and sent < len(requests) else now + 1
        if next_due > now:
            # select() takes microseconds where epoll takes milliseconds.
            select.select([poll], [], [], next_due - now)
        if clock() - start > seconds + LONGEST_WAIT:
            broken += len(requests) - answered - broken
        had_none_free = not free
        for number, _ in poll.poll(0):
            data = sockets[number].recv(262_144)
            if not data:
                poll.unregister(number)
                broken += 1
                continue
            answers[number] += data
            if (status := status_of(answers[number])) is not None:
                answered += 1
                if due_at[number] >= start + WARM_UP:
                    latencies.append(clock() - due_at[number])
                statuses[status] = statuses.get(status, 0) + 1
                answers[number] = b""
                free.append(number)
        if had_none_free and free:
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
        "client_late_p99_ms": percentile(lateness, 0.99) * 1000,
    }


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0


if __name__ == "__main__":
    port, connections, seconds, rate, kind, lines, products = sys.argv[1:]
    make = make_requests(kind, int(lines), int(products))
    print(json.dumps(run(int(port), int(connections), float(seconds), float(rate), make)))

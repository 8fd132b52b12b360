"""What the HTTP connections of a worker share: the application, the clock of their timeouts, and the common limits."""

import asyncio
import resource
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import structlog

from service.metrics.counters import Metrics
from service.metrics.families import CLIENTS

if TYPE_CHECKING:
    from service.server.http_connection import HttpConnection

log = structlog.get_logger()

RESERVED_DESCRIPTORS: Final = 64
"""File descriptors that connections must leave: for the listener, Redis, log files and the event loop."""

MAX_UNFINISHED_BYTES: Final = 64 * 1024 * 1024
"""Limit for the requests of a worker that have begun, but have not ended yet."""

MAX_UNREAD_BYTES: Final = 64 * 1024 * 1024
"""Limit for the responses of a worker that clients do not read."""

_LINES_PAUSE_TICKS: Final = 10
"""Pause between two log lines about the same limit."""


class Timeouts(NamedTuple):
    """Seconds that a client may take: for a request head, for a body, between requests, and to read a response."""

    head: int = 10
    body: int = 30
    keep_alive: int = 75
    write: int = 30


class HttpServer:
    """The shared part of all connections of one worker.

    Deadlines are counted in ticks of one timer, a second each. So a client does not lose time while the worker stands
    still, and a connection needs no timer of its own.
    """

    def __init__(
        self,
        *,
        app: Any,
        app_state: dict[str, Any],
        root_path: str,
        uvicorn_state: Any,
        timeouts: Timeouts,
        max_connections: int,
    ) -> None:
        """Begin without connections. `uvicorn_state`: the ServerState of uvicorn, which stops the server."""
        self.loop = asyncio.get_running_loop()
        self.app = app
        self.app_state = app_state
        self.root_path = root_path
        self.connections: set[HttpConnection] = uvicorn_state.connections
        self.tasks: set[asyncio.Task[None]] = uvicorn_state.tasks
        self.timeouts = timeouts
        self.max_connections = max_connections
        self.now = 0
        self.date = b""
        self.unfinished_bytes = 0
        self.unread: dict[HttpConnection, int] = {}
        """The connections whose client does not read, oldest first, and the bytes that wait for each."""
        self._unread_bytes = 0
        self._next_line_at: dict[str, int] = {}
        self._metrics: Metrics | None = app_state.get("metrics")

    def start(self) -> None:
        """Start the timer of the deadlines."""
        self.tick()
        self.loop.call_later(1, self._tick_again)

    def _tick_again(self) -> None:
        self.loop.call_later(1, self._tick_again)
        self.tick()

    def tick(self) -> None:
        """Let a second pass: update the Date field, and end what has taken too long."""
        self.now += 1
        if self._metrics is not None:
            self._metrics.set(CLIENTS, len(self.connections))
        self.date = f"date: {formatdate(usegmt=True)}\r\n".encode()
        for connection in tuple(self.connections):
            connection.check_deadline()

    def make_room(self) -> None:
        """Close the oldest idle connections if there are too many. If none is idle, close unfinished requests."""
        if len(self.connections) <= self.max_connections:
            return
        # Several at a time, because the search looks at all connections.
        count = len(self.connections) - self.max_connections + self.max_connections // 100
        closable = sorted(
            (connection for connection in self.connections if connection.is_reading()),
            key=lambda connection: (not connection.is_idle(), connection.deadline),
        )[:count]
        self._log("too_many_connections", limit=self.max_connections, closed=len(closable))
        for connection in closable:
            connection.abort()

    def add_unfinished(self, count: int) -> None:
        """Count bytes of an unfinished request. Above the limit, close the connections whose requests are oldest."""
        self.unfinished_bytes += count
        if self.unfinished_bytes <= MAX_UNFINISHED_BYTES:
            return
        self._log("too_many_unfinished_requests", limit_bytes=MAX_UNFINISHED_BYTES)
        unfinished = [connection for connection in self.connections if connection.is_reading()]
        for connection in sorted(unfinished, key=lambda connection: connection.deadline):
            if self.unfinished_bytes <= MAX_UNFINISHED_BYTES * 3 // 4:
                break
            if not connection.is_idle():
                connection.abort()

    def add_unread(self, connection: "HttpConnection", count: int) -> None:
        """Note the bytes that a client does not read. Above the limit, close the connections that wait longest."""
        self.unread[connection] = count
        self._unread_bytes += count
        while self._unread_bytes > MAX_UNREAD_BYTES:
            oldest = next(iter(self.unread))
            self._log("too_many_unread_responses", limit_bytes=MAX_UNREAD_BYTES)
            self.remove_unread(oldest)
            oldest.abort()

    def remove_unread(self, connection: "HttpConnection") -> None:
        """Forget what `add_unread` has noted for a connection."""
        self._unread_bytes -= self.unread.pop(connection, 0)

    def _log(self, event: str, **details: int) -> None:
        if self.now >= self._next_line_at.get(event, 0):
            self._next_line_at[event] = self.now + _LINES_PAUSE_TICKS
            log.warning(event, **details)


def raise_descriptor_limit() -> None:
    """Raise this process's limit of open files as far as the system allows. Processes that it starts inherit it."""
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))


def max_connections(setting: int) -> int:
    """Return how many connections a worker may have: the setting, or fewer if the system allows fewer open files."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return setting if limit == resource.RLIM_INFINITY else max(1, min(setting, limit - RESERVED_DESCRIPTORS))

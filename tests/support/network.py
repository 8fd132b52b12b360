"""A network between service and engine that a test can slow down or break, and helpers to observe commands."""

import asyncio
import contextlib
import ssl
import time
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from service.storage.connection import MultiplexedConnection

SHORT_TIMEOUT = 0.3
"""Seconds. Timeout of the commands, where a test waits until it has passed."""

LONG_TIMEOUT = 10.0
"""Seconds. Timeout of the commands, in tests where no command may time out."""

MARGIN = 1.0
"""Seconds by which a busy machine may be late."""

MEBIBYTE = 1024 * 1024

CLERK_PASSWORD = "p@ss:w/rd?#%&"
"""The password of the engine user `clerk`, with the characters that a URL must escape."""


class Network:
    """A TCP port in front of the engine. A test can hold back commands or replies, and cut connections."""

    def __init__(self, engine_url: str, tls: ssl.SSLContext | None = None) -> None:
        self.engine_url = engine_url
        """`unix://` or `redis://`. A test may change it: then new connections lead to another engine."""
        self.tls = tls
        self.port = 0
        self.chunks: list[bytes] = []
        """The bytes from the service, in the pieces in which they arrived."""
        self.accepted = 0
        """How many connections the service has opened."""
        self.commands_pass, self.replies_pass = asyncio.Event(), asyncio.Event()
        self.commands_pass.set()
        self.replies_pass.set()
        self.reply_bytes = MEBIBYTE
        """How many bytes of a reply are passed on at a time."""
        self.delay = 0.0
        """Seconds by which each piece of a reply is late."""
        self.cut_after: int | None = None
        """How many bytes of commands still pass before the connection is cut."""
        self.closes_new_connections = False
        self.connections: dict[asyncio.StreamWriter, list[asyncio.Task[None]]] = {}
        """Open connections, each with the tasks that pass on its commands and its replies."""
        self.tasks: set[asyncio.Task[None]] = set()
        self.server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"{'rediss' if self.tls else 'redis'}://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def open(self) -> None:
        """Listen. After close(): on the same port as before."""
        self.server = await asyncio.start_server(self._connected, "127.0.0.1", self.port, ssl=self.tls)
        self.port = self.server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening, and cut all connections."""
        if self.server is not None:
            self.server.close()
            self.server = None
        self.cut()

    def cut(self) -> None:
        """Cut all connections now. What is held back is lost."""
        for writer, tasks in self.connections.items():
            writer.transport.abort()
            for task in tasks:
                task.cancel()

    def send_to_service(self, reply: bytes) -> None:
        """Send the service bytes that do not come from the engine."""
        for writer in self.connections:
            writer.write(reply)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self.closes_new_connections:
            writer.close()
            return
        task = asyncio.create_task(self._serve(reader, writer))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            engine_reader, engine_writer = await self._connect_engine()
        except OSError:  # the engine is down
            writer.transport.abort()
            return
        tasks = [
            asyncio.create_task(self._pass_commands(reader, engine_writer)),
            asyncio.create_task(self._pass_replies(engine_reader, writer)),
        ]
        self.connections[writer] = tasks
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        del self.connections[writer]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for end in (writer, engine_writer):
            end.transport.abort()
            with contextlib.suppress(OSError):
                await end.wait_closed()

    async def _connect_engine(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self.engine_url.startswith("redis://"):
            address = urlsplit(self.engine_url)
            return await asyncio.open_connection(address.hostname, address.port)
        return await asyncio.open_unix_connection(unquote(self.engine_url.removeprefix("unix://")))

    async def _pass_commands(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(MEBIBYTE):
            self.chunks.append(data)
            await self.commands_pass.wait()
            if self.cut_after is not None:
                data, self.cut_after = data[: self.cut_after], self.cut_after - len(data)
            writer.write(data)
            await writer.drain()
            if self.cut_after is not None and self.cut_after <= 0:
                self.cut_after = None
                return

    async def _pass_replies(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(self.reply_bytes):
            await self.replies_pass.wait()
            if self.delay:
                await asyncio.sleep(self.delay)
            writer.write(data)
            await writer.drain()


def connect_through(
    network: Network, timeout: float = LONG_TIMEOUT, max_in_flight: int = 100_000
) -> MultiplexedConnection:
    """Return a connection through the network. It is not open yet."""
    return MultiplexedConnection(network.url, timeout=timeout, max_in_flight=max_in_flight)


async def outcome(command: asyncio.Future[Any]) -> Any:
    """Return the reply to the command, or the class of its error."""
    await asyncio.wait([command])
    if command.cancelled():
        return asyncio.CancelledError
    error = command.exception()
    return command.result() if error is None else type(error)


async def count_at(connection: MultiplexedConnection, key: str = "count") -> int:
    """Return the number at this key, 0 if there is no such key."""
    return int(await connection.send("GET", key) or 0)


async def wait_for_count(connection: MultiplexedConnection, expected: int, key: str = "count") -> None:
    """Wait until the number at this key is `expected`: until as many INCR are executed."""
    give_up = time.monotonic() + LONG_TIMEOUT
    while (count := await count_at(connection, key)) != expected:
        assert time.monotonic() < give_up, f"{key} is {count}, not {expected}"


async def wait_for_recovery(connection: MultiplexedConnection) -> None:
    """Wait until the connection works again, without any help."""
    give_up = time.monotonic() + LONG_TIMEOUT
    while await outcome(connection.send("PING", safe_to_repeat=True)) != "PONG":
        assert time.monotonic() < give_up, "the connection does not recover"
        await asyncio.sleep(0.005)  # not a busy loop where commands fail immediately
    assert await connection.send("ECHO", "well") == "well"


def has_noticed_loss(logs: list[Any]) -> bool:
    """Return whether a MultiplexedConnection has logged that its connection broke."""
    return any(entry["event"] == "redis_lost" for entry in logs)

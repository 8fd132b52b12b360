"""An HTTP connection of the server without a network: the test is the client, and moves the clock."""

import asyncio
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.server import ServerState

from service.server.http_connection import HttpConnection
from service.server.http_server import HttpServer, Timeouts


class FakeTransport(asyncio.Transport):
    """Stores what the server writes. `unread`: the bytes that the client has not read yet, if it does not read."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.7", 4711)})
        self.written = b""
        self.reads = True
        self.has_ended = False
        self.is_aborted = False
        self.is_closed = False
        self.client_reads = True
        self.unread = 0
        self.protocol: HttpConnection | None = None
        self._high = 64 * 1024

    def write(self, data: Any) -> None:
        self.written += data
        if not self.client_reads:
            self.unread += len(data)
            if self.unread > self._high and self.protocol is not None:
                self.protocol.pause_writing()

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def read_all(self) -> None:
        """Let the client read everything."""
        self.client_reads, self.unread = True, 0
        assert self.protocol is not None
        self.protocol.resume_writing()

    def get_write_buffer_size(self) -> int:
        return self.unread

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = high or self._high

    def pause_reading(self) -> None:
        assert self.reads
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def is_closing(self) -> bool:
        return self.is_closed

    def write_eof(self) -> None:
        self.has_ended = True

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            if self.protocol is not None:
                asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def abort(self) -> None:
        self.is_aborted = True
        self.close()


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with what was asked. An error of the request is answered with its status and its problem."""
    error = scope.get("holdfast.request_error")
    status = error.problem.status if error is not None else 200
    name = error.problem.name if error is not None else ""
    body = (await receive())["body"]
    text = f"{scope['method']} {scope['path']}?{scope['query_string'].decode()} {body.decode()} {name}\n".encode()
    await send(
        {"type": "http.response.start", "status": status, "headers": [(b"x-fields", b"%d" % len(scope["headers"]))]}
    )
    await send({"type": "http.response.body", "body": text})


def make_server(app: ASGIApp = echo, *, timeouts: Timeouts | None = None, max_connections: int = 100) -> HttpServer:
    """Return the shared part of connections. Its clock stands still until the test calls `tick()`."""
    server = HttpServer(
        app=app,
        app_state={},
        root_path="",
        uvicorn_state=ServerState(),
        timeouts=timeouts or Timeouts(),
        max_connections=max_connections,
    )
    server.tick()
    return server


def connect(server: HttpServer) -> FakeTransport:
    """Return the transport of a new connection."""
    transport = FakeTransport()
    transport.protocol = HttpConnection(server)
    transport.protocol.connection_made(transport)
    return transport


def receive(transport: FakeTransport, data: bytes) -> None:
    """Let the server receive bytes of the client."""
    assert transport.protocol is not None
    if not transport.is_closed:
        transport.protocol.data_received(data)


async def settle(server: HttpServer) -> None:
    """Wait until all requests that were received are answered, as far as the clients read."""
    for _ in range(3):
        await asyncio.sleep(0)
    written, still = -1, 0
    while (waiting := [task for task in server.tasks if not task.done()]) and still < 3:
        done, _ = await asyncio.wait(waiting, timeout=0.05)
        before, written = written, sum(_written(connection) for connection in server.connections)
        # On a busy machine, many responses can take longer than one wait.
        still = 0 if done or written != before else still + 1
    await asyncio.sleep(0)


def _written(connection: HttpConnection) -> int:
    assert isinstance(connection.transport, FakeTransport)
    return len(connection.transport.written)

"""A response that is sent in several parts, without a network: its bytes, a slow client, and the end of either side."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from service.server.http_server import HttpServer, Timeouts
from tests.support.fake_transport import FakeTransport, connect, make_server, receive, settle

GET = b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n"


class Streamer:
    """An application whose response has the parts that the test sends."""

    def __init__(self) -> None:
        self.send: Send | None = None
        self.events: list[str] = []
        self.error: Exception | None = None
        self._finish = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"X-Kind", b"several")]})
        self.send = send
        disconnected = asyncio.create_task(self._disconnected(receive))
        try:
            await self._finish.wait()
            if self.error is not None:
                raise self.error
            await send({"type": "http.response.body"})
        finally:
            disconnected.cancel()

    async def _disconnected(self, receive: Receive) -> None:
        self.events.append((await receive())["type"])

    async def part(self, data: bytes) -> None:
        assert self.send is not None
        await self.send({"type": "http.response.body", "body": data, "more_body": True})

    def finish(self, error: Exception | None = None) -> None:
        self.error = error
        self._finish.set()


async def started(app: ASGIApp, request: bytes = GET, **options: Any) -> tuple[HttpServer, FakeTransport]:
    server = make_server(app, **options)
    transport = connect(server)
    receive(transport, request)
    await asyncio.sleep(0)
    return server, transport


def head_and_body(transport: FakeTransport) -> tuple[list[bytes], bytes]:
    head, _, body = transport.written.partition(b"\r\n\r\n")
    return [line for line in head.split(b"\r\n") if not line.startswith(b"date:")], body


async def test_each_part_is_sent_at_once_as_a_chunk_and_the_connection_ends_after_the_last() -> None:
    app = Streamer()
    server, transport = await started(app)
    assert transport.written == b""
    await app.part(b"one")
    lines, body = head_and_body(transport)
    assert lines == [b"HTTP/1.1 200 OK", b"x-kind: several", b"transfer-encoding: chunked", b"connection: close"]
    assert body == b"3\r\none\r\n"
    await app.part(b"")
    await app.part(b"x" * 26)
    app.finish()
    await settle(server)
    assert head_and_body(transport)[1] == b"3\r\none\r\n1a\r\n" + b"x" * 26 + b"\r\n0\r\n\r\n"
    assert transport.has_ended
    assert not transport.is_aborted


async def test_an_empty_first_part_sends_the_head() -> None:
    app = Streamer()
    _, transport = await started(app)
    await app.part(b"")
    assert head_and_body(transport)[0][0] == b"HTTP/1.1 200 OK"
    assert head_and_body(transport)[1] == b""
    app.finish()


@pytest.mark.parametrize(
    ("request_line", "body"), [(b"GET / HTTP/1.0", b"onetwo"), (b"HEAD / HTTP/1.1", b"")], ids=["HTTP/1.0", "HEAD"]
)
async def test_a_client_that_takes_no_chunks_gets_none(request_line: bytes, body: bytes) -> None:
    app = Streamer()
    server, transport = await started(app, request_line + b"\r\nHost: x\r\n\r\n")
    await app.part(b"one")
    await app.part(b"two")
    app.finish()
    await settle(server)
    assert head_and_body(transport)[1] == body
    assert (b"transfer-encoding: chunked" in transport.written) == request_line.endswith(b"1.1")
    assert transport.has_ended


async def test_a_declared_length_is_sent_without_chunks() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await send({"type": "http.response.body", "body": b"b"})

    server, transport = await started(app)
    await settle(server)
    assert b"transfer-encoding" not in transport.written
    assert head_and_body(transport)[1] == b"ab"


async def test_a_client_that_reads_too_slowly_delays_only_its_own_parts_and_is_cut_off() -> None:
    app = Streamer()
    server, transport = await started(app, timeouts=Timeouts(write=5))
    transport.client_reads = False
    waiting = asyncio.create_task(app.part(b"x" * 70_000))
    await asyncio.sleep(0)
    assert not waiting.done()
    for _ in range(7):
        server.tick()
    assert transport.is_aborted
    with pytest.raises(OSError, match="closed"):
        await waiting
    await asyncio.sleep(0)
    assert app.events == ["http.disconnect"]
    app.finish()


async def test_a_slow_client_that_reads_again_gets_the_next_part() -> None:
    app = Streamer()
    _, transport = await started(app)
    transport.client_reads = False
    waiting = asyncio.create_task(app.part(b"x" * 70_000))
    await asyncio.sleep(0)
    assert not waiting.done()
    transport.read_all()
    await waiting
    await app.part(b"next")
    assert transport.written.endswith(b"4\r\nnext\r\n")
    app.finish()


async def break_connection(server: HttpServer, transport: FakeTransport) -> None:
    transport.close()


async def stop_server(server: HttpServer, transport: FakeTransport) -> None:
    for connection in list(server.connections):
        connection.shutdown()


@pytest.mark.parametrize("end", [break_connection, stop_server], ids=["the client is gone", "the server stops"])
async def test_the_application_is_told_that_its_response_must_end(
    end: Callable[[HttpServer, FakeTransport], Awaitable[None]],
) -> None:
    app = Streamer()
    server, transport = await started(app)
    await app.part(b"one")
    assert app.events == []
    await end(server, transport)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert app.events == ["http.disconnect"]
    if end is break_connection:
        with pytest.raises(OSError, match="closed"):
            await app.part(b"two")
    app.finish()
    await settle(server)
    assert transport.written.endswith(b"0\r\n\r\n") == (end is stop_server)
    assert not server.tasks


async def test_a_response_that_breaks_off_has_no_end_so_that_the_client_can_tell() -> None:
    app = Streamer()
    server, transport = await started(app)
    await app.part(b"one")
    app.finish(RuntimeError("a bug"))
    await settle(server)
    assert transport.written.endswith(b"3\r\none\r\n")
    assert transport.is_aborted


async def test_requests_behind_a_response_in_several_parts_are_not_answered() -> None:
    app = Streamer()
    server, transport = await started(app, GET + GET)
    await app.part(b"one")
    app.finish()
    await settle(server)
    assert transport.written.count(b"HTTP/1.1 200") == 1
    assert transport.has_ended

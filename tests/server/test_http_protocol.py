"""The HTTP protocol on a real server: limits, responses in one call, upgrade headers, and reference cycles."""

import asyncio
import contextlib
import gc
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.domain.limits import MAX_HEAD_BYTES
from service.server.http_connection import HttpConnection
from service.server.http_exchange import Exchange
from service.server.http_protocol import HttpProtocol
from service.server.http_server import Timeouts
from service.storage.connection import MultiplexedConnection
from tests.support.shop import make_store, new_mug, with_state
from tests.support.waiting import eventually


@asynccontextmanager
async def running_server(engine: MultiplexedConnection, protocol: Any) -> AsyncIterator[uvicorn.Server]:
    """Run a server in this process, without signal handlers."""
    config = uvicorn.Config(with_state(make_store(engine)), port=0, http=protocol, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    yield server
    await server.shutdown()


def port_of(server: uvicorn.Server) -> int:
    return int(server.servers[0].sockets[0].getsockname()[1])


@pytest.fixture
async def server(engine: MultiplexedConnection) -> AsyncIterator[uvicorn.Server]:
    async with running_server(engine, HttpProtocol(Timeouts(), 1000)) as server:
        yield server


@pytest.fixture
def port(server: uvicorn.Server) -> int:
    return port_of(server)


async def exchange(port: int, *parts: bytes) -> bytes:
    """Send the parts separately. Return all bytes until the server closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    response = b""
    with contextlib.suppress(ConnectionError):
        for part in parts:
            writer.write(part)
            await writer.drain()
        response = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return response


CLOSE = b"Host: x\r\nConnection: close\r\n"


async def test_too_many_header_fields_are_refused(port: int) -> None:
    fields = [b"X-%d: %s\r\n" % (number, b"y" * 1000) for number in range(MAX_HEAD_BYTES // 1000 + 1)]
    response = await exchange(port, b"GET /livez HTTP/1.1\r\n", *fields)
    assert response.startswith(b"HTTP/1.1 431 ")


async def test_a_header_field_that_is_too_long_is_refused(port: int) -> None:
    response = await exchange(port, b"GET /livez HTTP/1.1\r\nX-A: ", *[b"y" * 1024] * (MAX_HEAD_BYTES // 1024 + 1))
    assert response.startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize(
    ("request_bytes", "status", "name"),
    [
        (b"GET /livez HTTP/1.1\r\n\r\n", 400, "malformed-request"),
        (b"{}", 400, "malformed-request"),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 80_000, 431, "head-too-large"),
        (b"GET /livez HTTP/0.9\r\n\r\n", 505, "unsupported-http-version"),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n", 413, "body-too-large"),
        (b"GET /li", 408, "request-timeout"),
    ],
)
async def test_bytes_that_are_no_request_are_answered_with_a_problem(
    engine: MultiplexedConnection, request_bytes: bytes, status: int, name: str
) -> None:
    async with running_server(engine, HttpProtocol(Timeouts(head=1), 1000)) as server:
        response = await exchange(port_of(server), request_bytes)
    head, _, body = response.partition(b"\r\n\r\n")
    problem = json.loads(body)
    fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
    assert (problem["status"], problem["type"]) == (status, f"/problems/{name}")
    assert fields["content-type"] == "application/problem+json"
    assert fields["x-request-id"] == problem["instance"]
    assert fields["connection"] == "close"


async def test_an_order_with_bytes_behind_it_is_placed_and_answered(port: int, engine: MultiplexedConnection) -> None:
    """A client whose Content-Length counts characters sends bytes behind its order, for example."""
    store = make_store(engine)
    await store.products.add(new_mug(id=1, stock=1000))
    for placed, rest in enumerate((b"}", b"\0", b"GET /\0", b"X: " + b"x" * 80_000), start=1):
        response = await exchange(port, PLACE_ORDER + b"Content-Length: 50\r\n\r\n" + ORDER + rest)
        assert re.findall(rb"HTTP/1.1 (...)", response)[0] == b"201"
        assert (await store.products.get(1)).stock == 1000 - 100 * placed


async def test_a_head_of_8_kb_and_a_body_of_60_kb_are_accepted(port: int) -> None:
    body = b'{"products": [{"product_id": 1, "quantity": 1}]' + b" " * 60_000 + b"}"
    head = b"POST /orders HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
    response = await exchange(port, head + b"X-A: " + b"y" * 8_000 + b"\r\n" + CLOSE + b"\r\n", body)
    assert response.startswith(b"HTTP/1.1 404 ")
    assert b"/problems/product-not-found" in response


async def test_the_size_limit_applies_to_each_request_of_a_connection(port: int) -> None:
    field = b"X-A: " + b"y" * (MAX_HEAD_BYTES // 2) + b"\r\n"
    request = b"GET /livez HTTP/1.1\r\nHost: x\r\n" + field + b"\r\n"
    last = b"GET /livez HTTP/1.1\r\n" + CLOSE + field + b"\r\n"
    response = await exchange(port, request, request, request, last)
    assert response.count(b"HTTP/1.1 200 ") == 4


PLACE_ORDER = b"POST /orders HTTP/1.1\r\nHost: x\r\nX-Request-Id: r-1\r\nContent-Type: application/json\r\n"
ORDER = b'{"products": [{"product_id": 1, "quantity": 100}]}'


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /products HTTP/1.1\r\n" + CLOSE + b"X-Request-Id: r-1\r\n\r\n",
        b"HEAD /products HTTP/1.1\r\n" + CLOSE + b"X-Request-Id: r-1\r\n\r\n",
        b"GET /products%0a?limit=1 HTTP/1.1\r\n" + CLOSE + b"X-Request-Id: r-1\r\n\r\n",
        b"GET /products/1 HTTP/1.0\r\nX-Request-Id: r-1\r\n\r\n",
        b"GET /nothing HTTP/1.1\r\n" + CLOSE + b"X-Request-Id: r-1\r\n\r\n",
        b"HEAD /nothing HTTP/1.1\r\n" + CLOSE + b"X-Request-Id: r-1\r\n\r\n",
        b"PUT /orders HTTP/1.1\r\n" + CLOSE + b"X-Request-Id: r-1\r\n\r\n",
        b"GET /problems/overloaded HTTP/1.1\r\n" + CLOSE + b"X-Request-Id: r-1\r\n\r\n",
        b"DELETE /products/1 HTTP/1.1\r\n" + CLOSE + b"X-Request-Id: r-1\r\n\r\n",
        PLACE_ORDER + b"Connection: close\r\nContent-Length: 50\r\n\r\n" + ORDER,
        PLACE_ORDER + b"Connection: close\r\nContent-Length: 50\r\nExpect: 100-continue\r\n\r\n" + ORDER,
        PLACE_ORDER + b"Connection: close\r\nContent-Length: 900000\r\nExpect: 100-continue\r\n\r\n",
        PLACE_ORDER + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n32\r\n" + ORDER + b"\r\n0\r\n\r\n",
        (PLACE_ORDER + b"Content-Length: 50\r\n\r\n" + ORDER) * 3
        + b"HEAD /products/1 HTTP/1.1\r\nHost: x\r\nX-Request-Id: r-2\r\n\r\n"
        + b"GET /livez HTTP/1.0\r\nX-Request-Id: r-3\r\n\r\n",
    ],
)
async def test_a_response_sent_in_one_call_equals_the_response_of_uvicorn(
    engine: MultiplexedConnection, request_bytes: bytes
) -> None:
    responses = []
    for protocol in (HttpProtocol(Timeouts(), 1000), HttpToolsProtocol):
        await engine.send("FLUSHALL")
        for number in range(1, 6):  # a page of 25 KB is too large to be copied
            await make_store(engine).products.add(new_mug(id=number, description="d" * 5000))
        async with running_server(engine, protocol) as server:
            response = await exchange(port_of(server), request_bytes)
        assert response.startswith(b"HTTP/1.1 ")
        responses.append(re.sub(rb"\r\ndate: [^\r]*", b"", response))
    assert responses[0] == responses[1]


UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk\r\n"


@pytest.mark.parametrize("pause", [False, True])
async def test_an_upgrade_header_is_ignored_and_the_body_is_read(
    port: int, engine: MultiplexedConnection, pause: bool
) -> None:
    """Java clients and `curl --http2` send this header. Later requests on the connection must also work."""
    await make_store(engine).products.add(new_mug(id=1, stock=1000))
    order = PLACE_ORDER + UPGRADE + b"Content-Length: 50\r\n\r\n", ORDER
    chunked = PLACE_ORDER + UPGRADE + b"Transfer-Encoding: chunked\r\n\r\n", b"32\r\n" + ORDER + b"\r\n0\r\n\r\n"
    parts = [*order, *chunked, b"GET /livez HTTP/1.1\r\nHost: x\r\n" + UPGRADE + b"\r\n", *order]
    parts.append(b"GET /products/1 HTTP/1.1\r\n" + CLOSE + b"\r\n")
    response = await exchange(port, *(parts if pause else [b"".join(parts)]))
    assert response.count(b"HTTP/1.1 201 ") == 3
    assert response.count(b"HTTP/1.1 ") == 5
    assert b'"stock":700' in response


async def test_thousands_of_pipelined_upgrade_headers_are_ignored(port: int) -> None:
    request = b"GET /livez HTTP/1.1\r\nHost: x\r\n" + UPGRADE + b"\r\n"
    response = await exchange(port, request * 2000 + b"GET /livez HTTP/1.1\r\n" + CLOSE + b"\r\n")
    assert response.count(b"HTTP/1.1 200 ") == 2001


async def test_requests_leave_no_reference_cycles(port: int) -> None:
    """The collector runs rarely (see server/gc_tuning.py). Many cycles would then cause a pause of 40 ms.

    Many requests, because earlier tests in this process may leave some garbage, too.
    """
    count = 500
    refused = b'{"products": [{"product_id": 404, "quantity": 1}]}'
    head = b"\r\nContent-Type: application/json\r\nContent-Length: %d" % len(refused)
    gets = (b"GET /livez", b"GET /products", b"GET /products/1", b"PUT /products", b"GET /orders?limit=0")
    for request, fields, body in (*[(get, b"", b"") for get in gets], (b"POST /orders", head, refused)):
        first = request + b" HTTP/1.1" + fields + b"\r\n"
        requests = [first + b"Host: x\r\n\r\n" + body] * count
        last = first + CLOSE + b"\r\n" + body
        await exchange(port, *requests[1:], last)  # fills all caches
        gc.collect()
        gc.disable()
        try:
            response = await exchange(port, *requests[1:], last)
            remaining = gc.collect()
        finally:
            gc.enable()
        assert response.count(b"HTTP/1.1 ") == count
        assert remaining < count


async def test_clients_that_disconnect_leave_no_reference_cycles(server: uvicorn.Server) -> None:
    async def disconnect() -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
        writer.write(PLACE_ORDER + b"Content-Length: 50\r\n\r\n" + ORDER[:20])
        await eventually(lambda: server.server_state.connections, "the connection")
        writer.close()
        await eventually(lambda: not server.server_state.connections, "the end of the connection")

    await disconnect()  # fills all caches
    gc.collect()
    gc.disable()
    try:
        for _ in range(20):
            await disconnect()
        remaining = [tracked for tracked in gc.get_objects() if isinstance(tracked, (Exchange, HttpConnection))]
    finally:
        gc.enable()
    assert len(remaining) <= 1


async def test_responses_are_not_prepared_while_the_client_does_not_read(server: uvicorn.Server) -> None:
    """Otherwise the server would have to store any number of responses for a client."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
    count = 20_000
    writer.write(b"GET /problems/overloaded HTTP/1.1\r\nHost: x\r\n\r\n" * (count - 1))
    writer.write(b"GET /livez HTTP/1.1\r\n" + CLOSE + b"\r\n")
    await eventually(lambda: server.server_state.connections, "the connection")
    [connection] = server.server_state.connections
    http_connection: Any = connection
    await eventually(lambda: http_connection.server.unread, "a full buffer")
    for _ in range(2000):  # a response takes a few iterations
        await asyncio.sleep(0)
    buffered = http_connection.transport.get_write_buffer_size()
    received = await asyncio.wait_for(reader.read(), 30)
    writer.close()
    assert buffered < 200_000  # the limit, and one more response
    assert received.count(b"HTTP/1.1 200 OK") == count

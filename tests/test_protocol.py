"""The bound on what comes before a body, and the short way of answers, on a real server."""

import asyncio
import contextlib
import gc
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.server.http_protocol import MAX_HEAD_BYTES, HttpProtocol
from service.storage.connection import MultiplexedConnection
from tests.support.shop import make_store, new_mug, with_state
from tests.support.waiting import eventually


@asynccontextmanager
async def serving(wire: MultiplexedConnection, protocol: type[HttpToolsProtocol]) -> AsyncIterator[uvicorn.Server]:
    """A server in this process, without signals of its own."""
    config = uvicorn.Config(with_state(make_store(wire)), port=0, http=protocol, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    yield server
    await server.shutdown()


def port_of(server: uvicorn.Server) -> int:
    return int(server.servers[0].sockets[0].getsockname()[1])


@pytest.fixture
async def server(wire: MultiplexedConnection) -> AsyncIterator[uvicorn.Server]:
    async with serving(wire, HttpProtocol) as server:
        yield server


@pytest.fixture
def port(server: uvicorn.Server) -> int:
    return port_of(server)


async def exchange(port: int, *parts: bytes) -> bytes:
    """Sends the parts one by one, gives what comes back until the server has no more to say."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = b""
    with contextlib.suppress(ConnectionError):
        for part in parts:
            writer.write(part)
            await writer.drain()
        answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return answer


CLOSE = b"Host: x\r\nConnection: close\r\n"


async def test_header_fields_without_end_are_cut_off(port: int) -> None:
    fields = [b"X-%d: %s\r\n" % (number, b"y" * 1000) for number in range(MAX_HEAD_BYTES // 1000 + 1)]
    answer = await exchange(port, b"GET /livez HTTP/1.1\r\n", *fields)
    assert answer.startswith(b"HTTP/1.1 431 ")


async def test_a_field_without_end_is_cut_off(port: int) -> None:
    answer = await exchange(port, b"GET /livez HTTP/1.1\r\nX-A: ", *[b"y" * 1024] * (MAX_HEAD_BYTES // 1024 + 1))
    assert answer.startswith(b"HTTP/1.1 431 ")


async def test_a_head_of_common_size_and_a_large_body_are_read(port: int) -> None:
    body = b'{"products": [{"product_id": 1, "quantity": 1}]' + b" " * 60_000 + b"}"
    head = b"POST /orders HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
    answer = await exchange(port, head + b"X-A: " + b"y" * 8_000 + b"\r\n" + CLOSE + b"\r\n", body)
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"/problems/product-not-found" in answer


async def test_the_bound_is_for_each_request_of_a_connection(port: int) -> None:
    field = b"X-A: " + b"y" * (MAX_HEAD_BYTES // 2) + b"\r\n"
    request = b"GET /livez HTTP/1.1\r\nHost: x\r\n" + field + b"\r\n"
    last = b"GET /livez HTTP/1.1\r\n" + CLOSE + field + b"\r\n"
    answer = await exchange(port, request, request, request, last)
    assert answer.count(b"HTTP/1.1 200 ") == 4


PLACE = b"POST /orders HTTP/1.1\r\nHost: x\r\nX-Request-Id: r-1\r\nContent-Type: application/json\r\n"
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
        PLACE + b"Connection: close\r\nContent-Length: 50\r\n\r\n" + ORDER,
        PLACE + b"Connection: close\r\nContent-Length: 50\r\nExpect: 100-continue\r\n\r\n" + ORDER,
        PLACE + b"Connection: close\r\nContent-Length: 900000\r\nExpect: 100-continue\r\n\r\n",
        PLACE + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n32\r\n" + ORDER + b"\r\n0\r\n\r\n",
        (PLACE + b"Content-Length: 50\r\n\r\n" + ORDER) * 3
        + b"HEAD /products/1 HTTP/1.1\r\nHost: x\r\nX-Request-Id: r-2\r\n\r\n"
        + b"GET /livez HTTP/1.0\r\nX-Request-Id: r-3\r\n\r\n",
    ],
)
async def test_an_answer_by_the_short_way_is_the_same_as_by_asgi(
    wire: MultiplexedConnection, request_bytes: bytes
) -> None:
    answers = []
    for protocol in (HttpProtocol, HttpToolsProtocol):
        await wire.send("FLUSHALL")
        for number in range(1, 6):  # a page of 25 KB: more than is copied
            await make_store(wire).products.add(new_mug(id=number, description="d" * 5000))
        async with serving(wire, protocol) as server:
            answer = await exchange(port_of(server), request_bytes)
        assert answer.startswith(b"HTTP/1.1 ")
        answers.append(re.sub(rb"\r\ndate: [^\r]*", b"", answer))
    assert answers[0] == answers[1]


OFFER = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk\r\n"


@pytest.mark.parametrize("pause", [False, True])
async def test_an_offer_to_upgrade_is_ignored_and_its_body_read(
    port: int, wire: MultiplexedConnection, pause: bool
) -> None:
    """As Java clients and `curl --http2` send it, with all that follows on the connection."""
    await make_store(wire).products.add(new_mug(id=1, stock=1000))
    order = PLACE + OFFER + b"Content-Length: 50\r\n\r\n", ORDER
    chunked = PLACE + OFFER + b"Transfer-Encoding: chunked\r\n\r\n", b"32\r\n" + ORDER + b"\r\n0\r\n\r\n"
    parts = [*order, *chunked, b"GET /livez HTTP/1.1\r\nHost: x\r\n" + OFFER + b"\r\n", *order]
    parts.append(b"GET /products/1 HTTP/1.1\r\n" + CLOSE + b"\r\n")
    answer = await exchange(port, *(parts if pause else [b"".join(parts)]))
    assert answer.count(b"HTTP/1.1 201 ") == 3
    assert answer.count(b"HTTP/1.1 ") == 5
    assert b'"stock":700' in answer


async def test_thousands_of_offers_to_upgrade_at_once_are_ignored_one_by_one(port: int) -> None:
    request = b"GET /livez HTTP/1.1\r\nHost: x\r\n" + OFFER + b"\r\n"
    answer = await exchange(port, request * 2000 + b"GET /livez HTTP/1.1\r\n" + CLOSE + b"\r\n")
    assert answer.count(b"HTTP/1.1 200 ") == 2001


async def test_requests_leave_nothing_to_the_garbage_collector(port: int) -> None:
    """The collector runs rarely, see server/gc_tuning.py: reference cycles would pile up, and take 40 ms then."""
    count = 100
    for request in (b"GET /livez", b"GET /products", b"GET /products/1", b"PUT /products", b"GET /orders?limit=0"):
        requests = [request + b" HTTP/1.1\r\nHost: x\r\n\r\n"] * count
        await exchange(port, *requests[1:], request + b" HTTP/1.1\r\n" + CLOSE + b"\r\n")  # what is made once
        gc.collect()
        gc.disable()
        try:
            answer = await exchange(port, *requests[1:], request + b" HTTP/1.1\r\n" + CLOSE + b"\r\n")
            left = gc.collect()
        finally:
            gc.enable()
        assert answer.count(b"HTTP/1.1 ") == count
        assert left < count


async def test_clients_that_leave_with_their_body_half_sent_leave_nothing_either(server: uvicorn.Server) -> None:
    async def leave() -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
        writer.write(PLACE + b"Content-Length: 50\r\n\r\n" + ORDER[:20])
        await eventually(lambda: server.server_state.tasks, "the request")
        writer.close()
        await eventually(lambda: not server.server_state.tasks, "its end")

    await leave()  # what is made once
    gc.collect()
    gc.disable()
    try:
        for _ in range(20):
            await leave()
        left = [kept for kept in gc.get_objects() if isinstance(kept, RequestResponseCycle)]
    finally:
        gc.enable()
    assert len(left) <= 1


async def test_answers_wait_for_a_client_that_does_not_read_them(server: uvicorn.Server) -> None:
    """Else a client could have the server keep answers for it without end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
    count = 20_000
    writer.write(b"GET /problems/overloaded HTTP/1.1\r\nHost: x\r\n\r\n" * (count - 1))
    writer.write(b"GET /livez HTTP/1.1\r\n" + CLOSE + b"\r\n")
    await eventually(lambda: server.server_state.connections, "the connection")
    [connection] = server.server_state.connections
    assert isinstance(connection, HttpProtocol)
    await eventually(lambda: connection.flow.write_paused, "a full buffer")
    for _ in range(2000):  # an answer takes a few of these
        await asyncio.sleep(0)
    buffered = connection.transport.get_write_buffer_size()
    received = await asyncio.wait_for(reader.read(), 30)
    writer.close()
    assert buffered < 200_000  # uvicorn's bound and one answer more
    assert received.count(b"HTTP/1.1 200 OK") == count

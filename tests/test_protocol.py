"""The bound on what comes before a body, on a real server."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
import uvicorn

from service.protocol import MAX_HEAD_BYTES, BoundedHttpProtocol
from service.store import Store
from service.wire import Wire
from tests.conftest import make_store, with_state


@pytest.fixture
async def port(wire: Wire) -> AsyncIterator[int]:
    """A server in this process, without signals of its own."""
    store: Store = make_store(wire)
    config = uvicorn.Config(with_state(store), port=0, http=BoundedHttpProtocol, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    yield server.servers[0].sockets[0].getsockname()[1]
    await server.shutdown()


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

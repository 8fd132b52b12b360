"""Every kind of answer, as the bytes that a client gets, is checked with httplint, the linter of REDbot."""

import json
from collections.abc import AsyncIterator

import pytest

from service.storage.sender import CommandSender
from tests.support.fake_redis import FakeRedis
from tests.support.fake_transport import FakeTransport, connect, make_server, receive, settle
from tests.support.lint import lint
from tests.support.shop import add_mugs, make_store, new_order, with_state

ALLOWED = {
    "STATUS_BAD_REQUEST": "the linter says this about each answer with status 400",
    "STATUS_VERSION_NOT_SUPPORTED": "the linter says this about each answer with status 505",
    "REQUEST_HDR_IN_RESPONSE": "Accept in a 415 answer lists the types that would be accepted (RFC 9110, 12.5.1)",
}
"""Warnings that are no faults, and why."""


def request(method: str, target: str, body: object = None, *fields: str) -> bytes:
    """Return the bytes of a request."""
    content = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {target} HTTP/1.1", "Host: shop.example", *fields]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
    return "\r\n".join([*lines, "", ""]).encode() + content


POT = {"name": "Pot", "description": "", "price": 1, "stock": 1}
ORDER = {"products": [{"product_id": 1, "quantity": 1}]}

REQUESTS: dict[str, tuple[int, bytes]] = {
    "products": (200, request("GET", "/products")),
    "a page with a next page": (200, request("GET", "/products?limit=1")),
    "products, head": (200, request("HEAD", "/products")),
    "one product": (200, request("GET", "/products/1")),
    "one product, head": (200, request("HEAD", "/products/1")),
    "one product, not modified": (304, request("GET", "/products/1", None, "If-None-Match: *")),
    "products, not modified": (304, request("GET", "/products", None, "If-None-Match: *")),
    "no product": (404, request("GET", "/products/99")),
    "add": (201, request("POST", "/products", POT)),
    "id taken": (
        409,
        request("POST", "/products", {"id": 1, "name": "Pot", "description": "", "price": 1, "stock": 1}),
    ),
    "one product's stock": (200, request("GET", "/products/1/stock")),
    "one product's stock, not modified": (304, request("GET", "/products/1/stock", None, "If-None-Match: *")),
    "change": (200, request("PATCH", "/products/1", {"price": 2})),
    "change stock": (200, request("POST", "/products/1/stock", {"change": 1, "reason": "counted"})),
    "changed meanwhile": (412, request("PATCH", "/products/1", {"price": 2}, 'If-Match: "other"')),
    "count stock": (200, request("POST", "/products/1/stock", {"count": 1, "reason": "counted"})),
    "withdraw": (204, request("DELETE", "/products/2")),
    "orders": (200, request("GET", "/orders")),
    "orders with a next page": (200, request("GET", "/orders?limit=1")),
    "one order": (200, request("GET", "/orders/1")),
    "no order": (404, request("GET", "/orders/99")),
    "place": (201, request("POST", "/orders", ORDER)),
    "place, with a key": (201, request("POST", "/orders", ORDER, "Idempotency-Key: k-1")),
    "too few": (409, request("POST", "/orders", {"products": [{"product_id": 1, "quantity": 1000}]})),
    "wrong fields": (422, request("POST", "/orders", {"products": []})),
    "wrong JSON": (400, request("POST", "/orders", None, "Content-Type: application/json", "Content-Length: 0")),
    "wrong type": (415, request("POST", "/orders", None, "Content-Type: text/plain", "Content-Length: 0")),
    "extend": (200, request("PATCH", "/orders/2", {"hold_seconds": 5})),
    "return": (201, request("POST", "/orders/1/returns", ORDER, "Idempotency-Key: k-1")),
    "return of too much": (409, request("POST", "/orders/1/returns", {"products": [{"product_id": 9, "quantity": 1}]})),
    "complete": (200, request("POST", "/orders/2/complete")),
    "cancel": (204, request("DELETE", "/orders/3")),
    "cancelled": (410, request("GET", "/orders/4")),
    "alive": (200, request("GET", "/livez")),
    "ready": (200, request("GET", "/readyz")),
    "explained problem": (200, request("GET", "/problems/order-not-found")),
    "explained problem, for a browser": (
        200,
        request("GET", "/problems/order-not-found", None, "Accept: text/html"),
    ),
    "problems": (200, request("GET", "/problems")),
    "start": (307, request("GET", "/")),
    "docs": (200, request("GET", "/docs")),
    "board": (200, request("GET", "/board")),
    "events, head": (200, request("HEAD", "/events")),
    "file": (200, request("GET", "/docs/docs.js")),
    "metrics": (200, request("GET", "/metrics")),
    "unknown path": (404, request("GET", "/nothing")),
    "wrong method": (405, request("PUT", "/orders")),
    "options": (405, request("OPTIONS", "/orders")),
    "not HTTP": (400, b"GET /orders HTTP/1.1\r\nHost: shop.example\r\nContent-Length: x\r\n\r\n"),
    "another version": (505, b"GET /orders HTTP/2.0\r\nHost: shop.example\r\n\r\n"),
    "a large body": (413, request("POST", "/orders", None, "Content-Length: 99999999")),
    "a large head": (431, request("GET", "/orders", None, f"X-Large: {'x' * 70_000}")),
}
"""Requests for a shop with two products and four orders, and the status of the answer to each."""


@pytest.fixture
async def transport() -> AsyncIterator[FakeTransport]:
    """Return a connection to the server of a shop on fakeredis."""
    redis = FakeRedis()
    store = make_store(redis)
    for _ in range(2):
        await add_mugs(store, stock=100)
    await store.orders.place(new_order((1, 1)))
    for _ in range(3):
        await store.orders.place(new_order((1, 1), status="pending"))
    await store.holds.cancel(4)
    yield connect(make_server(with_state(store)))
    redis.close()


async def answer(transport: FakeTransport, data: bytes) -> bytes:
    """Return the bytes that the server sends to a request."""
    assert transport.protocol is not None
    receive(transport, data)
    await settle(transport.protocol.server)
    return transport.written


@pytest.mark.parametrize("name", REQUESTS)
async def test_the_linter_has_no_warning_about_an_answer(transport: FakeTransport, name: str) -> None:
    status, data = REQUESTS[name]
    response = await answer(transport, data)
    assert response.startswith(f"HTTP/1.1 {status} ".encode())
    assert {note: summary for note, summary in lint(data, response).items() if note not in ALLOWED} == {}


@pytest.mark.parametrize("name", REQUESTS)
async def test_every_answer_says_how_it_may_be_cached_and_that_its_type_must_not_be_guessed(
    transport: FakeTransport, name: str
) -> None:
    head, _, _ = (await answer(transport, REQUESTS[name][1])).partition(b"\r\n\r\n")
    fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
    is_product = name.startswith(("products", "one product", "a page"))
    is_checked = is_product or name == "file"
    is_explanation = name.startswith(("explained problem", "problems", "docs", "board"))
    expected = b"no-cache" if is_checked else b"max-age=3600" if is_explanation else b"no-store"
    assert fields[b"cache-control"] == expected
    assert (b"etag" in fields) == (is_product or name == "file")
    assert fields[b"x-content-type-options"] == b"nosniff"


async def test_an_answer_while_redis_fails_has_no_warning(redis: CommandSender) -> None:
    async def fails(*command: object, **options: object) -> None:
        raise RuntimeError("secret")

    store = make_store(redis)
    store.orders.get = fails  # type: ignore[method-assign,assignment]
    transport = connect(make_server(with_state(store)))
    data = request("GET", "/orders/1")
    response = await answer(transport, data)
    assert response.startswith(b"HTTP/1.1 500 ")
    assert lint(data, response) == {}


def test_the_linter_warns_about_an_answer_without_caching_information() -> None:
    response = b"HTTP/1.1 200 OK\r\ndate: Thu, 26 Nov 2026 01:22:31 GMT\r\ncontent-length: 0\r\n\r\n"
    assert lint(request("GET", "/products"), response)

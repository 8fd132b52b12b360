"""What the lines of the log say about their request, and the trace that it belongs to."""

from typing import Any

import pytest
from httpx2 import AsyncClient
from structlog.testing import capture_logs

from service.app import create_app
from service.domain.errors.storage import StorageUnavailable
from service.settings import Settings
from service.storage.sender import CommandSender
from service.storage.store import Store
from tests.support.documented import DocumentedTransport
from tests.support.shop import SHOP, add_product, place, with_state

TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"


async def line_about(client: AsyncClient, event: str, **headers: str) -> dict[str, Any]:
    """Order what is not there, and return the line about it."""
    with capture_logs() as lines:
        body = {"products": [{"product_id": 1, "quantity": 99}]}
        await client.post("/orders", json=body, headers={"X-Request-Id": "mine", **headers})
    [line] = [line for line in lines if line["event"] == event]
    return dict(line)


@pytest.mark.parametrize(
    ("traceparent", "is_valid"),
    [
        (TRACEPARENT, True),
        (f"01-{TRACE_ID}-{SPAN_ID}-01-what-comes-later", True),
        (f"00-{TRACE_ID}-{SPAN_ID}-01-more", False),
        (f"ff-{TRACE_ID}-{SPAN_ID}-01", False),
        (f"00-{TRACE_ID.upper()}-{SPAN_ID}-01", False),
        (f"00-{'0' * 32}-{SPAN_ID}-01", False),
        (f"00-{TRACE_ID}-{'0' * 16}-01", False),
        (f"00-{TRACE_ID}-{SPAN_ID}", False),
        ("nonsense", False),
        ("", False),
    ],
)
async def test_a_refused_order_names_its_request_and_a_valid_trace(
    client: AsyncClient, traceparent: str, is_valid: bool
) -> None:
    await add_product(client, stock=1)
    line = await line_about(client, "order_refused", traceparent=traceparent)
    assert {name: line[name] for name in ("request_id", "method", "route", "reason")} == {
        "request_id": "mine",
        "method": "POST",
        "route": "/orders",
        "reason": "insufficient-stock",
    }
    assert line.get("trace_id") == (TRACE_ID if is_valid else None)
    assert line.get("span_id") == (SPAN_ID if is_valid else None)


async def test_an_error_of_the_storage_and_a_bug_name_their_request(
    client: AsyncClient, store: Store, redis: CommandSender
) -> None:
    await add_product(client)
    await place(client, (1, 1))

    async def fails(order_id: int) -> None:
        raise StorageUnavailable("connection refused")

    with capture_logs() as lines:
        await redis.send("HSET", f"{{{SHOP}}}:order:1", "total_price", "corrupt")
        assert (await client.get("/orders/1", headers={"traceparent": TRACEPARENT})).status_code == 500
        store.orders.get = fails  # type: ignore[method-assign,assignment]
        assert (await client.get("/orders/1", headers={"traceparent": TRACEPARENT})).status_code == 503
    bug, storage = (line for line in lines if line["event"] in ("internal_error", "storage-unavailable"))
    for line in (bug, storage):
        assert (line["method"], line["route"], line["trace_id"]) == ("GET", "/orders/{id}", TRACE_ID)
    assert storage["reason"] == "connection refused"
    assert "corrupt" in bug["reason"]


async def test_the_access_log_names_route_and_reason(store: Store) -> None:
    app = with_state(store, app=create_app(Settings(access_log=True), store.metrics))
    async with AsyncClient(transport=DocumentedTransport(app), base_url="http://holdfast") as client:
        with capture_logs() as lines:
            await client.get("/products/7/")
            await client.get("/products")
            await client.get("/nowhere")
    lines = [line for line in lines if line["event"] == "request"]
    assert [(line["route"], line["path"], line["status"], line.get("reason")) for line in lines] == [
        ("/products/{id}", "/products/7/", 404, "product-not-found"),
        ("/products", "/products", 200, None),
        ("", "/nowhere", 404, "not-found"),
    ]

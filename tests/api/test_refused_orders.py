"""What the log says about refused orders."""

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from service.api.refused_orders import LINES_PER_SECOND, RefusalLog
from service.api.request import RequestInfo
from service.domain.errors.obstacles import TooLittleStock
from service.domain.errors.order_refusals import InsufficientStock, UnavailableLine
from service.domain.times import Milliseconds
from service.storage.sender import CommandSender
from tests.support.clock import Clock
from tests.support.shop import add_product, http_client, make_store, new_order, place


async def test_each_refused_order_leaves_one_line_with_the_reason(redis: CommandSender) -> None:
    client = http_client(make_store(redis))
    await add_product(client, stock=10)
    with capture_logs() as lines:
        response = await place(
            client, (1, 11), (9, 1), customer="anna", reference="cart 1", key="a-secret", total_price=5
        )
    [line] = [line for line in lines if line["event"] == "order_refused"]
    assert line == {
        "event": "order_refused",
        "log_level": "info",
        "request_id": response.headers["x-request-id"],
        "method": "POST",
        "route": "/orders",
        "reason": "product-not-found",
        "products": [
            {"product_id": 1, "requested": 11, "available": 10},
            {"product_id": 9, "requested": 1},
        ],
        "customer": "anna",
        "reference": "cart 1",
    }
    assert "a-secret" not in str(lines)


async def test_of_a_storm_only_the_first_refusals_of_each_second_are_logged_and_the_others_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seconds = 0.0
    refusals = RefusalLog(lambda: seconds)
    monkeypatch.setattr(asyncio.get_running_loop(), "call_later", lambda _, callback: due.append(callback))
    due: list[Any] = []
    scope = {"method": "POST", "headers": [], "request_info": RequestInfo("1", {})}
    refusal = InsufficientStock(False, [UnavailableLine(0, 1, 1, TooLittleStock(0))])
    with capture_logs() as lines:
        for _ in range(LINES_PER_SECOND + 30):
            refusals.note(scope, new_order((1, 1)), refusal)
        seconds = 1.0
        for callback in due:
            callback()
        refusals.note(scope, new_order((1, 1)), refusal)
    events = [line["event"] for line in lines]
    assert events == [*["order_refused"] * LINES_PER_SECOND, "refused_orders_not_logged", "order_refused"]
    assert lines[-2]["count"] == 30


async def test_the_line_names_the_numbers_of_each_rule(redis: CommandSender) -> None:
    clock = Clock()
    client = http_client(make_store(redis, clock=clock))
    await add_product(client, limit_per_customer=2)
    await add_product(client, on_sale_from="2099-01-01T00:00:00Z")
    with capture_logs() as lines:
        await place(client, (1, 3), customer="anna")
        await place(client, (2, 1))
        await place(client, (1, 1))
    refused = [(line["reason"], line["products"]) for line in lines if line["event"] == "order_refused"]
    start = Milliseconds(4_070_908_800_000)
    assert refused == [
        ("customer-limit", [{"product_id": 1, "requested": 3, "limit": 2, "already": 0}]),
        ("not-on-sale", [{"product_id": 2, "requested": 1, "on_sale_from": start, "on_sale_until": None}]),
        ("customer-required", [{"product_id": 1, "requested": 1, "limit": 2}]),
    ]


@pytest.mark.parametrize(
    ("fields", "reason"), [({"total_price": 5}, "price-changed"), ({"key": "used"}, "idempotency-key-reused")]
)
async def test_other_refusals_leave_a_line_without_products(
    redis: CommandSender, fields: dict[str, object], reason: str
) -> None:
    client = http_client(make_store(redis))
    await add_product(client)
    await place(client, (1, 2), key="used")
    with capture_logs() as lines:
        response = await place(client, (1, 1), **fields)  # type: ignore[arg-type]
        await place(client, (1, 1))
        await client.post("/orders", json={"products": []})
    [line] = [line for line in lines if line["event"] == "order_refused"]
    assert line == {
        "event": "order_refused",
        "log_level": "info",
        "reason": reason,
        "request_id": response.headers["x-request-id"],
        "method": "POST",
        "route": "/orders",
    }

"""Each problem: its answer, and the page that explains it."""

from typing import Any

import pytest
from httpx2 import AsyncClient

from service.domain.errors.catalog import all_problems
from service.storage.sender import CommandSender
from tests.api.test_pages import BROWSER
from tests.support.problems import assert_problem
from tests.support.redis_content import nothing_changes
from tests.support.shop import SHOP, add_product, mug, place

ALL_PROBLEMS = {problem.name for problem in all_problems()}

STORAGE_PROBLEMS = {"overloaded", "storage-unavailable", "outcome-unknown"}
"""Tests with a broken Redis cause these: tests/storage."""

BODY = {"products": [{"product_id": 1, "quantity": 1}]}
LIMITED = {"products": [{"product_id": 4, "quantity": 3}]}
KEY = {"Idempotency-Key": "used"}
JSON = {"Content-Type": "application/json"}

CAUSES: dict[str, tuple[int, str, str, dict[str, object]]] = {
    "malformed-json": (400, "POST", "/orders", {"content": b"{", "headers": JSON}),
    "invalid-idempotency-key": (400, "POST", "/orders", {"json": BODY, "headers": {"Idempotency-Key": ""}}),
    "body-too-large": (413, "POST", "/orders", {"content": b" " * 70_000, "headers": JSON}),
    "unsupported-media-type": (415, "POST", "/orders", {"content": b"{}"}),
    "invalid-request": (422, "POST", "/orders", {"json": {}}),
    "product-not-found": (404, "GET", "/products/9", {}),
    "product-id-taken": (409, "POST", "/products", {"json": mug(id=1)}),
    "order-not-found": (404, "GET", "/orders/9", {}),
    "insufficient-stock": (409, "POST", "/orders", {"json": {"products": [{"product_id": 1, "quantity": 1_000_000}]}}),
    "stock-limit": (409, "POST", "/products/1/stock", {"json": {"change": 1_000_000_000, "reason": "too many"}}),
    "precondition-failed": (412, "PATCH", "/products/1", {"json": {"name": "Cup"}, "headers": {"If-Match": '"other"'}}),
    "sale-time-empty": (409, "PATCH", "/products/4", {"json": {"on_sale_from": "2027-01-01T00:00:00Z"}}),
    "customer-required": (422, "POST", "/orders", {"json": LIMITED}),
    "customer-limit": (409, "POST", "/orders", {"json": {**LIMITED, "customer": "anna"}}),
    "not-on-sale": (409, "POST", "/orders", {"json": {"products": [{"product_id": 5, "quantity": 1}]}}),
    "order-pending": (409, "POST", "/orders/4/returns", {"json": BODY}),
    "return-exceeds-order": (409, "POST", "/orders/1/returns", {"json": LIMITED}),
    "order-archived": (410, "GET", "/orders/3", {}),
    "order-completed": (409, "DELETE", "/orders/1", {}),
    "order-cancelled": (410, "GET", "/orders/2", {}),
    "order-expired": (410, "GET", "/orders/3", {}),
    "price-changed": (409, "POST", "/orders", {"json": {**BODY, "total_price": 1}}),
    "total-too-large": (422, "POST", "/orders", {"json": {"products": [{"product_id": 2, "quantity": 1_000_000}]}}),
    "idempotency-key-reused": (422, "POST", "/orders", {"json": {**BODY, "total_price": 7}, "headers": KEY}),
    "not-found": (404, "GET", "/nothing", {}),
    "method-not-allowed": (405, "PUT", "/orders", {"json": BODY}),
    "internal-error": (500, "GET", "/products/3", {}),
}


@pytest.mark.parametrize("name", CAUSES)
async def test_each_problem_is_explained_and_its_request_changes_nothing(
    client: AsyncClient, redis: CommandSender, name: str
) -> None:
    await add_product(client, id=1, stock=10)
    await add_product(client, id=2, stock=1_000_000, price=999_999_999.99)
    await add_product(client, id=3)
    await redis.send("HSET", f"{{{SHOP}}}:product:3", "price", "corrupt")
    assert (await place(client, (1, 1), key="used")).json()["id"] == 1
    for _ in range(3):
        await place(client, (1, 1), status="pending")
    await add_product(client, id=4, limit_per_customer=2, on_sale_until="2027-01-01T00:00:00Z")
    await add_product(client, id=5, on_sale_until="1970-01-01T00:00:00Z")
    await client.delete("/orders/2")
    await redis.send("HSET", f"{{{SHOP}}}:order:3", "expires_at", "1")
    status, method, path, options = CAUSES[name]
    if name == "order-archived":
        await redis.send("ZADD", f"{{{SHOP}}}:archived", 3, 2)
        await redis.send("DEL", f"{{{SHOP}}}:order:3")
    async with nothing_changes(redis):
        response = await client.request(method, path, **options)  # type: ignore[arg-type]
    problem = assert_problem(response, status, name)
    explained = (await client.get(problem["type"])).json()
    assert explained["title"] == problem["title"]
    # The example is a document as this one. It shows all members that such a problem may have.
    assert members_of(explained["example"]) >= members_of(problem)
    assert explained["example"]["status"] == status


def members_of(problem: dict[str, Any]) -> set[str]:
    """Return the names of the members of a problem, and of the entries of its `errors`."""
    entries = problem.get("errors", [])
    return set(problem) | {f"errors/{name}" for entry in entries for name in entry if name != "in"}


SERVER_PROBLEMS = {"malformed-request", "request-timeout", "head-too-large", "unsupported-http-version"}
"""Problems of the bytes on a connection: see tests/server/test_http_protocol.py."""

ACCESS_PROBLEMS = {
    *("not-authenticated", "missing-scope", "missing-shop", "cross-site-request", "rate-limited", "shop-not-found"),
}
"""Problems of a service with or without API keys, or with several shops: see test_api_keys.py and test_shops.py."""


def test_each_problem_type_has_a_test() -> None:
    assert set(CAUSES) | STORAGE_PROBLEMS | SERVER_PROBLEMS | ACCESS_PROBLEMS == ALL_PROBLEMS


@pytest.mark.parametrize("name", sorted(ALL_PROBLEMS))
async def test_type_of_a_problem_is_the_address_of_its_page(client: AsyncClient, name: str) -> None:
    response = await client.get(f"/problems/{name}", headers={"Accept": BROWSER})
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert f"/problems/{name}" in response.text
    assert "`" not in response.text
    explained = (await client.get(f"/problems/{name}")).json()
    assert explained["type"] == f"/problems/{name}"
    assert explained["example"]["type"] == f"/problems/{name}"
    assert explained["meaning"] != explained["remedy"]

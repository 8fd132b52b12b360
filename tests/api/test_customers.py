"""The customer and the reference of an order: shown, listed, and the scope of Idempotency-Keys."""

from itertools import chain
from typing import Any

import pytest
from httpx2 import AsyncClient

from service.storage import keys
from service.storage.sender import CommandSender
from tests.support.balance import assert_balanced
from tests.support.problems import assert_field_errors, assert_problem, assert_query_errors
from tests.support.redis_content import dump, events_at, hash_at
from tests.support.shop import SHOP, add_product, make_store, pages, place

NAMES = {"reference": "cart 1/ä", "customer": "anna@example.org"}


@pytest.mark.parametrize("names", [NAMES, {"reference": "x" * 255}, {"customer": "Ünïcode ☕ 名前"}])
@pytest.mark.parametrize("status", ["completed", "pending"])
async def test_reference_and_customer_stand_in_the_answer_the_hash_and_the_event(
    client: AsyncClient, redis: CommandSender, names: dict[str, str], status: str
) -> None:
    await add_product(client)
    response = await place(client, (1, 1), status=status, **names)
    assert response.status_code == 201
    order = response.json()
    assert {name: order[name] for name in order.keys() & NAMES.keys()} == names
    assert (await client.get(f"/orders/{order['id']}")).json() == order
    stored = await hash_at(redis, keys.order(SHOP, order["id"]))
    [_, event] = await events_at(redis, keys.events(SHOP))
    for found in (stored, event):
        assert {name: found[name] for name in found.keys() & NAMES.keys()} == names
    await assert_balanced(redis)


async def test_an_order_without_them_has_no_field_and_no_key_of_them(client: AsyncClient, redis: CommandSender) -> None:
    await add_product(client)
    order = (await place(client, (1, 1))).json()
    assert list(order) == ["id", "products", "total_price", "status", "created_at"]
    assert not any("customer" in name or "reference" in name for name in await dump(redis))


@pytest.mark.parametrize("name", ["customer", "reference"])
async def test_orders_of_a_customer_or_reference_are_listed_newest_first_in_pages(
    client: AsyncClient, name: str
) -> None:
    await add_product(client, stock=1000)
    ids = []
    for number in range(14):
        value = "anna" if number % 2 else "ben"
        ids.append((await place(client, (1, 1), **{name: value})).json()["id"])
    for limit in (1, 3, 7, 100):
        found = await pages(client, f"/orders?{name}=anna&limit={limit}")
        assert list(chain(*found)) == ids[1::2][::-1]
        assert all(len(page) == limit for page in found[:-1])
    assert (await client.get(f"/orders?{name}=carl")).json() == []


async def test_the_filters_of_the_list_can_be_combined(client: AsyncClient) -> None:
    await add_product(client, stock=1000)
    ids = {}
    for customer in ("anna", "ben"):
        for reference in ("cart 1", "cart 2"):
            for status in ("pending", "completed"):
                response = await place(client, (1, 1), customer=customer, reference=reference, status=status)
                ids[customer, reference, status] = response.json()["id"]
    cancelled = (await place(client, (1, 1), customer="anna", reference="cart 1", status="pending")).json()["id"]
    await client.delete(f"/orders/{cancelled}")
    path = "/orders?customer=anna&reference=cart+1"
    assert await pages(client, f"{path}&status=pending") == [[ids["anna", "cart 1", "pending"]]]
    assert await pages(client, f"{path}&status=completed") == [[ids["anna", "cart 1", "completed"]]]
    assert await pages(client, path) == [[ids["anna", "cart 1", "completed"], ids["anna", "cart 1", "pending"]]]


@pytest.mark.parametrize("value", ["", " ", "x" * 256, "a\nb", "a\u200bb", "\x00", 7, True])
@pytest.mark.parametrize("name", ["customer", "reference"])
async def test_a_name_that_cannot_be_printed_is_refused(client: AsyncClient, name: str, value: Any) -> None:
    await add_product(client)
    assert_field_errors(await place(client, (1, 1), **{name: value}), f"#/{name}")


@pytest.mark.parametrize("query", ["customer=", "reference=%0A", "customer=a&customer=b", f"reference={'x' * 256}"])
async def test_a_name_that_cannot_be_one_is_refused_in_a_query(client: AsyncClient, query: str) -> None:
    assert_query_errors(await client.get(f"/orders?{query}"), f"#/{query.partition('=')[0]}")


async def test_two_customers_may_use_the_same_key(client: AsyncClient, redis: CommandSender) -> None:
    await add_product(client)
    every: tuple[dict[str, Any], ...] = ({}, {"customer": "anna"}, {"customer": "ben"})
    placed = [(await place(client, (1, 1), key="cart", **fields)).json()["id"] for fields in every]
    assert len(set(placed)) == 3
    again = await place(client, (1, 1), key="cart", customer="ben")
    assert (again.json()["id"], again.headers["idempotent-replayed"]) == (placed[2], "true")
    reused = await place(client, (1, 1), key="cart", customer="anna", reference="x")
    assert_problem(reused, 422, "idempotency-key-reused")
    await assert_balanced(redis)


@pytest.mark.parametrize(
    ("one", "other"), [(("a b", "k"), ("b", "k")), (("k-1", "k"), (None, "k")), (("x", "k"), ("x ", "k"))]
)
async def test_no_two_customers_and_keys_share_a_redis_key(
    client: AsyncClient, one: tuple[str | None, str], other: tuple[str | None, str]
) -> None:
    await add_product(client)
    ids = set()
    for customer, key in (one, other):
        fields = {} if customer is None else {"customer": customer}
        ids.add((await place(client, (1, 1), key=key, **fields)).json()["id"])
    assert len(ids) == 2


async def test_the_answer_about_a_gone_order_has_the_order(client: AsyncClient, redis: CommandSender) -> None:
    await add_product(client)
    order = (await place(client, (1, 2), status="pending", key="k", **NAMES)).json()
    assert (await client.delete(f"/orders/{order['id']}")).status_code == 204
    gone = {**order, "status": "cancelled"}
    path = f"/orders/{order['id']}"
    answers = [
        await client.get(path),
        await client.post(f"{path}/complete"),
        await client.patch(path, json={"hold_seconds": 5}),
        await client.post(f"{path}/returns", json={"products": [{"product_id": 1, "quantity": 1}]}),
        await place(client, (1, 2), status="pending", key="k", **NAMES),
    ]
    for answer in answers:
        assert assert_problem(answer, 410, "order-cancelled")["order"] == gone
    order = (await place(client, (1, 2), status="pending", **NAMES)).json()
    await redis.send("HSET", keys.order(SHOP, order["id"]), "expires_at", "1000")
    gone = {**order, "status": "expired", "expires_at": "1970-01-01T00:00:01.000Z"}
    for answer in (
        await client.get(f"/orders/{order['id']}"),
        await client.post(f"/orders/{order['id']}/complete"),
        await client.delete(f"/orders/{order['id']}"),
        await client.delete(f"/orders/{order['id']}"),
    ):
        assert assert_problem(answer, 410, "order-expired")["order"] == gone


async def test_the_export_has_customers_and_references(client: AsyncClient, redis: CommandSender) -> None:
    await add_product(client)
    order = (await place(client, (1, 1), **NAMES)).json()
    exported = await make_store(redis).orders.read_listed([order["id"]])
    assert [(found.customer, found.reference) for found in exported] == [(order["customer"], order["reference"])]

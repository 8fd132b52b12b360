"""POST /orders/{id}/returns."""

from typing import Any

import pytest
from httpx2 import AsyncClient, Response

from service.domain.limits import MAX_STOCK
from service.storage import keys
from service.storage.sender import CommandSender
from tests.support.balance import Units, assert_balanced, units_of
from tests.support.clock import Clock
from tests.support.problems import assert_field_errors, assert_problem
from tests.support.redis_content import dump, hash_at, nothing_changes
from tests.support.shop import SHOP, add_product, http_client, make_store, place


async def send_back(
    client: AsyncClient, order_id: int, *lines: tuple[int, int], key: str | None = None, **fields: Any
) -> Response:
    """Return units of `(product id, quantity)` lines."""
    products = [{"product_id": product_id, "quantity": quantity} for product_id, quantity in lines]
    headers = {} if key is None else {"Idempotency-Key": key}
    return await client.post(f"/orders/{order_id}/returns", json={"products": products, **fields}, headers=headers)


@pytest.mark.parametrize("slash", ["", "/"])
async def test_units_that_come_back_are_in_stock_again_and_their_price_is_refunded(
    client: AsyncClient, redis: CommandSender, slash: str
) -> None:
    mugs, pots = await add_product(client, price=19.99, stock=10), await add_product(client, price=45, stock=5)
    order = (await place(client, (mugs, 2), (pots, 1))).json()
    body = {"products": [{"product_id": mugs, "quantity": 1}], "restock": True, "reason": "too small"}
    response = await client.post(f"/orders/{order['id']}/returns{slash}", json=body)
    assert response.status_code == 201
    assert response.headers["location"] == f"/orders/{order['id']}"
    assert "idempotent-replayed" not in response.headers
    assert response.json() == {
        **order,
        "products": [{**order["products"][0], "returned": 1}, {**order["products"][1], "returned": 0}],
        "refunded": 19.99,
    }
    assert (await client.get(f"/orders/{order['id']}")).json() == response.json()
    assert (await client.get("/orders")).json() == [response.json()]
    assert (await assert_balanced(redis)).units == {mugs: Units(9, 0, 1, 10), pots: Units(4, 0, 1, 5)}


async def test_an_order_can_be_returned_in_several_parts_until_nothing_is_left(
    client: AsyncClient, redis: CommandSender
) -> None:
    mugs, pots = await add_product(client, price=0.07, stock=10), await add_product(client, price=45, stock=5)
    order_id = (await place(client, (pots, 2), (mugs, 3), total_price=90.21)).json()["id"]
    assert (await send_back(client, order_id, (mugs, 1))).json()["refunded"] == 0.07
    assert (await send_back(client, order_id, (pots, 1), (mugs, 1))).json()["refunded"] == 45.14
    last = (await send_back(client, order_id, (mugs, 1), (pots, 1))).json()
    assert last["refunded"] == last["total_price"] == 90.21
    assert [(line["quantity"], line["returned"]) for line in last["products"]] == [(2, 2), (3, 3)]
    assert (await assert_balanced(redis)).units == {mugs: Units(10, 0, 0, 10), pots: Units(5, 0, 0, 5)}
    problem = assert_problem(await send_back(client, order_id, (mugs, 1)), 409, "return-exceeds-order")
    assert [(line["requested"], line["returnable"]) for line in problem["errors"]] == [(1, 0)]


async def test_units_that_are_not_restocked_are_written_off(client: AsyncClient, redis: CommandSender) -> None:
    mugs = await add_product(client, stock=10)
    order_id = (await place(client, (mugs, 4))).json()["id"]
    assert (await send_back(client, order_id, (mugs, 1), restock=False)).json()["refunded"] == 19.99
    assert await units_of(redis, mugs) == Units(6, 0, 3, 9)
    await send_back(client, order_id, (mugs, 1), restock=True)
    await send_back(client, order_id, (mugs, 2), restock=False)
    assert await units_of(redis, mugs) == Units(7, 0, 0, 7)
    stock = (await client.get(f"/products/{mugs}/stock")).json()
    assert stock == {"product_id": mugs, "stock": 7, "held": 0, "sold": 0, "received": 7, "written_off": 3}
    order = await hash_at(redis, keys.order(SHOP, order_id))
    assert (order["returned"], order["written_off"], order["refunded"]) == (f"{mugs}: 4", f"{mugs}: 3", "79.96")


async def test_restocking_is_the_default_and_a_reason_may_be_left_out(client: AsyncClient) -> None:
    mugs = await add_product(client, stock=10)
    order_id = (await place(client, (mugs, 4))).json()["id"]
    assert (await send_back(client, order_id, (mugs, 4))).status_code == 201
    assert (await client.get(f"/products/{mugs}")).json()["stock"] == 10


async def test_a_return_writes_one_event_with_everything_about_it(client: AsyncClient, redis: CommandSender) -> None:
    mugs, pots = await add_product(client, price=19.99), await add_product(client, price=45)
    order_id = (await place(client, (pots, 1), (mugs, 3), customer="anna", reference="cart 1")).json()["id"]
    await send_back(client, order_id, (mugs, 1), restock=False, reason="broken")
    await send_back(client, order_id, (pots, 1), (mugs, 1))
    store = make_store(redis)
    events = [event.fields for event in await store.events.read("0-0") if event.fields["event"] == "order_returned"]
    shared = {"event": "order_returned", "order": str(order_id), "customer": "anna", "reference": "cart 1"}
    assert events == [
        {
            **shared,
            "products": f"{mugs}: 1 x 19.99",
            "restock": "0",
            "refund": "19.99",
            "returned": f"{mugs}: 1",
            "written_off": f"{mugs}: 1",
            "reason": "broken",
        },
        {
            **shared,
            "products": f"{mugs}: 1 x 19.99\n{pots}: 1 x 45.00",
            "restock": "1",
            "refund": "64.99",
            "returned": f"{mugs}: 2\n{pots}: 1",
            "written_off": f"{mugs}: 1",
        },
    ]


async def test_a_return_of_too_much_names_every_such_line_and_returns_nothing(
    client: AsyncClient, redis: CommandSender
) -> None:
    mugs, pots, cups = [await add_product(client, stock=10) for _ in range(3)]
    order_id = (await place(client, (mugs, 2), (pots, 3))).json()["id"]
    await send_back(client, order_id, (pots, 1))
    async with nothing_changes(redis):
        response = await send_back(client, order_id, (cups, 1), (pots, 2), (mugs, 2), (pots, 1), (mugs, 1))
    problem = assert_problem(response, 409, "return-exceeds-order")
    assert sorted(problem["errors"], key=lambda error: error["pointer"]) == [
        {
            "pointer": f"#/products/{position}/quantity",
            "product_id": product_id,
            "requested": requested,
            "returnable": returnable,
            "detail": f"{requested} to return, {returnable} returnable.",
        }
        for position, product_id, requested, returnable in ((0, cups, 1, 0), (1, pots, 3, 2), (2, mugs, 3, 2))
    ]


async def test_a_pending_order_cannot_be_returned(client: AsyncClient, redis: CommandSender) -> None:
    mugs = await add_product(client)
    order_id = (await place(client, (mugs, 2), status="pending")).json()["id"]
    async with nothing_changes(redis):
        assert_problem(await send_back(client, order_id, (mugs, 1)), 409, "order-pending")
    await client.post(f"/orders/{order_id}/complete")
    assert (await send_back(client, order_id, (mugs, 1))).status_code == 201


async def test_orders_that_are_gone_or_were_never_placed_cannot_be_returned(redis: CommandSender) -> None:
    clock = Clock()
    client = http_client(make_store(redis, clock=clock))
    mugs = await add_product(client)
    cancelled, expired = [
        (await place(client, (mugs, 2), status="pending", hold_seconds=60)).json()["id"] for _ in range(2)
    ]
    await client.delete(f"/orders/{cancelled}")
    clock.forward(60)
    for order_id, status, name in (
        (cancelled, 410, "order-cancelled"),
        (expired, 410, "order-expired"),
        (999, 404, "order-not-found"),
        ("abc", 404, "order-not-found"),
    ):
        async with nothing_changes(redis):
            assert_problem(await send_back(client, order_id, (mugs, 1), key="k"), status, name)  # type: ignore[arg-type]


async def test_a_return_that_would_make_the_stock_too_large_is_refused(
    client: AsyncClient, redis: CommandSender
) -> None:
    mugs = await add_product(client, stock=10)
    order_id = (await place(client, (mugs, 2))).json()["id"]
    await client.post(f"/products/{mugs}/stock", json={"change": MAX_STOCK - 9, "reason": "delivery"})
    async with nothing_changes(redis):
        problem = assert_problem(await send_back(client, order_id, (mugs, 2)), 409, "stock-limit")
    assert [(error["pointer"], error["product_id"]) for error in problem["errors"]] == [("#/products/0/quantity", mugs)]
    assert (await send_back(client, order_id, (mugs, 1))).status_code == 201
    assert (await send_back(client, order_id, (mugs, 1), restock=False)).status_code == 201


async def test_units_of_a_withdrawn_product_can_come_back(client: AsyncClient, redis: CommandSender) -> None:
    mugs = await add_product(client, stock=10)
    order_id = (await place(client, (mugs, 2))).json()["id"]
    await client.delete(f"/products/{mugs}")
    assert (await send_back(client, order_id, (mugs, 2))).status_code == 201
    assert await units_of(redis, mugs) == Units(10, 0, 0, 10)


async def test_a_repeated_key_returns_once(client: AsyncClient, redis: CommandSender) -> None:
    mugs = await add_product(client, stock=10)
    order_id = (await place(client, (mugs, 4))).json()["id"]
    first = await send_back(client, order_id, (mugs, 1), (mugs, 1), key="r-1")
    before = await dump(redis)
    again = await send_back(client, order_id, (mugs, 2), key="r-1")
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["idempotent-replayed"] == "true"
    assert_problem(await send_back(client, order_id, (mugs, 1), key="r-1"), 422, "idempotency-key-reused")
    assert await dump(redis) == before
    assert await hash_at(redis, keys.idempotency(SHOP, "r-1")) == {
        "fingerprint": (await hash_at(redis, keys.idempotency(SHOP, "r-1")))["fingerprint"],
        "return": str(order_id),
    }


async def test_a_refused_return_is_final_for_its_key(client: AsyncClient, redis: CommandSender) -> None:
    mugs = await add_product(client)
    order_id = (await place(client, (mugs, 2), status="pending", customer="anna")).json()["id"]
    assert_problem(await send_back(client, order_id, (mugs, 1), key="r-1"), 409, "order-pending")
    await client.post(f"/orders/{order_id}/complete")
    again = await send_back(client, order_id, (mugs, 1), key="r-1")
    assert_problem(again, 409, "order-pending")
    assert again.headers["idempotent-replayed"] == "true"
    assert (await send_back(client, order_id, (mugs, 1), key="r-2")).status_code == 201
    first = await send_back(client, order_id, (mugs, 5), key="r-3")
    again = await send_back(client, order_id, (mugs, 5), key="r-3")
    assert first.json()["errors"] == again.json()["errors"]


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({}, ["#/products"]),
        ({"products": []}, ["#/products"]),
        ({"products": [{"product_id": 1, "quantity": 0}], "restock": "yes"}, ["#/products/0/quantity", "#/restock"]),
        ({"products": [{"product_id": 1, "quantity": 1}], "reason": " ", "note": "x"}, ["#/reason", "#/note"]),
    ],
)
async def test_an_invalid_return_is_refused_with_everything_that_is_wrong(
    client: AsyncClient, body: dict[str, object], pointers: list[str]
) -> None:
    mugs = await add_product(client)
    order_id = (await place(client, (mugs, 2))).json()["id"]
    assert_field_errors(await client.post(f"/orders/{order_id}/returns", json=body), *pointers)


async def test_the_largest_totals_are_refunded_exactly(client: AsyncClient) -> None:
    price, quantity = 999_999_999.99, 90_000
    product_id = await add_product(client, price=price, stock=quantity)
    order_id = (await place(client, (product_id, quantity))).json()["id"]
    await send_back(client, order_id, (product_id, 1))
    response = await send_back(client, order_id, (product_id, quantity - 1))
    assert '"refunded":89999999999100.00' in response.text

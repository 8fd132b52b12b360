"""POST /orders and GET /orders/{id}."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from httpx2 import AsyncClient

from service.storage.sender import CommandSender
from tests.support.problems import assert_field_errors, assert_problem
from tests.support.redis_content import nothing_changes
from tests.support.shop import SHOP, add_product, http_client, make_store, place, send_json, stock_of

MAX_ID = 2**53 - 1


async def test_order_takes_the_stock_of_all_lines(client: AsyncClient) -> None:
    mugs, pots = await add_product(client, stock=10), await add_product(client, stock=5, price=7)
    response = await place(client, (mugs, 2), (pots, 1))
    assert response.status_code == 201
    order = response.json()
    assert order == {
        "id": order["id"],
        "products": [
            {"product_id": mugs, "quantity": 2, "price": 19.99},
            {"product_id": pots, "quantity": 1, "price": 7.0},
        ],
        "total_price": 46.98,
        "status": "completed",
        "created_at": order["created_at"],
    }
    assert response.headers["location"] == f"/orders/{order['id']}"
    assert [await stock_of(client, mugs), await stock_of(client, pots)] == [8, 4]
    assert (await client.get(response.headers["location"])).json() == order


async def test_order_takes_no_stock_if_a_line_has_too_little(client: AsyncClient) -> None:
    mugs, pots = await add_product(client, stock=10), await add_product(client, stock=5)
    response = await place(client, (mugs, 2), (pots, 6))
    problem = assert_problem(response, 409, "insufficient-stock")
    assert problem["errors"] == [
        {
            "pointer": "#/products/1/quantity",
            "product_id": pots,
            "requested": 6,
            "available": 5,
            "detail": "6 requested, 5 available.",
        }
    ]
    assert [await stock_of(client, mugs), await stock_of(client, pots)] == [10, 5]


async def test_order_shows_when_it_was_placed(client: AsyncClient) -> None:
    await add_product(client)
    order = (await place(client, (1, 1))).json()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", order["created_at"])
    age = datetime.now(UTC) - datetime.fromisoformat(order["created_at"])
    assert timedelta(seconds=-1) < age < timedelta(minutes=1)


async def test_stock_can_be_sold_completely_and_never_below_zero(client: AsyncClient, redis: CommandSender) -> None:
    await add_product(client, stock=10)
    assert (await place(client, (1, 10))).status_code == 201
    async with nothing_changes(redis):
        response = await place(client, (1, 1))
    assert assert_problem(response, 409, "insufficient-stock")["errors"][0]["available"] == 0


async def test_order_may_name_the_default_status(client: AsyncClient) -> None:
    await add_product(client)
    response = await place(client, (1, 1), status="completed")
    assert response.json()["status"] == "completed"


# Lines


async def test_lines_with_the_same_product_become_one_line(client: AsyncClient) -> None:
    await add_product(client, stock=10)
    await add_product(client, stock=10)
    response = await place(client, (2, 5), (1, 1), (2, 5))
    assert [(line["product_id"], line["quantity"]) for line in response.json()["products"]] == [(2, 10), (1, 1)]
    assert [await stock_of(client, 1), await stock_of(client, 2)] == [9, 0]
    assert (await client.get("/orders/1")).json() == response.json()


async def test_quantities_of_the_same_product_are_added_before_the_stock_check(
    client: AsyncClient, redis: CommandSender
) -> None:
    await add_product(client, stock=10)
    await add_product(client, stock=10)
    async with nothing_changes(redis):
        response = await place(client, (2, 1), (1, 6), (1, 6))
    problem = assert_problem(response, 409, "insufficient-stock")
    assert [(error["pointer"], error["requested"], error["available"]) for error in problem["errors"]] == [
        ("#/products/1/quantity", 12, 10)
    ]


async def test_every_line_that_cannot_be_served_is_reported(client: AsyncClient, redis: CommandSender) -> None:
    for stock in (10, 5, 0):
        await add_product(client, stock=stock)
    async with nothing_changes(redis):
        response = await place(client, (1, 1), (2, 3), (8, 1), (3, 1), (2, 3), (MAX_ID, 7), (1, 1), (8, 2))
    problem = assert_problem(response, 404, "product-not-found")
    assert problem["errors"] == [
        {
            "pointer": "#/products/1/quantity",
            "product_id": 2,
            "requested": 6,
            "available": 5,
            "detail": "6 requested, 5 available.",
        },
        {"pointer": "#/products/2/product_id", "product_id": 8, "detail": "There is no product 8 on sale."},
        {
            "pointer": "#/products/3/quantity",
            "product_id": 3,
            "requested": 1,
            "available": 0,
            "detail": "1 requested, 0 available.",
        },
        {
            "pointer": "#/products/5/product_id",
            "product_id": MAX_ID,
            "detail": f"There is no product {MAX_ID} on sale.",
        },
    ]


@pytest.mark.parametrize("lines", [[(1, 11), (9, 1)], [(9, 1), (1, 11)]], ids=repr)
async def test_order_with_an_unknown_product_and_too_little_stock_is_not_found(
    client: AsyncClient, redis: CommandSender, lines: list[tuple[int, int]]
) -> None:
    await add_product(client, stock=10)
    async with nothing_changes(redis):
        problem = assert_problem(await place(client, *lines), 404, "product-not-found")
    assert [error["product_id"] for error in problem["errors"]] == [product_id for product_id, _ in lines]


async def test_order_of_a_hundred_products_is_placed(client: AsyncClient) -> None:
    for _ in range(100):
        await add_product(client, price=0.07)
    response = await place(client, *((product_id, 1) for product_id in range(1, 101)))
    assert response.status_code == 201
    assert '"total_price":7.00,' in response.text
    assert (await client.get("/orders/1")).text == response.text
    assert [product["stock"] for product in (await client.get("/products")).json()] == [9] * 100


async def test_hundred_lines_with_the_same_product_become_one_line(client: AsyncClient) -> None:
    await add_product(client, stock=100, price=0.07)
    response = await place(client, *[(1, 1)] * 100)
    assert response.json()["products"] == [{"product_id": 1, "quantity": 100, "price": 0.07}]
    assert '"total_price":7.00,' in response.text


async def test_order_of_more_than_a_hundred_lines_is_refused(client: AsyncClient, redis: CommandSender) -> None:
    await add_product(client, stock=1000)
    async with nothing_changes(redis):
        assert_field_errors(await place(client, *[(1, 1)] * 101), "#/products")


async def test_hundred_unknown_products_are_all_reported(client: AsyncClient, redis: CommandSender) -> None:
    await add_product(client, id=1000, stock=1)
    async with nothing_changes(redis):
        response = await place(client, *((product_id, 1) for product_id in range(1, 101)))
    problem = assert_problem(response, 404, "product-not-found")
    assert [error["product_id"] for error in problem["errors"]] == list(range(1, 101))


@pytest.mark.parametrize(
    ("quantity", "units"), [("1", 1), ("5.0", 5), ("5e0", 5), ("50E-1", 5), ("1e6", 10**6), ("1000000", 10**6)]
)
async def test_quantity_may_be_written_with_zero_decimals_or_an_exponent(
    client: AsyncClient, quantity: str, units: int
) -> None:
    await add_product(client, stock=10**9)
    body = f'{{"products": [{{"product_id": 1.0, "quantity": {quantity}}}]}}'
    response = await send_json(client, "POST", "/orders", body)
    assert response.status_code == 201
    assert f'"product_id":1,"quantity":{units},' in response.text
    assert await stock_of(client, 1) == 10**9 - units


async def test_added_quantities_may_be_larger_than_the_limit_of_a_line(client: AsyncClient) -> None:
    await add_product(client, stock=10**9)
    response = await place(client, *[(1, 10**6)] * 100)
    assert '"quantity":100000000,' in response.text
    assert '"total_price":1999000000.00,' in response.text
    assert await stock_of(client, 1) == 9 * 10**8


# Totals


@pytest.mark.parametrize("total_price", ["39.98", "39.980", "3998e-2", "null"])
async def test_order_with_the_current_total_is_placed(client: AsyncClient, total_price: str) -> None:
    await add_product(client)
    body = f'{{"products": [{{"product_id": 1, "quantity": 2}}], "total_price": {total_price}}}'
    response = await send_json(client, "POST", "/orders", body)
    assert response.status_code == 201
    assert response.json()["total_price"] == 39.98


@pytest.mark.parametrize("expected", [0, 1, 53.97, 53.99, 90071992547409.91])
async def test_order_with_a_wrong_total_is_refused_with_the_current_prices(
    client: AsyncClient, redis: CommandSender, expected: float
) -> None:
    await add_product(client, price=19.99)
    await add_product(client, price=7)
    async with nothing_changes(redis):
        response = await place(client, (2, 1), (1, 2), (2, 1), total_price=expected)
    problem = assert_problem(response, 409, "price-changed")
    assert problem["total_price"] == 53.98
    assert problem["prices"] == [{"product_id": 2, "price": 7.0}, {"product_id": 1, "price": 19.99}]


async def test_order_with_an_old_total_is_refused_after_a_price_change(
    client: AsyncClient, redis: CommandSender
) -> None:
    await add_product(client, price=19.99)
    await client.patch("/products/1", json={"price": 20})
    async with nothing_changes(redis):
        assert_problem(await place(client, (1, 1), total_price=19.99), 409, "price-changed")
    assert (await place(client, (1, 1), total_price=20)).status_code == 201


async def test_order_of_free_products_has_a_total_of_zero(client: AsyncClient) -> None:
    await add_product(client, price=0)
    response = await place(client, (1, 3), total_price=0)
    assert '"total_price":0.00,' in response.text
    assert (await client.get("/orders/1")).text == response.text


async def test_total_is_exact_up_to_its_limit(client: AsyncClient) -> None:
    await add_product(client, price=90_071_992.54, stock=10**6)
    await add_product(client, price=7_409.91)
    body = '{"products": [{"product_id": 1, "quantity": 1000000}, {"product_id": 2, "quantity": 1}], "total_price": %s}'
    wrong = await send_json(client, "POST", "/orders", body % "90071992547409.90")
    assert '"total_price": 90071992547409.91' in wrong.text
    response = await send_json(client, "POST", "/orders", body % "90071992547409.91")
    assert response.status_code == 201
    assert '"total_price":90071992547409.91,' in response.text
    assert (await client.get("/orders/1")).text == response.text


@pytest.mark.parametrize(
    "lines", [[(1, 10**6), (2, 1)], [(2, 2), (1, 10**6)], [(3, 10**6)], [(3, 10**6)] * 100], ids=repr
)
async def test_total_above_its_limit_is_refused(
    client: AsyncClient, redis: CommandSender, lines: list[tuple[int, int]]
) -> None:
    await add_product(client, price=90_071_992.54, stock=10**9)
    await add_product(client, price=7_409.92)
    await add_product(client, price=999_999_999.99, stock=10**9)
    async with nothing_changes(redis):
        response = await place(client, *lines)
    assert_problem(response, 422, "total-too-large")


# Reading


@pytest.mark.parametrize(
    "order_id", ["2", "64", "65", "0", "007", "01", "-1", "+1", "abc", "1.0", "1e0", "%201", "1" + "0" * 30, str(2**53)]
)
async def test_order_with_an_unknown_or_invalid_id_is_not_found(client: AsyncClient, order_id: str) -> None:
    await add_product(client)
    await place(client, (1, 1))
    assert_problem(await client.get(f"/orders/{order_id}"), 404, "order-not-found")


async def test_id_of_a_refused_order_is_used_for_the_next_order(client: AsyncClient) -> None:
    await add_product(client, stock=2)
    await place(client, (1, 1))
    await place(client, (1, 5))
    await place(client, (1, 1), total_price=1)
    await place(client, (9, 1))
    assert (await place(client, (1, 1))).json()["id"] == 2


async def test_order_is_not_overwritten_after_the_id_counter_was_lost(
    client: AsyncClient, redis: CommandSender
) -> None:
    await add_product(client, stock=1000)
    first = (await place(client, (1, 1))).json()
    await redis.send("DEL", f"{{{SHOP}}}:ids:orders")
    async with http_client(make_store(redis)) as worker:
        second = (await place(worker, (1, 2))).json()
    assert (await client.get(f"/orders/{first['id']}")).json() == first
    assert (await client.get(f"/orders/{second['id']}")).json() == second
    assert await stock_of(client, 1) == 997


async def test_a_stock_that_somebody_has_set_below_0_is_refused_like_none(
    client: AsyncClient, redis: CommandSender
) -> None:
    mugs = await add_product(client, stock=10)
    await redis.send("HSET", f"{{{SHOP}}}:product:{mugs}", "stock", -1)
    problem = assert_problem(await place(client, (mugs, 1)), 409, "insufficient-stock")
    assert [error["available"] for error in problem["errors"]] == [0]

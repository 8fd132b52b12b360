"""POST /orders, GET /orders, GET /orders/{id}."""

from httpx2 import AsyncClient

from tests.conftest import add_product, assert_problem, place, stock_of


async def test_an_order_takes_the_stock_of_all_its_lines(client: AsyncClient) -> None:
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


async def test_a_short_line_leaves_every_stock_untouched(client: AsyncClient) -> None:
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

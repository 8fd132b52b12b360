"""GET, POST /products; GET, PATCH, DELETE /products/{id}."""

import json
import re
from itertools import chain

import pytest
from httpx2 import AsyncClient

from service.domain.requests import ProductChange
from service.storage.sender import CommandSender
from service.storage.store import Store
from tests.support.problems import assert_field_errors, assert_problem
from tests.support.products import product_response
from tests.support.redis_content import nothing_changes
from tests.support.shop import (
    add_mugs,
    add_product,
    http_client,
    json_with,
    make_store,
    mug,
    pages,
    place,
    send_json,
    stock_of,
)

MAX_ID = 2**53 - 1


# Adding


async def test_added_product_is_shown_with_the_id_from_the_server(client: AsyncClient) -> None:
    response = await client.post("/products", json=mug(name="Pot", price=7, stock=3))
    assert response.status_code == 201
    assert response.headers["content-type"] == "application/json"
    product = response.json()
    assert product == product_response(1, name="Pot", price=7, stock=3)
    assert response.headers["location"] == "/products/1"
    assert (await client.get("/products/1")).json() == product
    assert (await client.get("/products")).json() == [product]


@pytest.mark.parametrize("product_id", [1, 7, MAX_ID])
async def test_client_may_choose_the_product_id(client: AsyncClient, product_id: int) -> None:
    response = await client.post("/products", json=mug(id=product_id))
    assert response.status_code == 201
    assert response.json()["id"] == product_id
    assert response.headers["location"] == f"/products/{product_id}"
    assert (await client.get(f"/products/{product_id}")).json() == response.json()
    assert await pages(client, "/products") == [[product_id]]


async def test_id_null_means_that_the_server_assigns_an_id(client: AsyncClient) -> None:
    assert await add_product(client, id=None) == 1


@pytest.mark.parametrize("withdrawn", [False, True])
async def test_product_id_cannot_be_used_twice(client: AsyncClient, redis: CommandSender, withdrawn: bool) -> None:
    await add_product(client, id=7)
    if withdrawn:
        await client.delete("/products/7")
    async with nothing_changes(redis):
        response = await client.post("/products", json=mug(id=7, name="Pot"))
    assert_problem(response, 409, "product-id-taken")


async def test_server_skips_ids_that_clients_have_chosen(client: AsyncClient) -> None:
    taken = [1, 2, 3, 4, 5, 6, 9, 12]
    for product_id in taken:
        await add_product(client, id=product_id)
    await client.delete("/products/2")
    given = [await add_product(client) for _ in range(10)]
    assert not set(given) & set(taken)
    assert given == sorted(set(given))


async def test_server_skips_a_thousand_ids_that_clients_have_chosen(client: AsyncClient, store: Store) -> None:
    for product_id in range(1, 1001):
        await add_mugs(store, id=product_id)
    assert await add_product(client) > 1000


async def test_two_workers_assign_different_ids(client: AsyncClient, redis: CommandSender) -> None:
    async with http_client(make_store(redis)) as other:
        ids = [await add_product(worker) for worker in (client, other, other, client)]
    assert len(set(ids)) == 4


@pytest.mark.parametrize(
    "text",
    [
        "x",
        " x ",
        "\x00",
        "a\x00b",
        "\x1f\x7f",
        'quote " backslash \\ slash /',
        "a\nb\tc\r",
        "e\u0301 is not \u00e9",
        "\u2028\u2029\ufeff\ufffd\uffff",
        "\U0001f600\U0010ffff",
        "</script>{{}}%s",
        "true",
        "7: 2 x 19.99",
    ],
)
async def test_text_is_returned_unchanged(client: AsyncClient, text: str) -> None:
    added = await client.post("/products", json=mug(name=text, description=text))
    changed = await client.patch("/products/1", json={"name": text + "!", "description": text + "?"})
    assert (added.json()["name"], added.json()["description"]) == (text, text)
    assert (changed.json()["name"], changed.json()["description"]) == (text + "!", text + "?")
    assert (await client.get("/products/1")).json() == changed.json()
    assert (await client.get("/products")).json() == [changed.json()]


@pytest.mark.parametrize(
    ("price", "shown"),
    [
        ("0", "0.00"),
        ("-0.0", "0.00"),
        ("0.01", "0.01"),
        ("5", "5.00"),
        ("5.0", "5.00"),
        ("19.9", "19.90"),
        ("19.990000000000000000000000000000000000", "19.99"),
        ("1e2", "100.00"),
        ("1999E-2", "19.99"),
        ("0e999999", "0.00"),
        ("999999999.99", "999999999.99"),
    ],
)
async def test_price_is_exact_to_the_cent(client: AsyncClient, price: str, shown: str) -> None:
    added = await send_json(client, "POST", "/products", json_with(mug(price="?"), price))
    assert added.status_code == 201
    for response in (added, await client.get("/products/1"), await client.get("/products")):
        assert f'"price":{shown},' in response.text


@pytest.mark.parametrize(("stock", "units"), [("0", 0), ("10.0", 10), ("1e9", 10**9), ("1000000000", 10**9)])
async def test_stock_may_be_written_with_zero_decimals_or_an_exponent(
    client: AsyncClient, stock: str, units: int
) -> None:
    response = await send_json(client, "POST", "/products", json_with(mug(stock="?"), stock))
    assert response.status_code == 201
    assert re.search(rf'"stock":{units}[,}}]', response.text)
    assert await stock_of(client, 1) == units


# Reading


@pytest.mark.parametrize(
    "product_id",
    ["2", "0", "01", "001", "-1", "+1", "1.0", "1e0", "abc", "%31%00", "1%0A", "\u0661", str(2**53), "1" + "0" * 30],
)
@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
async def test_product_with_an_unknown_or_invalid_id_is_not_found(
    client: AsyncClient, redis: CommandSender, method: str, product_id: str
) -> None:
    await add_product(client, id=1)
    async with nothing_changes(redis):
        response = await send_json(client, method, f"/products/{product_id}", "{}")
    assert_problem(response, 404, "product-not-found")


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("limit", [1, 2, 3, 5, 6, 1000])
async def test_links_lead_through_all_products_in_order_of_id(client: AsyncClient, limit: int, slash: str) -> None:
    ids = [3, 1, 500, 2, MAX_ID]
    for product_id in ids:
        await add_product(client, id=product_id)
    found = await pages(client, f"/products{slash}?limit={limit}")
    assert found == [sorted(ids)[i : i + limit] for i in range(0, len(ids), limit)]


async def test_page_has_a_hundred_products_by_default(client: AsyncClient, store: Store) -> None:
    for product_id in range(1, 206):
        await add_mugs(store, id=product_id)
    assert [len(page) for page in await pages(client, "/products")] == [100, 100, 5]
    assert [len(page) for page in await pages(client, "/products?limit=1000")] == [205]


@pytest.mark.parametrize(
    ("query", "link"),
    [
        ("customer=anna&limit=1", "customer=anna&limit=1&before=2"),
        ("customer=anna&before=9&limit=1", "customer=anna&before=2&limit=1"),
        ("limit=%31&customer=ann%61", "limit=1&customer=anna&before=2"),
        ("limit=1&reference=a+b", "limit=1&reference=a+b&before=2"),
        ("limit=1&reference=a%20b&", "limit=1&reference=a+b&before=2"),
    ],
)
async def test_link_has_the_parameters_of_the_request_in_the_same_sequence(
    client: AsyncClient, query: str, link: str
) -> None:
    mugs = await add_product(client)
    for _ in range(2):
        await place(client, (mugs, 1), customer="anna", reference="a b")
    response = await client.get(f"/orders?{query}")
    assert response.headers["link"] == f'</orders?{link}>; rel="next"'


async def test_link_to_the_next_page_keeps_the_filter(client: AsyncClient) -> None:
    for _ in range(3):
        await add_product(client)
    response = await client.get("/products?in_stock=true&limit=2")
    assert response.headers["link"] == '</products?in_stock=true&limit=2&after=2>; rel="next"'
    assert "link" not in (await client.get("/products?limit=3")).headers


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
async def test_filter_in_stock_selects_products_by_stock(client: AsyncClient, limit: int) -> None:
    stocks = [0, 1, 5, 0, 0, 0, 2, 0]
    for product_id, stock in enumerate(stocks, 1):
        await add_product(client, id=product_id, stock=stock)
    await place(client, (2, 1))  # the only unit in stock
    in_stock = await pages(client, f"/products?in_stock=true&limit={limit}")
    sold_out = await pages(client, f"/products?in_stock=false&limit={limit}")
    assert list(chain(*in_stock)) == [3, 7]
    assert list(chain(*sold_out)) == [1, 2, 4, 5, 6, 8]
    assert all(len(page) <= limit for page in in_stock + sold_out)


async def test_filter_finds_a_single_product_among_hundreds(client: AsyncClient, store: Store) -> None:
    for product_id in range(1, 301):
        await add_mugs(store, id=product_id, stock=int(product_id == 300))
    assert await pages(client, "/products?in_stock=true&limit=1") == [[300]]


@pytest.mark.parametrize(
    "query", ["", "?limit=1", "?after=0", f"?after={MAX_ID}", "?in_stock=true", "?in_stock=false", "?"]
)
async def test_list_of_an_empty_shop_is_empty(client: AsyncClient, query: str) -> None:
    response = await client.get(f"/products{query}")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.json() == []
    assert "link" not in response.headers


async def test_page_begins_after_the_given_id_even_if_no_product_has_it(client: AsyncClient) -> None:
    for product_id in (2, 4, 6):
        await add_product(client, id=product_id)
    assert await pages(client, "/products?after=4") == [[6]]
    assert await pages(client, "/products?after=3") == [[4, 6]]
    assert await pages(client, "/products?after=6") == [[]]


# Changing


@pytest.mark.parametrize("media_type", ["application/json", "application/merge-patch+json; charset=utf-8"])
async def test_patch_changes_only_the_given_fields(client: AsyncClient, media_type: str) -> None:
    product = (await client.post("/products", json=mug())).json()
    for change in ({"name": "Cup"}, {"description": ""}, {"price": 0.5}, {"name": "Pot", "price": 7}):
        product |= change
        response = await client.patch("/products/1", content=json.dumps(change), headers={"Content-Type": media_type})
        assert response.status_code == 200
        assert response.json() == product
        assert (await client.get("/products/1")).json() == product


@pytest.mark.parametrize(
    "change", [{}, {"name": mug()["name"]}, {name: mug()[name] for name in ProductChange.model_fields.keys() & mug()}]
)
async def test_patch_without_a_new_value_writes_nothing(
    client: AsyncClient, redis: CommandSender, change: dict[str, object]
) -> None:
    product = (await client.post("/products", json=mug())).json()
    async with nothing_changes(redis):
        response = await client.patch("/products/1", json=change)
    assert response.status_code == 200
    assert response.json() == product


@pytest.mark.parametrize(
    ("change", "pointers"),
    [
        ({"name": None}, ["#/name"]),
        ({"description": None}, ["#/description"]),
        ({"price": None}, ["#/price"]),
        ({"name": None, "description": None, "price": None}, ["#/name", "#/description", "#/price"]),
        ({"name": ""}, ["#/name"]),
        ({"name": " "}, ["#/name"]),
        ({"name": "x" * 201}, ["#/name"]),
        ({"description": "x" * 5001}, ["#/description"]),
        ({"price": 1.005}, ["#/price"]),
        ({"price": -1}, ["#/price"]),
        ({"price": "5"}, ["#/price"]),
        ({"price": True}, ["#/price"]),
        ({"stock": 5}, ["#/stock"]),
        ({"id": 1}, ["#/id"]),
        ({"name": "Pot", "colour": "red"}, ["#/colour"]),
        ({"name": "Pot", "colour": None, "price": 1e9}, ["#/colour", "#/price"]),
        ([], ["#"]),
        (None, ["#"]),
    ],
)
async def test_invalid_patch_is_refused(
    client: AsyncClient, redis: CommandSender, change: object, pointers: list[str]
) -> None:
    await add_product(client)
    async with nothing_changes(redis):
        response = await send_json(client, "PATCH", "/products/1", json.dumps(change))
    assert_field_errors(response, *pointers)


async def test_new_price_applies_only_to_new_orders(client: AsyncClient) -> None:
    await add_product(client, price=19.99)
    before = (await place(client, (1, 2))).json()
    await client.patch("/products/1", json={"price": 5, "name": "Cheap mug"})
    after = (await place(client, (1, 2))).json()
    assert [before["total_price"], after["total_price"]] == [39.98, 10.0]
    assert (await client.get(f"/orders/{before['id']}")).json() == before
    assert (await client.get("/orders")).json() == [after, before]


# Withdrawing


async def test_withdrawn_product_is_not_found_and_cannot_be_ordered(client: AsyncClient, redis: CommandSender) -> None:
    await add_product(client, id=1)
    await add_product(client, id=2)
    response = await client.delete("/products/1")
    assert response.status_code == 204
    assert response.content == b""
    assert await pages(client, "/products") == [[2]]
    assert_problem(await client.get("/products/1"), 404, "product-not-found")
    assert_problem(await client.patch("/products/1", json={"name": "Pot"}), 404, "product-not-found")
    async with nothing_changes(redis):
        problem = assert_problem(await place(client, (2, 1), (1, 1)), 404, "product-not-found")
    assert [error["pointer"] for error in problem["errors"]] == ["#/products/1/product_id"]


async def test_withdrawing_a_product_again_changes_nothing(client: AsyncClient, redis: CommandSender) -> None:
    await add_product(client)
    await client.delete("/products/1")
    async with nothing_changes(redis):
        response = await client.delete("/products/1")
    assert response.status_code == 204


async def test_order_of_a_withdrawn_product_is_kept(client: AsyncClient) -> None:
    await add_product(client)
    order = (await place(client, (1, 2))).json()
    await client.delete("/products/1")
    assert (await client.get(f"/orders/{order['id']}")).json() == order

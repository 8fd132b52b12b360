"""Wrong fields of a body: each is reported with its pointer, and Redis stays unchanged."""

import json

import pytest
from httpx2 import AsyncClient

from service.storage.sender import CommandSender
from tests.support.problems import assert_field_errors, assert_problem
from tests.support.redis_content import nothing_changes
from tests.support.shop import add_product, json_with, mug, send_json, stock_of

LINE = {"product_id": 1, "quantity": 1}
ORDER: dict[str, object] = {"products": [LINE]}
JSON = {"Content-Type": "application/json"}


INVALID_INTEGERS = ["5.5", "1e-1", "true", "false", '"5"', '""', "[]", "{}", "[5]", "1e999", "-1e999", "1e99", "0e99"]
INVALID_AMOUNTS = [
    "1.005",
    "0.001",
    "1e-3",
    "1.00000000000000000001",
    "-1",
    "-0.01",
    "-1e-30",
    "1e999",
    "-1e999",
    "1e-999999",
]
INVALID_AMOUNTS += ["true", "false", '"5"', '"19.99"', '""', "[]", "{}", "1" + "0" * 4000]


@pytest.mark.parametrize("token", [*INVALID_AMOUNTS, "null", "1e9", "1000000000", "999999999.991", "1000000000.00"])
async def test_invalid_price_is_refused(client: AsyncClient, redis: CommandSender, token: str) -> None:
    await add_product(client)
    async with nothing_changes(redis):
        assert_field_errors(await send_json(client, "POST", "/products", json_with(mug(price="?"), token)), "#/price")
        assert_field_errors(
            await send_json(client, "PATCH", "/products/1", json_with({"price": "?"}, token)), "#/price"
        )


@pytest.mark.parametrize("token", [*INVALID_AMOUNTS, "90071992547409.92", "90071992547409.911", "1e20"])
async def test_invalid_total_is_refused(client: AsyncClient, redis: CommandSender, token: str) -> None:
    await add_product(client)
    async with nothing_changes(redis):
        response = await send_json(client, "POST", "/orders", json_with({**ORDER, "total_price": "?"}, token))
    assert_field_errors(response, "#/total_price")


@pytest.mark.parametrize("token", [*INVALID_INTEGERS, "null", "-1", "1000000001", "1e10", "1000000000.5", str(2**64)])
async def test_invalid_stock_is_refused(client: AsyncClient, redis: CommandSender, token: str) -> None:
    await add_product(client)
    async with nothing_changes(redis):
        response = await send_json(client, "POST", "/products", json_with(mug(stock="?"), token))
    assert_field_errors(response, "#/stock")


@pytest.mark.parametrize("token", [*INVALID_INTEGERS, "null", "0", "-0", "-1", "1000001", "1e7", str(2**64)])
async def test_invalid_quantity_is_refused(client: AsyncClient, redis: CommandSender, token: str) -> None:
    await add_product(client, stock=10**9)
    body = json_with({"products": [LINE, {"product_id": 1, "quantity": "?"}]}, token)
    async with nothing_changes(redis):
        response = await send_json(client, "POST", "/orders", body)
    assert_field_errors(response, "#/products/1/quantity")


@pytest.mark.parametrize(
    "token",
    [*INVALID_INTEGERS, "0", "-1", str(2**53), str(2**53 + 1), f"{2**53 + 1}.0", "9007199254740993e0", str(2**64)],
)
async def test_invalid_id_is_refused(client: AsyncClient, redis: CommandSender, token: str) -> None:
    await add_product(client)
    body = json_with({"products": [{"product_id": "?", "quantity": 1}]}, token)
    async with nothing_changes(redis):
        assert_field_errors(await send_json(client, "POST", "/products", json_with(mug(id="?"), token)), "#/id")
        assert_field_errors(await send_json(client, "POST", "/orders", body), "#/products/0/product_id")


@pytest.mark.parametrize("units", [1, 10**9])
async def test_stock_up_to_its_limit_is_accepted(client: AsyncClient, units: int) -> None:
    assert await stock_of(client, await add_product(client, stock=units)) == units


INVALID_TEXTS = ["null", "5", "true", "[]", "{}", r'"\ud800"', r'"\udc00"', r'"\udc00\ud800"', r'"fine until \udfff"']


@pytest.mark.parametrize(
    "token",
    [*INVALID_TEXTS, '""', '" "', r'"\t\n\r "', '"\u00a0\u2003\u3000"', f'"{"x" * 201}"', f'"{chr(0x1F600) * 201}"'],
)
async def test_invalid_name_is_refused(client: AsyncClient, redis: CommandSender, token: str) -> None:
    await add_product(client)
    async with nothing_changes(redis):
        assert_field_errors(await send_json(client, "POST", "/products", json_with(mug(name="?"), token)), "#/name")
        assert_field_errors(await send_json(client, "PATCH", "/products/1", json_with({"name": "?"}, token)), "#/name")


@pytest.mark.parametrize("token", [*INVALID_TEXTS, f'"{"x" * 5001}"', f'"{chr(0x1F600) * 5001}"'])
async def test_invalid_description_is_refused(client: AsyncClient, redis: CommandSender, token: str) -> None:
    await add_product(client)
    body = json_with(mug(description="?"), token)
    async with nothing_changes(redis):
        assert_field_errors(await send_json(client, "POST", "/products", body), "#/description")


@pytest.mark.parametrize("character", ["x", "\u00e9", "\U0001f600", "\x00", '"'])
async def test_text_length_is_counted_in_characters(client: AsyncClient, character: str) -> None:
    product = mug(name=character * 200, description=character * 5000)
    escaped = await client.post("/products", content=json.dumps(product), headers=JSON)
    assert escaped.status_code == 201
    assert (escaped.json()["name"], escaped.json()["description"]) == (product["name"], product["description"])
    assert (await client.get("/products/1")).json() == escaped.json()


async def test_description_may_be_empty(client: AsyncClient) -> None:
    response = await client.post("/products", json=mug(description=""))
    assert response.json()["description"] == ""


@pytest.mark.parametrize("field", ["name", "description", "price", "stock"])
async def test_product_without_a_required_field_is_refused(client: AsyncClient, field: str) -> None:
    product = mug()
    del product[field]
    assert_field_errors(await client.post("/products", json=product), f"#/{field}")


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({}, ["#/products"]),
        ({"products": None}, ["#/products"]),
        ({"products": []}, ["#/products"]),
        ({"products": {}}, ["#/products"]),
        ({"products": {"0": LINE}}, ["#/products"]),
        ({"products": "1"}, ["#/products"]),
        ({"products": [None]}, ["#/products/0"]),
        ({"products": [LINE, [1, 1], 5]}, ["#/products/1", "#/products/2"]),
        ({"products": [{}]}, ["#/products/0/product_id", "#/products/0/quantity"]),
        ({"products": [{**LINE, "price": 1}]}, ["#/products/0/price"]),
        ({**ORDER, "status": None}, ["#/status"]),
        ({**ORDER, "status": "Completed"}, ["#/status"]),
        ({**ORDER, "status": "shipped"}, ["#/status"]),
        ({**ORDER, "status": ["completed"]}, ["#/status"]),
        ({**ORDER, "total": 5}, ["#/total"]),
        ({**ORDER, "id": 5}, ["#/id"]),
        ({**ORDER, "created_at": None}, ["#/created_at"]),
    ],
)
async def test_invalid_order_is_refused(
    client: AsyncClient, redis: CommandSender, body: dict[str, object], pointers: list[str]
) -> None:
    await add_product(client)
    async with nothing_changes(redis):
        assert_field_errors(await client.post("/orders", json=body), *pointers)


async def test_all_field_errors_of_a_product_are_listed_together(client: AsyncClient) -> None:
    body = {"id": 0, "name": " ", "price": 1.005, "stock": True, "colour": "red", "size": {"width": 1}}
    response = await client.post("/products", json=body)
    assert_field_errors(response, "#/id", "#/name", "#/description", "#/price", "#/stock", "#/colour", "#/size")


async def test_all_field_errors_of_an_order_are_listed_together(client: AsyncClient) -> None:
    lines = [{"product_id": 0, "quantity": 0}, LINE, {"product_id": 1}, 5, {**LINE, "price": 7, "quantity": "1"}]
    response = await client.post(
        "/orders", json={"products": lines, "status": "lost", "total_price": -1, "note": "Hello"}
    )
    assert_field_errors(
        response,
        "#/products/0/product_id",
        "#/products/0/quantity",
        "#/products/2/quantity",
        "#/products/3",
        "#/products/4/quantity",
        "#/products/4/price",
        "#/status",
        "#/total_price",
        "#/note",
    )


@pytest.mark.parametrize(
    ("field", "pointer"),
    [
        ("", "#/"),
        ("a/b", "#/a~1b"),
        ("m~n", "#/m~0n"),
        ("~1", "#/~01"),
        ("c%d", "#/c%25d"),
        (" ", "#/%20"),
        ('k"l', "#/k%22l"),
        ("e^f", "#/e%5Ef"),
        ("\u00e9", "#/%C3%A9"),
        ("\U0001f600", "#/%F0%9F%98%80"),
        ("\x00", "#/%00"),
        ("0", "#/0"),
        ("#", "#/%23"),
    ],
)
async def test_special_characters_of_a_field_name_are_escaped_in_the_pointer(
    client: AsyncClient, field: str, pointer: str
) -> None:
    assert_field_errors(await client.post("/orders", json={**ORDER, field: 1}), pointer)


@pytest.mark.parametrize("field", [r"\ud800", r"a\udfff/~", r"\udc00\ud800"])
@pytest.mark.parametrize("template", ['{"products": [], "%s": 1}', '{"products": [{"%s": 1}]}'])
async def test_field_name_with_a_lone_surrogate_is_refused(client: AsyncClient, template: str, field: str) -> None:
    response = await send_json(client, "POST", "/orders", template % field)
    assert assert_problem(response, 422, "invalid-request")["errors"]

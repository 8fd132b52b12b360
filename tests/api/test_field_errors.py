"""Bodies and headers that must be refused: named precisely, never with a 5xx, and without a trace in Redis."""

import json

import pytest
from httpx2 import AsyncClient

from service.storage.sender import CommandSender
from tests.support.problems import assert_field_errors, assert_problem
from tests.support.redis_content import nothing_changes
from tests.support.shop import add_product, mug, send_json, stock_of

LINE = {"product_id": 1, "quantity": 1}
ORDER: dict[str, object] = {"products": [LINE]}
JSON = {"Content-Type": "application/json"}


def with_token(body: dict[str, object], token: str) -> str:
    """The body as JSON, with the text `token` where it has the value "?"."""
    return json.dumps(body).replace('"?"', token)


NO_INTEGERS = ["5.5", "1e-1", "true", "false", '"5"', '""', "[]", "{}", "[5]", "1e999", "-1e999", "1e99", "0e99"]
NO_AMOUNTS = [
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
NO_AMOUNTS += ["true", "false", '"5"', '"19.99"', '""', "[]", "{}", "1" + "0" * 4000]


@pytest.mark.parametrize("token", [*NO_AMOUNTS, "null", "1e9", "1000000000", "999999999.991", "1000000000.00"])
async def test_what_is_no_price_is_refused(client: AsyncClient, link: CommandSender, token: str) -> None:
    await add_product(client)
    async with nothing_changes(link):
        assert_field_errors(await send_json(client, "POST", "/products", with_token(mug(price="?"), token)), "#/price")
        assert_field_errors(
            await send_json(client, "PATCH", "/products/1", with_token({"price": "?"}, token)), "#/price"
        )


@pytest.mark.parametrize("token", [*NO_AMOUNTS, "90071992547409.92", "90071992547409.911", "1e20"])
async def test_what_is_no_total_is_refused(client: AsyncClient, link: CommandSender, token: str) -> None:
    await add_product(client)
    async with nothing_changes(link):
        response = await send_json(client, "POST", "/orders", with_token({**ORDER, "total_price": "?"}, token))
    assert_field_errors(response, "#/total_price")


@pytest.mark.parametrize("token", [*NO_INTEGERS, "null", "-1", "1000000001", "1e10", "1000000000.5", str(2**64)])
async def test_what_is_no_stock_is_refused(client: AsyncClient, link: CommandSender, token: str) -> None:
    await add_product(client)
    async with nothing_changes(link):
        response = await send_json(client, "POST", "/products", with_token(mug(stock="?"), token))
    assert_field_errors(response, "#/stock")


@pytest.mark.parametrize("token", [*NO_INTEGERS, "null", "0", "-0", "-1", "1000001", "1e7", str(2**64)])
async def test_what_is_no_quantity_is_refused(client: AsyncClient, link: CommandSender, token: str) -> None:
    await add_product(client, stock=10**9)
    body = with_token({"products": [LINE, {"product_id": 1, "quantity": "?"}]}, token)
    async with nothing_changes(link):
        response = await send_json(client, "POST", "/orders", body)
    assert_field_errors(response, "#/products/1/quantity")


@pytest.mark.parametrize(
    "token", [*NO_INTEGERS, "0", "-1", str(2**53), str(2**53 + 1), f"{2**53 + 1}.0", "9007199254740993e0", str(2**64)]
)
async def test_what_is_no_id_is_refused(client: AsyncClient, link: CommandSender, token: str) -> None:
    await add_product(client)
    body = with_token({"products": [{"product_id": "?", "quantity": 1}]}, token)
    async with nothing_changes(link):
        assert_field_errors(await send_json(client, "POST", "/products", with_token(mug(id="?"), token)), "#/id")
        assert_field_errors(await send_json(client, "POST", "/orders", body), "#/products/0/product_id")


@pytest.mark.parametrize("units", [1, 10**9])
async def test_stock_may_be_as_large_as_its_limit(client: AsyncClient, units: int) -> None:
    assert await stock_of(client, await add_product(client, stock=units)) == units


NO_TEXT = ["null", "5", "true", "[]", "{}", r'"\ud800"', r'"\udc00"', r'"\udc00\ud800"', r'"fine until \udfff"']


@pytest.mark.parametrize(
    "token",
    [*NO_TEXT, '""', '" "', r'"\t\n\r "', '"\u00a0\u2003\u3000"', f'"{"x" * 201}"', f'"{chr(0x1F600) * 201}"'],
)
async def test_what_is_no_name_is_refused(client: AsyncClient, link: CommandSender, token: str) -> None:
    await add_product(client)
    async with nothing_changes(link):
        assert_field_errors(await send_json(client, "POST", "/products", with_token(mug(name="?"), token)), "#/name")
        assert_field_errors(await send_json(client, "PATCH", "/products/1", with_token({"name": "?"}, token)), "#/name")


@pytest.mark.parametrize("token", [*NO_TEXT, f'"{"x" * 5001}"', f'"{chr(0x1F600) * 5001}"'])
async def test_what_is_no_description_is_refused(client: AsyncClient, link: CommandSender, token: str) -> None:
    await add_product(client)
    body = with_token(mug(description="?"), token)
    async with nothing_changes(link):
        assert_field_errors(await send_json(client, "POST", "/products", body), "#/description")


@pytest.mark.parametrize("character", ["x", "\u00e9", "\U0001f600", "\x00", '"'])
async def test_lengths_are_counted_in_characters(client: AsyncClient, character: str) -> None:
    product = mug(name=character * 200, description=character * 5000)
    escaped = await client.post("/products", content=json.dumps(product), headers=JSON)
    assert escaped.status_code == 201
    assert (escaped.json()["name"], escaped.json()["description"]) == (product["name"], product["description"])
    assert (await client.get("/products/1")).json() == escaped.json()


async def test_a_description_may_be_empty(client: AsyncClient) -> None:
    response = await client.post("/products", json=mug(description=""))
    assert response.json()["description"] == ""


@pytest.mark.parametrize("member", ["name", "description", "price", "stock"])
async def test_a_product_lacks_none_of_its_members(client: AsyncClient, member: str) -> None:
    product = mug()
    del product[member]
    assert_field_errors(await client.post("/products", json=product), f"#/{member}")


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
async def test_what_is_no_order_is_refused(
    client: AsyncClient, link: CommandSender, body: dict[str, object], pointers: list[str]
) -> None:
    await add_product(client)
    async with nothing_changes(link):
        assert_field_errors(await client.post("/orders", json=body), *pointers)


async def test_all_faults_of_a_product_are_listed_at_once(client: AsyncClient) -> None:
    body = {"id": 0, "name": " ", "price": 1.005, "stock": True, "colour": "red", "size": {"width": 1}}
    response = await client.post("/products", json=body)
    assert_field_errors(response, "#/id", "#/name", "#/description", "#/price", "#/stock", "#/colour", "#/size")


async def test_all_faults_of_an_order_are_listed_at_once(client: AsyncClient) -> None:
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
    ("member", "pointer"),
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
async def test_a_pointer_escapes_what_it_must(client: AsyncClient, member: str, pointer: str) -> None:
    assert_field_errors(await client.post("/orders", json={**ORDER, member: 1}), pointer)


@pytest.mark.parametrize("member", [r"\ud800", r"a\udfff/~", r"\udc00\ud800"])
@pytest.mark.parametrize("template", ['{"products": [], "%s": 1}', '{"products": [{"%s": 1}]}'])
async def test_a_lone_surrogate_in_the_name_of_a_member_is_refused(
    client: AsyncClient, template: str, member: str
) -> None:
    response = await send_json(client, "POST", "/orders", template % member)
    assert assert_problem(response, 422, "invalid-request")["errors"]

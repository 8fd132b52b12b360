"""Bodies that are not JSON, and JSON that no call takes."""

import json

import pytest
from httpx2 import AsyncClient

from service.storage.sender import CommandSender
from tests.support.problems import assert_field_errors, assert_problem
from tests.support.redis_content import nothing_changes
from tests.support.shop import add_product, json_with, mug, send_json

LINE = {"product_id": 1, "quantity": 1}
ORDER: dict[str, object] = {"products": [LINE]}


@pytest.mark.parametrize("token", ["5", "-1.5", "true", "null", '"text"', "[]", "[{}]", json.dumps([ORDER])])
@pytest.mark.parametrize("path", ["/products", "/orders"])
async def test_body_that_is_not_an_object_is_refused(client: AsyncClient, path: str, token: str) -> None:
    assert_field_errors(await send_json(client, "POST", path, token), "#")


VALID = json.dumps(ORDER).encode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"}",
        b"nul",
        b"{'products': []}",
        b'{"products": [],}',
        b'{"products": [] /* none */}',
        VALID + b"x",
        VALID + VALID,
        VALID[:-1],
        b"\x00" + VALID,
        b"\xef\xbb\xbf" + VALID,
        VALID.decode().encode("utf-16"),
        VALID.decode().encode("utf-32-le"),
        b'{"products": "\xff"}',
        b'{"products": "\xed\xa0\x80"}',  # a surrogate, encoded in the way of UTF-8
        b'{"products": "\xc0\x80"}',
        b'{"products": "\x00"}',
        b'{"products": "\n"}',
        rb'{"products": "\x41"}',
        rb'{"products": "\u12"}',
        b'{"products": 01}',
        b'{"products": +1}',
        b'{"products": .5}',
        b'{"products": 5.}',
        b'{"products": 0x10}',
        b'{"products": 1_0}',
        '{"products": \u0661}'.encode(),
        b'{"products": NaN}',
        b'{"products": Infinity}',
        b'{"products": -Infinity}',
        b"[" * 1_000,
        b"[" * 60_000,
        b'{"a":' * 10_000,
        b"[" * 30_000 + b"]" * 30_000,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        b'{"products": [], "products": [{"product_id": 1, "quantity": 1}]}',
        b'{"products": [{"product_id": 1, "quantity": 1}], "products": [{"product_id": 1, "quantity": 1}]}',
        b'{"products": [{"product_id": 1, "quantity": 1, "quantity": 1}]}',
        rb'{"products": [{"product_id": 1, "quantity": 1, "\u0071uantity": 2}]}',
        rb'{"products": [], "\ud800": 1, "\ud800": 2}',
        b'{"products": [], "unknown": {"a": [{"b": 1, "b": 1}]}}',
    ],
    ids=lambda body: repr(body[:70]),
)
async def test_body_that_is_not_json_is_refused(client: AsyncClient, redis: CommandSender, body: bytes) -> None:
    await add_product(client)
    async with nothing_changes(redis):
        response = await send_json(client, "POST", "/orders", body)
    assert_problem(response, 400, "malformed-json")


@pytest.mark.parametrize(
    "token",
    [
        "9" * 5000,
        "-" + "9" * 5000,
        "9" * 5000 + ".5",
        "0." + "9" * 5000,
        "1e" + "9" * 20,
        "1e-" + "9" * 20,
        "1e" + "9" * 5000,
    ],
    ids=lambda token: token[:6],
)
@pytest.mark.parametrize("field", ["price", "stock", "id", "unknown"])
async def test_extremely_long_number_is_refused(
    client: AsyncClient, redis: CommandSender, field: str, token: str
) -> None:
    await add_product(client)
    async with nothing_changes(redis):
        response = await send_json(client, "POST", "/products", json_with(mug(**{field: "?"}), token))
    assert response.status_code in (400, 422)  # 400: too long to parse; 422: above the limit of its field
    assert_problem(
        response, response.status_code, "malformed-json" if response.status_code == 400 else "invalid-request"
    )


async def test_refusal_of_a_long_integer_names_no_python_setting(client: AsyncClient) -> None:
    response = await send_json(client, "POST", "/products", json_with(mug(price="?"), "9" * 5000))
    assert "sys.set_int_max_str_digits" not in response.text


async def test_deep_nesting_that_can_be_parsed_gives_field_errors(client: AsyncClient) -> None:
    body = '{"products": ' + "[" * 200 + "]" * 200 + ', "deep": ' + '{"a":' * 200 + "1" + "}" * 201
    assert_field_errors(await send_json(client, "POST", "/orders", body), "#/products/0", "#/deep")


async def test_object_with_too_many_fields_is_refused_without_listing_them(client: AsyncClient) -> None:
    """Otherwise a body of 64 KiB with unknown fields would get an answer of one megabyte with 7,000 field errors."""
    line = {"product_id": 1, "quantity": 1, **{f"m{number}": 0 for number in range(70)}}
    response = await client.post("/orders", json={"products": [line]})
    problem = assert_problem(response, 400, "malformed-json")
    assert "72 fields" in problem["detail"]
    assert len(response.content) < 1000

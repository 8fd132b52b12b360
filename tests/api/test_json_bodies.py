"""Bodies that are not JSON, or not the JSON of any request."""

import json

import pytest
from httpx2 import AsyncClient

from service.storage.sender import CommandSender
from tests.support.problems import assert_field_errors, assert_problem
from tests.support.redis_content import nothing_changes
from tests.support.shop import add_product, mug, send_json

LINE = {"product_id": 1, "quantity": 1}
ORDER: dict[str, object] = {"products": [LINE]}


@pytest.mark.parametrize("token", ["5", "-1.5", "true", "null", '"text"', "[]", "[{}]", json.dumps([ORDER])])
@pytest.mark.parametrize("path", ["/products", "/orders"])
async def test_a_body_that_is_no_object_is_refused(client: AsyncClient, path: str, token: str) -> None:
    assert_field_errors(await send_json(client, "POST", path, token), "#")


# Not JSON


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
        b'{"products": "\xed\xa0\x80"}',  # a surrogate in what looks like UTF-8
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
async def test_what_is_not_json_is_refused(client: AsyncClient, link: CommandSender, body: bytes) -> None:
    await add_product(client)
    async with nothing_changes(link):
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
@pytest.mark.parametrize("member", ["price", "stock", "id", "unknown"])
async def test_a_monstrous_number_is_refused(client: AsyncClient, link: CommandSender, member: str, token: str) -> None:
    await add_product(client)
    async with nothing_changes(link):
        response = await send_json(client, "POST", "/products", with_token(mug(**{member: "?"}), token))
    assert response.status_code in (400, 422)  # beyond what is read, or beyond its limit
    assert_problem(
        response, response.status_code, "malformed-json" if response.status_code == 400 else "invalid-request"
    )


async def test_the_refusal_of_a_long_integer_says_nothing_of_python(client: AsyncClient) -> None:
    response = await send_json(client, "POST", "/products", with_token(mug(price="?"), "9" * 5000))
    assert "sys.set_int_max_str_digits" not in response.text


async def test_nesting_that_can_be_read_is_refused_for_what_it_is(client: AsyncClient) -> None:
    body = '{"products": ' + "[" * 200 + "]" * 200 + ', "deep": ' + '{"a":' * 200 + "1" + "}" * 201
    assert_field_errors(await send_json(client, "POST", "/orders", body), "#/products/0", "#/deep")


async def test_an_object_of_more_members_than_any_request_has_is_refused_as_a_whole(client: AsyncClient) -> None:
    """Else 64 KiB of unknown members would be answered with a megabyte, seven thousand faults."""
    line = {"product_id": 1, "quantity": 1, **{f"m{number}": 0 for number in range(70)}}
    response = await client.post("/orders", json={"products": [line]})
    problem = assert_problem(response, 400, "malformed-json")
    assert "72 fields" in problem["detail"]
    assert len(response.content) < 1000

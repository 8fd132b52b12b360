"""Bodies and headers that must be refused: named precisely, never with a 5xx, and without a trace in Redis."""

import json
import string
from collections.abc import AsyncIterator
from urllib.parse import quote

import pytest
from httpx2 import AsyncClient, Response
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.storage.sender import CommandSender
from tests.support.problems import assert_field_errors, assert_problem
from tests.support.redis_content import nothing_changes
from tests.support.shop import add_product, mug, place, send_json, stock_of

LINE = {"product_id": 1, "quantity": 1}
ORDER: dict[str, object] = {"products": [LINE]}
MAX_BODY = 65_536
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


# How the body comes


async def test_a_body_may_be_as_large_as_the_limit(client: AsyncClient) -> None:
    await add_product(client)
    assert (await send_json(client, "POST", "/orders", VALID.ljust(MAX_BODY))).status_code == 201
    response = await send_json(client, "POST", "/orders", VALID.ljust(MAX_BODY + 1))
    assert_problem(response, 413, "body-too-large")


class Upload:
    """A body of chunks that counts how much of it was read."""

    def __init__(self, body: bytes, chunk: int) -> None:
        self.chunks = [body[i : i + chunk] for i in range(0, len(body), chunk)]
        self.read = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            self.read += len(chunk)
            yield chunk


@pytest.mark.parametrize("chunk", [1, 100, MAX_BODY])
async def test_a_body_may_come_in_chunks(client: AsyncClient, chunk: int) -> None:
    await add_product(client)
    upload = Upload(VALID, chunk)
    response = await client.post("/orders", content=upload, headers=JSON)
    assert "content-length" not in response.request.headers
    assert response.status_code == 201


async def test_a_body_that_declares_to_be_too_large_is_not_read(client: AsyncClient, link: CommandSender) -> None:
    await add_product(client)
    upload = Upload(VALID.ljust(5_000_000), 10_000)
    async with nothing_changes(link):
        response = await client.post("/orders", content=upload, headers={**JSON, "Content-Length": "5000000"})
    assert_problem(response, 413, "body-too-large")
    assert upload.read == 0


@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_a_body_that_turns_out_too_large_is_not_read_to_its_end(
    client: AsyncClient, link: CommandSender, method: str
) -> None:
    await add_product(client)
    upload = Upload(b" " * 5_000_000, 10_000)
    path = {"POST": "/products", "PATCH": "/products/1"}[method]
    async with nothing_changes(link):
        response = await client.request(method, path, content=upload, headers=JSON)
    assert_problem(response, 413, "body-too-large")
    assert upload.read <= MAX_BODY + 10_000


@pytest.mark.parametrize("length", ["65537", "9" * 19, "9" * 4300, "9" * 5000, "-1", "abc", "1e3", "\u00b2"])
async def test_a_declared_length_that_cannot_be_is_refused(
    client: AsyncClient, link: CommandSender, length: str
) -> None:
    await add_product(client)
    headers = [(b"content-type", b"application/json"), (b"content-length", length.encode("latin-1"))]
    async with nothing_changes(link):
        response = await client.post("/orders", content=VALID, headers=headers)
    assert 400 <= response.status_code < 500


NO_JSON = [None, "", "text/plain", "text/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
NO_JSON += ["application/jsonx", "application", "application/json-patch+json", "json", "*/*", "; application/json"]


@pytest.mark.parametrize("media_type", [*NO_JSON, "application/merge-patch+json"])
async def test_an_order_that_is_not_declared_as_json_is_refused(
    client: AsyncClient, link: CommandSender, media_type: str | None
) -> None:
    await add_product(client)
    async with nothing_changes(link):
        response = await client.post(
            "/orders", content=VALID, headers={} if media_type is None else {"Content-Type": media_type}
        )
    assert_problem(response, 415, "unsupported-media-type")
    assert response.headers["accept"] == "application/json"


@pytest.mark.parametrize("media_type", NO_JSON)
async def test_a_patch_that_is_not_declared_as_one_is_refused(
    client: AsyncClient, link: CommandSender, media_type: str | None
) -> None:
    await add_product(client)
    async with nothing_changes(link):
        response = await client.patch(
            "/products/1", content=b'{"price": 1}', headers={} if media_type is None else {"Content-Type": media_type}
        )
    assert_problem(response, 415, "unsupported-media-type")
    assert response.headers["accept-patch"] == "application/json, application/merge-patch+json"


@pytest.mark.parametrize("media_type", ["APPLICATION/Json", "application/json;charset=utf-8", "application/json ; a=b"])
async def test_json_may_be_declared_in_several_ways(client: AsyncClient, media_type: str) -> None:
    await add_product(client)
    response = await client.post("/orders", content=VALID, headers={"Content-Type": media_type})
    assert response.status_code == 201


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "br", "deflate, gzip", "identity, gzip", "nonsense"])
async def test_an_encoded_body_is_refused(client: AsyncClient, link: CommandSender, encoding: str) -> None:
    await add_product(client)
    async with nothing_changes(link):
        response = await client.post("/orders", content=VALID, headers={**JSON, "Content-Encoding": encoding})
    assert_problem(response, 415, "unsupported-media-type")


async def test_the_identity_encoding_is_none(client: AsyncClient) -> None:
    await add_product(client)
    response = await client.post("/orders", content=VALID, headers={**JSON, "Content-Encoding": "identity"})
    assert response.status_code == 201


# Anything at all


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=10),
    st.sampled_from([0, 1, 2, -1, 2**53, 10**9, 10**30, 0.1, 1e300, 1.0, "\ud800", "completed", "pending"]),
)
MEMBERS = st.sampled_from(
    [
        "products",
        "product_id",
        "quantity",
        "status",
        "total_price",
        "hold_seconds",
        "id",
        "name",
        "description",
        "price",
    ]
) | st.text(max_size=5)
DOCUMENTS = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(MEMBERS, inner, max_size=5), max_leaves=12
)
GOOD_ID, GOOD_QUANTITY = st.just(1), st.integers(1, 9)
LINES = st.fixed_dictionaries({"product_id": GOOD_ID | GOOD_ID | SCALARS, "quantity": GOOD_QUANTITY | SCALARS})
ORDERS = st.fixed_dictionaries(
    {"products": st.lists(LINES, min_size=1, max_size=3) | DOCUMENTS},
    optional={"status": st.just("completed") | SCALARS, "total_price": SCALARS, "more": DOCUMENTS},
)
CHANGES = {
    "name": st.text(max_size=9) | SCALARS,
    "description": st.text(max_size=9) | SCALARS,
    "price": st.integers(0, 10**11).map(lambda cents: cents / 100) | SCALARS,
}
PRODUCTS = st.fixed_dictionaries(
    {**CHANGES, "stock": st.integers(0, 10**9) | SCALARS}, optional={"id": SCALARS, "more": DOCUMENTS}
)
PATCHES = st.fixed_dictionaries({}, optional={**CHANGES, "more": DOCUMENTS})


@st.composite
def bodies(draw: st.DrawFn, documents: st.SearchStrategy[object]) -> bytes:
    """JSON of about the right form, at times with a few bytes that do not belong there; or any bytes."""
    if draw(st.integers(0, 19)) == 0:
        return draw(st.binary(max_size=60))
    body = bytearray(json.dumps(draw(documents), ensure_ascii=draw(st.booleans())).encode(errors="surrogatepass"))
    if draw(st.integers(0, 9)) == 0:
        at = draw(st.integers(0, len(body)))
        body[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(body)


ANYTHING = st.text(max_size=12).map(lambda text: quote(text, errors="surrogatepass"))
IDS = st.sampled_from(["1", "2", "0", "-1", "9" * 40]) | ANYTHING
PATHS = st.one_of(
    st.sampled_from(["/products", "/orders", "/problems/not-found", "/livez", "/"]),
    st.tuples(st.sampled_from(["/products/", "/orders/", "/problems/", "/"]), IDS).map("".join),
)
PARAMETERS = st.tuples(
    st.sampled_from(["limit", "after", "before", "in_stock", "status"]) | ANYTHING,
    st.sampled_from(["1", "2", "true", "false", "completed", "1000"]) | st.integers().map(str) | ANYTHING,
)
QUERIES = st.lists(PARAMETERS.map("=".join), max_size=3).map("&".join)
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(
            [b"idempotency-key", b"content-type", b"content-encoding", b"content-length", b"x-request-id", b"host"]
        ),
        st.sampled_from([b"application/json", b"gzip", b"k", b'"k"', b"10"])
        | st.text(string.printable[:95] + "\u00e9\u00ff", max_size=20).map(lambda text: text.encode("latin-1")),
    ),
    max_size=3,
)

# All examples share one shop: what they add up to must do no harm, either.
anything = settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture
async def shop(client: AsyncClient) -> AsyncClient:
    """A client of a shop that sells one product."""
    await add_product(client, id=1, stock=10**9, price=0.01)
    return client


def assert_no_fault_of_ours(response: Response) -> None:
    assert response.status_code < 500, response.text
    if response.status_code >= 400:
        assert_problem(response, response.status_code, response.json()["type"].removeprefix("/problems/"))


@anything
@given(bodies(ORDERS | DOCUMENTS), bodies(PRODUCTS | DOCUMENTS), bodies(PATCHES | DOCUMENTS))
async def test_no_body_whatever_gets_an_answer_of_5xx(
    shop: AsyncClient, order: bytes, product: bytes, patch: bytes
) -> None:
    assert_no_fault_of_ours(await send_json(shop, "POST", "/orders", order))
    assert_no_fault_of_ours(await send_json(shop, "POST", "/products", product))
    assert_no_fault_of_ours(await send_json(shop, "PATCH", "/products/1", patch))
    assert_no_fault_of_ours(await shop.get("/products"))
    assert_no_fault_of_ours(await shop.get("/orders"))


@anything
@given(st.sampled_from(["GET", "GET", "GET", "POST", "PATCH", "DELETE", "PUT"]), PATHS, QUERIES, HEADERS)
async def test_no_path_query_or_header_whatever_gets_an_answer_of_5xx(
    shop: AsyncClient, method: str, path: str, query: str, headers: list[tuple[bytes, bytes]]
) -> None:
    assert_no_fault_of_ours(await shop.request(method, f"{path}?{query}", headers=headers, content=VALID))


async def test_after_bad_input_a_good_order_is_placed(client: AsyncClient) -> None:
    await add_product(client)
    for body in (b"{", b"[" * 60_000, b"x" * 70_000, b'{"products": [{"product_id": 1e999, "quantity": 1}]}'):
        assert (await send_json(client, "POST", "/orders", body)).status_code in (400, 413, 422)
    assert (await place(client, (1, 1))).json()["id"] == 1


async def test_an_object_of_more_members_than_any_request_has_is_refused_as_a_whole(client: AsyncClient) -> None:
    """Else 64 KiB of unknown members would be answered with a megabyte, seven thousand faults."""
    line = {"product_id": 1, "quantity": 1, **{f"m{number}": 0 for number in range(70)}}
    response = await client.post("/orders", json={"products": [line]})
    problem = assert_problem(response, 400, "malformed-json")
    assert "72 fields" in problem["detail"]
    assert len(response.content) < 1000


async def test_more_parameters_than_any_call_takes_are_refused_as_a_whole(client: AsyncClient) -> None:
    response = await client.get("/orders?" + "&".join(f"p{number}=1" for number in range(1000)))
    assert_problem(response, 422, "invalid-request")
    assert len(response.content) < 1000


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/orders?status=pending"),
        ("POST", "/products?id=7"),
        ("GET", "/products/1?limit=1"),
        ("PATCH", "/products/1?price=5"),
        ("DELETE", "/products/1?quantity=1"),
        ("POST", "/products/1/stock?change=1"),
        ("GET", "/orders/1?status=pending"),
        ("DELETE", "/orders/1?reason=late"),
        ("POST", "/orders/1/complete?at=once"),
    ],
)
async def test_a_parameter_where_none_is_taken_is_refused_and_does_nothing(
    client: AsyncClient, link: CommandSender, method: str, path: str
) -> None:
    """`POST /orders?status=pending` would sell what its client wants held."""
    await add_product(client, id=1)
    await place(client, (1, 1), status="pending")
    bodies = {"/orders": {"products": [{"product_id": 1, "quantity": 1}]}, "/products": mug()}
    async with nothing_changes(link):
        response = await client.request(method, path, json=bodies.get(path.partition("?")[0], {}))
    problem = assert_problem(response, 422, "invalid-request")
    assert [fault["in"] for fault in problem["errors"]] == ["query"]

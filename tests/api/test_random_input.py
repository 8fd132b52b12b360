"""Random bodies, paths, queries and headers: the answer is never a 5xx."""

import json
import string
from urllib.parse import quote

import pytest
from httpx2 import AsyncClient, Response
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.storage.sender import CommandSender
from tests.support.problems import assert_problem
from tests.support.shop import add_product, place, send_json

pytestmark = pytest.mark.slow

LINE = {"product_id": 1, "quantity": 1}
ORDER: dict[str, object] = {"products": [LINE]}
VALID = json.dumps(ORDER).encode()


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=10),
    st.sampled_from([0, 1, 2, -1, 2**53, 10**9, 10**30, 0.1, 1e300, 1.0, "\ud800", "completed", "pending"]),
)
FIELD_NAMES = st.sampled_from(
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
        "customer",
        "limit_per_customer",
        "on_sale_from",
        "restock",
        "count",
    ]
) | st.text(max_size=5)
DOCUMENTS = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(FIELD_NAMES, inner, max_size=5), max_leaves=12
)
NAMES = st.sampled_from(["anna", "a:b {c} *", "☕"]) | st.text(max_size=9) | SCALARS
TIMES = st.sampled_from(["2026-11-27T09:00:00Z", "1970-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"]) | SCALARS
GOOD_ID, GOOD_QUANTITY = st.just(1), st.integers(1, 9)
LINES = st.fixed_dictionaries({"product_id": GOOD_ID | GOOD_ID | SCALARS, "quantity": GOOD_QUANTITY | SCALARS})
ORDERS = st.fixed_dictionaries(
    {"products": st.lists(LINES, min_size=1, max_size=3) | DOCUMENTS},
    optional={
        "status": st.just("completed") | SCALARS,
        "total_price": SCALARS,
        "customer": NAMES,
        "reference": NAMES,
        "more": DOCUMENTS,
    },
)
RETURNS = st.fixed_dictionaries(
    {"products": st.lists(LINES, min_size=1, max_size=3) | DOCUMENTS},
    optional={"restock": st.booleans() | SCALARS, "reason": NAMES, "more": DOCUMENTS},
)
STOCK = st.fixed_dictionaries(
    {"reason": NAMES}, optional={"change": st.integers(-9, 9) | SCALARS, "count": st.integers(0, 9) | SCALARS}
)
EXTENSIONS = st.fixed_dictionaries({"hold_seconds": st.integers(0, 90_000) | SCALARS}, optional={"more": DOCUMENTS})
CHANGES = {
    "name": st.text(max_size=9) | SCALARS,
    "description": st.text(max_size=9) | SCALARS,
    "price": st.integers(0, 10**11).map(lambda cents: cents / 100) | SCALARS,
}
RULES = {"limit_per_customer": st.integers(1, 99) | SCALARS, "on_sale_from": TIMES, "on_sale_until": TIMES}
PRODUCTS = st.fixed_dictionaries(
    {**CHANGES, "stock": st.integers(0, 10**9) | SCALARS}, optional={**RULES, "id": SCALARS, "more": DOCUMENTS}
)
PATCHES = st.fixed_dictionaries({}, optional={**CHANGES, **RULES, "more": DOCUMENTS})


@st.composite
def bodies(draw: st.DrawFn, documents: st.SearchStrategy[object]) -> bytes:
    """Return JSON that is nearly valid, sometimes with a few random bytes in it, or only random bytes."""
    if draw(st.integers(0, 19)) == 0:
        return draw(st.binary(max_size=60))
    body = bytearray(json.dumps(draw(documents), ensure_ascii=draw(st.booleans())).encode(errors="surrogatepass"))
    if draw(st.integers(0, 9)) == 0:
        at = draw(st.integers(0, len(body)))
        body[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(body)


RANDOM_TEXT = st.text(max_size=12).map(lambda text: quote(text, errors="surrogatepass"))
IDS = st.sampled_from(["1", "2", "0", "-1", "9" * 40]) | RANDOM_TEXT
PATHS = st.one_of(
    st.sampled_from(["/products", "/orders", "/problems/not-found", "/livez", "/"]),
    st.tuples(st.sampled_from(["/products/", "/orders/", "/problems/", "/"]), IDS).map("".join),
    st.tuples(st.sampled_from(["/products/", "/orders/"]), IDS, st.sampled_from(["/stock", "/returns", "/x"])).map(
        "".join
    ),
)
PARAMETERS = st.tuples(
    st.sampled_from(["limit", "after", "before", "in_stock", "status", "customer", "reference"]) | RANDOM_TEXT,
    st.sampled_from(["1", "2", "true", "false", "completed", "1000"]) | st.integers().map(str) | RANDOM_TEXT,
)
QUERIES = st.lists(PARAMETERS.map("=".join), max_size=3).map("&".join)
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *[
                    b"idempotency-key",
                    b"content-type",
                    b"content-encoding",
                    b"content-length",
                    b"x-request-id",
                    b"host",
                ],
                *[b"if-match", b"if-none-match"],
            ]
        ),
        st.sampled_from([b"application/json", b"gzip", b"k", b'"k"', b"10", b"*", b'W/"x", "y-1"'])
        | st.text(string.printable[:95] + "\u00e9\u00ff", max_size=20).map(lambda text: text.encode("latin-1")),
    ),
    max_size=3,
)

# All examples share one shop, so later examples also meet the data that earlier examples have left.
random_input = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture
def redis(engine: CommandSender) -> CommandSender:
    """Only a real engine, which is five times as fast here. The input is the same at each run."""
    return engine


@pytest.fixture
async def shop(client: AsyncClient) -> AsyncClient:
    """Return a client of a shop that sells one product."""
    await add_product(client, id=1, stock=10**9, price=0.01)
    return client


def assert_no_server_error(response: Response) -> None:
    assert response.status_code < 500, response.text
    if response.status_code >= 400:
        assert_problem(response, response.status_code, response.json()["type"].removeprefix("/problems/"))


@random_input
@given(bodies(ORDERS | DOCUMENTS), bodies(PRODUCTS | DOCUMENTS), bodies(PATCHES | DOCUMENTS))
async def test_random_bodies_never_cause_a_5xx_answer(
    shop: AsyncClient, order: bytes, product: bytes, patch: bytes
) -> None:
    assert_no_server_error(await send_json(shop, "POST", "/orders", order))
    assert_no_server_error(await send_json(shop, "POST", "/products", product))
    assert_no_server_error(await send_json(shop, "PATCH", "/products/1", patch))
    assert_no_server_error(await shop.get("/products"))
    assert_no_server_error(await shop.get("/orders"))


@random_input
@given(bodies(RETURNS | DOCUMENTS), bodies(STOCK | DOCUMENTS), bodies(EXTENSIONS | DOCUMENTS))
async def test_random_returns_counts_and_extensions_never_cause_a_5xx_answer(
    shop: AsyncClient, returned: bytes, stock: bytes, extension: bytes
) -> None:
    sold = (await place(shop, (1, 9), customer="anna")).json()
    held = (await place(shop, (1, 1), status="pending", customer="anna")).json()
    assert_no_server_error(await send_json(shop, "POST", f"/orders/{sold.get('id', 1)}/returns", returned))
    assert_no_server_error(await send_json(shop, "POST", "/products/1/stock", stock))
    assert_no_server_error(await send_json(shop, "PATCH", f"/orders/{held.get('id', 1)}", extension))
    assert_no_server_error(await shop.get("/products/1/stock"))
    assert_no_server_error(await shop.get("/orders?customer=anna&limit=2"))


@random_input
@given(st.sampled_from(["GET", "GET", "GET", "POST", "PATCH", "DELETE", "PUT"]), PATHS, QUERIES, HEADERS)
async def test_random_paths_queries_and_headers_never_cause_a_5xx_answer(
    shop: AsyncClient, method: str, path: str, query: str, headers: list[tuple[bytes, bytes]]
) -> None:
    assert_no_server_error(await shop.request(method, f"{path}?{query}", headers=headers, content=VALID))


async def test_valid_order_is_placed_after_bad_input(client: AsyncClient) -> None:
    await add_product(client)
    for body in (b"{", b"[" * 60_000, b"x" * 70_000, b'{"products": [{"product_id": 1e999, "quantity": 1}]}'):
        assert (await send_json(client, "POST", "/orders", body)).status_code in (400, 413, 422)
    assert (await place(client, (1, 1))).json()["id"] == 1

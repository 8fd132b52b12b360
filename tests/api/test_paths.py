"""Paths and methods: unknown paths, trailing slashes, the Allow header and HEAD."""

import pytest
from httpx2 import AsyncClient

from service.api.routes import CALLS
from tests.support.problems import assert_problem
from tests.support.shop import add_product, mug, place

BODY = {"products": [{"product_id": 1, "quantity": 1}]}


@pytest.mark.parametrize(
    "path",
    [
        "/problems/unknown",
        "/docs/unknown",
        "/product",
        "/productsx",
        "/orders/1/2",
        "/PRODUCTS",
        "/products/1/x",
        "/%00",
    ],
)
async def test_unknown_path_is_not_found(client: AsyncClient, path: str) -> None:
    assert_problem(await client.get(path), 404, "not-found")


@pytest.mark.parametrize("path", ["/products//", "/orders//", "/products/1//", "//products", "//", "/livez//"])
async def test_path_with_a_double_slash_is_not_found(client: AsyncClient, path: str) -> None:
    assert_problem(await client.get(f"http://holdfast{path}"), 404, "not-found")


@pytest.mark.parametrize(
    ("method", "path"),
    sorted(
        (method, call.path.replace("{name}", "not-found").replace("{id}", "1").replace("{file}", "docs.js"))
        for call in CALLS
        # "//" is another path than "/", and the answer of /events has no end: its HEAD is in test_events.py.
        if call.path not in ("/", "/events")
        for method in {call.method, "HEAD" if call.method == "GET" else call.method}
    ),
)
async def test_trailing_slash_does_not_change_the_status(client: AsyncClient, method: str, path: str) -> None:
    await add_product(client)
    await place(client, (1, 1))
    plain = await client.request(method, path)
    slashed = await client.request(method, f"{path}/")
    assert slashed.status_code == plain.status_code
    assert slashed.status_code not in (404, 405)
    assert not slashed.has_redirect_location


@pytest.mark.parametrize("slash", ["", "/"])
async def test_order_is_placed_with_or_without_a_trailing_slash(client: AsyncClient, slash: str) -> None:
    await client.post(f"/products{slash}", json=mug())
    response = await client.post(f"/orders{slash}", json=BODY)
    assert response.status_code == 201
    assert response.headers["location"] == "/orders/1"
    assert (await client.get(f"/orders/1{slash}")).json() == response.json()


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/products", {"GET", "HEAD", "POST"}),
        ("/products/1", {"GET", "HEAD", "PATCH", "DELETE"}),
        ("/products/9", {"GET", "HEAD", "PATCH", "DELETE"}),
        ("/orders", {"GET", "HEAD", "POST"}),
        ("/livez", {"GET", "HEAD"}),
        ("/readyz", {"GET", "HEAD"}),
        ("/problems/not-found", {"GET", "HEAD"}),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"])
async def test_allow_header_lists_the_methods_of_a_path(
    client: AsyncClient, method: str, path: str, allowed: set[str], slash: str
) -> None:
    response = await client.request(method, f"{path}{slash}")
    if method in allowed:
        assert response.status_code != 405
        return
    assert_problem(response, 405, "method-not-allowed")
    assert set(response.headers["allow"].split(", ")) == allowed


@pytest.mark.parametrize(
    "path", ["/products", "/products/1", "/products/9", "/orders", "/orders/1", "/livez", "/nowhere"]
)
async def test_head_returns_the_headers_of_get_without_the_body(client: AsyncClient, path: str) -> None:
    await add_product(client)
    await place(client, (1, 1))
    ids = {"X-Request-Id": "same"}
    get, head = await client.get(path, headers=ids), await client.head(path, headers=ids)
    assert head.status_code == get.status_code
    assert head.headers == get.headers
    assert head.content == b""

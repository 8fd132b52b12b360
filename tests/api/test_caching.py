"""ETag and If-None-Match of products and lists of products (RFC 9110, 8.8.3 and 13.1.2)."""

from collections.abc import Awaitable, Callable

import pytest
from httpx2 import AsyncClient

from service.storage.sender import CommandSender
from tests.support.clock import Clock
from tests.support.shop import add_product, expire_all_due, http_client, make_store, mug, place

PATHS = ["/products", "/products/1", "/products?limit=1", "/products?in_stock=true"]


@pytest.fixture
async def shop(client: AsyncClient) -> AsyncClient:
    """Return a client of a shop with two products."""
    for _ in range(2):
        await add_product(client)
    return client


async def etag_of(client: AsyncClient, path: str) -> str:
    response = await client.get(path)
    assert response.status_code == 200
    return response.headers["ETag"]


CHANGES: dict[str, Callable[[AsyncClient], Awaitable[object]]] = {
    "price": lambda client: client.patch("/products/1", json={"price": 5}),
    "name": lambda client: client.patch("/products/1", json={"name": "Cup"}),
    "description": lambda client: client.patch("/products/1", json={"description": ""}),
    "stock": lambda client: client.post("/products/1/stock", json={"change": 1, "reason": "counted"}),
    "a completed order": lambda client: place(client, (1, 1)),
    "a pending order": lambda client: place(client, (1, 1), status="pending"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("path", PATHS)
async def test_the_etag_changes_with_everything_that_the_answer_shows(
    shop: AsyncClient, path: str, change: str
) -> None:
    before = await etag_of(shop, path)
    assert await etag_of(shop, path) == before
    await CHANGES[change](shop)
    after = await etag_of(shop, path)
    assert after != before
    assert (await shop.get(path, headers={"If-None-Match": before})).status_code == 200
    assert (await shop.get(path, headers={"If-None-Match": after})).status_code == 304


async def test_the_etag_is_the_same_again_after_a_hold_has_expired(redis: CommandSender, clock: Clock) -> None:
    store = make_store(redis, clock=clock)
    async with http_client(store) as client:
        await add_product(client)
        before = await etag_of(client, "/products/1")
        await place(client, (1, 1), status="pending")
        clock.forward(900)
        assert await etag_of(client, "/products/1") != before
        await expire_all_due(store)
        assert await etag_of(client, "/products/1") == before


async def test_the_etag_of_a_page_changes_when_a_next_page_appears(shop: AsyncClient) -> None:
    before = await shop.get("/products?limit=2")
    await add_product(shop)
    after = await shop.get("/products?limit=2")
    assert before.text == after.text
    assert before.headers["ETag"] != after.headers["ETag"]


async def test_all_workers_give_an_answer_the_same_etag(redis: CommandSender) -> None:
    async with http_client(make_store(redis)) as one, http_client(make_store(redis)) as other:
        await add_product(one)
        for path in PATHS:
            assert await etag_of(one, path) == await etag_of(other, path)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_an_answer_that_the_client_has_is_304_without_a_body(shop: AsyncClient, path: str, method: str) -> None:
    whole = await shop.request(method, path)
    response = await shop.request(method, path, headers={"If-None-Match": whole.headers["ETag"]})
    assert (response.status_code, response.content) == (304, b"")
    for name in ("ETag", "Cache-Control", "X-Content-Type-Options"):
        assert response.headers[name] == whole.headers[name]
    assert "Content-Type" not in response.headers


@pytest.mark.parametrize(
    ("field", "status"),
    [
        ("{etag}", 304),
        ("W/{etag}", 304),
        ('"other", {etag}', 304),
        ('"a,b" ,W/"c"  ,  W/{etag} , "d"', 304),
        ("*", 304),
        (" * ", 304),
        ("", 200),
        ('"other"', 200),
        ('W/"other", "another"', 200),
        ("{bare}", 200),
        ('"{bare}', 200),
        ('"*"', 200),
    ],
)
async def test_if_none_match_is_a_list_of_entity_tags_that_are_compared_weakly(
    shop: AsyncClient, field: str, status: int
) -> None:
    etag = await etag_of(shop, "/products/1")
    given = field.format(etag=etag, bare=etag.strip('"'))
    assert (await shop.get("/products/1", headers={"If-None-Match": given})).status_code == status


async def test_if_none_match_may_come_in_several_lines(shop: AsyncClient) -> None:
    etag = await etag_of(shop, "/products/1")
    response = await shop.get("/products/1", headers=[("If-None-Match", '"other"'), ("If-None-Match", etag)])
    assert response.status_code == 304


@pytest.mark.parametrize("path", ["/products/99", "/products?limit=0", "/products/x"])
async def test_an_error_is_an_error_also_with_if_none_match(shop: AsyncClient, path: str) -> None:
    response = await shop.get(path, headers={"If-None-Match": "*"})
    assert response.status_code in (404, 422)
    assert response.headers["Cache-Control"] == "no-store"


async def test_if_none_match_changes_nothing_for_other_calls(shop: AsyncClient) -> None:
    fields = {"If-None-Match": "*"}
    assert (await shop.post("/products", json=mug(), headers=fields)).status_code == 201
    assert (await place(shop, (1, 1))).status_code == 201
    assert (await shop.get("/orders", headers=fields)).status_code == 200
    assert (await shop.get("/orders/1", headers=fields)).status_code == 200

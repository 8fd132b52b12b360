"""If-Match on products and their stock (RFC 9110, section 13.1.1), the stock seen, and stock counts."""

from collections.abc import Awaitable, Callable

import pytest
from httpx2 import AsyncClient, Response

from service.domain.limits import MAX_STOCK
from service.domain.requests import ProductChange
from service.storage import keys
from service.storage.sender import CommandSender
from service.storage.store import Store
from tests.support.balance import Units, units_of
from tests.support.problems import assert_field_errors, assert_problem
from tests.support.redis_content import events_at, nothing_changes
from tests.support.shop import SHOP, add_product, http_client, make_store, place

Send = Callable[[AsyncClient, str], Awaitable[Response]]

REQUESTS: dict[str, Send] = {
    "PATCH": lambda client, etag: client.patch("/products/1", json={"price": 5}, headers={"If-Match": etag}),
    "DELETE": lambda client, etag: client.delete("/products/1", headers={"If-Match": etag}),
}

COUNT = {"count": 40, "reason": "stocktaking"}


async def etag_of(client: AsyncClient, path: str = "/products/1") -> str:
    return (await client.get(path)).headers["etag"]


@pytest.mark.parametrize("request_", REQUESTS)
@pytest.mark.parametrize("form", ["{}", ' "other", {} ', "{},", 'W/"weak", {}', "*"])
async def test_a_change_with_the_current_etag_is_made(client: AsyncClient, request_: str, form: str) -> None:
    await add_product(client)
    response = await REQUESTS[request_](client, form.format(await etag_of(client)))
    assert response.status_code in (200, 204)


@pytest.mark.parametrize("change", [{"price": 7}, {"name": "Cup"}, {"description": ""}, {"limit_per_customer": 2}])
@pytest.mark.parametrize("request_", REQUESTS)
async def test_a_change_is_refused_if_the_catalogue_part_has_changed_since(
    client: AsyncClient, redis: CommandSender, request_: str, change: dict[str, object]
) -> None:
    await add_product(client)
    etag = await etag_of(client)
    await client.patch("/products/1", json=change)
    async with nothing_changes(redis):
        assert_problem(await REQUESTS[request_](client, etag), 412, "precondition-failed")
    assert (await REQUESTS[request_](client, await etag_of(client))).status_code in (200, 204)


@pytest.mark.parametrize("request_", REQUESTS)
async def test_a_sale_or_a_delivery_in_between_is_no_conflict(client: AsyncClient, request_: str) -> None:
    await add_product(client)
    etag = await etag_of(client)
    await place(client, (1, 2))
    await place(client, (1, 2), status="pending")
    await client.post("/products/1/stock", json={"change": 5, "reason": "delivery"})
    assert (await REQUESTS[request_](client, etag)).status_code in (200, 204)


@pytest.mark.parametrize("form", ["", "abc", "W/{}", '"other"', '"x-10"', '{}, "'])
@pytest.mark.parametrize("request_", REQUESTS)
async def test_an_etag_that_is_weak_or_of_nothing_never_matches(
    client: AsyncClient, redis: CommandSender, request_: str, form: str
) -> None:
    await add_product(client)
    etag = await etag_of(client)
    if form == '{}, "':
        etag = etag[:-2] + 'x"'
    async with nothing_changes(redis):
        assert_problem(await REQUESTS[request_](client, form.format(etag)), 412, "precondition-failed")


@pytest.mark.parametrize("request_", REQUESTS)
@pytest.mark.parametrize("etag", ["*", '"other"'])
async def test_a_product_that_was_never_added_is_not_found_whatever_if_match_names(
    client: AsyncClient, request_: str, etag: str
) -> None:
    assert_problem(await REQUESTS[request_](client, etag), 404, "product-not-found")


async def test_without_if_match_the_last_change_wins(client: AsyncClient) -> None:
    await add_product(client)
    for price in (5, 6):
        assert (await client.patch("/products/1", json={"price": price})).json()["price"] == price


async def test_a_change_between_the_check_and_the_script_is_noticed_by_the_script(redis: CommandSender) -> None:
    store, other = make_store(redis), make_store(redis)
    client = http_client(store)
    await add_product(client)
    etag = await etag_of(client)
    read_many = store.products.read_many
    prices = iter([7, 19.99])

    async def read_then_change(*args: object, **options: object) -> object:
        """Let somebody change the product after it was read: twice, the second time back to what it was."""
        found = await read_many(*args, **options)  # type: ignore[arg-type]
        if (price := next(prices, None)) is not None:
            await client_of(other).patch("/products/1", json={"price": price})
        return found

    store.products.read_many = read_then_change  # type: ignore[method-assign,assignment]
    # The first check passes, the script finds the price 7; the second check fails.
    assert_problem(await REQUESTS["PATCH"](client, etag), 412, "precondition-failed")
    assert (await client_of(other).get("/products/1")).json()["price"] == 19.99


def client_of(store: Store) -> AsyncClient:
    return http_client(store)


async def test_the_stock_is_seen_with_held_sold_and_received_units(client: AsyncClient, redis: CommandSender) -> None:
    await add_product(client, stock=10)
    await place(client, (1, 2))
    await place(client, (1, 3), status="pending")
    for path in ("/products/1/stock", "/products/1/stock/"):
        response = await client.get(path)
        assert (response.status_code, response.json()) == (
            200,
            {"product_id": 1, "stock": 5, "held": 3, "sold": 2, "received": 10, "written_off": 0},
        )
    etag = response.headers["etag"]
    assert (await client.get("/products/1/stock", headers={"If-None-Match": etag})).status_code == 304
    await client.post("/orders/2/complete")  # held becomes sold, the stock stays
    changed = await client.get("/products/1/stock", headers={"If-None-Match": etag})
    assert (changed.status_code, changed.json()["sold"]) == (200, 5)
    await client.delete("/products/1")
    assert_problem(await client.get("/products/1/stock"), 404, "product-not-found")
    assert_problem(await client.get("/products/9/stock"), 404, "product-not-found")


@pytest.mark.parametrize(("count", "change"), [(40, 33), (7, 0), (0, -7), (MAX_STOCK - 3, MAX_STOCK - 10)])
async def test_a_count_sets_the_stock_as_one_move(
    client: AsyncClient, redis: CommandSender, count: int, change: int
) -> None:
    await add_product(client, stock=10)
    await place(client, (1, 3), status="pending")
    response = await client.post("/products/1/stock", json={"count": count, "reason": "stocktaking"})
    assert (response.status_code, response.json()["stock"]) == (200, count)
    assert await units_of(redis, 1) == Units(count, 3, 0, count + 3)
    event = (await events_at(redis, keys.events(SHOP)))[-1]
    assert event == {
        "event": "stock_moved",
        "product": "1",
        "change": str(change),
        "reason": "stocktaking",
        "stock": str(count),
    }


async def test_a_count_that_with_held_units_exceeds_the_limit_is_refused(
    client: AsyncClient, redis: CommandSender
) -> None:
    await add_product(client, stock=10)
    await place(client, (1, 3), status="pending")
    async with nothing_changes(redis):
        response = await client.post("/products/1/stock", json={"count": MAX_STOCK, "reason": "stocktaking"})
    problem = assert_problem(response, 409, "stock-limit")
    assert [error["pointer"] for error in problem["errors"]] == ["#/count"]


@pytest.mark.parametrize("path", ["/products/1", "/products/1/stock"])
async def test_a_count_with_if_match_is_refused_if_the_stock_has_moved_since(
    client: AsyncClient, redis: CommandSender, path: str
) -> None:
    await add_product(client, stock=10)
    etag = await etag_of(client, path)
    await place(client, (1, 1))
    async with nothing_changes(redis):
        response = await client.post("/products/1/stock", json=COUNT, headers={"If-Match": etag})
        assert_problem(response, 412, "precondition-failed")
    headers = {"If-Match": await etag_of(client, path), "Idempotency-Key": "count-1"}
    assert (await client.post("/products/1/stock", json=COUNT, headers=headers)).json()["stock"] == 40
    again = await client.post("/products/1/stock", json=COUNT, headers=headers)
    assert (again.status_code, again.headers["idempotent-replayed"]) == (200, "true")


async def test_a_price_change_in_between_is_no_conflict_for_a_count(client: AsyncClient) -> None:
    await add_product(client, stock=10)
    etag = await etag_of(client)
    await client.patch("/products/1", json={"price": 5})
    response = await client.post("/products/1/stock", json=COUNT, headers={"If-Match": etag})
    assert response.json()["stock"] == 40


async def test_a_refused_count_is_final_for_its_key(client: AsyncClient) -> None:
    await add_product(client, stock=10)
    headers = {"If-Match": '"other"', "Idempotency-Key": "count-1"}
    assert_problem(await client.post("/products/1/stock", json=COUNT, headers=headers), 412, "precondition-failed")
    again = await client.post("/products/1/stock", json=COUNT, headers={"Idempotency-Key": "count-1"})
    assert_problem(again, 412, "precondition-failed")
    assert again.headers["idempotent-replayed"] == "true"


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({"count": 5}, ["#/reason"]),
        ({"count": -1, "reason": "x"}, ["#/count"]),
        ({"count": MAX_STOCK + 1, "reason": "x"}, ["#/count"]),
        ({"count": "5", "reason": "x"}, ["#/count"]),
        ({"count": None, "reason": "x"}, ["#/count"]),
        ({"count": 5, "change": 1, "reason": "x"}, ["#/change"]),
        ({"count": 5, "reason": "x", "note": 1}, ["#/note"]),
    ],
)
async def test_an_invalid_count_is_refused_with_everything_that_is_wrong(
    client: AsyncClient, body: dict[str, object], pointers: list[str]
) -> None:
    await add_product(client)
    assert_field_errors(await client.post("/products/1/stock", json=body), *pointers)


async def test_an_unchanged_product_may_be_changed_while_others_change_theirs(store: Store) -> None:
    client = http_client(store)
    await add_product(client)
    [product] = await store.products.read_many([1])
    assert product is not None
    same = ProductChange.model_validate({"name": product.name})
    assert await store.products.change(1, same, {product.catalogue_version()}) == product

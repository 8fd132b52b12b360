"""POST /products/{id}/stock."""

from typing import Any

import pytest
from httpx2 import AsyncClient, Response

from service.domain.limits import MAX_STOCK
from service.storage.sender import CommandSender
from service.storage.store import Store
from tests.support.balance import Units, assert_balanced, units_of
from tests.support.problems import assert_field_errors, assert_problem
from tests.support.products import product_response
from tests.support.shop import add_product, place, stock_of


async def change_stock(
    client: AsyncClient, product_id: object, change: object, key: str | None = None, **fields: Any
) -> Response:
    """Change the stock. The reason is `stocktaking` unless `fields` has another."""
    headers = {} if key is None else {"Idempotency-Key": key}
    body = {"change": change, "reason": "stocktaking", **fields}
    return await client.post(f"/products/{product_id}/stock", json=body, headers=headers)


async def events_of(store: Store, name: str) -> list[dict[str, str]]:
    return [event.fields for event in await store.events.read("0-0") if event.fields["event"] == name]


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize(
    ("change", "stock"), [(5, 15), (-3, 7), (-10, 0), (5.0, 15), (-1e1, 0), (MAX_STOCK - 10, MAX_STOCK)]
)
async def test_stock_changes_by_a_signed_amount(
    client: AsyncClient, redis: CommandSender, change: float, stock: int, slash: str
) -> None:
    mugs = await add_product(client, stock=10)
    response = await client.post(f"/products/{mugs}/stock{slash}", json={"change": change, "reason": "delivery"})
    assert response.status_code == 200
    assert response.json() == product_response(mugs, stock=stock)
    assert "idempotent-replayed" not in response.headers
    assert (await client.get(f"/products/{mugs}")).json() == response.json()
    assert await units_of(redis, mugs) == Units(stock, 0, 0, stock)


async def test_stock_change_does_not_change_held_and_sold_units(client: AsyncClient, redis: CommandSender) -> None:
    mugs, pots = await add_product(client, stock=10), await add_product(client, stock=10)
    await place(client, (mugs, 2))
    await place(client, (mugs, 3), status="pending")
    assert (await change_stock(client, mugs, -4)).json()["stock"] == 1
    assert await units_of(redis, mugs) == Units(1, 3, 2, 6)
    assert (await change_stock(client, mugs, 100)).json()["stock"] == 101
    assert (await assert_balanced(redis)).units == {mugs: Units(101, 3, 2, 106), pots: Units(10, 0, 0, 10)}


async def test_units_received_in_total_may_exceed_the_stock_limit(client: AsyncClient, redis: CommandSender) -> None:
    mugs = await add_product(client, stock=MAX_STOCK)
    for _ in range(3):
        assert (await place(client, (mugs, 1_000_000))).status_code == 201
        assert (await change_stock(client, mugs, 1_000_000)).status_code == 200
    assert await units_of(redis, mugs) == Units(MAX_STOCK, 0, 3_000_000, MAX_STOCK + 3_000_000)


@pytest.mark.parametrize("change", [0, -0.0, 1.5, True, "5", None, MAX_STOCK + 1, -MAX_STOCK - 1, 10**30, [1]])
async def test_invalid_change_is_refused(client: AsyncClient, store: Store, change: object) -> None:
    mugs = await add_product(client)
    assert_field_errors(await change_stock(client, mugs, change), "#/change")
    assert await stock_of(client, mugs) == 10
    assert not await events_of(store, "stock_moved")


@pytest.mark.parametrize("reason", ["", " ", "\t\n", "\u3000", "x" * 201, 5, True, None, ["damaged"]])
async def test_invalid_reason_is_refused(client: AsyncClient, reason: object) -> None:
    mugs = await add_product(client)
    assert_field_errors(await change_stock(client, mugs, 1, reason=reason), "#/reason")
    assert await stock_of(client, mugs) == 10


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({}, ["#/change", "#/reason"]),
        ({"change": 1}, ["#/reason"]),
        ({"reason": "found"}, ["#/change"]),
        ({"change": 1, "reason": "found", "by": "me"}, ["#/by"]),
        ({"change": 0, "reason": ""}, ["#/change", "#/reason"]),
        ([], ["#"]),
    ],
)
async def test_all_field_errors_of_a_stock_change_are_listed_together(
    client: AsyncClient, body: object, pointers: list[str]
) -> None:
    mugs = await add_product(client)
    problem = assert_problem(await client.post(f"/products/{mugs}/stock", json=body), 422, "invalid-request")
    assert [error["pointer"] for error in problem["errors"]] == pointers
    assert await stock_of(client, mugs) == 10


@pytest.mark.parametrize("reason", ["x", "x" * 200, "Bruch, 3 Stück ☕", 'a "quoted"\nline', " found "])
async def test_stock_change_writes_an_event_with_its_reason_and_the_new_stock(
    client: AsyncClient, store: Store, reason: str
) -> None:
    mugs = await add_product(client, stock=10)
    await change_stock(client, mugs, -3, reason=reason)
    await change_stock(client, mugs, 20, reason=reason)
    assert await events_of(store, "stock_moved") == [
        {"event": "stock_moved", "product": str(mugs), "change": "-3", "reason": reason, "stock": "7"},
        {"event": "stock_moved", "product": str(mugs), "change": "20", "reason": reason, "stock": "27"},
    ]


@pytest.mark.parametrize("change", [-6, -MAX_STOCK])
async def test_stock_change_below_zero_is_refused(
    client: AsyncClient, redis: CommandSender, store: Store, change: int
) -> None:
    mugs = await add_product(client, stock=10)
    await place(client, (mugs, 5), status="pending")
    problem = assert_problem(await change_stock(client, mugs, change), 409, "insufficient-stock")
    [error] = problem["errors"]
    assert error.pop("detail")
    assert error == {"pointer": "#/change", "product_id": mugs, "requested": -change, "available": 5}
    assert await units_of(redis, mugs) == Units(5, 5, 0, 10)
    assert not await events_of(store, "stock_moved")


async def test_stock_change_is_refused_if_stock_and_held_units_would_exceed_the_limit(
    client: AsyncClient, redis: CommandSender
) -> None:
    mugs = await add_product(client, stock=MAX_STOCK)
    held = (await place(client, (mugs, 100), status="pending")).json()
    await place(client, (mugs, 10))
    problem = assert_problem(await change_stock(client, mugs, 11), 409, "stock-limit")
    [error] = problem["errors"]
    assert (error["pointer"], error["product_id"]) == ("#/change", mugs)
    assert (await change_stock(client, mugs, 10)).json()["stock"] == MAX_STOCK - 100
    assert (await client.delete(f"/orders/{held['id']}")).status_code == 204
    assert await units_of(redis, mugs) == Units(MAX_STOCK, 0, 10, MAX_STOCK + 10)
    assert_problem(await change_stock(client, mugs, 1), 409, "stock-limit")


@pytest.mark.parametrize("product_id", ["999", "0", "abc", "9007199254740992"])
async def test_stock_change_of_an_unknown_product_is_refused(client: AsyncClient, product_id: str) -> None:
    assert_problem(await change_stock(client, product_id, 1), 404, "product-not-found")


@pytest.mark.parametrize("change", [5, -5])
async def test_stock_change_of_a_withdrawn_product_is_refused(
    client: AsyncClient, redis: CommandSender, store: Store, change: int
) -> None:
    mugs = await add_product(client, stock=10)
    await client.delete(f"/products/{mugs}")
    assert_problem(await change_stock(client, mugs, change), 404, "product-not-found")
    assert await units_of(redis, mugs) == Units(10, 0, 0, 10)
    assert not await events_of(store, "stock_moved")


@pytest.mark.parametrize("change", [5, -3])
async def test_repeated_key_changes_the_stock_once(
    client: AsyncClient, redis: CommandSender, store: Store, change: int
) -> None:
    mugs = await add_product(client, stock=10)
    first = await change_stock(client, mugs, change, key="k")
    assert "idempotent-replayed" not in first.headers
    for _ in range(3):
        # Only the parsed body counts: fields may be in another order, 5.0 equals 5, and the key may be in quotes.
        for again in (
            await change_stock(client, mugs, change, key="k"),
            await client.post(
                f"/products/{mugs}/stock",
                json={"reason": "stocktaking", "change": float(change)},
                headers={"Idempotency-Key": '"k"'},
            ),
        ):
            assert (again.status_code, again.json()) == (200, first.json())
            assert again.headers["idempotent-replayed"] == "true"
    assert await units_of(redis, mugs) == Units(10 + change, 0, 0, 10 + change)
    assert len(await events_of(store, "stock_moved")) == 1


async def test_each_stock_change_without_a_key_counts(client: AsyncClient) -> None:
    mugs = await add_product(client, stock=10)
    for _ in range(3):
        assert "idempotent-replayed" not in (await change_stock(client, mugs, 5)).headers
    assert await stock_of(client, mugs) == 25


@pytest.mark.parametrize("fields", [{"change": 6}, {"change": -5}, {"reason": "delivery"}])
async def test_key_cannot_be_used_for_a_different_stock_change(client: AsyncClient, fields: dict[str, Any]) -> None:
    mugs = await add_product(client, stock=10)
    await change_stock(client, mugs, 5, key="k")
    body = {"change": 5, "reason": "stocktaking", **fields}
    response = await client.post(f"/products/{mugs}/stock", json=body, headers={"Idempotency-Key": "k"})
    assert_problem(response, 422, "idempotency-key-reused")
    assert await stock_of(client, mugs) == 15


async def test_key_cannot_be_used_for_a_stock_change_of_another_product(client: AsyncClient) -> None:
    mugs, pots = await add_product(client, stock=10), await add_product(client, stock=10)
    await change_stock(client, mugs, 5, key="k")
    assert_problem(await change_stock(client, pots, 5, key="k"), 422, "idempotency-key-reused")
    assert [await stock_of(client, mugs), await stock_of(client, pots)] == [15, 10]


@pytest.mark.parametrize("stock", [10, 0])
async def test_key_of_an_order_cannot_change_stock(client: AsyncClient, redis: CommandSender, stock: int) -> None:
    mugs = await add_product(client, stock=stock)  # with stock 0, the key belongs to a refused order
    placed = await place(client, (mugs, 1), key="k")
    assert_problem(await change_stock(client, mugs, 5, key="k"), 422, "idempotency-key-reused")
    again = await place(client, (mugs, 1), key="k")
    assert again.status_code == placed.status_code
    assert again.headers["idempotent-replayed"] == "true"
    assert (await units_of(redis, mugs)).received == stock


@pytest.mark.parametrize("change", [5, -20])
async def test_key_of_a_stock_change_cannot_place_an_order(
    client: AsyncClient, redis: CommandSender, change: int
) -> None:
    mugs = await add_product(client, stock=10)
    await change_stock(client, mugs, change, key="k")
    assert_problem(await place(client, (mugs, 1), key="k"), 422, "idempotency-key-reused")
    contents = await assert_balanced(redis)
    assert (contents.units[mugs].sold, contents.status_of) == (0, {})


@pytest.mark.parametrize(
    ("stock", "change", "status", "name", "between"),
    [(10, -11, 409, "insufficient-stock", 50), (MAX_STOCK, 5, 409, "stock-limit", -50)],
)
async def test_refused_stock_change_is_final_for_its_key(
    client: AsyncClient, stock: int, change: int, status: int, name: str, between: int
) -> None:
    mugs = await add_product(client, stock=stock)
    first = await change_stock(client, mugs, change, key="k")
    problem = assert_problem(first, status, name)
    assert "idempotent-replayed" not in first.headers
    await change_stock(client, mugs, between)
    again = await change_stock(client, mugs, change, key="k")
    assert assert_problem(again, status, name)["errors"] == problem["errors"]
    assert again.headers["idempotent-replayed"] == "true"
    assert await stock_of(client, mugs) == stock + between
    assert (await change_stock(client, mugs, change, key="another")).status_code == 200


async def test_refused_stock_change_of_an_unknown_product_is_final_for_its_key(client: AsyncClient) -> None:
    assert_problem(await change_stock(client, 7, 5, key="k"), 404, "product-not-found")
    await add_product(client, id=7, stock=10)
    assert_problem(await change_stock(client, 7, 5, key="k"), 404, "product-not-found")
    assert await stock_of(client, 7) == 10


async def test_invalid_stock_change_leaves_its_key_unused(client: AsyncClient) -> None:
    mugs = await add_product(client, stock=10)
    assert_problem(await change_stock(client, mugs, 0, key="k"), 422, "invalid-request")
    response = await change_stock(client, mugs, 5, key="k")
    assert (response.status_code, response.json()["stock"]) == (200, 15)
    assert "idempotent-replayed" not in response.headers


@pytest.mark.parametrize("key", ["", "x" * 256, '"open', "a b"])
async def test_stock_change_with_an_invalid_key_is_refused(client: AsyncClient, key: str) -> None:
    mugs = await add_product(client, stock=10)
    assert_problem(await change_stock(client, mugs, 5, key=key), 400, "invalid-idempotency-key")
    assert await stock_of(client, mugs) == 10


async def test_replayed_stock_change_shows_the_current_product(client: AsyncClient) -> None:
    mugs = await add_product(client, stock=10)
    await change_stock(client, mugs, 5, key="k")
    await place(client, (mugs, 2))
    assert (await change_stock(client, mugs, 5, key="k")).json()["stock"] == 13


async def test_refused_order_can_be_placed_after_a_delivery(client: AsyncClient) -> None:
    mugs = await add_product(client, stock=1)
    assert_problem(await place(client, (mugs, 2)), 409, "insufficient-stock")
    await change_stock(client, mugs, 1)
    assert (await place(client, (mugs, 2))).status_code == 201

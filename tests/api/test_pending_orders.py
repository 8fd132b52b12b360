"""Pending orders: place, complete, cancel and expire. Time passes only where a test moves the clock."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from httpx2 import AsyncClient

from service.storage.sender import CommandSender
from service.storage.store import Store
from tests.support.balance import Units, assert_balanced, units_of
from tests.support.clock import Clock
from tests.support.pending_orders import HOLD, cancel, complete, end, hold
from tests.support.problems import assert_field_errors, assert_problem
from tests.support.shop import add_product, http_client, make_store, place, stock_of


@pytest.fixture
def store(redis: CommandSender, clock: Clock) -> Store:
    """Return a Store on both kinds of Redis, with a clock that only the test moves."""
    return make_store(redis, clock=clock)


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


async def test_pending_order_holds_the_stock_of_all_lines(client: AsyncClient, redis: CommandSender) -> None:
    mugs, pots = await add_product(client, stock=10), await add_product(client, stock=5, price=7)
    response = await place(client, (mugs, 2), (pots, 1), (mugs, 1), status="pending")
    assert response.status_code == 201
    order = response.json()
    assert order == {
        "id": order["id"],
        "products": [
            {"product_id": mugs, "quantity": 3, "price": 19.99},
            {"product_id": pots, "quantity": 1, "price": 7.0},
        ],
        "total_price": 66.97,
        "status": "pending",
        "created_at": order["created_at"],
        "expires_at": order["expires_at"],
    }
    assert response.headers["location"] == f"/orders/{order['id']}"
    assert (await client.get(response.headers["location"])).json() == order
    assert (await assert_balanced(redis)).units == {mugs: Units(7, 3, 0, 10), pots: Units(4, 1, 0, 5)}
    assert [await stock_of(client, mugs), await stock_of(client, pots)] == [7, 4]


async def test_held_stock_cannot_be_ordered(client: AsyncClient, redis: CommandSender) -> None:
    mugs = await add_product(client, stock=10)
    await hold(client, (mugs, 8))
    for status in ("completed", "pending"):
        problem = assert_problem(await place(client, (mugs, 3), status=status), 409, "insufficient-stock")
        assert [(line["requested"], line["available"]) for line in problem["errors"]] == [(3, 2)]
    assert await units_of(redis, mugs) == Units(2, 8, 0, 10)


async def test_pending_order_holds_nothing_if_a_line_has_too_little_stock(
    client: AsyncClient, redis: CommandSender
) -> None:
    mugs, pots = await add_product(client, stock=10), await add_product(client, stock=5)
    assert_problem(await place(client, (mugs, 2), (pots, 6), status="pending"), 409, "insufficient-stock")
    assert (await assert_balanced(redis)).units == {mugs: Units(10, 0, 0, 10), pots: Units(5, 0, 0, 5)}


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [({}, HOLD), ({"hold_seconds": 1}, 1), ({"hold_seconds": 5.0}, 5), ({"hold_seconds": 86_400}, 86_400)],
)
async def test_deadline_is_the_hold_time_after_the_creation(
    client: AsyncClient, clock: Clock, fields: dict[str, Any], seconds: int
) -> None:
    order = await hold(client, (await add_product(client), 1), **fields)
    assert moment(order["created_at"]).timestamp() * 1000 == clock.now
    assert moment(order["expires_at"]) - moment(order["created_at"]) == timedelta(seconds=seconds)


@pytest.mark.parametrize("hold_seconds", [0, -1, 86_401, 1.5, 10**30, True, "5", None, [5]])
async def test_invalid_hold_seconds_are_refused(client: AsyncClient, hold_seconds: object) -> None:
    mugs = await add_product(client)
    response = await place(client, (mugs, 1), status="pending", hold_seconds=hold_seconds)
    assert_field_errors(response, "#/hold_seconds")
    assert await stock_of(client, mugs) == 10


@pytest.mark.parametrize("fields", [{}, {"status": "completed"}])
@pytest.mark.parametrize("hold_seconds", [5, HOLD])
async def test_hold_seconds_of_a_completed_order_are_refused(
    client: AsyncClient, fields: dict[str, Any], hold_seconds: int
) -> None:
    mugs = await add_product(client)
    response = await place(client, (mugs, 1), hold_seconds=hold_seconds, **fields)
    assert_field_errors(response, "#/hold_seconds")
    assert await stock_of(client, mugs) == 10


@pytest.mark.parametrize("status", ["cancelled", "expired", "PENDING", "", True, None, 1])
async def test_order_with_an_invalid_status_is_refused(client: AsyncClient, status: object) -> None:
    mugs = await add_product(client)
    assert_field_errors(await place(client, (mugs, 1), status=status), "#/status")
    assert await stock_of(client, mugs) == 10


@pytest.mark.parametrize("slash", ["", "/"])
async def test_completing_sells_the_held_stock_and_may_be_repeated(
    client: AsyncClient, redis: CommandSender, slash: str
) -> None:
    mugs, pots = await add_product(client, stock=10), await add_product(client, stock=5)
    order = await hold(client, (mugs, 3), (pots, 1))
    completed = {name: value for name, value in order.items() if name != "expires_at"} | {"status": "completed"}
    for _ in range(3):
        response = await client.post(f"/orders/{order['id']}/complete{slash}")
        assert response.status_code == 200
        completed.setdefault("completed_at", response.json()["completed_at"])
        assert response.json() == completed
        assert (await client.get(f"/orders/{order['id']}")).json() == completed
        assert (await assert_balanced(redis)).units == {mugs: Units(7, 0, 3, 10), pots: Units(4, 0, 1, 5)}


async def test_completing_ignores_a_body(client: AsyncClient) -> None:
    order = await hold(client, (await add_product(client), 1))
    response = await client.post(f"/orders/{order['id']}/complete", content=b"{", headers={"Content-Type": "text/x"})
    assert response.status_code == 200


@pytest.mark.parametrize("slash", ["", "/"])
async def test_cancelling_releases_the_held_stock_and_may_be_repeated(
    client: AsyncClient, redis: CommandSender, slash: str
) -> None:
    mugs, pots = await add_product(client, stock=10), await add_product(client, stock=5)
    order = await hold(client, (mugs, 3), (pots, 1))
    for _ in range(3):
        response = await client.delete(f"/orders/{order['id']}{slash}")
        assert (response.status_code, response.content) == (204, b"")
        assert (await assert_balanced(redis)).units == {mugs: Units(10, 0, 0, 10), pots: Units(5, 0, 0, 5)}


async def test_order_placed_as_completed_can_be_completed_but_not_cancelled(client: AsyncClient) -> None:
    mugs = await add_product(client, stock=10)
    order = (await place(client, (mugs, 3))).json()
    assert (await complete(client, order["id"])).json() == order
    assert_problem(await cancel(client, order["id"]), 409, "order-completed")
    assert await stock_of(client, mugs) == 7


@pytest.mark.parametrize(
    ("how", "method", "status", "name"),
    [
        ("completed", "DELETE", 409, "order-completed"),
        ("cancelled", "GET", 410, "order-cancelled"),
        ("cancelled", "POST", 410, "order-cancelled"),
        ("overdue", "GET", 410, "order-expired"),
        ("overdue", "POST", 410, "order-expired"),
        ("overdue", "DELETE", 410, "order-expired"),
        ("expired", "GET", 410, "order-expired"),
        ("expired", "POST", 410, "order-expired"),
        ("expired", "DELETE", 410, "order-expired"),
    ],
)
async def test_end_of_an_order_is_final(
    client: AsyncClient,
    redis: CommandSender,
    store: Store,
    clock: Clock,
    how: str,
    method: str,
    status: int,
    name: str,
) -> None:
    mugs = await add_product(client, stock=10)
    order = await hold(client, (mugs, 3))
    await end(client, store, clock, order["id"], how)
    for _ in range(2):
        response = await client.request(method, f"/orders/{order['id']}" + "/complete" * (method == "POST"))
        assert_problem(response, status, name)
        clock.forward(10 * HOLD)
    await end(client, store, clock, order["id"], "expired")
    expected = Units(7, 0, 3, 10) if how == "completed" else Units(10, 0, 0, 10)
    assert await units_of(redis, mugs) == expected


@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE"])
async def test_an_order_that_was_called_expired_stays_so_if_the_clock_is_set_back(
    client: AsyncClient, redis: CommandSender, store: Store, clock: Clock, method: str
) -> None:
    mugs = await add_product(client, stock=10)
    path = f"/orders/{(await hold(client, (mugs, 3)))['id']}"
    clock.forward(HOLD)
    options: dict[str, Any] = {"json": {"hold_seconds": 60}} if method == "PATCH" else {}
    call = path + "/complete" * (method == "POST")
    assert_problem(await client.request(method, call, **options), 410, "order-expired")
    clock.forward(-HOLD)
    assert_problem(await client.post(f"{path}/complete"), 410, "order-expired")
    assert_problem(await client.get(path), 410, "order-expired")
    await end(client, store, clock, 1, "expired")
    assert await units_of(redis, mugs) == Units(10, 0, 0, 10)
    assert [event.fields["event"] for event in await store.events.read("0-0")].count("order_expired") == 1


async def test_completed_order_stays_completed_after_its_deadline(
    client: AsyncClient, store: Store, clock: Clock
) -> None:
    order = await hold(client, (await add_product(client), 3))
    await end(client, store, clock, order["id"], "completed")
    await end(client, store, clock, order["id"], "expired")
    assert (await client.get(f"/orders/{order['id']}")).json()["status"] == "completed"
    assert (await complete(client, order["id"])).status_code == 200


@pytest.mark.parametrize(
    ("early", "method", "status"),
    [
        (0.001, "GET", 200),
        (0.001, "POST", 200),
        (0.001, "DELETE", 204),
        (0, "GET", 410),
        (0, "POST", 410),
        (0, "DELETE", 410),
    ],
)
async def test_pending_order_expires_exactly_at_its_deadline(
    client: AsyncClient, clock: Clock, early: float, method: str, status: int
) -> None:
    order = await hold(client, (await add_product(client), 1), hold_seconds=60)
    clock.forward(60 - early)
    response = await client.request(method, f"/orders/{order['id']}" + "/complete" * (method == "POST"))
    assert response.status_code == status


async def test_cancelling_at_the_deadline_expires_the_order(
    client: AsyncClient, redis: CommandSender, clock: Clock
) -> None:
    mugs = await add_product(client, stock=10)
    order = await hold(client, (mugs, 3))
    clock.forward(HOLD)
    assert_problem(await cancel(client, order["id"]), 410, "order-expired")
    contents = await assert_balanced(redis)
    assert (contents.units[mugs], contents.status_of) == (Units(10, 0, 0, 10), {order["id"]: "expired"})


@pytest.mark.parametrize("how", ["cancelled", "expired"])
async def test_released_stock_can_be_ordered_again(
    client: AsyncClient, redis: CommandSender, store: Store, clock: Clock, how: str
) -> None:
    mugs = await add_product(client, stock=10)
    first = await hold(client, (mugs, 10))
    await end(client, store, clock, first["id"], how)
    second = await hold(client, (mugs, 10))
    assert second["id"] != first["id"]
    await complete(client, second["id"])
    await cancel(client, first["id"])
    assert await units_of(redis, mugs) == Units(0, 0, 10, 10)


async def test_store_without_a_clock_uses_the_time_of_redis(redis: CommandSender) -> None:
    async with http_client(make_store(redis)) as client:
        seconds, microseconds = map(int, await redis.send("TIME"))
        order = await hold(client, (await add_product(client), 1), hold_seconds=60)
        age = moment(order["created_at"]).timestamp() - (seconds + microseconds / 1_000_000)
        assert -0.001 <= age < 5
        assert (await client.get(f"/orders/{order['id']}")).json() == order
        assert (await complete(client, order["id"])).status_code == 200


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize("order_id", ["999", "0", "-1", "007", "1e3", "abc", "9007199254740992", "9" * 40])
async def test_unknown_order_is_not_found(client: AsyncClient, method: str, order_id: str) -> None:
    response = await client.request(method, f"/orders/{order_id}" + "/complete" * (method == "POST"))
    assert_problem(response, 404, "order-not-found")


async def test_pending_order_keeps_its_price_after_a_price_change(client: AsyncClient) -> None:
    mugs = await add_product(client, price=19.99)
    order = await hold(client, (mugs, 2), total_price=39.98)
    assert (await client.patch(f"/products/{mugs}", json={"price": 5})).json()["price"] == 5
    for response in (await client.get(f"/orders/{order['id']}"), await complete(client, order["id"])):
        assert response.json()["products"] == [{"product_id": mugs, "quantity": 2, "price": 19.99}]
        assert response.json()["total_price"] == 39.98


@pytest.mark.parametrize(
    ("how", "expected"),
    [("completed", Units(7, 0, 3, 10)), ("cancelled", Units(10, 0, 0, 10)), ("expired", Units(10, 0, 0, 10))],
)
async def test_pending_order_of_a_withdrawn_product_can_end_in_each_way(
    client: AsyncClient, redis: CommandSender, store: Store, clock: Clock, how: str, expected: Units
) -> None:
    mugs = await add_product(client, stock=10)
    order = await hold(client, (mugs, 3))
    assert (await client.delete(f"/products/{mugs}")).status_code == 204
    assert (await client.get(f"/orders/{order['id']}")).json() == order
    await end(client, store, clock, order["id"], how)
    assert await units_of(redis, mugs) == expected
    assert_problem(await client.get(f"/products/{mugs}"), 404, "product-not-found")
    assert (await client.get("/products")).json() == []

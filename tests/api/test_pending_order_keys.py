"""POST /orders with status pending and an Idempotency-Key."""

import pytest
from httpx2 import AsyncClient

from service.storage.sender import CommandSender
from service.storage.store import Store
from tests.support.balance import Units, assert_balanced, units_of
from tests.support.clock import Clock
from tests.support.pending_orders import HOLD, complete, end
from tests.support.problems import assert_problem
from tests.support.shop import add_product, make_store, place


@pytest.fixture
def store(redis: CommandSender, clock: Clock) -> Store:
    """Return a Store on both kinds of Redis, with a clock that only the test moves."""
    return make_store(redis, clock=clock)


async def test_repeated_key_returns_the_pending_order(client: AsyncClient, redis: CommandSender) -> None:
    mugs = await add_product(client, stock=10)
    first = await place(client, (mugs, 3), status="pending", key="k")
    assert "idempotent-replayed" not in first.headers
    # The default hold time, written out, and a line split into two lines are the same order.
    for lines, fields in (([(mugs, 3)], {}), ([(mugs, 1), (mugs, 2)], {"hold_seconds": HOLD})):
        again = await place(client, *lines, status="pending", key="k", **fields)
        assert (again.status_code, again.json()) == (201, first.json())
        assert again.headers["idempotent-replayed"] == "true"
        assert again.headers["location"] == first.headers["location"]
    assert await units_of(redis, mugs) == Units(7, 3, 0, 10)


@pytest.mark.parametrize(
    ("how", "status", "name"),
    [
        ("cancelled", 410, "order-cancelled"),
        ("overdue", 410, "order-expired"),
        ("expired", 410, "order-expired"),
    ],
)
async def test_repeated_key_of_an_order_that_was_cancelled_or_expired_gets_410(
    client: AsyncClient, redis: CommandSender, store: Store, clock: Clock, how: str, status: int, name: str
) -> None:
    mugs = await add_product(client, stock=10)
    first = (await place(client, (mugs, 3), status="pending", key="k")).json()
    await end(client, store, clock, first["id"], how)
    for _ in range(2):
        assert_problem(await place(client, (mugs, 3), status="pending", key="k"), status, name)
    assert (await assert_balanced(redis)).orders.keys() == {first["id"]}


async def test_repeated_key_returns_the_completed_order(client: AsyncClient, redis: CommandSender) -> None:
    mugs = await add_product(client, stock=10)
    first = (await place(client, (mugs, 3), status="pending", key="k")).json()
    completed = (await complete(client, first["id"])).json()
    again = await place(client, (mugs, 3), status="pending", key="k")
    assert (again.status_code, again.json()) == (201, completed)
    assert again.headers["idempotent-replayed"] == "true"
    assert await units_of(redis, mugs) == Units(7, 0, 3, 10)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"status": "pending"}, {"status": "completed"}),
        ({"status": "completed"}, {"status": "pending"}),
        ({"status": "pending"}, {"status": "pending", "hold_seconds": HOLD + 1}),
        ({"status": "pending", "hold_seconds": 5}, {"status": "pending"}),
    ],
)
async def test_key_cannot_be_used_for_another_status_or_hold_time(
    client: AsyncClient, redis: CommandSender, first: dict[str, object], second: dict[str, object]
) -> None:
    mugs = await add_product(client, stock=10)
    assert (await place(client, (mugs, 3), key="k", **first)).status_code == 201
    assert_problem(await place(client, (mugs, 3), key="k", **second), 422, "idempotency-key-reused")
    assert (await units_of(redis, mugs)).stock == 7


async def test_refusal_of_a_pending_order_is_still_final_for_its_key_after_a_delivery(
    client: AsyncClient, redis: CommandSender
) -> None:
    mugs = await add_product(client, stock=1)
    assert_problem(await place(client, (mugs, 3), status="pending", key="k"), 409, "insufficient-stock")
    await client.post(f"/products/{mugs}/stock", json={"change": 10, "reason": "delivery"})
    again = await place(client, (mugs, 3), status="pending", key="k")
    assert assert_problem(again, 409, "insufficient-stock")["errors"][0]["available"] == 1
    assert again.headers["idempotent-replayed"] == "true"
    assert await units_of(redis, mugs) == Units(11, 0, 0, 11)

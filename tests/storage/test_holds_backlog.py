"""Too many holds for this machine: while old ones are released too late, new pending orders are refused."""

from contextlib import suppress

import pytest
from structlog.testing import capture_logs

from service.domain.errors.storage import Overloaded
from service.storage.sender import CommandSender
from service.storage.store import Store
from tests.support.balance import assert_balanced
from tests.support.clock import Clock
from tests.support.holds import damage_data, place_many_pending, place_pending
from tests.support.shop import add_mugs, expire_all_due, http_client, make_store, new_order, place


async def late_store(redis: CommandSender, clock: Clock, late_seconds: float) -> tuple[Store, int]:
    """Return a Store whose sweeper has just released 10 of 20 holds, this late; and the id of their product."""
    store = make_store(redis, clock=clock)
    mugs = await add_mugs(store)
    await place_many_pending(store, mugs, 20)
    clock.forward(900 + late_seconds)
    await store.expired_holds.expire_due(10)
    return store, mugs


async def count_placed(store: Store, product_id: int, tries: int = 20) -> int:
    """Try to place pending orders. Return how many were placed."""
    placed = 0
    for _ in range(tries):
        with suppress(Overloaded):
            await place_pending(store, product_id)
            placed += 1
    return placed


@pytest.mark.parametrize(("late_seconds", "expected"), [(0, 20), (1, 20), (1.001, 5), (3600, 5)])
async def test_while_holds_are_released_too_late_only_half_as_many_pending_orders_are_placed(
    redis: CommandSender, clock: Clock, late_seconds: float, expected: int
) -> None:
    store, mugs = await late_store(redis, clock, late_seconds)
    assert await count_placed(store, mugs) == expected
    await assert_balanced(redis)


async def test_completed_orders_are_placed_while_holds_are_released_too_late(
    redis: CommandSender, clock: Clock
) -> None:
    store, mugs = await late_store(redis, clock, 60)
    for _ in range(20):
        await store.orders.place(new_order((mugs, 1)))
    assert (await assert_balanced(redis)).statuses()["completed"] == 20


async def test_pending_orders_are_placed_again_when_the_backlog_has_ended(redis: CommandSender, clock: Clock) -> None:
    store, mugs = await late_store(redis, clock, 60)
    await expire_all_due(store)
    await store.expired_holds.expire_due(10)  # finds no overdue hold
    assert await count_placed(store, mugs) == 20


async def test_damaged_orders_are_no_reason_to_refuse_orders(redis: CommandSender, clock: Clock) -> None:
    store = make_store(redis, clock=clock)
    pots, mugs = await add_mugs(store), await add_mugs(store)
    await place_many_pending(store, pots, 20)
    await damage_data(redis, "a product without its held units", 0, pots)
    clock.forward(900 + 60)
    with capture_logs():
        for _ in range(5):
            await store.expired_holds.expire_due(10)
            assert await count_placed(store, mugs, 3) == 3


async def test_a_pending_order_that_must_wait_for_old_holds_is_refused_with_503(
    redis: CommandSender, clock: Clock
) -> None:
    store, mugs = await late_store(redis, clock, 60)
    await count_placed(store, mugs)
    async with http_client(store) as client:
        response = await place(client, (mugs, 1), status="pending")
        assert (response.status_code, response.json()["type"].rsplit("/")[-1]) == (503, "overloaded")
        assert response.headers["Retry-After"]
        assert (await place(client, (mugs, 1))).status_code == 201

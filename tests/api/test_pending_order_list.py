"""GET /orders with pending orders. Time passes only where a test moves the clock."""

import math

import pytest
from httpx2 import AsyncClient

from service.storage.sender import CommandSender
from service.storage.store import Store
from tests.support.clock import Clock
from tests.support.pending_orders import HOLD, complete, end, hold
from tests.support.shop import add_product, expire_all_due, make_store, pages


@pytest.fixture
def store(redis: CommandSender, clock: Clock) -> Store:
    """Return a Store on both kinds of Redis, with a clock that only the test moves."""
    return make_store(redis, clock=clock)


async def place_orders_of_every_status(client: AsyncClient, store: Store, clock: Clock) -> dict[str, list[int]]:
    """Place seven orders of each status, in turn. Return the ids of each status, highest first."""
    mugs = await add_product(client, stock=1000)
    seconds = {"expired": 1, "overdue": HOLD, "cancelled": HOLD, "completed": HOLD, "pending": 86_400}
    ids: dict[str, list[int]] = {how: [] for how in seconds}
    for _ in range(7):
        for how in seconds:
            ids[how].insert(0, (await hold(client, (mugs, 1), hold_seconds=seconds[how]))["id"])
    clock.forward(1)
    await expire_all_due(store)
    for how in ("cancelled", "completed"):
        for order_id in ids[how]:
            await end(client, store, clock, order_id, how)
    clock.forward(HOLD)
    return ids


@pytest.mark.parametrize("limit", [1, 3, 7, 100])
async def test_list_of_a_status_shows_the_highest_id_first(
    client: AsyncClient, store: Store, clock: Clock, limit: int
) -> None:
    ids = await place_orders_of_every_status(client, store, clock)
    readable = sorted(ids["pending"] + ids["completed"], reverse=True)
    for query, expected in (
        ("status=pending&", ids["pending"]),
        ("status=completed&", ids["completed"]),
        ("", readable),
    ):
        found = await pages(client, f"/orders?{query}limit={limit}")
        assert [order_id for page in found for order_id in page] == expected
        assert all(len(page) <= limit for page in found)
        assert all(len(page) == limit for page in found[: math.floor(len(expected) / limit)])


@pytest.mark.parametrize("query", ["", "?status=pending"])
async def test_list_omits_a_pending_order_from_its_deadline_on(client: AsyncClient, clock: Clock, query: str) -> None:
    order = await hold(client, (await add_product(client), 1))
    clock.forward(HOLD - 0.001)
    assert (await client.get(f"/orders{query}")).json() == [order]
    clock.forward(0.001)
    assert (await client.get(f"/orders{query}")).json() == []


async def test_page_has_pending_orders_below_the_given_id(client: AsyncClient, store: Store, clock: Clock) -> None:
    ids = (await place_orders_of_every_status(client, store, clock))["pending"]
    assert await pages(client, f"/orders?status=pending&before={ids[3]}") == [ids[4:]]
    assert await pages(client, "/orders?status=pending&before=1") == [[]]
    assert await pages(client, "/orders?status=pending&before=0") == [[]]


async def test_list_shows_each_order_in_its_current_status(client: AsyncClient) -> None:
    mugs = await add_product(client, stock=10)
    order = await hold(client, (mugs, 1))
    assert (await client.get("/orders?status=pending")).json() == [order]
    completed = (await complete(client, order["id"])).json()
    assert (await client.get("/orders?status=pending")).json() == []
    assert (await client.get("/orders?status=completed")).json() == [completed]

"""PATCH /orders/{id}: the hold of a pending order ends later."""

import pytest
from httpx2 import AsyncClient

from service.domain.times import Milliseconds, format_timestamp
from service.storage import keys
from service.storage.sender import CommandSender
from tests.support.balance import assert_balanced
from tests.support.clock import Clock
from tests.support.problems import assert_field_errors, assert_problem
from tests.support.redis_content import events_at, nothing_changes
from tests.support.shop import SHOP, add_product, expire_all_due, http_client, make_store, place

DAY = 86_400


@pytest.fixture
def client(redis: CommandSender, clock: Clock) -> AsyncClient:
    return http_client(make_store(redis, clock=clock))


async def hold(client: AsyncClient, seconds: int = 60) -> dict[str, object]:
    await add_product(client)
    response = await place(client, (1, 1), status="pending", hold_seconds=seconds)
    order: dict[str, object] = response.json()
    return order


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("content_type", ["application/json", "application/merge-patch+json"])
@pytest.mark.parametrize("seconds", [600, 1, 600.0])
async def test_a_hold_ends_so_many_seconds_from_now(
    client: AsyncClient, redis: CommandSender, clock: Clock, seconds: float, content_type: str, slash: str
) -> None:
    order = await hold(client)
    clock.forward(10)
    response = await client.patch(
        f"/orders/1{slash}", content=f'{{"hold_seconds": {seconds}}}', headers={"Content-Type": content_type}
    )
    expires_at = Milliseconds(clock.now + int(seconds) * 1000)
    assert (response.status_code, response.json()) == (200, {**order, "expires_at": format_timestamp(expires_at)})
    assert (await client.get("/orders/1")).json() == response.json()
    event = (await events_at(redis, keys.events(SHOP)))[-1]
    assert event == {"event": "order_extended", "order": "1", "expires_at": str(expires_at)}
    await assert_balanced(redis)


async def test_an_extended_hold_is_released_at_its_new_deadline(
    client: AsyncClient, redis: CommandSender, clock: Clock
) -> None:
    await hold(client, 60)
    await client.patch("/orders/1", json={"hold_seconds": 100})
    sweeper = make_store(redis, clock=clock)
    clock.forward(99.999)
    assert await expire_all_due(sweeper) == 0.001
    assert (await client.get("/orders/1")).status_code == 200
    clock.forward(0.001)
    assert_problem(await client.patch("/orders/1", json={"hold_seconds": 100}), 410, "order-expired")
    await expire_all_due(sweeper)
    assert_problem(await client.patch("/orders/1", json={"hold_seconds": 100}), 410, "order-expired")
    assert (await client.get("/products/1")).json()["stock"] == 10


async def test_no_hold_lasts_longer_than_a_day_after_the_order_was_placed(client: AsyncClient, clock: Clock) -> None:
    placed_at = clock.now
    await hold(client, DAY)
    latest = format_timestamp(Milliseconds(placed_at + DAY * 1000))
    for seconds in (0, 1000, DAY - 1001):
        clock.forward(seconds)
        assert (await client.patch("/orders/1", json={"hold_seconds": DAY})).json()["expires_at"] == latest
    clock.forward(1)
    assert_problem(await client.patch("/orders/1", json={"hold_seconds": DAY}), 410, "order-expired")


async def test_only_a_pending_order_can_be_extended(client: AsyncClient, redis: CommandSender) -> None:
    await hold(client)
    await client.post("/orders/1/complete")
    async with nothing_changes(redis):
        assert_problem(await client.patch("/orders/1", json={"hold_seconds": 60}), 409, "order-completed")
        assert_problem(await client.patch("/orders/2", json={"hold_seconds": 60}), 404, "order-not-found")
    await place(client, (1, 1), status="pending")
    await client.delete("/orders/2")
    assert_problem(await client.patch("/orders/2", json={"hold_seconds": 60}), 410, "order-cancelled")


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({}, ["#/hold_seconds"]),
        ({"hold_seconds": None}, ["#/hold_seconds"]),
        ({"hold_seconds": 0}, ["#/hold_seconds"]),
        ({"hold_seconds": DAY + 1}, ["#/hold_seconds"]),
        ({"hold_seconds": True}, ["#/hold_seconds"]),
        ({"hold_seconds": 5, "status": "completed"}, ["#/status"]),
    ],
)
async def test_an_invalid_extension_is_refused(
    client: AsyncClient, body: dict[str, object], pointers: list[str]
) -> None:
    await hold(client)
    assert_field_errors(await client.patch("/orders/1", json=body), *pointers)


async def test_the_moment_of_completion_is_kept(client: AsyncClient, redis: CommandSender, clock: Clock) -> None:
    await hold(client)
    clock.forward(5)
    completed_at = format_timestamp(clock.now)
    assert (await client.post("/orders/1/complete")).json()["completed_at"] == completed_at
    clock.forward(5)
    assert (await client.post("/orders/1/complete")).json()["completed_at"] == completed_at
    assert (await client.get("/orders/1")).json()["completed_at"] == completed_at
    assert "completed_at" not in (await place(client, (1, 1))).json()  # it was completed at created_at
    assert "completed_at" not in (await client.post("/orders/2/complete")).json()

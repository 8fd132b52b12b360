"""Three replicas behind nginx, as started by `docker compose up --scale api=3` with both compose files."""

import asyncio

from httpx2 import AsyncClient

from service.storage.order_ids import ID_BLOCK_SIZE
from tests.e2e.stack import Stack, add_product, assert_only, docker, in_thread, measurements, under_load

COMPOSE_FILES = ["docker-compose.yml", "docker-compose.scale.yml"]
UP = ["--scale", "api=3"]


async def order(client: AsyncClient, product_id: int) -> tuple[int, int]:
    """Order one unit. Return the status, and the order's id or 0."""
    response = await client.post("/orders", json={"products": [{"product_id": product_id, "quantity": 1}]})
    return response.status_code, response.json().get("id", 0)


async def test_all_three_replicas_serve_requests(stack: Stack) -> None:
    """Each replica reserves its own blocks of order ids, so an id shows which replica placed the order."""
    assert len(stack.containers("api")) == 3
    async with stack.client() as client:
        mugs = await add_product(client, ID_BLOCK_SIZE)
        answers = [await order(client, mugs) for _ in range(ID_BLOCK_SIZE // 2)]
    assert {status for status, _ in answers} == {201}
    assert len({(order_id - 1) // ID_BLOCK_SIZE for _, order_id in answers}) == 3


async def test_three_replicas_sell_exactly_30_of_30_units_to_100_clients(stack: Stack) -> None:
    async with stack.client() as client:
        mugs = await add_product(client, 30)
        answers = await asyncio.gather(*(order(client, mugs) for _ in range(100)))
        statuses = [status for status, _ in answers]
        assert (statuses.count(201), statuses.count(409)) == (30, 70)
        assert len({order_id for status, order_id in answers if status == 201}) == 30
        assert (await client.get(f"/products/{mugs}")).json()["stock"] == 0
    stack.audit()


async def test_no_order_is_lost_when_one_replica_is_killed(stack: Stack) -> None:
    victim = stack.containers("api")[1]
    async with under_load(stack) as load:
        await in_thread(docker, "kill", victim)
        seconds = await load.wait_for_more_orders()
        await in_thread(docker, "start", victim)
    # 502: the replica was killed while it had the order. nginx does not send the order to another replica, but the
    # client repeats it.
    # 504: the network of the replica has ended too, and nginx gets no response.
    assert_only(load, 201, 502, 503, 504)
    answers = ", ".join(f"{count} x {answer}" for answer, count in load.answers.items())
    measurements.append(
        f"kill -9 one of three: next 100 orders in {seconds:.1f} s ({answers}; {load.replayed} replayed)"
    )

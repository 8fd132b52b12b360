"""Three replicas behind nginx, as `docker compose up --scale api=3` with the override file."""

import asyncio

from httpx2 import AsyncClient

from service.storage.order_ids import BLOCK as ORDER_ID_BLOCK
from tests.e2e.stack import Stack, add_product, assert_only, docker, facts, in_thread, under_load

COMPOSE_FILES = ["docker-compose.yml", "docker-compose.scale.yml"]
UP = ["--scale", "api=3"]


async def order(client: AsyncClient, product_id: int) -> tuple[int, int]:
    """Status, and the order's id or 0."""
    response = await client.post("/orders", json={"products": [{"product_id": product_id, "quantity": 1}]})
    return response.status_code, response.json().get("id", 0)


async def test_all_three_replicas_serve(stack: Stack) -> None:
    """Each takes order ids in blocks of its own, so an id tells who made it."""
    assert len(stack.containers("api")) == 3
    async with stack.client() as client:
        mugs = await add_product(client, ORDER_ID_BLOCK)
        answers = [await order(client, mugs) for _ in range(ORDER_ID_BLOCK // 2)]
    assert {status for status, _ in answers} == {201}
    assert len({(order_id - 1) // ORDER_ID_BLOCK for _, order_id in answers}) == 3


async def test_a_hundred_clients_of_three_replicas_get_thirty_of_thirty_units(stack: Stack) -> None:
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
        seconds = await load.goes_on()
        await in_thread(docker, "start", victim)
    # 502: the replica had the order and died; nginx does not send it to another one, the client repeats it. 504: the
    # replica's network went with it, and nginx waits in vain for an answer.
    assert_only(load, 201, 502, 503, 504)
    answers = ", ".join(f"{count} x {answer}" for answer, count in load.answers.items())
    facts.append(f"kill -9 one of three: next 100 orders in {seconds:.1f} s ({answers}; {load.replayed} replayed)")

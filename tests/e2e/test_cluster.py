"""Two shops on a Redis Cluster of six nodes, as started by docker compose -f docker-compose.cluster.yml up."""

import asyncio
import json
import time

from httpx2 import AsyncClient, TransportError

from tests.e2e.stack import Stack, docker, in_thread, measurements
from tests.support.shop import mug

COMPOSE_FILES = ["docker-compose.cluster.yml"]
UP: list[str] = []

BERLIN, PARIS = "/shops/berlin", "/shops/paris"
_BODY = {"products": [{"product_id": 1, "quantity": 1}]}


async def order(client: AsyncClient, shop: str, key: str) -> int:
    """Order one unit, and repeat that until it is placed. Return the id."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            response = await client.post(f"{shop}/orders", json=_BODY, headers={"Idempotency-Key": key})
            if response.status_code == 201:
                return int(response.json()["id"])
            assert response.status_code == 503, response.text
        except TransportError:
            pass
        await asyncio.sleep(0.1)
    raise AssertionError("no order within a minute")


def audit(stack: Stack, shop: str) -> int:
    """Assert that an audit has no findings. Return the number of orders."""
    report = json.loads(stack.in_api("holdfast", "audit", "--shop", shop, "--json"))
    assert report["balanced"], report
    return int(report["orders"])


async def test_each_shop_is_on_a_node_of_its_own_and_the_cluster_is_well(stack: Stack) -> None:
    async with stack.client() as client:
        for shop in (BERLIN, PARIS):
            added = await client.post(f"{shop}/products", json=mug(id=1, stock=1000))
            assert added.status_code == 201, added.text
            assert await order(client, shop, "first") == 1
    doctor = await in_thread(stack.in_api, "holdfast", "doctor")
    assert "All slots have a node: 3 primaries, 3 replicas." in doctor
    assert "0 to mend" in doctor
    homes = [line.split()[0] for line in doctor.splitlines() if "slots " in line and ":6379" in line]
    assert len(set(homes)) == 3
    assert [audit(stack, shop) for shop in ("berlin", "paris")] == [1, 1]


async def test_a_node_that_is_killed_loses_no_order_and_stops_only_its_shop(stack: Stack) -> None:
    async with stack.client() as client:
        placed = [await order(client, BERLIN, f"before-{number}") for number in range(50)]
        node = await asyncio.to_thread(primary_of, stack, "berlin")
        [container] = stack.containers(node)
        started = time.monotonic()
        await in_thread(docker, "kill", container)
        for number in range(20):
            response = await client.post(f"{PARIS}/orders", json=_BODY, headers={"Idempotency-Key": f"p-{number}"})
            assert response.status_code == 201, response.text
        # Only the node that was killed and its replica have the shop, and both must confirm each change.
        await in_thread(docker, "start", container)
        placed += [await order(client, BERLIN, f"after-{number}") for number in range(50)]
        measurements.append(f"kill -9 of the node of a shop: 50 more orders in {time.monotonic() - started:.1f} s")
        for order_id in placed:
            assert (await client.get(f"{BERLIN}/orders/{order_id}")).status_code == 200
    assert len(set(placed)) == 100
    assert await asyncio.to_thread(audit, stack, "berlin") >= 101


def primary_of(stack: Stack, shop: str) -> str:
    """Return the service that has a shop: the nodes node1 to node6 have the addresses .11 to .16."""
    address = ""
    for line in stack.in_api("holdfast", "doctor").splitlines():
        address = line.split()[0] if " slots " in line else address
        if f"shop {shop} (slot" in line:
            return f"node{int(address.partition(':')[0].rpartition('.')[2]) - 10}"
    raise AssertionError(f"{shop} is nowhere")


async def test_orders_survive_compose_down_and_up(stack: Stack) -> None:
    before = await asyncio.to_thread(audit, stack, "berlin")
    await asyncio.to_thread(stack.down)
    await asyncio.to_thread(stack.up)
    assert await asyncio.to_thread(audit, stack, "berlin") == before
    async with stack.client() as client:
        assert await order(client, BERLIN, "first") == 1
        await order(client, BERLIN, "the-last-one")
    assert await asyncio.to_thread(audit, stack, "berlin") == before + 1


def test_the_user_of_the_api_may_use_its_shops_only(stack: Stack) -> None:
    script = 'REDISCLI_AUTH=$(cat /secrets/api) exec redis-cli --user holdfast "$@"'
    for command in (("GET", "{rome}:ids:orders"), ("CLUSTER", "RESET"), ("CONFIG", "SET", "save", ""), ("FLUSHALL",)):
        answer = stack.compose("exec", "-T", "node1", "sh", "-c", script, "sh", *command)
        assert "NOPERM" in answer, answer

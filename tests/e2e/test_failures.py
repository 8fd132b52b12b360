"""A container is stopped or killed under load: no acknowledged order is lost, and Holdfast recovers by itself."""

import asyncio
import time

import pytest
from httpx2 import AsyncClient, ConnectError, ReadError, RemoteProtocolError

from tests.e2e.stack import Load, Stack, add_product, assert_only, in_thread, measurements, under_load

COMPOSE_FILES = ["docker-compose.yml"]
UP: list[str] = []


@pytest.fixture(autouse=True)
def _all_containers_run(stack: Stack) -> None:
    """Start all containers that the previous test has stopped, and set one worker."""
    stack.up(HOLDFAST_WORKERS="1")


async def test_no_order_is_lost_when_redis_is_restarted(stack: Stack) -> None:
    api, redis = stack.inspect("api"), stack.inspect("redis")
    async with under_load(stack) as load:
        await in_thread(stack.compose, "restart", "redis")
        seconds = await load.wait_for_more_orders()
    assert_only(load, 201, 503)
    assert stack.inspect("redis")["State"]["StartedAt"] != redis["State"]["StartedAt"]
    assert stack.inspect("api")["State"]["StartedAt"] == api["State"]["StartedAt"]
    stack.logs_of_api()
    add_measurement(f"restart redis: the next 100 orders took {seconds:.1f} s", load)


async def test_no_order_is_lost_when_redis_is_killed(stack: Stack) -> None:
    api = stack.inspect("api")
    async with under_load(stack) as load:
        await in_thread(stack.compose, "kill", "-s", "KILL", "redis")
        await load.wait_until(lambda: load.answers[503] > 20)
        assert stack.inspect("redis")["State"]["ExitCode"] == 137
        await in_thread(stack.compose, "start", "redis")
        seconds = await load.wait_for_more_orders()
    assert_only(load, 201, 503)
    assert stack.inspect("api")["State"]["StartedAt"] == api["State"]["StartedAt"]
    assert "redis_lost" in [line["message"] for line in stack.logs_of_api()]
    add_measurement(f"kill -9 redis: the next 100 orders took {seconds:.1f} s", load)


async def test_the_api_without_redis_is_alive_but_not_ready(stack: Stack) -> None:
    stack.compose("stop", "redis")
    async with stack.client() as client:
        assert (await client.get("/livez")).status_code == 200
        ready, order = await client.get("/readyz"), await client.get("/orders/1")
    for response in (ready, order):
        assert response.status_code == 503
        assert response.json()["type"] == "/problems/storage-unavailable"
        assert int(response.headers["retry-after"]) > 0


async def test_no_order_is_lost_when_the_api_is_killed(stack: Stack) -> None:
    async with under_load(stack) as load:
        await in_thread(stack.compose, "kill", "-s", "KILL", "api")
        await load.wait_until(lambda: load.answers["no answer"] > 20)
        assert stack.inspect("api")["State"]["ExitCode"] == 137
        await in_thread(stack.compose, "start", "api")
        seconds = await load.wait_for_more_orders()
    assert_only(load, 201, 503, "no answer")
    add_measurement(f"kill -9 api: the next 100 orders took {seconds:.1f} s", load)


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_stopped_api_finishes_running_requests_and_exits_with_0(stack: Stack, workers: int) -> None:
    stack.up(HOLDFAST_WORKERS=str(workers))
    async with under_load(stack) as load:
        half_sent = [await HalfSent.begin(stack, f"{load.run}-half-sent-{number}") for number in range(10)]
        started = time.monotonic()
        stopping = asyncio.create_task(in_thread(stack.compose, "stop", "api"))
        await wait_until_workers_stop(stack, workers)
        assert not stopping.done()  # the API waits for the half-sent requests
        assert [await request.send_rest() for request in half_sent] == [201] * 10
        await stopping
        seconds = time.monotonic() - started
        state = stack.inspect("api")["State"]
        assert state["ExitCode"] == 0, state
        assert seconds < 10, "the stop took longer than the requests"
        await in_thread(stack.compose, "start", "api")
        await load.wait_for_more_orders()
    assert_only(load, 201, "no answer")
    # Each request that the API had begun was answered. No order without an answer was placed.
    assert load.replayed == 0
    add_measurement(f"stop api with {workers} worker(s): stopped after {seconds:.1f} s", load)


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_stopping_api_accepts_no_new_connection(stack: Stack, workers: int) -> None:
    stack.up(HOLDFAST_WORKERS=str(workers))
    half_sent = await HalfSent.begin(stack, f"half-sent-{workers}")
    stopping = asyncio.create_task(in_thread(stack.compose, "stop", "api"))
    try:
        await wait_until_workers_stop(stack, workers)
        async with AsyncClient(base_url=stack.url, timeout=2) as client:
            with pytest.raises((ConnectError, ReadError, RemoteProtocolError)):  # not a timeout
                await client.get("/livez")
        assert not stopping.done()
    finally:
        assert await half_sent.send_rest() == 201
        await stopping


async def test_orders_survive_compose_down_and_up(stack: Stack) -> None:
    async with under_load(stack) as load:
        await in_thread(stack.down)
        assert stack.containers("api") == stack.containers("redis") == []
        await in_thread(stack.up)
    assert_only(load, 201, 503, "no answer")


class HalfSent:
    """An order of which the service has read the head and a part of the body."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rest: bytes) -> None:
        self.reader, self.writer, self.rest = reader, writer, rest

    @classmethod
    async def begin(cls, stack: Stack, key: str) -> "HalfSent":
        reader, writer = await asyncio.open_connection("127.0.0.1", int(stack.environment["HOLDFAST_PORT"]))
        # Use a separate product: the load counts the units of its own product.
        async with stack.client() as client:
            product_id = await add_product(client, 10)
        body = b'{"products": [{"product_id": %d, "quantity": 1}]}' % product_id
        head = (
            "POST /orders HTTP/1.1\r\nHost: holdfast\r\nContent-Type: application/json\r\n"
            f"Authorization: {stack.key()['Authorization']}\r\n"
            f"Idempotency-Key: {key}\r\nContent-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
        )
        writer.write(head.encode())
        # The server sends 100 when the handler asks for the body: the request is now running.
        assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).startswith(b"HTTP/1.1 100 ")
        writer.write(body[:20])
        return cls(reader, writer, body[20:])

    async def send_rest(self) -> int:
        self.writer.write(self.rest)
        answer = await asyncio.wait_for(self.reader.read(), 10)  # until the service closes the connection
        self.writer.close()
        await self.writer.wait_closed()
        return int(answer.split(b" ", 2)[1])


async def wait_until_workers_stop(stack: Stack, workers: int) -> None:
    """Wait until each worker has logged that it shuts down."""
    deadline = time.monotonic() + 10
    while True:
        lines = await in_thread(stack.logs_of_api)
        if [line["message"] for line in lines].count("Shutting down") == workers:
            return
        assert time.monotonic() < deadline, lines


def add_measurement(event: str, load: Load) -> None:
    answers = ", ".join(f"{count} x {answer}" for answer, count in load.answers.items())
    orders = f"{len(load.acknowledged)} orders acknowledged and kept"
    measurements.append(f"{event}; {orders} ({answers}; {load.replayed} replayed)")

"""Three replicas behind nginx, as started by `docker compose up --scale api=3` with both compose files."""

import asyncio
import contextlib
import json
import socket
from typing import Any

import pytest
from httpx2 import AsyncClient, Headers, Response

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


def assert_problem_of_nginx(headers: Headers, body: Any, status: int) -> None:
    assert headers["content-type"] == "application/problem+json"
    assert headers["cache-control"] == "no-store"
    assert headers["x-request-id"] == body["instance"]
    assert body["status"] == status
    assert body.keys() == {"type", "title", "status", "detail", "instance"}
    assert ("retry-after" in headers) == (status in (502, 503, 504))


@pytest.mark.parametrize(
    ("path", "headers", "body", "status"),
    [
        ("/orders", {}, b"x" * 200_000, 413),
        ("/" + "x" * 9000, {}, b"", 414),
        ("/", {"x": "x" * 9000}, b"", 431),
    ],
)
async def test_an_error_of_nginx_is_a_problem(
    stack: Stack, path: str, headers: dict[str, str], body: bytes, status: int
) -> None:
    async with stack.client() as client:
        response = await client.post(path, content=body, headers=headers)
    assert response.status_code == status
    assert_problem_of_nginx(response.headers, response.json(), status)


@pytest.mark.parametrize("path", ["/metrics", "/metrics/", "/metrics?x=1", "/shop/metrics", "/%6detrics"])
async def test_nginx_does_not_pass_the_metrics_on(stack: Stack, path: str) -> None:
    async with stack.client() as client:
        response = await client.get(path)
    assert response.status_code == 404
    assert_problem_of_nginx(response.headers, response.json(), 404)


@pytest.mark.parametrize("head", ["no request", "GET / HTTP/1.1", "GET / HTTP/1.1\r\nHost: a\r\nHost: b"])
async def test_a_head_that_nginx_cannot_read_gets_a_problem(stack: Stack, head: str) -> None:
    response = b""
    with socket.create_connection(("127.0.0.1", int(stack.environment["HOLDFAST_PORT"])), timeout=10) as connection:
        connection.sendall(f"{head}\r\n\r\n".encode())
        while part := connection.recv(4096):
            response += part
    lines, _, body = response.decode().partition("\r\n\r\n")
    status, *fields = lines.split("\r\n")
    assert status == "HTTP/1.1 400 Bad Request"
    assert_problem_of_nginx(
        Headers({name: text for name, _, text in (field.partition(": ") for field in fields)}), json.loads(body), 400
    )


@pytest.mark.parametrize(("size", "status"), [(65_537, 413), (65_536, 400)])
async def test_a_body_up_to_the_limit_of_nginx_is_judged_by_the_service(stack: Stack, size: int, status: int) -> None:
    async with stack.client() as client:
        headers = {"Content-Type": "application/json"}
        response = await client.post("/orders", content=b"x" * size, headers=headers)
    assert response.status_code == status
    assert response.headers["x-request-id"] == response.json()["instance"]
    assert len(response.headers["x-request-id"]) < 32, "nginx's ids have 32 digits"


async def test_a_stopped_service_is_a_problem_with_retry_after_and_an_order_is_not_repeated(stack: Stack) -> None:
    async with stack.client() as client:
        mugs = await add_product(client, 10)
        await in_thread(stack.compose, "stop", "api")
        try:
            body = {"products": [{"product_id": mugs, "quantity": 1}]}
            response: Response = await client.post("/orders", json=body)
        finally:
            await in_thread(stack.compose, "start", "api")
            stack.wait_until_ready()
        assert response.status_code in (502, 504)
        assert_problem_of_nginx(response.headers, response.json(), response.status_code)
        assert (await client.get(f"/products/{mugs}")).json()["stock"] == 10


async def test_orders_after_a_pause_of_more_than_5_seconds_get_no_502(stack: Stack) -> None:
    """nginx must forget an idle connection before the service closes it."""
    async with stack.client() as client:
        mugs = await add_product(client, 1000)
        for pause in (5, 5.02, 5.05, 0):
            answers = await asyncio.gather(*(order(client, mugs) for _ in range(60)))
            assert {status for status, _ in answers} == {201}
            await asyncio.sleep(pause)
    stack.audit()


async def test_the_service_keeps_idle_connections_of_nginx_longer_than_5_seconds(stack: Stack) -> None:
    """If the service closed them first, an order that nginx sends at that moment would get 502."""
    async with stack.client() as client:
        mugs = await add_product(client, 1000)
        await asyncio.gather(*(order(client, mugs) for _ in range(60)))
        before = await asyncio.to_thread(connections_of_nginx, stack)
        await asyncio.sleep(6)
        after = await asyncio.to_thread(connections_of_nginx, stack)
    assert before
    assert before <= after


def connections_of_nginx(stack: Stack) -> set[str]:
    """Return the other ends of the open connections of a replica. The health check comes from 127.0.0.1."""
    rows = [line.split() for line in stack.in_api("cat", "/proc/net/tcp").splitlines()[1:]]
    return {
        remote
        for _, local, remote, state, *_ in rows
        if local.endswith(":1F40") and state == "01" and not remote.startswith("0100007F")
    }


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


async def test_no_request_fails_when_one_replica_is_stopped_and_started(stack: Stack) -> None:
    victim = stack.containers("api")[1]
    async with under_load(stack) as load:
        await in_thread(docker, "stop", victim)
        await load.wait_for_more_orders()
        await in_thread(docker, "start", victim)
    assert_only(load, 201)


SMUGGLED = {
    "CL.TE": "Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}",
    "TE.CL": "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n{size}\r\n{hidden}\r\n0\r\n\r\n",
    "TE with a tab": "Content-Length: {length}\r\nTransfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n{hidden}",
    "TE with a space before :": "Content-Length: {length}\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n{hidden}",
    "two TE": "Content-Length: {length}\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n{hidden}",
    "TE of another name": "Content-Length: {length}\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{hidden}",
    "TE on a folded line": "Content-Length: {length}\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n{hidden}",
    "two lengths": "Content-Length: 0\r\nContent-Length: {length}\r\n\r\n{hidden}",
    "a signed length": "Content-Length: +0\r\n\r\n{hidden}",
    "a length in two numbers": "Content-Length: 0, {length}\r\n\r\n{hidden}",
    "a line feed alone": "Content-Length: 0\r\nX: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}",
    "a size with an extension": "Transfer-Encoding: chunked\r\n\r\n0;x=\n{hidden}\r\n\r\n",
    "a GET with a body": "Content-Length: {length}\r\n\r\n{hidden}",
}
"""Requests of which a proxy and a server could see a different end (CWE-444). `hidden` is what would come after it."""


@pytest.mark.parametrize("shape", SMUGGLED)
async def test_no_request_can_be_hidden_in_another_one(stack: Stack, shape: str) -> None:
    """The hidden request has the key of an administrator, so that only its place in the stream keeps it from effect."""
    key = stack.key()["Authorization"]
    body = json.dumps({"id": 666, "name": "Hidden", "description": "", "price": 1, "stock": 1})
    hidden = (
        f"POST /products HTTP/1.1\r\nHost: h\r\nAuthorization: {key}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    )
    # All in one body: nginx itself would answer a second request on the connection, which nobody has hidden.
    text = SMUGGLED[shape].format(hidden=hidden, length=len(hidden) + 5, size=f"{len(hidden):x}")
    method = "GET /livez" if shape == "a GET with a body" else "POST /orders"
    if shape in ("two lengths", "a signed length", "a length in two numbers", "a line feed alone"):
        text = text.replace(hidden, hidden.replace(key, "Bearer none"))  # nginx may see a second request: not hidden
    request = f"{method} HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n{text}".encode()
    for _ in range(3):  # the connections of nginx to the replicas are used again
        reader, writer = await asyncio.open_connection("127.0.0.1", int(stack.environment["HOLDFAST_PORT"]))
        writer.write(request)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(reader.read(), 0.5)
        writer.close()
    async with stack.client() as client:
        answers = [await client.get(path) for path in ("/products/666", "/livez", "/products/666") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [404] * 3 + [200] * 3 + [404] * 3
    assert all("alive" in answer.text for answer in answers[3:6])

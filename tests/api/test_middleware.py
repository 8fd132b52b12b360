"""Request ids, and what an unexpected error leaves: an answer without details and a log entry."""

import re

import pytest
from httpx2 import AsyncClient
from starlette.types import Message, Receive, Scope, Send
from structlog.testing import capture_logs

from service.api.middleware import RequestMiddleware
from service.api.responses import ok, send_response
from service.metrics.counters import Metrics
from service.metrics.families import PROBLEMS
from service.storage.sender import CommandSender
from tests.support.problems import assert_problem
from tests.support.redis_content import nothing_changes
from tests.support.shop import SHOP, add_product, mug, place

BODY = {"products": [{"product_id": 1, "quantity": 1}]}


# Request ids


@pytest.mark.parametrize("request_id", ["a", "0b1c-2d_3e.4f~5", "x" * 128])
@pytest.mark.parametrize("path", ["/livez", "/products/9", "/nowhere"])
async def test_valid_request_id_is_kept(client: AsyncClient, path: str, request_id: str) -> None:
    response = await client.get(path, headers={"X-Request-Id": request_id})
    assert response.headers["x-request-id"] == request_id


@pytest.mark.parametrize("request_id", [b"", b"a b", b"x" * 129, b"\xe9", b"a\nb", b'{"a":1}', b"<b>"])
async def test_invalid_request_id_is_replaced(client: AsyncClient, request_id: bytes) -> None:
    responses = [await client.get("/orders/9", headers=[(b"X-Request-Id", request_id)]) for _ in range(2)]
    given = [response.headers.get_list("x-request-id") for response in responses]
    assert all(len(ids) == 1 and re.fullmatch("[0-9a-f]{8}-[0-9a-f]+", ids[0]) for ids in given)
    assert given[0] != given[1]


# Unexpected errors


@pytest.mark.parametrize(
    ("method", "path", "key", "corruption"),
    [
        ("GET", "/products/1", "product:1", ("HSET", "price", "s3cret")),
        ("GET", "/products", "product:1", ("HSET", "stock", "s3cret")),
        ("GET", "/products", "products", ("SET", "s3cret")),
        ("GET", "/orders/1", "order:1", ("HSET", "products", "s3cret")),
        ("GET", "/orders", "order:1", ("HSET", "total_price", "s3cret")),
        ("POST", "/orders", "product:1", ("HSET", "price", "s3cret")),
        ("POST", "/orders", "product:1", ("SET", "s3cret")),
        ("POST", "/orders", "product:1", ("HDEL", "sold")),
        ("POST", "/orders", "events", ("SET", "s3cret")),
        ("POST", "/products", "events", ("SET", "s3cret")),
        ("POST", "/products", "products", ("SET", "s3cret")),
        ("PATCH", "/products/1", "events", ("SET", "s3cret")),
        ("DELETE", "/products/1", "events", ("SET", "s3cret")),
        ("DELETE", "/products/1", "products", ("SET", "s3cret")),
    ],
)
async def test_corrupt_data_causes_an_internal_error_without_details(
    client: AsyncClient, redis: CommandSender, method: str, path: str, key: str, corruption: tuple[str, ...]
) -> None:
    await add_product(client, stock=10)
    await place(client, (1, 1))
    command, *arguments = corruption
    await redis.send(command, f"{{{SHOP}}}:{key}", *arguments)
    bodies = {"/orders": BODY, "/products": mug(), "/products/1": {"name": "Pot"}}
    with capture_logs() as logs:
        async with nothing_changes(redis):
            response = await client.request(
                method, path, json=None if method == "GET" else bodies[path], headers={"X-Request-Id": "the-request-id"}
            )
    problem = assert_problem(response, 500, "internal-error")
    assert problem["instance"] == "the-request-id"
    for secret in ("s3cret", "Traceback", "WRONGTYPE", ".py", ".lua", "Error"):
        assert secret not in response.text
    [entry] = [entry for entry in logs if entry["event"] == "internal_error"]
    assert entry["request_id"] == "the-request-id"
    assert (entry["log_level"], entry["method"], entry["path"]) == ("error", method, path)
    assert entry["exc_info"]


async def test_next_request_is_served_after_an_internal_error(client: AsyncClient, redis: CommandSender) -> None:
    await add_product(client, id=1)
    await add_product(client, id=2)
    await redis.send("HSET", f"{{{SHOP}}}:product:1", "price", "corrupt")
    assert_problem(await place(client, (1, 1)), 500, "internal-error")
    assert (await place(client, (2, 1))).status_code == 201


async def test_an_error_after_the_response_has_begun_is_logged_but_not_counted_as_a_problem() -> None:
    metrics = Metrics(problems=["internal-error"])

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send_response(ok("{}"), scope, send)
        raise ValueError("after the answer")

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        raise AssertionError("no body is read")

    scope = {"type": "http", "method": "GET", "path": "/", "root_path": "", "headers": []}
    with capture_logs() as logs, pytest.raises(ValueError, match="after the answer"):
        await RequestMiddleware(app, metrics)(scope, receive, send)
    assert [entry["event"] for entry in logs] == ["internal_error"]
    assert [message.get("status") for message in sent] == [200, None]
    [counts] = [counts for family, counts in metrics.read() if family.name == PROBLEMS.name]
    assert counts["internal-error",][0] == 0

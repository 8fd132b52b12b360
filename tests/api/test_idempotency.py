"""POST /orders with an Idempotency-Key."""

import asyncio
import string
from collections.abc import Awaitable
from typing import Any

import pytest
from httpx2 import AsyncClient, Response

from service.domain.errors.storage import StorageUnavailable
from service.storage import keys
from service.storage.sender import CommandSender
from tests.support.problems import assert_problem
from tests.support.redis_content import dump, nothing_changes, without_id_counters
from tests.support.shop import SHOP, add_product, http_client, make_store, pages, place, stock_of

VISIBLE = "".join(chr(code) for code in range(0x21, 0x7F))


async def send_order(client: AsyncClient, body: str | bytes, *keys: bytes | str) -> Response:
    """Send an order with these Idempotency-Key headers."""
    values = [key if isinstance(key, bytes) else key.encode("ascii") for key in keys]
    headers = [(b"content-type", b"application/json"), *((b"idempotency-key", value) for value in values)]
    return await client.post("/orders", content=body, headers=headers)


BODY = '{"products": [{"product_id": 1, "quantity": 2}, {"product_id": 2, "quantity": 1}]}'


@pytest.mark.parametrize(
    "repetition",
    [
        BODY,
        BODY.replace(" ", ""),
        '{"products": [{"quantity": 2, "product_id": 1}, {"quantity": 1, "product_id": 2}]}',
        '{"products": [{"product_id": 2, "quantity": 1}, {"product_id": 1, "quantity": 2}]}',
        '{"products": [{"product_id": 1.0, "quantity": 2.0}, {"product_id": 2e0, "quantity": 10e-1}]}',
        BODY.replace('"quantity": 2}', '"quantity": 1}, {"product_id": 1, "quantity": 1}'),
        BODY[:-1] + ', "status": "completed"}',
        BODY[:-1] + ', "total_price": null}',
        r'{"\u0070roducts": [{"product_id": 1, "quantity": 2}, {"product_id": 2, "quantity": 1}]}',
    ],
)
async def test_same_key_with_an_equal_order_returns_the_first_order(
    client: AsyncClient, redis: CommandSender, repetition: str
) -> None:
    for _ in range(2):
        await add_product(client)
    first = await send_order(client, BODY, "k-1")
    assert first.status_code == 201
    assert "idempotent-replayed" not in first.headers
    async with nothing_changes(redis):
        second = await send_order(client, repetition, "k-1")
    assert second.status_code == 201
    assert second.headers["idempotent-replayed"] == "true"
    assert second.headers["location"] == first.headers["location"]
    assert second.text == first.text
    assert [await stock_of(client, 1), await stock_of(client, 2)] == [8, 9]
    assert await pages(client, "/orders") == [[1]]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("39.98", "39.980"),
        ("39.98", "3998e-2"),
        ("40", "40.00"),
    ],
)
async def test_equal_total_may_be_written_in_another_way(client: AsyncClient, first: str, second: str) -> None:
    await add_product(client, price=20 if first == "40" else 19.99)
    body = '{"products": [{"product_id": 1, "quantity": 2}], "total_price": %s}'
    assert (await send_order(client, body % first, "k")).status_code == 201
    assert (await send_order(client, body % second, "k")).headers["idempotent-replayed"] == "true"


@pytest.mark.parametrize(
    "other",
    [
        '{"products": [{"product_id": 1, "quantity": 2}]}',
        '{"products": [{"product_id": 1, "quantity": 1}, {"product_id": 2, "quantity": 2}]}',
        '{"products": [{"product_id": 1, "quantity": 3}, {"product_id": 2, "quantity": 1}]}',
        '{"products": [{"product_id": 12, "quantity": 2}]}',
        BODY[:-1] + ', "total_price": 59.97}',
        '{"products": [{"product_id": 9, "quantity": 1}]}',
        '{"products": [{"product_id": 1, "quantity": 1000000}]}',
    ],
)
async def test_key_cannot_be_used_for_a_different_order(client: AsyncClient, redis: CommandSender, other: str) -> None:
    for _ in range(2):
        await add_product(client)
    await send_order(client, BODY, "k-1")
    async with nothing_changes(redis):
        response = await send_order(client, other, "k-1")
    assert_problem(response, 422, "idempotency-key-reused")
    assert "idempotent-replayed" not in response.headers
    assert (await send_order(client, BODY, "k-1")).headers["idempotent-replayed"] == "true"


async def test_requests_with_different_keys_or_without_a_key_place_separate_orders(client: AsyncClient) -> None:
    await add_product(client)
    keys: list[str | None] = ["a", "A", "a-", "aa", None, None]
    responses = [await place(client, (1, 1), key=key) for key in keys]
    assert [response.json()["id"] for response in responses] == [1, 2, 3, 4, 5, 6]
    assert not any("idempotent-replayed" in response.headers for response in responses)
    assert await stock_of(client, 1) == 4


async def test_replayed_order_is_unchanged_after_a_price_change_and_a_withdrawal(client: AsyncClient) -> None:
    await add_product(client, stock=2)
    first = await place(client, (1, 2), key="k", total_price=39.98)
    await client.patch("/products/1", json={"price": 5})
    await client.delete("/products/1")
    second = await place(client, (1, 2), key="k", total_price=39.98)
    assert second.status_code == 201
    assert second.text == first.text


async def test_key_is_known_to_all_workers(client: AsyncClient, redis: CommandSender) -> None:
    await add_product(client)
    first = await place(client, (1, 1), key="k")
    async with http_client(make_store(redis)) as other:
        second = await place(other, (1, 1), key="k")
    assert second.headers["idempotent-replayed"] == "true"
    assert second.text == first.text


async def test_requests_with_the_same_key_at_the_same_time_place_one_order(
    client: AsyncClient, redis: CommandSender
) -> None:
    await add_product(client)
    async with http_client(make_store(redis)) as other:
        responses = await asyncio.gather(*(place((client, other)[i % 2], (1, 1), key="k") for i in range(20)))
    assert {response.status_code for response in responses} == {201}
    assert len({response.text for response in responses}) == 1
    assert sum("idempotent-replayed" not in response.headers for response in responses) == 1
    assert await stock_of(client, 1) == 9


# Refusals


@pytest.mark.parametrize("cause", ["short", "unknown", "price", "total"])
async def test_refusal_is_final_for_its_key(client: AsyncClient, redis: CommandSender, cause: str) -> None:
    await add_product(client, id=1, stock=10**6, price=999_999_999.99 if cause == "total" else 5)
    if cause == "short":
        await add_product(client, id=2, stock=0)
    lines = {"short": [(1, 1), (2, 1)], "unknown": [(1, 1), (3, 1)], "price": [(1, 1)], "total": [(1, 10**6)]}[cause]
    fields = {"total_price": 6} if cause == "price" else {}
    status = {"short": 409, "unknown": 404, "price": 409, "total": 422}[cause]
    name = {"short": "insufficient-stock", "unknown": "product-not-found", "price": "price-changed"}.get(
        cause, "total-too-large"
    )

    before = without_id_counters(await dump(redis))
    first = await place(client, *lines, key="k", **fields)
    assert_problem(first, status, name)
    assert "idempotent-replayed" not in first.headers
    remembered = f"{{{SHOP}}}:idempotency:k"
    after = without_id_counters(await dump(redis))
    assert after.pop(remembered)
    assert after.pop(keys.refusals(SHOP))
    assert after == before
    assert 86_390_000 < await redis.send("PTTL", remembered) <= 86_400_000

    if cause == "short":
        await redis.send("HSET", f"{{{SHOP}}}:product:2", "stock", 50, "received", 50)
    elif cause == "unknown":
        await add_product(client, id=3)
    else:
        await client.patch("/products/1", json={"price": 6})
    async with nothing_changes(redis):
        second = await place(client, *lines, key="k", **fields)
    assert assert_problem(second, status, name) | {"instance": ""} == first.json() | {"instance": ""}
    assert second.headers["idempotent-replayed"] == "true"
    assert (await place(client, *lines, key="another", **fields)).status_code == 201


async def test_key_of_a_refused_order_cannot_be_used_for_a_different_order(
    client: AsyncClient, redis: CommandSender
) -> None:
    await add_product(client, stock=1)
    await place(client, (1, 5), key="k")
    async with nothing_changes(redis):
        assert_problem(await place(client, (1, 1), key="k"), 422, "idempotency-key-reused")


async def test_replayed_refusal_has_pointers_into_the_repeated_request(client: AsyncClient) -> None:
    await add_product(client, id=1)
    await add_product(client, id=2, stock=0)
    for lines, pointer in (
        ([(1, 1), (2, 1)], "#/products/1/quantity"),
        ([(2, 1), (1, 1)], "#/products/0/quantity"),
    ):
        problem = assert_problem(await place(client, *lines, key="k"), 409, "insufficient-stock")
        assert [error["pointer"] for error in problem["errors"]] == [pointer]


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{", {}, 400),
        (b'{"products": []}', {}, 422),
        (b'{"products": [{"product_id": 1, "quantity": 0}]}', {}, 422),
        (b" " * 70_000, {}, 413),
        (BODY.encode(), {"Content-Type": "text/plain"}, 415),
        (BODY.encode(), {"Content-Encoding": "gzip"}, 415),
    ],
)
async def test_invalid_request_leaves_its_key_unused(
    client: AsyncClient, redis: CommandSender, body: bytes, headers: dict[str, str], status: int
) -> None:
    for _ in range(2):
        await add_product(client)
    async with nothing_changes(redis):
        response = await client.post(
            "/orders", content=body, headers={"Content-Type": "application/json", "Idempotency-Key": "k", **headers}
        )
    assert response.status_code == status
    placed = await send_order(client, BODY, "k")
    assert placed.status_code == 201
    assert "idempotent-replayed" not in placed.headers


# Keys


@pytest.mark.parametrize(
    "key",
    [
        "x",
        "8e03978e-40d5-43dd-bc93-6894a57f9324",
        "x" * 255,
        "{other}:order:1",
        "}{:*?[]",
        f"{{{SHOP}}}:products",
        "a\\b",
        "a'b\"c",
        "0",
        "null",
        "%00",
        *(VISIBLE.replace('"', "")[i::2] for i in range(2)),
    ],
)
async def test_key_may_be_written_with_or_without_quotes(client: AsyncClient, key: str) -> None:
    for _ in range(2):
        await add_product(client)
    quoted = '"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"'
    first, second = await send_order(client, BODY, key), await send_order(client, BODY, quoted)
    assert (first.status_code, second.status_code) == (201, 201)
    assert second.headers["idempotent-replayed"] == "true"
    assert second.text == first.text
    assert await stock_of(client, 1) == 8


@pytest.mark.parametrize(
    "keys",
    [
        (b"",),
        (b'""',),
        (b" ",),
        (b"x" * 256,),
        (b'"' + b"x" * 256 + b'"',),
        (b"a b",),
        (b'"a b"',),
        (b"a\tb",),
        (b"a\x7f",),
        (b"\x01",),
        (b"\xe9",),
        ("\u00e9".encode(),),
        (b'"\xe9"',),
        (b'"',),
        (b'"a',),
        (b'"a"b',),
        (b'"a"b"',),
        (b'"a";p=1',),
        (b'"a", "b"',),
        (b'"a\\"',),
        (b'"a\\b"',),
        (b"a", b"a"),
        (b"a", b"b"),
        (b"a", b""),
    ],
    ids=repr,
)
async def test_invalid_key_is_refused(client: AsyncClient, redis: CommandSender, keys: tuple[bytes, ...]) -> None:
    for _ in range(2):
        await add_product(client)
    async with nothing_changes(redis):
        assert_problem(await send_order(client, BODY, *keys), 400, "invalid-idempotency-key")


@pytest.mark.parametrize("name", ["idempotency-key", "Idempotency-Key", "IDEMPOTENCY-KEY"])
async def test_header_name_is_case_insensitive(client: AsyncClient, name: str) -> None:
    await add_product(client)
    for _ in range(2):
        response = await client.post(
            "/orders", json={"products": [{"product_id": 1, "quantity": 1}]}, headers={name: string.ascii_letters}
        )
    assert response.headers["idempotent-replayed"] == "true"


class SenderLosingReads:
    """A CommandSender that can lose each script that only reads: it then raises StorageUnavailable."""

    def __init__(self, sender: CommandSender) -> None:
        self.sender = sender
        self.loses_reads = False

    def send(self, *command: bytes | str | int, safe_to_repeat: bool = False) -> Awaitable[Any]:
        if self.loses_reads and safe_to_repeat:
            raise StorageUnavailable("lost")
        return self.sender.send(*command, safe_to_repeat=safe_to_repeat)


async def test_replay_that_cannot_be_read_is_answered_with_outcome_unknown(
    redis: CommandSender,
) -> None:
    """An answer that says "nothing was done" would make the client order again, with a new key."""
    sender = SenderLosingReads(redis)
    async with http_client(make_store(sender)) as client:
        product_id = await add_product(client, stock=10)
        assert (await place(client, (product_id, 1), key="k")).status_code == 201
        stock_change = {"json": {"change": 5, "reason": "delivery"}, "headers": {"Idempotency-Key": "m"}}
        assert (await client.post(f"/products/{product_id}/stock", **stock_change)).status_code == 200  # type: ignore[arg-type]
        assert (await place(client, (product_id, 1), key="p", status="pending")).status_code == 201
        sender.loses_reads = True
        assert_problem(await place(client, (product_id, 1), key="k"), 503, "outcome-unknown")
        # The script runs, and says which order it was; this order is lost on its way.
        assert_problem(await place(client, (product_id, 1), key="p", status="pending"), 503, "outcome-unknown")
        again = await client.post(f"/products/{product_id}/stock", **stock_change)  # type: ignore[arg-type]
        assert_problem(again, 503, "outcome-unknown")
        sender.loses_reads = False
        assert (await place(client, (product_id, 1), key="k")).headers["idempotent-replayed"] == "true"
        assert await stock_of(client, product_id) == 13

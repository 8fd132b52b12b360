"""Rules about the sale of a product: a limit per customer, and the time of the sale."""

from typing import Any

import pytest
from httpx2 import AsyncClient

from service.domain.times import Milliseconds, format_timestamp
from service.storage import keys
from service.storage.sender import CommandSender
from tests.support.balance import assert_balanced
from tests.support.clock import Clock
from tests.support.problems import assert_field_errors, assert_problem
from tests.support.redis_content import events_at, hash_at, nothing_changes
from tests.support.shop import SHOP, add_product, expire_all_due, http_client, make_store, place

RULES = {
    "limit_per_customer": 2,
    "on_sale_from": "2026-11-27T09:00:00.000Z",
    "on_sale_until": "2026-11-28T09:00:00.000Z",
}


async def test_rules_are_shown_listed_and_stored_readably(client: AsyncClient, redis: CommandSender) -> None:
    product_id = await add_product(client, **{**RULES, "on_sale_from": "2026-11-27T10:00:00+01:00"})
    product = (await client.get(f"/products/{product_id}")).json()
    assert {name: product[name] for name in RULES} == RULES
    assert (await client.get("/products")).json() == [product]
    text = "limit_per_customer: 2\non_sale_from: 1795770000000\non_sale_until: 1795856400000"
    assert (await hash_at(redis, keys.product(SHOP, product_id)))["sale_rules"] == text
    [event] = await events_at(redis, keys.events(SHOP))
    assert event["sale_rules"] == text


async def test_a_product_without_rules_looks_as_before(client: AsyncClient, redis: CommandSender) -> None:
    product_id = await add_product(client, limit_per_customer=None)
    assert list((await client.get(f"/products/{product_id}")).json()) == ["id", "name", "description", "price", "stock"]
    assert "sale_rules" not in await hash_at(redis, keys.product(SHOP, product_id))


async def test_rules_are_changed_and_removed_one_by_one(client: AsyncClient, redis: CommandSender) -> None:
    product_id = await add_product(client, **RULES)
    path = f"/products/{product_id}"
    changes: list[dict[str, Any]] = [
        {"limit_per_customer": None},
        {"on_sale_from": None, "limit_per_customer": 5},
        {"on_sale_until": "2027-01-01T00:00:00Z", "price": 5},
        {"on_sale_until": None, "limit_per_customer": None},
        {"on_sale_until": None},
    ]
    expected: dict[str, Any] = dict(RULES)
    for change in changes:
        product = (await client.patch(path, json=change)).json()
        expected |= {name: value for name, value in change.items() if name != "price"}
        if expected["on_sale_until"] == "2027-01-01T00:00:00Z":
            expected["on_sale_until"] = "2027-01-01T00:00:00.000Z"
        assert {name: product.get(name) for name in RULES} == expected
        assert (await client.get(path)).json() == product
    assert "sale_rules" not in await hash_at(redis, keys.product(SHOP, product_id))
    _, *events = await events_at(redis, keys.events(SHOP))
    assert [event["sale_rules"] for event in events] == [
        "on_sale_from: 1795770000000\non_sale_until: 1795856400000",
        "limit_per_customer: 5\non_sale_until: 1795856400000",
        "limit_per_customer: 5\non_sale_until: 1798761600000",
        "",
    ]


@pytest.mark.parametrize(
    ("rules", "pointers"),
    [
        ({"limit_per_customer": 0}, ["#/limit_per_customer"]),
        ({"limit_per_customer": True}, ["#/limit_per_customer"]),
        ({"limit_per_customer": 1.5}, ["#/limit_per_customer"]),
        ({"on_sale_from": "tomorrow", "on_sale_until": 5}, ["#/on_sale_from", "#/on_sale_until"]),
        ({"on_sale_from": "2026-11-27"}, ["#/on_sale_from"]),
        ({"on_sale_from": "2026-02-30T00:00:00Z"}, ["#/on_sale_from"]),
        ({"on_sale_from": "2026-11-27T09:00:00"}, ["#/on_sale_from"]),
        ({"on_sale_from": RULES["on_sale_until"], "on_sale_until": RULES["on_sale_from"]}, ["#/on_sale_until"]),
        ({"on_sale_from": RULES["on_sale_from"], "on_sale_until": RULES["on_sale_from"]}, ["#/on_sale_until"]),
    ],
)
async def test_rules_that_make_no_sense_are_refused(
    client: AsyncClient, rules: dict[str, object], pointers: list[str]
) -> None:
    body = {"id": 7, "name": "Mug", "description": "", "price": 5, "stock": 1, **rules}
    assert_field_errors(await client.post("/products", json=body), *pointers)
    product_id = await add_product(client)
    assert_field_errors(await client.patch(f"/products/{product_id}", json=rules), *pointers)


@pytest.mark.parametrize(
    ("had", "change"),
    [
        ({"on_sale_until": RULES["on_sale_from"]}, {"on_sale_from": RULES["on_sale_until"]}),
        ({"on_sale_from": RULES["on_sale_until"]}, {"on_sale_until": RULES["on_sale_from"], "price": 5}),
        ({"on_sale_from": RULES["on_sale_until"]}, {"on_sale_until": RULES["on_sale_until"]}),
    ],
)
async def test_a_change_that_would_leave_no_time_for_the_sale_is_refused(
    client: AsyncClient, redis: CommandSender, had: dict[str, object], change: dict[str, object]
) -> None:
    product_id = await add_product(client, **had)
    async with nothing_changes(redis):
        assert_problem(await client.patch(f"/products/{product_id}", json=change), 409, "sale-time-empty")


async def test_one_customer_buys_no_more_than_the_limit_over_all_orders(
    client: AsyncClient, redis: CommandSender
) -> None:
    mugs, pots = await add_product(client, limit_per_customer=3), await add_product(client)
    assert (await place(client, (mugs, 2), (pots, 5), customer="anna")).status_code == 201
    async with nothing_changes(redis):
        response = await place(client, (pots, 1), (mugs, 1), (mugs, 1), customer="anna")
    problem = assert_problem(response, 409, "customer-limit")
    [error] = problem["errors"]
    assert error.pop("detail")
    assert error == {
        "pointer": "#/products/1/quantity",
        "product_id": mugs,
        "limit": 3,
        "already": 2,
        "requested": 2,
    }
    assert (await place(client, (mugs, 1), customer="anna", status="pending")).status_code == 201
    assert_problem(await place(client, (mugs, 1), customer="anna"), 409, "customer-limit")
    assert (await place(client, (mugs, 3), customer="ben")).status_code == 201
    await assert_balanced(redis)


async def test_an_order_of_a_limited_product_must_name_its_customer(client: AsyncClient, redis: CommandSender) -> None:
    mugs, pots = await add_product(client, limit_per_customer=3), await add_product(client)
    async with nothing_changes(redis):
        problem = assert_problem(await place(client, (pots, 1), (mugs, 1)), 422, "customer-required")
    assert [(error["pointer"], error["product_id"], error["limit"]) for error in problem["errors"]] == [
        ("#/customer", mugs, 3)
    ]
    assert (await place(client, (pots, 1))).status_code == 201


async def test_units_that_were_returned_cancelled_or_have_expired_count_back(redis: CommandSender) -> None:
    clock = Clock()
    store = make_store(redis, clock=clock)
    client, sweeper = http_client(store), make_store(redis, clock=clock)
    mugs = await add_product(client, limit_per_customer=2)

    async def count() -> str | None:
        return (await hash_at(redis, keys.customer(SHOP, "anna"))).get(str(mugs))

    pending: dict[str, Any] = {"customer": "anna", "status": "pending", "hold_seconds": 60}
    cancelled = (await place(client, (mugs, 2), **pending)).json()["id"]
    assert await count() == "2"
    await client.delete(f"/orders/{cancelled}")
    assert await count() is None
    await place(client, (mugs, 1), **pending)
    await place(client, (mugs, 1), **pending)
    clock.forward(60)
    assert_problem(await place(client, (mugs, 1), customer="anna"), 409, "customer-limit")
    await expire_all_due(sweeper)
    assert await count() is None
    sold = (await place(client, (mugs, 2), customer="anna")).json()["id"]
    body = {"products": [{"product_id": mugs, "quantity": 1}], "restock": False}
    await client.post(f"/orders/{sold}/returns", json=body)
    assert await count() == "1"
    assert (await place(client, (mugs, 1), customer="anna")).status_code == 201
    await assert_balanced(redis)


async def test_a_limit_also_counts_what_was_bought_before_it_was_set(client: AsyncClient) -> None:
    mugs = await add_product(client)
    await place(client, (mugs, 3), customer="anna")
    await client.patch(f"/products/{mugs}", json={"limit_per_customer": 4})
    [error] = assert_problem(await place(client, (mugs, 2), customer="anna"), 409, "customer-limit")["errors"]
    assert (error["limit"], error["already"]) == (4, 3)
    assert (await place(client, (mugs, 1), customer="anna")).status_code == 201


@pytest.mark.parametrize("status", ["completed", "pending"])
async def test_only_the_clock_of_redis_opens_and_closes_a_sale(redis: CommandSender, status: str) -> None:
    clock = Clock()
    client = http_client(make_store(redis, clock=clock))
    start, end = Milliseconds(clock.now + 60_000), Milliseconds(clock.now + 120_000)
    window = {"on_sale_from": format_timestamp(start), "on_sale_until": format_timestamp(end)}
    mugs, pots = await add_product(client, **window), await add_product(client)

    async def assert_closed() -> None:
        async with nothing_changes(redis):
            response = await place(client, (pots, 1), (mugs, 1), status=status)
        [error] = assert_problem(response, 409, "not-on-sale")["errors"]
        assert error.pop("detail")
        assert error == {
            "pointer": "#/products/1/product_id",
            "product_id": mugs,
            "from": window["on_sale_from"],
            "until": window["on_sale_until"],
        }

    clock.now = Milliseconds(start - 1)
    await assert_closed()
    clock.now = start
    assert (await place(client, (mugs, 1), status=status)).status_code == 201
    clock.now = Milliseconds(end - 1)
    assert (await place(client, (mugs, 1), status=status)).status_code == 201
    clock.now = end
    await assert_closed()


async def test_an_order_held_during_the_sale_can_be_completed_after_it(redis: CommandSender) -> None:
    clock = Clock()
    client = http_client(make_store(redis, clock=clock))
    mugs = await add_product(client, on_sale_until=format_timestamp(Milliseconds(clock.now + 1000)))
    order_id = (await place(client, (mugs, 1), status="pending")).json()["id"]
    clock.forward(1)
    assert_problem(await place(client, (mugs, 1)), 409, "not-on-sale")
    assert (await client.post(f"/orders/{order_id}/complete")).status_code == 200


async def test_a_refusal_lists_every_line_whatever_its_obstacle(client: AsyncClient) -> None:
    limited = await add_product(client, limit_per_customer=2)
    closed = await add_product(client, on_sale_until="1970-01-01T00:00:00Z")
    short, fine = await add_product(client, stock=1), await add_product(client)
    lines = [(fine, 1), (short, 2), (closed, 1), (limited, 3)]

    def found(problem: dict[str, Any]) -> list[tuple[int, str]]:
        kinds = {"available": "short", "until": "closed", "already": "limited"}
        return [
            (error["product_id"], next((kinds[name] for name in kinds if name in error), error["pointer"]))
            for error in problem["errors"]
        ]

    refused = [(short, "short"), (closed, "closed"), (limited, "limited")]
    problem = assert_problem(await place(client, *lines, customer="anna"), 409, "not-on-sale")
    assert found(problem) == refused
    assert str(closed) in problem["detail"]
    problem = assert_problem(await place(client, *lines[:2], lines[3], customer="anna"), 409, "customer-limit")
    assert found(problem) == [refused[0], refused[2]]
    problem = assert_problem(await place(client, *lines), 422, "customer-required")
    assert found(problem) == [*refused[:2], (limited, "#/customer")]
    problem = assert_problem(await place(client, *lines, (999, 1), customer="anna"), 404, "product-not-found")
    assert found(problem) == [*refused, (999, "#/products/4/product_id")]


async def test_such_a_refusal_is_final_for_its_key(redis: CommandSender) -> None:
    clock = Clock()
    client = http_client(make_store(redis, clock=clock))
    mugs = await add_product(client, on_sale_from=format_timestamp(Milliseconds(clock.now + 1000)))
    first = await place(client, (mugs, 1), key="k")
    clock.forward(1)
    again = await place(client, (mugs, 1), key="k")
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json()["errors"] == first.json()["errors"]
    assert (await place(client, (mugs, 1), key="k-2")).status_code == 201

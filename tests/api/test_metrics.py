"""GET /metrics: what is counted for each kind of request, and what is said of the engine."""

import asyncio
import importlib.metadata
import re

import pytest
from httpx2 import AsyncClient
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from service.api.exposition import RedisState, ShopState, exposition
from service.api.routes import CALLS
from service.app import new_metrics
from service.domain.errors.catalog import all_problems
from service.domain.times import Milliseconds
from service.metrics.families import STATUSES
from service.storage.connection import MultiplexedConnection
from service.storage.engine_status import EngineStatus, EngineStatusReader, SlowestWrites
from service.storage.products import Products
from service.storage.sender import CommandSender
from service.storage.store import Store
from tests.support.clock import Clock
from tests.support.network import LONG_TIMEOUT, Network
from tests.support.shop import add_product, expire_all_due, http_client, make_store, place


async def scrape(client: AsyncClient) -> dict[str, float]:
    """Return each number by its name with its labels: `holdfast_orders_total{result=placed}`."""
    response = await client.get("/metrics")
    assert response.status_code == 200
    return read(response.text)


def read(text: str) -> dict[str, float]:
    return {
        f"{sample.name}{{{','.join(f'{name}={value}' for name, value in sorted(sample.labels.items()))}}}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def results(found: dict[str, float]) -> dict[str, float]:
    """Return the results of orders that have occurred."""
    pattern = re.compile(r"holdfast_orders_(?:total\{result|refused_total\{reason)=([a-z-]+)}")
    return {match[1]: value for name, value in found.items() if value and (match := pattern.fullmatch(name))}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(redis: CommandSender, clock: Clock) -> Store:
    return make_store(redis, clock=clock)


async def test_each_result_of_an_order_is_counted_once_with_units_and_revenue(
    client: AsyncClient, store: Store, clock: Clock
) -> None:
    await add_product(client, id=1, stock=100)
    placed = (await place(client, (1, 2), key="a")).json()["id"]
    await place(client, (1, 2), key="a")
    pending = [(await place(client, (1, quantity), status="pending")).json()["id"] for quantity in (3, 4, 5, 6)]
    for _ in range(2):
        assert (await client.post(f"/orders/{pending[0]}/complete")).status_code == 200
        assert (await client.delete(f"/orders/{pending[1]}")).status_code == 204
    for _ in range(2):
        back = {"products": [{"product_id": 1, "quantity": 1}]}
        headers = {"Idempotency-Key": "back"}
        assert (await client.post(f"/orders/{placed}/returns", json=back, headers=headers)).status_code == 201
    clock.forward(1000)
    assert (
        await client.delete(f"/orders/{pending[2]}")
    ).status_code == 410  # the cancellation finds that it has expired
    await expire_all_due(store)
    found = await scrape(client)
    assert results(found) == {
        "placed": 1,
        "replayed": 1,
        "pending": 4,
        "completed": 1,
        "cancelled": 1,
        "expired": 2,
        "returned": 1,
    }
    units = {
        name: found[f"holdfast_order_units_total{{result={name}}}"] for name in ("placed", "completed", "cancelled")
    }
    assert units == {"placed": 2, "completed": 3, "cancelled": 4}
    assert found["holdfast_order_units_total{result=expired}"] == 5 + 6
    assert found["holdfast_order_units_total{result=returned}"] == 1
    assert found["holdfast_order_revenue_total{result=placed}"] == 39.98
    assert found["holdfast_order_revenue_total{result=completed}"] == 59.97
    assert found["holdfast_order_revenue_total{result=returned}"] == 19.99


async def test_refused_orders_are_counted_by_reason_and_a_repeated_refusal_as_replayed(client: AsyncClient) -> None:
    await add_product(client, id=1, stock=1)
    await place(client, (1, 5), key="a")
    await place(client, (1, 5), key="a")
    await place(client, (1, 6), key="a")
    await place(client, (2, 1))
    await place(client, (1, 1), total_price=1)
    found = await scrape(client)
    assert results(found) == {
        "insufficient-stock": 1,
        "replayed": 1,
        "idempotency-key-reused": 1,
        "product-not-found": 1,
        "price-changed": 1,
    }


async def test_requests_are_counted_by_route_and_status_with_their_durations(client: AsyncClient) -> None:
    await add_product(client, id=1)
    for path in ("/products/1", "/products/1/", "/products/77", "/nowhere", "/orders/x/complete"):
        await client.get(path)
    await client.post("/orders", content=b"{")
    found = await scrape(client)
    requests = {
        name: value for name, value in found.items() if name.startswith("holdfast_http_requests_total") and value
    }
    assert requests == {
        "holdfast_http_requests_total{method=POST,route=/products,status=201}": 1,
        "holdfast_http_requests_total{method=GET,route=/products/{id},status=200}": 2,
        "holdfast_http_requests_total{method=GET,route=/products/{id},status=404}": 1,
        "holdfast_http_requests_total{method=,route=,status=404}": 1,
        "holdfast_http_requests_total{method=,route=,status=405}": 1,
        "holdfast_http_requests_total{method=POST,route=/orders,status=415}": 1,
    }
    assert found["holdfast_http_requests_total{method=POST,route=/orders,status=503}"] == 0
    duration = "holdfast_http_request_duration_seconds"
    assert found[f"{duration}_count{{method=GET,route=/products/{{id}}}}"] == 3
    assert found[f"{duration}_bucket{{le=+Inf,method=GET,route=/products/{{id}}}}"] == 3
    assert 0 < found[f"{duration}_sum{{method=GET,route=/products/{{id}}}}"] < 10


def test_every_status_of_the_api_is_counted_as_itself() -> None:
    assert {problem.status for problem in all_problems()} | {call.answer.status for call in CALLS} <= set(STATUSES)


async def test_a_request_from_another_site_is_counted_as_403(client: AsyncClient) -> None:
    response = await client.post("/orders", json={}, headers={"Sec-Fetch-Site": "cross-site"})
    assert response.status_code == 403
    found = await scrape(client)
    assert found["holdfast_http_requests_total{method=POST,route=/orders,status=403}"] == 1


async def test_errors_are_counted_by_the_name_of_their_problem(client: AsyncClient) -> None:
    await add_product(client, id=1, stock=5)
    await client.get("/products/77")
    await client.get("/nowhere")
    await client.get("/elsewhere")
    for quantity in (6, 7, 1):
        await place(client, (1, quantity))
    found = await scrape(client)
    problems = {name: value for name, value in found.items() if name.startswith("holdfast_http_problems") and value}
    assert problems == {
        "holdfast_http_problems_total{problem=product-not-found}": 1,
        "holdfast_http_problems_total{problem=not-found}": 2,
        "holdfast_http_problems_total{problem=insufficient-stock}": 2,
    }
    assert found["holdfast_http_problems_total{problem=outcome-unknown}"] == 0


async def test_a_bug_is_counted_as_an_internal_error(client: AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Products, "get", lambda *_: 1 / 0)
    assert (await client.get("/products/1")).status_code == 500
    found = await scrape(client)
    assert found["holdfast_http_problems_total{problem=internal-error}"] == 1
    assert found["holdfast_http_requests_total{method=GET,route=/products/{id},status=500}"] == 1


async def test_head_is_counted_as_get(client: AsyncClient) -> None:
    assert (await client.head("/livez")).status_code == 200
    assert (await scrape(client))["holdfast_http_requests_total{method=GET,route=/livez,status=200}"] == 1


async def test_the_shop_and_its_holds_are_shown(client: AsyncClient, store: Store, clock: Clock) -> None:
    await add_product(client, id=1)
    await place(client, (1, 1), status="pending", hold_seconds=10)
    await place(client, (1, 1), status="pending", hold_seconds=20)
    found = await scrape(client)
    assert (found["holdfast_redis_up{}"], found["holdfast_ready{}"], found["holdfast_workers{}"]) == (1, 1, 1)
    assert (found["holdfast_products_on_sale{}"], found["holdfast_holds{}"]) == (1, 2)
    assert (found["holdfast_events{}"], found["holdfast_events_max{}"]) == (3, 1_000_000)
    assert found[f"holdfast_build_info{{version={importlib.metadata.version('holdfast')}}}"] == 1
    assert found["holdfast_hold_oldest_overdue_seconds{}"] == 0
    clock.forward(13)
    assert (await scrape(client))["holdfast_hold_oldest_overdue_seconds{}"] == 3
    await expire_all_due(store)
    found = await scrape(client)
    assert found["holdfast_holds{}"] == 1
    assert found["holdfast_sweeps_total{}"] >= 1


async def test_the_lag_of_each_consumer_group_is_shown(
    client: AsyncClient, store: Store, clock: Clock, redis: CommandSender
) -> None:
    await add_product(client, id=1)
    await redis.send("XGROUP", "CREATE", "{test}:events", "shipping", "0")
    await add_product(client, id=2)
    [[event_id, _]] = await redis.send("XRANGE", "{test}:events", "-", "+", "COUNT", 1)
    clock.now = Milliseconds(int(event_id.partition("-")[0]) + 90_000)
    found = await scrape(client)
    assert found["holdfast_event_group_pending{group=shipping}"] == 0
    assert found["holdfast_event_group_oldest_unread_seconds{group=shipping}"] == 90
    await redis.send("XREADGROUP", "GROUP", "shipping", "worker", "COUNT", 1, "STREAMS", "{test}:events", ">")
    assert (await scrape(client))["holdfast_event_group_pending{group=shipping}"] == 1
    await redis.send("XREADGROUP", "GROUP", "shipping", "worker", "COUNT", 9, "STREAMS", "{test}:events", ">")
    assert (await scrape(client))["holdfast_event_group_oldest_unread_seconds{group=shipping}"] == 0


@pytest.mark.parametrize("redis", ["engine"], indirect=True)
async def test_the_engine_is_shown(client: AsyncClient, redis: CommandSender) -> None:
    await add_product(client, id=1)
    await redis.send("XGROUP", "CREATE", "{test}:events", "shipping", "0")
    info = str(await redis.send("INFO", "everything")) + str(await redis.send("INFO", "debug"))
    found = await scrape(client)
    assert found["holdfast_event_group_lag{group=shipping}"] == 1
    for name in (
        "memory_bytes",
        "memory_rss_bytes",
        "clients",
        "commands_total",
        "memory_system_bytes",
    ):
        assert found[f"holdfast_engine_{name}{{}}"] > 0
    assert found["holdfast_engine_aof_write_ok{}"] == 1
    assert found["holdfast_engine_aof_enabled{}"] == int("aof_enabled:1" in info)
    # Redis 7.0 does not measure these.
    for name, field in (
        ("aof_seconds_total", "eventloop_duration_aof_sum"),
        ("busy_seconds_total", "eventloop_duration_sum"),
        ("event_loops_total", "eventloop_cycles"),
    ):
        assert (f"holdfast_engine_{name}{{}}" in found) == (f"{field}:" in info)
    [info] = [name for name in found if name.startswith("holdfast_engine_info")]
    assert re.fullmatch(r"holdfast_engine_info\{engine=(valkey|redis),version=[0-9.]+}", info)


def test_slow_writes_of_the_file_are_shown_with_their_time() -> None:
    slow = {"aof-fsync-always": SlowestWrites(last=0.2, last_at=1_800_000_000, slowest=1.5)}
    status = EngineStatus({}, None, None, None, None, 9, [], slow)
    text, _ = exposition(new_metrics(), {"shop": ShopState([RedisState(True, True, status)])}, "", False)
    found = read(text.decode())
    assert found["holdfast_engine_slowest_write_seconds{kind=aof-fsync-always}"] == 1.5
    assert found["holdfast_engine_last_slow_write_seconds{kind=aof-fsync-always}"] == 0.2
    assert found["holdfast_engine_last_slow_write_timestamp_seconds{kind=aof-fsync-always}"] == 1_800_000_000
    assert "holdfast_engine_memory_bytes{}" not in found  # the user of Redis may not run INFO


async def test_a_prometheus_that_asks_for_openmetrics_gets_it(client: AsyncClient) -> None:
    response = await client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    families = parse_openmetrics(response.text)  # type: ignore[no-untyped-call]
    assert {family.name for family in families} >= {"holdfast_orders", "holdfast_redis_up"}


async def test_without_redis_the_service_still_shows_what_it_has_counted() -> None:
    metrics = new_metrics()
    async with (
        MultiplexedConnection("unix:///nowhere.sock", timeout=0.05, max_in_flight=9, metrics=metrics) as nowhere,
        http_client(make_store(nowhere, metrics=metrics)) as client,
    ):
        assert (await place(client, (1, 1))).status_code == 503
        found = await scrape(client)
    assert found["holdfast_redis_up{}"] == 0
    assert found["holdfast_ready{}"] == 0
    assert found["holdfast_http_requests_total{method=POST,route=/orders,status=503}"] == 1
    assert found["holdfast_http_problems_total{problem=storage-unavailable}"] == 1
    assert "holdfast_holds{}" not in found


@pytest.mark.parametrize("redis", ["engine"], indirect=True)
async def test_a_redis_that_takes_no_writes_is_up_but_the_service_is_not_ready(
    client: AsyncClient, redis: CommandSender
) -> None:
    assert (await scrape(client))["holdfast_ready{}"] == 1
    await redis.send("CONFIG", "SET", "maxmemory", "1mb")
    try:
        found = await scrape(client)
    finally:
        await redis.send("CONFIG", "SET", "maxmemory", "0")
    assert (found["holdfast_redis_up{}"], found["holdfast_ready{}"]) == (1, 0)
    assert found["holdfast_engine_memory_bytes{}"] > found["holdfast_engine_memory_max_bytes{}"] > 0


async def test_a_worker_without_room_for_a_command_does_not_say_that_redis_is_down(engine_url: str) -> None:
    metrics = new_metrics()
    async with (
        MultiplexedConnection(engine_url, timeout=LONG_TIMEOUT, max_in_flight=1, metrics=metrics) as connection,
        http_client(make_store(connection, metrics=metrics)) as client,
    ):
        found = await scrape(client)
    assert (found["holdfast_redis_up{}"], found["holdfast_ready{}"]) == (1, 0)
    assert "holdfast_holds{}" not in found


async def test_a_redis_that_hangs_does_not_make_the_scrape_hang(
    client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.api.metrics.MAX_REDIS_SECONDS", 0.01)
    monkeypatch.setattr(EngineStatusReader, "read", lambda _: asyncio.sleep(60))
    found = await scrape(client)
    assert (found["holdfast_redis_up{}"], found["holdfast_ready{}"]) == (0, 0)


async def test_connections_and_round_trips_of_redis_are_counted(engine_url: str) -> None:
    metrics = new_metrics()
    async with (
        Network(engine_url) as network,
        MultiplexedConnection(network.url, timeout=LONG_TIMEOUT, max_in_flight=99, metrics=metrics) as connection,
        http_client(make_store(connection, metrics=metrics)) as client,
    ):
        before = await scrape(client)
        network.cut()
        await client.get("/products")
        found = await scrape(client)
    assert before["holdfast_redis_connections_total{}"] == 1
    assert before["holdfast_redis_connections_lost_total{}"] == 0
    assert found["holdfast_redis_connections_total{}"] == 2
    assert found["holdfast_redis_connections_lost_total{}"] == 1
    commands = found["holdfast_redis_round_trip_seconds_count{}"]
    assert commands > before["holdfast_redis_round_trip_seconds_count{}"]
    assert 0 < found["holdfast_redis_round_trip_seconds_sum{}"] < commands * LONG_TIMEOUT

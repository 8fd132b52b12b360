"""Several shops in one service: the paths below /shops/{shop}, their links, their keys, and what is about all."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from httpx2 import AsyncClient
from structlog.testing import capture_logs

from service.app import create_app, new_metrics
from service.domain.api_key import SCOPES, ApiKey, digest_of
from service.metrics.families import STREAMS, SWEEPER_LAG
from service.settings import Settings
from service.storage import keys
from tests.support.documented import DocumentedTransport
from tests.support.engines import TestConnection
from tests.support.shop import add_product, mug, place

BERLIN, PARIS = "/shops/berlin", "/shops/paris"


@asynccontextmanager
async def serving(url: str, **changes: Any) -> AsyncIterator[AsyncClient]:
    """Run the application with its lifespan, as a server does."""
    defaults: dict[str, Any] = {"redis_url": url, "durability": "none", "shops": ("berlin", "paris")}
    settings = replace(Settings(), **{**defaults, **changes})
    app = create_app(settings)
    state: dict[str, Any] = {}
    received: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    started, stopped = asyncio.Event(), asyncio.Event()

    async def send(message: Any) -> None:
        assert message["type"].endswith("complete"), message
        (stopped if "shutdown" in message["type"] else started).set()

    async def live() -> None:
        await app({"type": "lifespan", "state": state}, received.get, send)

    lifespan: asyncio.Task[None] = asyncio.create_task(live())
    await received.put({"type": "lifespan.startup"})
    await started.wait()

    async def with_state(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "state": dict(state)}, receive, send)

    try:
        async with AsyncClient(transport=DocumentedTransport(with_state), base_url="http://holdfast") as client:
            yield client
    finally:
        await received.put({"type": "lifespan.shutdown"})
        await stopped.wait()
        await lifespan


@pytest.fixture
async def client(engine: TestConnection, engine_url: str) -> AsyncIterator[AsyncClient]:
    async with serving(engine_url) as client:
        yield client


async def test_each_shop_has_its_own_products_orders_and_keys(client: AsyncClient, engine: TestConnection) -> None:
    for shop, stock in ((BERLIN, 5), (PARIS, 7)):
        added = await client.post(f"{shop}/products", json=mug(id=1, stock=stock))
        assert (added.status_code, added.headers["location"]) == (201, f"{shop}/products/1")
    body = {"products": [{"product_id": 1, "quantity": 2}]}
    first = await client.post(f"{BERLIN}/orders", json=body, headers={"Idempotency-Key": "k"})
    other = await client.post(f"{PARIS}/orders", json=body, headers={"Idempotency-Key": "k"})
    assert (first.status_code, other.status_code) == (201, 201)
    assert "idempotent-replayed" not in other.headers
    assert [(await client.get(f"{shop}/products/1")).json()["stock"] for shop in (BERLIN, PARIS)] == [3, 5]
    assert await engine.send("HGET", keys.product("berlin", 1), "stock") == "3"
    assert await engine.send("HGET", keys.product("paris", 1), "stock") == "5"
    refused = await client.get(f"{PARIS}/orders/999")
    assert (refused.status_code, refused.json()["type"]) == (404, f"{PARIS}/problems/order-not-found")
    assert (await client.get(refused.json()["type"])).status_code == 200


async def test_links_lead_to_the_same_shop(client: AsyncClient) -> None:
    for _ in range(3):
        await client.post(f"{BERLIN}/products", json=mug())
    page = await client.get(f"{BERLIN}/products?limit=2")
    assert page.headers["link"] == f'<{BERLIN}/products?limit=2&after=2>; rel="next"'
    assert (await client.get(f"{BERLIN}/openapi.json")).json()["servers"] == [{"url": BERLIN}]
    everything = (await client.get("/openapi.json")).json()
    assert everything["servers"] == [{"url": BERLIN}, {"url": PARIS}]
    assert everything["paths"]["/metrics"]["servers"] == [{"url": "/"}]
    assert (await client.get(BERLIN)).headers["location"] == f"{BERLIN}/docs"
    assert (await client.get(f"{BERLIN}/products/")).json() == (await client.get(f"{BERLIN}/products")).json()


@pytest.mark.parametrize(
    "path",
    [
        *("/orders", "/products/1", "/events", "/board", "/shops", "/shops/rome/orders", "/shops/berlin2/orders"),
        *("/shops//orders", "/shops/ber%6Cin%2Forders", f"{BERLIN}/metrics", f"{BERLIN}/livez", "/nowhere"),
    ],
)
async def test_a_path_without_a_shop_of_this_service_is_refused_with_what_to_write(
    client: AsyncClient, path: str
) -> None:
    response = await client.get(path)
    if path == "/shops/ber%6Cin%2Forders":  # the same path in another spelling
        assert response.status_code == 200
        return
    assert (response.status_code, response.json()["type"]) == (404, "/problems/shop-not-found")
    expected = "remove /shops/" if path.startswith(f"{BERLIN}/") else "/shops/NAME/orders"
    assert expected in response.json()["detail"]


async def test_the_paths_of_one_shop_stay_if_it_is_one_of_several(engine: TestConnection, engine_url: str) -> None:
    async with serving(engine_url, shop="paris") as client:
        product = await add_product(client, stock=3)
        assert (await place(client, (product, 1))).headers["location"] == "/orders/1"
        assert (await client.get(f"{PARIS}/orders/1")).status_code == 200
        assert (await client.get(f"{BERLIN}/orders/1")).status_code == 404
        assert set((await client.get("/readyz")).json()["shops"]) == {"berlin", "paris"}
        assert (await client.get(f"{PARIS}/readyz")).json() == {"status": "ready"}


async def test_a_service_is_ready_while_one_of_its_shops_is(client: AsyncClient, engine: TestConnection) -> None:
    await client.post(f"{BERLIN}/products", json=mug())
    await engine.send("HSET", keys.meta("paris"), "layout", 999)
    ready = await client.get("/readyz")
    assert (ready.status_code, ready.json()["shops"]) == (200, {"berlin": "ready", "paris": "not ready"})
    assert (await client.get(f"{PARIS}/readyz")).status_code == 503
    assert (await client.get(f"{PARIS}/products")).status_code == 503
    assert (await client.get(f"{BERLIN}/products")).status_code == 200
    await engine.send("HSET", keys.meta("berlin"), "layout", 999)
    assert (await client.get("/readyz")).status_code == 503


async def test_metrics_of_several_shops_have_their_names(client: AsyncClient) -> None:
    await client.post(f"{BERLIN}/products", json=mug())
    text = (await client.get("/metrics")).text
    assert 'holdfast_products_on_sale{shop="berlin"} 1.0' in text
    assert 'holdfast_products_on_sale{shop="paris"} 0.0' in text
    assert 'holdfast_ready{shop="paris"} 1.0' in text
    assert text.count("# HELP holdfast_ready ") == 1
    assert 'route="/products"' in text


async def test_the_events_of_a_shop_are_its_own(client: AsyncClient, engine: TestConnection) -> None:
    for shop in (BERLIN, PARIS, PARIS):
        await client.post(f"{shop}/products", json=mug())
    assert await engine.send("XLEN", keys.events("berlin")) == 1
    assert await engine.send("XLEN", keys.events("paris")) == 2


async def test_a_log_line_names_the_shop(engine: TestConnection, engine_url: str) -> None:
    with capture_logs() as logs:
        async with serving(engine_url, access_log=True) as client:
            await client.get(f"{BERLIN}/products")
            await client.get("/livez")
    requests = [entry for entry in logs if entry["event"] == "request"]
    assert [(entry["path"], entry.get("shop")) for entry in requests] == [
        *((f"{BERLIN}/products", "berlin"), ("/livez", None))
    ]


def key_line(name: str, shops: frozenset[str] | None) -> str:
    return ApiKey(name, digest_of(name.encode()), frozenset(SCOPES), shops=shops).line()


async def test_a_key_is_good_for_its_shops_only(engine: TestConnection, engine_url: str) -> None:
    lines = ";".join([key_line("all", None), key_line("one", frozenset({"paris"}))])
    async with serving(engine_url, api_keys=lines) as client:

        async def get(path: str, key: str) -> tuple[int, str, list[str]]:
            response = await client.get(path, headers={"Authorization": f"Bearer {key}"})
            body = response.json() if "json" in response.headers["content-type"] else {}
            return response.status_code, body.get("type", ""), body.get("shops", [])

        for path in (f"{BERLIN}/orders/1", f"{PARIS}/orders/1"):
            assert (await get(path, "all"))[0] == 404
        assert (await get(f"{PARIS}/orders/1", "one"))[0] == 404
        assert await get(f"{BERLIN}/orders/1", "one") == (403, f"{BERLIN}/problems/missing-shop", ["paris"])
        assert await get("/metrics", "one") == (403, "/problems/missing-shop", ["paris"])
        assert (await get("/metrics", "all"))[0] == 200
        assert (await get("/livez", "one"))[0] == 200


async def test_a_key_for_one_shop_does_not_read_the_metrics_of_all(engine: TestConnection, engine_url: str) -> None:
    async with serving(engine_url, shop="paris", api_keys=key_line("one", frozenset({"paris"}))) as client:
        headers = {"Authorization": "Bearer one"}
        assert (await client.get("/products", headers=headers)).status_code == 200
        assert (await client.get("/metrics", headers=headers)).status_code == 403


async def test_what_each_shop_contributes_to_a_gauge_is_combined() -> None:
    metrics = new_metrics()
    for shop, streams, lag in (("berlin", 3, 2.5), ("paris", 1, 0.0)):
        metrics.set_part(STREAMS, shop, streams)
        metrics.set_part(SWEEPER_LAG, shop, lag, combine=max)
    metrics.publish()
    found = {family.name: next(iter(numbers.values()), [0]) for family, numbers in metrics.read()}
    assert (found[STREAMS.name], found[SWEEPER_LAG.name]) == ([4], [2.5])


async def test_a_key_for_other_shops_is_refused_by_a_service_with_one(engine: TestConnection, engine_url: str) -> None:
    lines = ";".join([key_line("paris", frozenset({"paris"})), key_line("mine", frozenset({"shop"}))])
    async with serving(engine_url, api_keys=lines, shops=None) as client:
        for key, status in (("paris", 403), ("mine", 200)):
            response = await client.get("/products", headers={"Authorization": f"Bearer {key}"})
            assert response.status_code == status, json.dumps(response.json())

"""A shop for a test: its Store, the application over HTTP, and the calls that most tests make."""

import json
from decimal import Decimal
from typing import Any

from httpx2 import AsyncClient, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.coalescing import RequestCoalescer
from service.api.event_feed import EventFeed
from service.api.refused_orders import RefusalLog
from service.api.request import State
from service.app import create_app, new_metrics
from service.domain.requests import NewOrder, NewProduct
from service.settings import Settings
from service.storage.connection import MultiplexedConnection
from service.storage.partitioned import AnyStore
from service.storage.sender import CommandSender
from service.storage.store import Store
from tests.support.documented import DocumentedTransport

SHOP = "test"


def make_store(sender: CommandSender, **options: Any) -> Store:
    """Return a Store of the shop SHOP. `options` replace the defaults of the tests.

    On a real engine, it has only the rights that Holdfast needs.
    """
    of_holdfast: CommandSender = getattr(sender, "of_holdfast", sender)
    defaults = {"shop": SHOP, "durability": "none", "events_max": 1_000_000, "metrics": new_metrics()}
    if isinstance(of_holdfast, MultiplexedConnection):
        defaults["tracked"] = lambda: of_holdfast.tracked
    return Store(of_holdfast, **{**defaults, **options})


def http_client(store: AnyStore, list_pages: RequestCoalescer[Any] | None = None) -> AsyncClient:
    """Return a client that calls the application in this process."""
    return AsyncClient(transport=DocumentedTransport(with_state(store, list_pages)), base_url="http://holdfast")


def with_state(store: AnyStore, list_pages: RequestCoalescer[Any] | None = None, app: ASGIApp | None = None) -> ASGIApp:
    """Return the application with the state that the lifespan of a server puts into every request."""
    called = app or create_app(Settings(), store.metrics)
    state: State = {
        "store": store,
        "stores": {SHOP: store},
        "list_pages": list_pages or RequestCoalescer(),
        "metrics": store.metrics,
        "event_feed": EventFeed(store, store.metrics, poll_seconds=0.01, heartbeat_seconds=0.2),
        "refusal_log": RefusalLog(),
    }

    async def app_with_state(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"] = dict(state)
        await called(scope, receive, send)

    return app_with_state


# Requests


def mug(**fields: object) -> dict[str, object]:
    """Return the body of POST /products: ten mugs at 19.99, with these fields added or replaced.

    All products of the tests are made from it, so a new required field is added in one place.
    """
    return {"name": "Mug", "description": "Holds coffee.", "price": 19.99, "stock": 10, **fields}


def new_mug(**fields: object) -> NewProduct:
    """Return `mug(**fields)` as a request for the Store. The price is an amount as in JSON, not in cents."""
    body = mug(**fields)
    return NewProduct.model_validate({**body, "price": Decimal(str(body["price"]))})


def new_order(*lines: tuple[int, int], **fields: object) -> NewOrder:
    """Return an order of `(product id, quantity)` lines as a request for the Store."""
    return NewOrder.model_validate({"products": _order_lines(lines), **fields})


def _order_lines(lines: tuple[tuple[int, int], ...]) -> list[dict[str, int]]:
    return [{"product_id": product_id, "quantity": quantity} for product_id, quantity in lines]


# Through the Store


async def add_mugs(store: AnyStore, stock: int = 10_000, **fields: object) -> int:
    """Add mugs and return their id."""
    return (await store.products.add(new_mug(stock=stock, **fields))).id


async def expire_all_due(store: Store, batch: int = 100) -> float:
    """Expire overdue orders until none is left. Return the seconds until the next deadline."""
    for _ in range(1000):
        if (due_in := await store.expired_holds.expire_due(batch)) > 0:
            return due_in
    raise AssertionError("after a thousand calls there is still an overdue order")


# Over HTTP


async def add_product(client: AsyncClient, **fields: object) -> int:
    """Add `mug(**fields)` and return its id."""
    response = await client.post("/products", json=mug(**fields))
    assert response.status_code == 201, response.text
    return int(response.json()["id"])


async def place(client: AsyncClient, *lines: tuple[int, int], key: str | None = None, **fields: object) -> Response:
    """Order `(product id, quantity)` lines and return the response."""
    headers = {} if key is None else {"Idempotency-Key": key}
    return await client.post("/orders", json={"products": _order_lines(lines), **fields}, headers=headers)


async def send_json(client: AsyncClient, method: str, path: str, body: str | bytes) -> Response:
    """Send exactly these bytes as JSON."""
    return await client.request(method, path, content=body, headers={"Content-Type": "application/json"})


def json_with(body: dict[str, object], token: str) -> str:
    """Return the body as JSON, with the text `token` where the body has the value "?"."""
    return json.dumps(body).replace('"?"', token)


async def pages(client: AsyncClient, path: str) -> list[list[int]]:
    """Return the ids on each page, from `path` along the links to the last page."""
    found = []
    while path:
        response = await client.get(path)
        assert response.status_code == 200, response.text
        found.append([item["id"] for item in response.json()])
        path = response.links.get("next", {}).get("url", "")
    return found


async def stock_of(client: AsyncClient, product_id: int) -> int:
    """Return the units in stock."""
    response = await client.get(f"/products/{product_id}")
    return int(response.json()["stock"])

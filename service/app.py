"""create_app(): the routes, and the only place where the parts are put together."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from starlette.routing import Route, Router
from starlette.types import ASGIApp, Lifespan, Receive, Scope, Send

from service import health, orders, products
from service.http import Endpoint, State
from service.problems import explain_problem
from service.settings import Settings
from service.sharing import SharedReads
from service.store import Store
from service.sweeper import sweep
from service.telemetry import Telemetry
from service.wire import Wire

ROUTES = [  # of those with a parameter the router takes the first that fits: the busiest come first
    Route("/orders", Endpoint(orders.place_order), methods=["POST"]),
    Route("/products", Endpoint(products.list_products, reads_query=True), methods=["GET"]),
    Route("/products", Endpoint(products.add_product), methods=["POST"]),
    Route("/products/{id}", Endpoint(products.get_product), methods=["GET"]),
    Route("/products/{id}", Endpoint(products.change_product), methods=["PATCH"]),
    Route("/products/{id}", Endpoint(products.withdraw_product), methods=["DELETE"]),
    Route("/products/{id}/stock", Endpoint(products.move_stock), methods=["POST"]),
    Route("/orders", Endpoint(orders.list_orders, reads_query=True), methods=["GET"]),
    Route("/orders/{id}", Endpoint(orders.get_order), methods=["GET"]),
    Route("/orders/{id}", Endpoint(orders.cancel_order), methods=["DELETE"]),
    Route("/orders/{id}/complete", Endpoint(orders.complete_order), methods=["POST"]),
    Route("/livez", Endpoint(health.livez, reads_query=True), methods=["GET"]),
    Route("/readyz", Endpoint(health.readyz, reads_query=True), methods=["GET"]),
    Route("/problems/{name}", Endpoint(explain_problem, reads_query=True), methods=["GET"]),
]


def create_app(settings: Settings) -> ASGIApp:
    """The ASGI application. Its lifespan opens the connection to Redis and runs the sweeper."""

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[State]:
        async with open_store(settings) as store:
            sweeper = asyncio.create_task(sweep(store), name="sweeper")
            yield {"store": store, "pages": SharedReads()}
            sweeper.cancel()

    return Telemetry(QuickRouter(ROUTES, lifespan), access_log=settings.access_log)


class QuickRouter(Router):
    """Starlette's router, which tries its routes one by one, with a table of the paths without parameters."""

    def __init__(self, routes: Sequence[Route], lifespan: Lifespan[Any]) -> None:
        # Two slashes at the end are no path of ours; one is taken off by Telemetry.
        super().__init__(routes, redirect_slashes=False, lifespan=lifespan)
        plain = [route for route in routes if not route.param_convertors]
        self._plain = {(method, route.path): route.app for route in plain for method in route.methods or ()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._plain.get((scope.get("method", ""), scope.get("path", "")), super().__call__)
        await app(scope, receive, send)


@asynccontextmanager
async def open_store(settings: Settings) -> AsyncIterator[Store]:
    """A Store over a connection of its own. The settings must have a redis_url."""
    assert settings.redis_url is not None
    async with Wire(settings.redis_url, timeout=settings.redis_timeout, max_in_flight=settings.max_in_flight) as wire:
        yield Store(wire, shop=settings.shop, durability=settings.durability, events_max=settings.events_max)

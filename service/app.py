"""create_app(): the routes, and the only place where the parts are put together."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Route

from service import health, orders, products
from service.errors import HoldfastError
from service.http import State
from service.problems import answer_holdfast_error, answer_http_exception, explain_problem
from service.settings import Settings
from service.sharing import SharedReads
from service.store import Store
from service.sweeper import sweep
from service.telemetry import Telemetry
from service.wire import Wire

ROUTES = [
    Route("/products", products.list_products, methods=["GET"]),
    Route("/products", products.add_product, methods=["POST"]),
    Route("/products/{id}", products.get_product, methods=["GET"]),
    Route("/products/{id}", products.change_product, methods=["PATCH"]),
    Route("/products/{id}", products.withdraw_product, methods=["DELETE"]),
    Route("/products/{id}/stock", products.move_stock, methods=["POST"]),
    Route("/orders", orders.place_order, methods=["POST"]),
    Route("/orders", orders.list_orders, methods=["GET"]),
    Route("/orders/{id}", orders.get_order, methods=["GET"]),
    Route("/orders/{id}", orders.cancel_order, methods=["DELETE"]),
    Route("/orders/{id}/complete", orders.complete_order, methods=["POST"]),
    Route("/livez", health.livez, methods=["GET"]),
    Route("/readyz", health.readyz, methods=["GET"]),
    Route("/problems/{name}", explain_problem, methods=["GET"]),
]


def create_app(settings: Settings) -> Starlette:
    """The ASGI application. Its lifespan opens the connection to Redis and runs the sweeper."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[State]:
        async with open_store(settings) as store:
            sweeper = asyncio.create_task(sweep(store), name="sweeper")
            yield {"store": store, "pages": SharedReads()}
            sweeper.cancel()

    app = Starlette(
        routes=ROUTES,
        middleware=[Middleware(Telemetry, access_log=settings.access_log)],
        exception_handlers={HoldfastError: answer_holdfast_error, HTTPException: answer_http_exception},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # Telemetry takes one slash off; two are no path of ours
    return app


@asynccontextmanager
async def open_store(settings: Settings) -> AsyncIterator[Store]:
    """A Store over a connection of its own. The settings must have a redis_url."""
    assert settings.redis_url is not None
    async with Wire(settings.redis_url, timeout=settings.redis_timeout, max_in_flight=settings.max_in_flight) as wire:
        yield Store(wire, shop=settings.shop, durability=settings.durability, events_max=settings.events_max)

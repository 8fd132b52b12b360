"""Two applications to compare with, run by uvicorn from their names: see servers.py."""

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any, Final

from redis.asyncio import BlockingConnectionPool, Redis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from bench.data import product_json
from service.api.coalescing import RequestCoalescer
from service.api.middleware import RequestMiddleware
from service.api.request import State
from service.api.router import CallRouter
from service.api.routes import CALLS
from service.domain.requests import NewOrder
from service.server.gc_tuning import tune_gc
from service.settings import read_settings
from service.storage.store import Store

POOL_SIZE: Final = 64


class PoolLink:
    """redis-py as it is used everywhere: each command takes a connection and waits for its own reply."""

    def __init__(self, url: str) -> None:
        pool = BlockingConnectionPool.from_url(
            url, max_connections=POOL_SIZE, timeout=60, protocol=2, decode_responses=True
        )
        self.client = Redis(connection_pool=pool)
        self.client.response_callbacks.clear()  # the Store reads replies as Redis sends them

    def send(self, *command: bytes | str | int, idempotent: bool = False) -> Awaitable[Any]:
        reply: Awaitable[Any] = self.client.execute_command(*command)  # type: ignore[no-untyped-call]
        return reply


def holdfast_on_pool() -> ASGIApp:
    """Holdfast with another link, and nothing else changed. Settings as of `holdfast serve`."""
    settings = read_settings()

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[State]:
        assert settings.redis_url is not None
        link = PoolLink(settings.redis_url)
        store = Store(link, shop=settings.shop, durability=settings.durability, events_max=settings.events_max)
        yield {"store": store, "pages": RequestCoalescer()}
        await link.client.aclose()

    app = RequestMiddleware(CallRouter(CALLS, lifespan))
    tune_gc()
    return app


def ceiling() -> Starlette:
    """What uvicorn, Starlette and pydantic leave to be had: validates the same orders, and answers what it knows."""
    order = (
        b'{"id":123456,"products":[{"product_id":17,"quantity":1,"price":20.00},'
        b'{"product_id":42,"quantity":2,"price":20.00}],"total_price":60.00,"status":"completed",'
        b'"created_at":"2026-01-01T00:00:00.000Z"}'
    )
    page = f"[{','.join(product_json(number) for number in range(1, 101))}]".encode()
    one = product_json(1).encode()

    async def place_order(request: Request) -> Response:
        NewOrder.model_validate_json(await request.body())
        return Response(order, 201, {"Location": "/orders/123456"}, media_type="application/json")

    async def list_products(request: Request) -> Response:
        return Response(page, media_type="application/json")

    async def get_product(request: Request) -> Response:
        return Response(one, media_type="application/json")

    app = Starlette(
        routes=[
            Route("/products", list_products, methods=["GET"]),
            Route("/products/{id}", get_product, methods=["GET"]),
            Route("/orders", place_order, methods=["POST"]),
        ]
    )
    tune_gc()
    return app

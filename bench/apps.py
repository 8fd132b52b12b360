"""Two applications that Holdfast is compared with. servers.py gives their names to uvicorn."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import NoScriptError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from bench.data import product_json
from service.api.coalescing import RequestCoalescer
from service.api.event_feed import EventFeed
from service.api.middleware import RequestMiddleware
from service.api.refused_orders import RefusalLog
from service.api.request import State
from service.api.router import CallRouter
from service.api.routes import CALLS
from service.app import new_metrics
from service.domain.requests import NewOrder
from service.server.gc_tuning import tune_gc
from service.settings import read_settings
from service.storage.sender import ErrorReply
from service.storage.store import Store

POOL_SIZE: Final = 64


class PoolSender:
    """Sends commands through redis-py in the usual way: each takes a connection and waits for its own reply."""

    def __init__(self, url: str) -> None:
        pool = BlockingConnectionPool.from_url(
            url, max_connections=POOL_SIZE, timeout=60, protocol=2, decode_responses=True
        )
        self.client = Redis(connection_pool=pool)
        self.client.response_callbacks.clear()  # the Store needs replies as Redis sends them

    async def send(self, *command: bytes | str | int, safe_to_repeat: bool = False) -> Any:
        """Return the reply to a command. Raise ErrorReply if the engine does not know the script yet."""
        try:
            return await self.client.execute_command(*command)  # type: ignore[no-untyped-call]
        except NoScriptError as error:
            raise ErrorReply(f"NOSCRIPT {error}") from error  # redis-py removes the code from the text


def holdfast_on_pool() -> ASGIApp:
    """Return Holdfast with PoolSender instead of MultiplexedConnection. The settings are those of `holdfast serve`."""
    settings = read_settings()
    metrics = new_metrics()

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[State]:
        assert settings.redis_url is not None
        sender = PoolSender(settings.redis_url)
        store = Store(
            sender,
            shop=settings.shop,
            durability=settings.durability,
            events_max=settings.events_max,
            metrics=metrics,
        )
        yield {
            "store": store,
            "stores": {"shop": store},
            "list_pages": RequestCoalescer(),
            "metrics": metrics,
            "event_feed": EventFeed(store, metrics),
            "refusal_log": RefusalLog(),
        }
        await sender.client.aclose()

    app = RequestMiddleware(CallRouter(CALLS, lifespan), metrics)
    tune_gc()
    return app


def ceiling() -> Starlette:
    """Return an application that validates the same orders, stores nothing and sends constant answers.

    Its speed is the upper limit for a handler that uses uvicorn, Starlette and pydantic.
    """
    order = (
        b'{"id":123456,"products":[{"product_id":17,"quantity":1,"price":20.00},'
        b'{"product_id":42,"quantity":2,"price":20.00}],"total_price":60.00,"status":"completed",'
        b'"created_at":"2026-01-01T00:00:00.000Z"}'
    )
    page = f"[{','.join(product_json(number) for number in range(1, 101))}]".encode()
    product = product_json(1).encode()

    async def place_order(request: Request) -> Response:
        NewOrder.model_validate_json(await request.body())
        return Response(order, 201, {"Location": "/orders/123456"}, media_type="application/json")

    async def list_products(request: Request) -> Response:
        return Response(page, media_type="application/json")

    async def get_product(request: Request) -> Response:
        return Response(product, media_type="application/json")

    app = Starlette(
        routes=[
            Route("/products", list_products, methods=["GET"]),
            Route("/products/{id}", get_product, methods=["GET"]),
            Route("/orders", place_order, methods=["POST"]),
        ]
    )
    tune_gc()
    return app

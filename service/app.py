"""create_app(): the only place where the parts of the API are put together."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.types import ASGIApp

from service.api.coalescing import RequestCoalescer
from service.api.middleware import RequestMiddleware
from service.api.request import State
from service.api.router import CallRouter
from service.api.routes import CALLS
from service.settings import Settings
from service.storage.engine_check import check_regularly
from service.storage.opening import open_store
from service.storage.sweeper import sweep


def create_app(settings: Settings) -> ASGIApp:
    """Return the ASGI application. Its lifespan opens the connection to Redis and runs the sweeper."""

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[State]:
        async with open_store(settings) as store:
            sweeper = asyncio.create_task(sweep(store.expired_holds), name="sweeper")
            watch = asyncio.create_task(check_regularly(store.check), name="engine-check")
            yield {"store": store, "list_pages": RequestCoalescer()}
            sweeper.cancel()
            watch.cancel()

    return RequestMiddleware(CallRouter(CALLS, lifespan), access_log=settings.access_log)

"""create_app(): the only place where the parts of the API are put together."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from starlette.types import ASGIApp

from service.api.coalescing import RequestCoalescer
from service.api.event_feed import EventFeed
from service.api.middleware import RequestMiddleware
from service.api.request import State
from service.api.router import CallRouter
from service.api.routes import CALLS
from service.api.traced_app import TracedApp
from service.domain.errors.catalog import all_problems, refusals_of_orders
from service.metrics.counters import Metrics
from service.metrics.shared_rows import SharedRows
from service.settings import Settings
from service.storage.engine_check import check_regularly
from service.storage.opening import open_store
from service.storage.sweeper import sweep

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider


def new_metrics(shared: SharedRows | None = None) -> Metrics:
    """Return the metrics of a worker. `shared`: the memory of all workers, if there are several."""
    return Metrics(
        calls=[(call.method, call.path) for call in CALLS],
        problems=[problem.name for problem in all_problems()],
        refusals=[problem.name for problem in refusals_of_orders()],
        shared=shared,
    )


def create_app(settings: Settings, metrics: Metrics | None = None, traces: "TracerProvider | None" = None) -> ASGIApp:
    """Return the ASGI application. Its lifespan opens the connection to Redis and runs the sweeper.

    `traces`: makes spans of requests and commands; None: there are none.
    """
    metrics = metrics or new_metrics()
    tracer = None if traces is None else traces.get_tracer("holdfast")

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[State]:
        async with open_store(settings, metrics=metrics, tracer=tracer) as store:
            sweeper = asyncio.create_task(sweep(store.expired_holds, metrics), name="sweeper")
            watch = asyncio.create_task(check_regularly(store.check), name="engine-check")
            yield {
                "store": store,
                "list_pages": RequestCoalescer(),
                "metrics": metrics,
                "event_feed": EventFeed(store, metrics),
            }
            sweeper.cancel()
            watch.cancel()
        if traces is not None:
            await asyncio.to_thread(traces.shutdown)  # the last spans are sent

    app = RequestMiddleware(CallRouter(CALLS, lifespan), metrics, access_log=settings.access_log)
    return app if tracer is None else TracedApp(app, tracer)

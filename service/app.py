"""create_app(): the only place where the parts of the API are put together."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
from starlette.types import ASGIApp

from service.api.api_keys import api_keys, reread_regularly
from service.api.coalescing import RequestCoalescer
from service.api.event_feed import EventFeed
from service.api.matching_shops import MatchingShops
from service.api.middleware import RequestMiddleware
from service.api.refused_orders import RefusalLog
from service.api.request import State
from service.api.router import CallRouter
from service.api.routes import CALLS
from service.api.shops import ShopPaths
from service.api.traced_app import TracedApp
from service.domain.errors.catalog import all_problems, refusals_of_orders
from service.metrics.counters import Metrics
from service.metrics.shared_rows import SharedRows
from service.settings import Settings
from service.storage.engine_check import check_regularly
from service.storage.opening import open_stores
from service.storage.partitioned import AnyStore, PartitionedStore
from service.storage.sweeper import deliver_regularly, sweep

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

log = structlog.get_logger()


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
    # `holdfast serve` has checked the file. This worker may take the place of one that has ended, long after that.
    keys = api_keys(settings, is_replacement=True)
    tracer = None if traces is None else traces.get_tracer("holdfast")

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[Mapping[str, Any]]:
        async with open_stores(settings, settings.all_shops, metrics=metrics, tracer=tracer) as stores:
            tasks = [] if keys is None else [asyncio.create_task(reread_regularly(keys), name="api-keys")]
            states: dict[str, State] = {}
            refusal_log = RefusalLog()

            def start(shop: str) -> None:
                store = stores[shop]
                for number, partition in enumerate(store.partitions):
                    facts: dict[str, int | str] = {} if settings.shops is None else {"shop": shop}
                    if settings.partitions > 1:
                        facts["partition"] = number
                    sweeper = sweep(partition.expired_holds, metrics, **facts)
                    tasks.append(asyncio.create_task(sweeper, name="sweeper"))
                    tasks.append(asyncio.create_task(check_regularly(partition.check, **facts), name="engine-check"))
                if isinstance(store, PartitionedStore):
                    tasks.append(asyncio.create_task(deliver_regularly(store.deliver, metrics), name="deliveries"))
                states[shop] = _state(shop, store, metrics, refusal_log)

            async def open_shop(shop: str) -> bool:
                """Open a shop that fits a pattern of HOLDFAST_SHOPS. Return False if it does not exist."""
                if exists := await stores.open_existing(shop):
                    start(shop)
                    log.info("shop_opened", shop=shop)
                return exists

            for shop in stores:
                start(shop)
            if settings.shops is None:
                yield states[settings.shop]
            else:
                state: dict[str, Any] = {"shops": states, "stores": stores, "metrics": metrics}
                state["shop_names"] = settings.shops
                if settings.shop_patterns:
                    check_redis = partial(stores.check_redis, settings.shop)
                    state |= {"open_shop": open_shop, "check_redis": check_redis}
                yield state
            for task in tasks:
                task.cancel()
        if traces is not None:
            await asyncio.to_thread(traces.shutdown)  # the last spans are sent

    router: ASGIApp = CallRouter(CALLS, lifespan, keys)
    if settings.shops is not None:
        router = ShopPaths(router, settings.root_shop)
    if settings.shop_patterns:
        router = MatchingShops(router, settings.serves, keys)
    app = RequestMiddleware(router, metrics, access_log=settings.access_log)
    return app if tracer is None else TracedApp(app, tracer)


def _state(shop: str, store: AnyStore, metrics: Metrics, refusal_log: RefusalLog) -> State:
    """Return the objects of a shop that every request gets."""
    return {
        "store": store,
        "stores": {shop: store},
        "list_pages": RequestCoalescer(),
        "metrics": metrics,
        "event_feed": EventFeed(store, metrics, shop=shop),
        "refusal_log": refusal_log,
    }

"""Opens the Stores of shops with the settings."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from service.metrics.counters import PUBLISH_SECONDS, Metrics
from service.metrics.families import IN_FLIGHT
from service.settings import Settings
from service.storage.cluster import Cluster, Route
from service.storage.cluster_topology import is_cluster_url
from service.storage.connection import MultiplexedConnection
from service.storage.dial import Execute
from service.storage.engine_check import EngineCheck
from service.storage.open_stores import OpenStores
from service.storage.replication import Replication
from service.storage.store import Store
from service.storage.traced_sender import TracedSender

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer


@asynccontextmanager
async def open_store(settings: Settings, *, creates_shop: bool = True, upgrades: bool = False) -> AsyncIterator[Store]:
    """Yield the Store of HOLDFAST_SHOP, see `open_stores`."""
    async with open_stores(settings, [settings.shop], creates_shop=creates_shop, upgrades=upgrades) as stores:
        yield stores[settings.shop]


@asynccontextmanager
async def open_stores(
    settings: Settings,
    shops: Sequence[str],
    *,
    creates_shop: bool = True,
    upgrades: bool = False,
    metrics: Metrics | None = None,
    tracer: "Tracer | None" = None,
) -> AsyncIterator[OpenStores]:
    """Yield a Store of each shop, with connections of their own. The settings must have a redis_url.

    Raise UnsupportedRedis.

    `creates_shop`: false for what only reads. Then a shop that does not exist is not begun.
    `upgrades`: whether data of an older schema version may be opened.
    `upgrades`: whether data of an older schema version may be opened.
    `tracer`: makes a span of each command of a request; None: there are none.
    `metrics`: of a service that shows them. They count what the Stores do, and their gauges are published.
    """

    def new_check(shop: str) -> EngineCheck:
        return EngineCheck(
            shop,
            settings.durability,
            creates_shop=creates_shop,
            waits_for_replicas=bool(settings.wait_replicas),
            upgrades=upgrades,
        )

    def new_store(sender: MultiplexedConnection | Route, shop: str, check: EngineCheck) -> Store:
        return Store(
            sender if tracer is None else TracedSender(sender, tracer),
            shop=shop,
            durability=settings.durability,
            events_max=settings.events_max,
            refusals_max=settings.refusals_max,
            engine_check=check,
            metrics=metrics,
            has_room=sender.has_room,
        )

    checks = {shop: new_check(shop) for shop in shops}
    async with _connected(settings, checks, metrics) as (connections, senders):
        publisher = None if metrics is None else asyncio.create_task(_publish(metrics, connections), name="metrics")
        stores = {shop: new_store(sender, shop, checks[shop]) for shop, sender in senders.items()}
        yield OpenStores(stores, connections, checks, new_check, new_store)
        if publisher is not None:
            publisher.cancel()


@asynccontextmanager
async def _connected(
    settings: Settings, checks: Mapping[str, EngineCheck], metrics: Metrics | None
) -> AsyncIterator[tuple[MultiplexedConnection | Cluster, Mapping[str, MultiplexedConnection | Route]]]:
    """Yield what sends the commands of each shop. `checks` may get those of further shops later."""
    assert settings.redis_url is not None
    timeout, replicas = settings.redis_timeout, settings.wait_replicas
    if is_cluster_url(settings.redis_url):
        async with Cluster(
            settings.redis_url,
            timeout=timeout,
            max_in_flight=settings.max_in_flight,
            replicas=replicas,
            metrics=metrics,
        ) as cluster:
            yield cluster, {shop: cluster.route(shop, check) for shop, check in checks.items()}
        return
    no_shop = EngineCheck("", settings.durability)

    async def verify(execute: Execute) -> None:
        """Check the rights of the first shop now, and those of each other shop with its first command."""
        if not checks:
            await no_shop.verify_engine(execute)
            return
        first, *others = checks.values()
        await first.verify_connection(execute)
        for other in others:
            other.begin_anew()

    connection = MultiplexedConnection(
        settings.redis_url,
        timeout=timeout,
        max_in_flight=settings.max_in_flight,
        verify=verify,
        metrics=metrics,
        replication=Replication(replicas, next(iter(checks), ""), timeout=timeout) if replicas else None,
    )
    for check in checks.values():
        check.on_replica = connection.reconnect
    async with connection:
        yield connection, dict.fromkeys(checks, connection)


async def _publish(metrics: Metrics, connections: MultiplexedConnection | Cluster) -> None:
    """Update the gauges of this worker without end: another worker may be asked for them."""
    while True:
        metrics.set(IN_FLIGHT, connections.in_flight)
        metrics.publish()
        await asyncio.sleep(PUBLISH_SECONDS)

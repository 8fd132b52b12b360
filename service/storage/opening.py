"""Opens a Store with the settings."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from service.metrics.counters import PUBLISH_SECONDS, Metrics
from service.metrics.families import IN_FLIGHT
from service.settings import Settings
from service.storage.connection import MultiplexedConnection
from service.storage.engine_check import EngineCheck
from service.storage.replication import Replication
from service.storage.store import Store
from service.storage.traced_sender import TracedSender

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer


@asynccontextmanager
async def open_store(
    settings: Settings,
    *,
    creates_shop: bool = True,
    upgrades: bool = False,
    metrics: Metrics | None = None,
    tracer: "Tracer | None" = None,
) -> AsyncIterator[Store]:
    """Yield a Store with a connection of its own. The settings must have a redis_url. Raise UnsupportedRedis.

    `creates_shop`: false for what only reads. Then a shop that does not exist is not begun.
    `upgrades`: whether data of an older schema version may be opened.
    `tracer`: makes a span of each command of a request; None: there are none.
    `metrics`: of a service that shows them. They count what the Store does, and its gauges are published.
    """
    assert settings.redis_url is not None
    replicas = settings.wait_replicas
    check = EngineCheck(
        settings.shop,
        settings.durability,
        creates_shop=creates_shop,
        waits_for_replicas=bool(replicas),
        upgrades=upgrades,
    )
    connection = MultiplexedConnection(
        settings.redis_url,
        timeout=settings.redis_timeout,
        max_in_flight=settings.max_in_flight,
        verify=check.verify_connection,
        metrics=metrics,
        replication=Replication(replicas, settings.shop, timeout=settings.redis_timeout) if replicas else None,
    )
    check.on_replica = connection.reconnect
    async with connection:
        publisher = None if metrics is None else asyncio.create_task(_publish(metrics, connection), name="metrics")
        yield Store(
            connection if tracer is None else TracedSender(connection, tracer),
            shop=settings.shop,
            durability=settings.durability,
            events_max=settings.events_max,
            refusals_max=settings.refusals_max,
            engine_check=check,
            metrics=metrics,
            has_room=connection.has_room,
        )
        if publisher is not None:
            publisher.cancel()


async def _publish(metrics: Metrics, connection: MultiplexedConnection) -> None:
    """Update the gauges of this worker without end: another worker may be asked for them."""
    while True:
        metrics.set(IN_FLIGHT, connection.in_flight)
        metrics.publish()
        await asyncio.sleep(PUBLISH_SECONDS)

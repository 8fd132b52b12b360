"""Opens the Stores of shops with the settings."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from service.metrics.counters import PUBLISH_SECONDS, Metrics
from service.metrics.families import IN_FLIGHT
from service.partition_url import partition_url
from service.settings import Settings
from service.storage import keys
from service.storage.cluster import Cluster, Route
from service.storage.cluster_topology import is_cluster_url
from service.storage.connection import MultiplexedConnection
from service.storage.dial import Execute
from service.storage.engine_check import Beginning, EngineCheck
from service.storage.open_stores import OpenStores
from service.storage.partition import Partition, Partitions
from service.storage.partitioned import AnyStore, PartitionedStore
from service.storage.recent_orders import RecentOrders
from service.storage.replication import Replication
from service.storage.shop_mark import BeginningOfMark, BeginningOfPartition, ShopMark
from service.storage.store import Store
from service.storage.traced_sender import TracedSender
from service.storage.tracked_products import TrackedProducts

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer


@asynccontextmanager
async def open_store(
    settings: Settings, *, creates_shop: bool = True, upgrades: bool = False
) -> AsyncIterator[AnyStore]:
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
    `tracer`: makes a span of each command of a request; None: there are none.
    `metrics`: of a service that shows them. They count what the Stores do, and their gauges are published.
    """
    async with AsyncExitStack() as stack:
        connections: list[MultiplexedConnection | Cluster] = []
        opener = _Opener(settings, creates_shop, upgrades, metrics, tracer)
        if settings.partitions == 1:
            checks = {shop: opener.check(shop) for shop in shops}
            connection, senders = await stack.enter_async_context(_connected(settings, checks, metrics))
            connections.append(connection)
            plain = {shop: opener.store(sender, shop, checks[shop]) for shop, sender in senders.items()}
            stores = OpenStores(plain, connection, checks, opener.check, opener.store)
        else:
            shared = {shop: await _open_partitions(opener, shop, stack, connections) for shop in shops}
            stores = OpenStores(shared, None, {}, opener.check, opener.store)
        publisher = None if metrics is None else asyncio.create_task(_publish(metrics, connections), name="metrics")
        yield stores
        if publisher is not None:
            publisher.cancel()


class _Opener:
    """What all Stores that are opened together share."""

    def __init__(
        self,
        settings: Settings,
        creates_shop: bool,
        upgrades: bool,
        metrics: Metrics | None,
        tracer: "Tracer | None",
    ) -> None:
        self.settings = settings
        self.metrics = metrics
        self._creates_shop = creates_shop
        self._upgrades = upgrades
        self._tracer = tracer
        self._recent_orders = RecentOrders()

    def check(self, shop: str, beginning: Beginning | None = None) -> EngineCheck:
        """Return the check of the Redis of a shop, or of a partition."""
        settings = self.settings
        return EngineCheck(
            shop,
            settings.durability,
            creates_shop=self._creates_shop,
            waits_for_replicas=bool(settings.wait_replicas),
            upgrades=self._upgrades,
            partitions=settings.partitions,
            beginning=beginning,
        )

    def store(
        self,
        sender: MultiplexedConnection | Route,
        shop: str,
        check: EngineCheck,
        partition: Partition | None = None,
        metrics: Metrics | None = None,
    ) -> Store:
        """Return the Store of a shop, or of a partition."""
        settings = self.settings
        tracked = None
        if isinstance(sender, MultiplexedConnection) and not settings.wait_replicas:
            # With replicas, the command behind a batch could come between CLIENT CACHING and what it is about.
            tracked = lambda: sender.tracked  # noqa: E731
        return Store(
            sender if self._tracer is None else TracedSender(sender, self._tracer),
            shop=shop,
            durability=settings.durability,
            events_max=settings.events_max,
            refusals_max=settings.refusals_max,
            engine_check=check,
            metrics=metrics or self.metrics,
            has_room=sender.has_room,
            tracked=tracked,
            partition=partition,
            recent_orders=self._recent_orders,
        )


async def _open_partitions(
    opener: _Opener, shop: str, stack: AsyncExitStack, connections: list[MultiplexedConnection | Cluster]
) -> PartitionedStore:
    """Return the Store of a shop with partitions. `connections`: those that are made for it are added."""
    settings = opener.settings
    count, metrics = settings.partitions, opener.metrics or Metrics()
    mark = ShopMark(shop)
    mark.check = opener.check(shop, BeginningOfMark(mark))
    names = [keys.partition(shop, number) for number in range(count)]
    checks = {
        shop: mark.check,
        **{name: opener.check(name, BeginningOfPartition(mark, number)) for number, name in enumerate(names)},
    }
    assert settings.redis_url is not None
    if is_cluster_url(settings.redis_url):
        groups = [(settings, checks)]
    else:
        # The mark of the shop is in the Redis of partition 0.
        groups = [
            (
                replace(settings, redis_url=partition_url(settings.redis_url, number)),
                {name: checks[name] for name in ((name, shop) if number == 0 else (name,))},
            )
            for number, name in enumerate(names)
        ]
    senders: dict[str, MultiplexedConnection | Route] = {}
    partitions = Partitions(count, timeout=settings.redis_timeout, metrics=metrics)
    for number, (group_settings, group) in enumerate(groups):
        facts = {} if len(groups) == 1 else {"partition": number}
        connection, found = await stack.enter_async_context(
            _connected(group_settings, group, metrics, partitions.sums.new_tracked, facts)
        )
        connections.append(connection)
        senders |= found
    stack.push_async_callback(partitions.exchange.close)
    stores = [
        opener.store(senders[name], name, checks[name], Partition(number, partitions), metrics)
        for number, name in enumerate(names)
    ]
    mark.join(opener.store(senders[shop], shop, mark.check, metrics=metrics), stores)
    return PartitionedStore(stores, partitions)


@asynccontextmanager
async def _connected(
    settings: Settings,
    checks: Mapping[str, EngineCheck],
    metrics: Metrics | None,
    new_tracked: Callable[[], TrackedProducts[Any]] = TrackedProducts,
    facts: Mapping[str, int] | None = None,
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
        """Check the rights of the first shop now, and those of each other shop with its first command.

        With patterns, the first shop may be any: one that the user may only read must not stop the others.
        """
        if settings.shop_patterns:
            await no_shop.verify_engine(execute)
            others = list(checks.values())
        else:
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
        facts=facts,
        replication=Replication(replicas, next(iter(checks), ""), timeout=timeout) if replicas else None,
        new_tracked=new_tracked,
    )
    for check in checks.values():
        check.on_replica = connection.reconnect
    async with connection:
        yield connection, dict.fromkeys(checks, connection)


async def _publish(metrics: Metrics, connections: Sequence[MultiplexedConnection | Cluster]) -> None:
    """Update the gauges of this worker without end: another worker may be asked for them."""
    while True:
        metrics.set(IN_FLIGHT, sum([connection.in_flight for connection in connections]))
        metrics.publish()
        await asyncio.sleep(PUBLISH_SECONDS)

"""A shop with several partitions, whose keys are in one Redis: the tests need no cluster for most of what it does."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from service.app import new_metrics
from service.metrics.counters import Metrics
from service.storage import keys
from service.storage.connection import MultiplexedConnection
from service.storage.partition import Partition, Partitions
from service.storage.partitioned import PartitionedStore
from service.storage.sender import CommandSender
from service.storage.store import Store
from tests.support.network import LONG_TIMEOUT
from tests.support.shop import SHOP, make_store

TIMEOUT = 2.0


def make_partitioned_store(*senders: CommandSender, count: int = 4, **options: Any) -> PartitionedStore:
    """Return the Store of the shop SHOP with `count` partitions. They are shared out among the senders."""
    metrics = options.pop("metrics", None) or new_metrics()
    partitions = Partitions(count, timeout=options.pop("timeout", TIMEOUT), metrics=metrics)
    return _make_store(partitions, *senders, metrics=metrics, **options)


@asynccontextmanager
async def open_partitioned_store(*urls: str, **options: Any) -> AsyncIterator[PartitionedStore]:
    """Yield the Store of SHOP with a partition for each URL. As in a service, each has a connection of its own."""
    metrics = new_metrics()
    partitions = Partitions(len(urls), timeout=LONG_TIMEOUT, metrics=metrics)
    async with AsyncExitStack() as stack:
        connections = [
            await stack.enter_async_context(
                MultiplexedConnection(
                    url, timeout=LONG_TIMEOUT, max_in_flight=100_000, new_tracked=partitions.sums.new_tracked
                )
            )
            for url in urls
        ]
        stack.push_async_callback(partitions.exchange.close)
        yield _make_store(partitions, *connections, metrics=metrics, **options)


def _make_store(partitions: Partitions, *senders: CommandSender, metrics: Metrics, **options: Any) -> PartitionedStore:
    stores = [
        make_store(
            senders[number % len(senders)],
            shop=keys.partition(SHOP, number),
            metrics=metrics,
            partition=Partition(number, partitions),
            **options,
        )
        for number in range(partitions.count)
    ]
    return PartitionedStore(stores, partitions)


def home_of(store: PartitionedStore, product_id: int) -> Store:
    """Return the partition where a product is changed."""
    return store.partitions[store.all.pushes.home(product_id)]


def key_of(store: PartitionedStore, partition: int, prefix: str = "key") -> str:
    """Return an Idempotency-Key that leads to a partition."""
    return next(key for key in (f"{prefix}-{number}" for number in range(1000)) if store.all.of_text(key) == partition)


async def assert_nothing_is_lost(redis: CommandSender, store: PartitionedStore) -> None:
    """Check the units of each product: in each partition, and what moved between them."""
    await store.deliver()
    names = [keys.partition(SHOP, number) for number in range(store.all.count)]
    for product_id in map(int, await redis.send("ZRANGEBYSCORE", keys.products(names[0]), "-inf", "+inf")):
        moved = 0
        for name in names:
            fields = ("stock", "held", "sold", "received", "moved")
            row = await redis.send("HMGET", keys.product(name, product_id), *fields)
            stock, held, sold, received, here = [int(value or 0) for value in row]
            assert received == stock + held + sold, (name, product_id)
            assert min(stock, held, sold) >= 0, (name, product_id)
            moved += here
        assert moved == 0, product_id
    for name in names:
        for to in range(store.all.count):
            assert not await redis.send("ZCARD", keys.outgoing(name, to)), (name, to)

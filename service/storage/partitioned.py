"""The Store of a shop with several partitions: the same verbs as Store, over the Stores of all partitions.

Each partition has all products, its own part of their units, and its own orders. What belongs to one order or one
customer is in one partition, and runs there as in a shop without partitions. The rest is put together in partitioned_*.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, TypeAlias, TypeVar

from service.domain.errors.storage import StorageError
from service.storage.partition import Partitions
from service.storage.partitioned_archive import PartitionedArchive
from service.storage.partitioned_catalogue import PartitionedBoard, PartitionedProducts, PartitionedStock
from service.storage.partitioned_events import PartitionedEvents
from service.storage.partitioned_orders import PartitionedHolds, PartitionedOrders, PartitionedReturns
from service.storage.store import Store

T = TypeVar("T")

_PUSHES_AT_ONCE: Final = 50
"""Products that are pushed at the same time. A silent partition delays them together, not one after the other."""


class PartitionedStore:
    """A shop with several partitions. `partitions`: their Stores, by number."""

    def __init__(self, stores: Sequence[Store], partitions: Partitions) -> None:
        """Put the Stores together. Each was made with a Partition of these partitions."""
        self.partitions = stores
        self.all = partitions
        self.metrics = stores[0].metrics
        self.products = PartitionedProducts([store.products for store in stores], partitions)
        self.stock = PartitionedStock([store.stock for store in stores], partitions)
        self.orders = PartitionedOrders([store.orders for store in stores], partitions)
        self.holds = PartitionedHolds([store.holds for store in stores], partitions)
        self.returns = PartitionedReturns([store.returns for store in stores], partitions)
        self.archive = PartitionedArchive([store.archive for store in stores], partitions)
        self.board = PartitionedBoard([store.board for store in stores], partitions)
        self.events = PartitionedEvents([store.events for store in stores])

    async def check(self) -> None:
        """Check the Redis of each partition. Raise UnsupportedRedis, or StorageUnavailable if none can be used."""
        await _any(store.check() for store in self.partitions)

    async def check_writable(self) -> None:
        """Raise StorageUnavailable if no partition takes writes."""
        await _any(store.check_writable() for store in self.partitions)

    async def deliver(self) -> None:
        """Finish transfers and pushes that were interrupted. Drop reserved order ids far below the newest.

        If some of them fail, finish the others, and then raise one of the errors: a bug if there is one, otherwise the
        first error of the storage. Several workers may do this at the same time.
        """
        self.all.drop_old_order_ids()
        delivered = await self.all.exchange.deliveries.deliver_all()
        errors = delivered.errors
        for first in range(0, len(delivered.product_ids), _PUSHES_AT_ONCE):
            product_ids = delivered.product_ids[first : first + _PUSHES_AT_ONCE]
            results = await asyncio.gather(*map(self.all.pushes.push, product_ids), return_exceptions=True)
            errors += [result for result in results if result is not None]
        if errors:  # an error of the storage must not hide a bug
            raise next((error for error in errors if not isinstance(error, StorageError)), errors[0])

    @property
    def server_id(self) -> str:
        """The ids of the running servers. After a restart or a failover, it is another text."""
        return " ".join([store.server_id for store in self.partitions])

    async def gather(self, verb: Callable[[Store], Awaitable[T]]) -> list[T]:
        """Return the result of each partition. Raise the first error."""
        return list(await asyncio.gather(*[verb(store) for store in self.partitions]))


async def _any(work: Iterable[Awaitable[None]]) -> None:
    """Wait for all. Raise the first error if all have failed."""
    results = await asyncio.gather(*work, return_exceptions=True)
    errors = [result for result in results if result is not None]
    if len(errors) == len(results):
        raise errors[0]


AnyStore: TypeAlias = Store | PartitionedStore
"""A shop: with one partition, as most have, or with several."""

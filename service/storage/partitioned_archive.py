"""The archived orders of a shop with several partitions: each order is archived in its partition."""

import asyncio
from collections.abc import Sequence

from service.domain.times import Milliseconds
from service.storage.archive import Archive, EndedOrder
from service.storage.partition import Partitions


class PartitionedArchive:
    """The archived orders of all partitions. The methods are those of Archive."""

    def __init__(self, archives: Sequence[Archive], partitions: Partitions) -> None:
        """`archives`: of each partition, by number."""
        self._archives = archives
        self._partitions = partitions

    async def now(self) -> Milliseconds:
        """Return the time by the clock that is behind all others."""
        return min(await asyncio.gather(*[archive.now() for archive in self._archives]))

    async def count(self) -> int:
        """Return how many orders are archived."""
        return sum(await asyncio.gather(*[archive.count() for archive in self._archives]))

    async def read(self, order_ids: Sequence[int]) -> list[EndedOrder | None]:
        """Return all fields of these orders, see Archive.read."""
        return await self._partitions.by_order(
            order_ids, lambda order_id: order_id, lambda number, ids: self._archives[number].read(ids)
        )

    async def remove(self, orders: Sequence[EndedOrder], keep_ms: int) -> list[str]:
        """Remove orders, sorted by id, see Archive.remove. An order whose partition does not answer may be removed."""
        return await self._partitions.by_order(
            orders, lambda order: order.order.id, lambda number, part: self._archives[number].remove(part, keep_ms)
        )

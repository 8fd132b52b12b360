"""The orders of a shop with several partitions, and their holds and returns. Each order is in one partition.

All orders of a customer are in the same partition. An Idempotency-Key without a customer also leads to one partition.
"""

import asyncio
import heapq
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import TYPE_CHECKING

from service.domain.errors.storage import Overloaded, StorageUnavailable, UnsupportedRedis
from service.domain.order import ListedOrder, Order
from service.storage.holds import Holds
from service.storage.orders import Orders, PlacedOrder
from service.storage.partition import Partitions
from service.storage.records import HashValues
from service.storage.returns import ReturnedOrder, Returns

if TYPE_CHECKING:
    from service.domain.requests import HoldExtension, NewOrder, NewReturn, OrdersQuery


class PartitionedOrders:
    """The orders of a shop. The methods are those of Orders."""

    def __init__(self, orders: Sequence[Orders], partitions: Partitions) -> None:
        """`orders`: of each partition, by number."""
        self._orders = orders
        self._partitions = partitions

    async def place(self, new: "NewOrder", idempotency_key: str | None = None, by: str = "") -> PlacedOrder:
        """Place an order, see Orders.place: in the partition of its customer, or of its key, or in any."""
        partitions, orders = self._partitions, self._orders
        text = idempotency_key if new.customer is None else new.customer
        if text is not None:
            return await orders[partitions.of_text(text)].place(new, idempotency_key, by)
        loop = asyncio.get_running_loop()
        deadline = partitions.deadline()
        for attempt in range(1, len(orders)):
            try:
                return await orders[partitions.next()].place(new, None, by, deadline)
            except (StorageUnavailable, Overloaded, UnsupportedRedis):  # nothing was done; another may do it
                # If the first partition has used all the time, a second one is tried all the same: it may be fast.
                if partitions.exchange.is_full or (attempt > 1 and loop.time() > deadline):
                    raise
        return await orders[partitions.next()].place(new, None, by, deadline)

    async def get(self, order_id: int) -> Order:
        """Return an order, see Orders.get."""
        return await self._orders[self._partitions.of_order(order_id)].get(order_id)

    async def list(self, query: "OrdersQuery") -> tuple[list[ListedOrder], int | None]:
        """Return one page, see Orders.list. The orders of a customer are in one partition."""
        if query.customer is not None:
            return await self._orders[self._partitions.of_text(query.customer)].list(query)
        pages = await asyncio.gather(*[orders.list(query) for orders in self._orders])
        # A page that ends before its limit has seen all orders above its `before`, but not those below.
        merged = heapq.merge(*[page for page, _ in pages], key=lambda order: -order.id)
        reached = max([before for _, before in pages if before is not None], default=0)
        found = [order for order in merged if order.id >= reached]
        if len(found) > query.limit:
            return found[: query.limit], found[query.limit - 1].id
        return found, reached or None

    async def read_listed(self, order_ids: Sequence[int]) -> Sequence[Order]:
        """Return those of these orders that are pending or completed, in the same sequence."""
        parts = _by_partition(self._partitions, order_ids)
        found = await asyncio.gather(*[self._orders[number].read_listed(ids) for number, ids in parts.items()])
        by_id = {order.id: order for orders in found for order in orders}
        return [by_id[order_id] for order_id in order_ids if order_id in by_id]

    async def read_fields(self, order_ids: Sequence[int], fields: Sequence[str]) -> Sequence[HashValues]:
        """Return fields of orders in any status, see Orders.read_fields."""
        return await self._partitions.by_order(
            order_ids,
            lambda order_id: order_id,
            lambda number, ids: self._orders[number].read_fields(ids, fields),
        )

    async def scan_ids(self) -> AsyncIterator[int]:
        """Yield the ids of all orders, see OrderCounter.scan_ids."""
        for orders in self._orders:
            async for order_id in orders.scan_ids():
                yield order_id


class PartitionedHolds:
    """The holds of pending orders. The methods are those of Holds, in the partition of the order."""

    def __init__(self, holds: Sequence[Holds], partitions: Partitions) -> None:
        """`holds`: of each partition, by number."""
        self._holds = holds
        self._partitions = partitions

    async def complete(self, order_id: int, by: str = "") -> Order:
        """Complete a pending order, see Holds.complete."""
        return await self._holds[self._partitions.of_order(order_id)].complete(order_id, by)

    async def cancel(self, order_id: int, by: str = "") -> None:
        """Cancel a pending order, see Holds.cancel."""
        await self._holds[self._partitions.of_order(order_id)].cancel(order_id, by)

    async def extend(self, order_id: int, extension: "HoldExtension", by: str = "") -> Order:
        """Set the end of a hold, see Holds.extend."""
        return await self._holds[self._partitions.of_order(order_id)].extend(order_id, extension, by)


class PartitionedReturns:
    """Returns of units, in the partition of the order."""

    def __init__(self, returns: Sequence[Returns], partitions: Partitions) -> None:
        """`returns`: of each partition, by number."""
        self._returns = returns
        self._partitions = partitions

    async def make(
        self, order_id: int, new: "NewReturn", idempotency_key: str | None = None, by: str = ""
    ) -> ReturnedOrder:
        """Take back units of an order, see Returns.make."""
        return await self._returns[self._partitions.of_order(order_id)].make(order_id, new, idempotency_key, by)


def _by_partition(partitions: Partitions, order_ids: Iterable[int]) -> dict[int, list[int]]:
    parts: dict[int, list[int]] = {}
    for order_id in order_ids:
        parts.setdefault(partitions.of_order(order_id), []).append(order_id)
    return parts

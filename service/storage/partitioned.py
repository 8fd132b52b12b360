"""The Store of a shop with several partitions: the same verbs as Store, over the Stores of all partitions.

Each partition has all products, its own part of their units, and its own orders. What belongs to one order or one
customer is in one partition, and runs there as in a shop without partitions. The rest is put together here.
"""

import asyncio
import heapq
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Container, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

from service.domain.errors.refusals import ProductIdTaken, ProductNotFound
from service.domain.errors.storage import Overloaded, StorageError, StorageUnavailable, UnsupportedRedis
from service.domain.order import ListedOrder, Order
from service.domain.product import ListedProduct, Product
from service.storage.board import NextHolds, ProductNumbers
from service.storage.idempotency import read_for_replay
from service.storage.orders import PlacedOrder
from service.storage.partition import Partitions
from service.storage.partitioned_archive import PartitionedArchive
from service.storage.partitioned_events import PartitionedEvents
from service.storage.products import Products
from service.storage.records import HashValues
from service.storage.returns import ReturnedOrder
from service.storage.stock import ChangedStock, StockLevels
from service.storage.store import Store

if TYPE_CHECKING:
    from service.domain.requests import (
        HoldExtension,
        NewOrder,
        NewProduct,
        NewReturn,
        OrdersQuery,
        ProductChange,
        ProductsQuery,
        StockChange,
        StockCount,
    )

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
        self.products = PartitionedProducts(self)
        self.stock = PartitionedStock(self)
        self.orders = PartitionedOrders(self)
        self.holds = PartitionedHolds(self)
        self.returns = PartitionedReturns(self)
        self.archive = PartitionedArchive([store.archive for store in stores], partitions)
        self.board = PartitionedBoard(self)
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

    def of_order(self, order_id: int) -> Store:
        """Return the partition of an order."""
        return self.partitions[self.all.of_order(order_id)]

    def home(self, product_id: int) -> Store:
        """Return the partition where a product is changed."""
        return self.partitions[self.all.pushes.home(product_id)]

    @asynccontextmanager
    async def at_home(self, product_id: int) -> AsyncIterator[Store]:
        """Yield the home of a product. Instead of ProductNotFound, raise StorageUnavailable if the product is lost."""
        try:
            yield self.home(product_id)
        except ProductNotFound:
            await self.check_home(product_id)
            raise

    async def check_home(self, product_id: int) -> None:
        """Raise StorageUnavailable if the home of a product has lost it."""
        await self.all.pushes.update(self.all.pushes.home(product_id), [product_id])

    async def stock_after_change(self, product_id: int) -> int:
        """Return the stock of a product in all partitions. Raise OutcomeUnknown: the change has been made."""
        [stock] = await read_for_replay(self.all.add_up(product_id, ("stock",)))
        return stock

    async def gather(self, verb: Callable[[Store], Awaitable[T]]) -> list[T]:
        """Return the result of each partition. Raise the first error."""
        return list(await asyncio.gather(*[verb(store) for store in self.partitions]))


class PartitionedOrders:
    """The orders of a shop. The methods are those of Orders."""

    def __init__(self, store: PartitionedStore) -> None:
        self._store = store

    async def place(self, new: "NewOrder", idempotency_key: str | None = None, by: str = "") -> PlacedOrder:
        """Place an order, see Orders.place: in the partition of its customer, or of its key, or in any."""
        partitions, stores = self._store.all, self._store.partitions
        text = idempotency_key if new.customer is None else new.customer
        if text is not None:
            return await stores[partitions.of_text(text)].orders.place(new, idempotency_key, by)
        loop = asyncio.get_running_loop()
        deadline = partitions.deadline()
        for attempt in range(1, len(stores)):
            try:
                return await stores[partitions.next()].orders.place(new, None, by, deadline)
            except (StorageUnavailable, Overloaded, UnsupportedRedis):  # nothing was done; another may do it
                # If the first partition has used all the time, a second one is tried all the same: it may be fast.
                if partitions.exchange.is_full or (attempt > 1 and loop.time() > deadline):
                    raise
        return await stores[partitions.next()].orders.place(new, None, by, deadline)

    async def get(self, order_id: int) -> Order:
        """Return an order, see Orders.get."""
        return await self._store.of_order(order_id).orders.get(order_id)

    async def list(self, query: "OrdersQuery") -> tuple[list[ListedOrder], int | None]:
        """Return one page, see Orders.list. The orders of a customer are in one partition."""
        if query.customer is not None:
            store = self._store.partitions[self._store.all.of_text(query.customer)]
            return await store.orders.list(query)
        pages = await self._store.gather(lambda store: store.orders.list(query))
        # A page that ends before its limit has seen all orders above its `before`, but not those below.
        orders = heapq.merge(*[page for page, _ in pages], key=lambda order: -order.id)
        reached = max([before for _, before in pages if before is not None], default=0)
        found = [order for order in orders if order.id >= reached]
        if len(found) > query.limit:
            return found[: query.limit], found[query.limit - 1].id
        return found, reached or None

    async def read_listed(self, order_ids: Sequence[int]) -> Sequence[Order]:
        """Return those of these orders that are pending or completed, in the same sequence."""
        parts = _by_partition(self._store.all, order_ids)
        found = await asyncio.gather(
            *[self._store.partitions[number].orders.read_listed(ids) for number, ids in parts.items()]
        )
        by_id = {order.id: order for orders in found for order in orders}
        return [by_id[order_id] for order_id in order_ids if order_id in by_id]

    async def read_fields(self, order_ids: Sequence[int], fields: Sequence[str]) -> Sequence[HashValues]:
        """Return fields of orders in any status, see Orders.read_fields."""
        return await self._store.all.by_order(
            order_ids,
            lambda order_id: order_id,
            lambda number, ids: self._store.partitions[number].orders.read_fields(ids, fields),
        )

    async def scan_ids(self) -> AsyncIterator[int]:
        """Yield the ids of all orders, see OrderCounter.scan_ids."""
        for store in self._store.partitions:
            async for order_id in store.orders.scan_ids():
                yield order_id


class PartitionedHolds:
    """The holds of pending orders. The methods are those of Holds, in the partition of the order."""

    def __init__(self, store: PartitionedStore) -> None:
        self._store = store

    async def complete(self, order_id: int, by: str = "") -> Order:
        """Complete a pending order, see Holds.complete."""
        return await self._store.of_order(order_id).holds.complete(order_id, by)

    async def cancel(self, order_id: int, by: str = "") -> None:
        """Cancel a pending order, see Holds.cancel."""
        await self._store.of_order(order_id).holds.cancel(order_id, by)

    async def extend(self, order_id: int, extension: "HoldExtension", by: str = "") -> Order:
        """Set the end of a hold, see Holds.extend."""
        return await self._store.of_order(order_id).holds.extend(order_id, extension, by)


class PartitionedReturns:
    """Returns of units, in the partition of the order."""

    def __init__(self, store: PartitionedStore) -> None:
        self._store = store

    async def make(
        self, order_id: int, new: "NewReturn", idempotency_key: str | None = None, by: str = ""
    ) -> ReturnedOrder:
        """Take back units of an order, see Returns.make."""
        return await self._store.of_order(order_id).returns.make(order_id, new, idempotency_key, by)


class PartitionedProducts:
    """The products of a shop. The methods are those of Products.

    A change is made in the home of the product, and is answered when all partitions have it.
    """

    def __init__(self, store: PartitionedStore) -> None:
        self._store = store

    async def list(self, query: "ProductsQuery") -> tuple[list[ListedProduct], int | None]:
        """Return one page, see ProductList.read."""
        return await self._any().list(query)

    async def read_many(self, ids: Sequence[int], *, include_withdrawn: bool = False) -> Sequence[Product | None]:
        """Return several products, see Products.read_many."""
        return await self._any().read_many(ids, include_withdrawn=include_withdrawn)

    async def get(self, product_id: int) -> Product:
        """Return a product on sale, see Products.get."""
        number = self._store.all.next()
        products = self._store.partitions[number].products
        try:
            return await products.get(product_id)
        except ProductNotFound:
            await self._store.all.pushes.update(number, [product_id])
            return await products.get(product_id)

    def _any(self) -> Products:
        return self._store.partitions[self._store.all.next()].products

    async def add(self, new: "NewProduct", by: str = "") -> Product:
        """Add a product, see Products.add. Each partition begins with the same number of its units, if possible."""
        ids = self._store.partitions[0].products
        product_id = new.id or await ids.next_id()
        if new.id is not None:
            await self._store.check_home(product_id)
        while True:
            try:
                product = await self._store.home(product_id).products.add(new.model_copy(update={"id": product_id}), by)
            except ProductIdTaken:
                if new.id is not None:
                    await self._store.all.pushes.finish(product_id)  # it may have been added a moment ago
                    raise
                product_id = await ids.search_id(product_id + 1)
            else:
                await self._store.all.pushes.push(product_id)
                return product

    async def add_many(self, products: "Sequence[NewProduct]") -> Sequence[bool]:
        """Add products that have ids, see Products.add_many."""
        results = await asyncio.gather(*map(self.add, products), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, ProductIdTaken):
                raise result
        return [not isinstance(result, ProductIdTaken) for result in results]

    async def change(
        self,
        product_id: int,
        change: "ProductChange",
        expected_versions: Container[str] | None = None,
        by: str = "",
    ) -> Product:
        """Change a product, see Products.change."""
        async with self._store.at_home(product_id) as home:
            product = await home.products.change(product_id, change, expected_versions, by)
        await self._store.all.pushes.push(product_id)
        return product._replace(stock=await self._store.stock_after_change(product_id))

    async def withdraw(self, product_id: int, expected_versions: Container[str] | None = None, by: str = "") -> None:
        """Withdraw a product, see Products.withdraw."""
        async with self._store.at_home(product_id) as home:
            await home.products.withdraw(product_id, expected_versions, by)
        await self._store.all.pushes.push(product_id)


class PartitionedStock:
    """The stock of the products of a shop. The methods are those of Stock."""

    def __init__(self, store: PartitionedStore) -> None:
        self._store = store

    async def levels(self, product_id: int) -> StockLevels:
        """Return the units of a product on sale in all partitions, read over a moment. Raise ProductNotFound."""
        async with self._store.at_home(product_id) as home:
            await home.stock.levels(product_id)  # whether it is on sale
        return StockLevels(*await self._store.all.add_up(product_id, StockLevels._fields))

    async def change(
        self,
        product_id: int,
        change: "StockChange | StockCount",
        idempotency_key: str | None = None,
        expected_stocks: Collection[int] | None = None,
        by: str = "",
    ) -> ChangedStock:
        """Change the stock, see Stock.change: in the partition of the key, or in any.

        The stock of all partitions is a sum taken over a moment. So two changes at the same moment can both be made,
        although each expected another stock, or although both together exceed the limit.
        """
        partitions = self._store.all
        number = partitions.next() if idempotency_key is None else partitions.of_text(idempotency_key)
        stock = self._store.partitions[number].stock
        changed = await stock.change(product_id, change, idempotency_key, expected_stocks, by)
        stock_now = await self._store.stock_after_change(product_id)
        return changed._replace(product=changed.product._replace(stock=stock_now))


class PartitionedBoard:
    """What the live board shows. The methods are those of Board."""

    def __init__(self, store: PartitionedStore) -> None:
        self._store = store

    async def product_ids(self, after: int, limit: int) -> list[int]:
        """Return ids of products on sale, see Board.product_ids."""
        return await self._store.partitions[0].board.product_ids(after, limit)

    async def count_products(self) -> int:
        """Return how many products are on sale."""
        return await self._store.partitions[0].board.count_products()

    async def products(self, ids: Sequence[int]) -> list[ProductNumbers | None]:
        """Return the numbers of these products in all partitions, added up."""
        rows = await self._store.gather(lambda store: store.board.products(ids))
        totals = await self._store.all.exchange.looks.totals(ids)
        return [
            None
            if None in parts
            else parts[0]._replace(
                stock=max(0, totals[parts[0].id]),
                held=sum(part.held for part in parts),
                sold=sum(part.sold for part in parts),
            )
            for parts in zip(*rows, strict=True)
        ]

    async def next_holds(self, limit: int) -> NextHolds:
        """Return the holds that end next, at most `limit` of them."""
        found = await self._store.gather(lambda store: store.board.next_holds(limit))
        nearest = heapq.merge(*[holds.next for holds in found], key=lambda hold: hold[1])
        return NextHolds(sum(holds.total for holds in found), list(nearest)[:limit])


def _by_partition(partitions: Partitions, order_ids: Iterable[int]) -> dict[int, list[int]]:
    parts: dict[int, list[int]] = {}
    for order_id in order_ids:
        parts.setdefault(partitions.of_order(order_id), []).append(order_id)
    return parts


async def _any(work: Iterable[Awaitable[None]]) -> None:
    """Wait for all. Raise the first error if all have failed."""
    results = await asyncio.gather(*work, return_exceptions=True)
    errors = [result for result in results if result is not None]
    if len(errors) == len(results):
        raise errors[0]


AnyStore: TypeAlias = Store | PartitionedStore
"""A shop: with one partition, as most have, or with several."""

"""The products of a shop with several partitions, their stock, and the live board. Units are in all partitions.

A product is changed in one partition, its home. The others get the change before it is answered.
"""

import asyncio
import heapq
from collections.abc import Collection, Container, Sequence
from typing import TYPE_CHECKING

from service.domain.errors.refusals import ProductIdTaken, ProductNotFound
from service.domain.product import ListedProduct, Product
from service.storage.board import Board, NextHolds, ProductNumbers
from service.storage.idempotency import read_for_replay
from service.storage.partition import Partitions
from service.storage.products import Products
from service.storage.stock import ChangedStock, Stock, StockLevels

if TYPE_CHECKING:
    from service.domain.requests import NewProduct, ProductChange, ProductsQuery, StockChange, StockCount


class PartitionedProducts:
    """The products of a shop. The methods are those of Products.

    A change is made in the home of the product, and is answered when all partitions have it.
    """

    def __init__(self, products: Sequence[Products], partitions: Partitions) -> None:
        """`products`: of each partition, by number."""
        self._products = products
        self._partitions = partitions

    async def list(self, query: "ProductsQuery") -> tuple[list[ListedProduct], int | None]:
        """Return one page, see ProductList.read."""
        return await self._any().list(query)

    async def read_many(self, ids: Sequence[int], *, include_withdrawn: bool = False) -> Sequence[Product | None]:
        """Return several products, see Products.read_many."""
        return await self._any().read_many(ids, include_withdrawn=include_withdrawn)

    async def get(self, product_id: int) -> Product:
        """Return a product on sale, see Products.get."""
        number = self._partitions.next()
        products = self._products[number]
        try:
            return await products.get(product_id)
        except ProductNotFound:
            await self._partitions.pushes.update(number, [product_id])
            return await products.get(product_id)

    def _any(self) -> Products:
        return self._products[self._partitions.next()]

    async def add(self, new: "NewProduct", by: str = "") -> Product:
        """Add a product, see Products.add. Each partition begins with the same number of its units, if possible."""
        ids = self._products[0]
        product_id = new.id or await ids.next_id()
        if new.id is not None:
            await self._partitions.pushes.check_home(product_id)
        while True:
            home = self._partitions.pushes.home(product_id)
            try:
                product = await self._products[home].add(new.model_copy(update={"id": product_id}), by)
            except ProductIdTaken:
                if new.id is not None:
                    await self._partitions.pushes.finish(product_id)  # it may have been added a moment ago
                    raise
                product_id = await ids.search_id(product_id + 1)
            else:
                await self._partitions.pushes.push(product_id)
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
        async with self._partitions.pushes.at_home(product_id) as home:
            product = await self._products[home].change(product_id, change, expected_versions, by)
        await self._partitions.pushes.push(product_id)
        return product._replace(stock=await _stock_after_change(self._partitions, product_id))

    async def withdraw(self, product_id: int, expected_versions: Container[str] | None = None, by: str = "") -> None:
        """Withdraw a product, see Products.withdraw."""
        async with self._partitions.pushes.at_home(product_id) as home:
            await self._products[home].withdraw(product_id, expected_versions, by)
        await self._partitions.pushes.push(product_id)


class PartitionedStock:
    """The stock of the products of a shop. The methods are those of Stock."""

    def __init__(self, stocks: Sequence[Stock], partitions: Partitions) -> None:
        """`stocks`: of each partition, by number."""
        self._stocks = stocks
        self._partitions = partitions

    async def levels(self, product_id: int) -> StockLevels:
        """Return the units of a product on sale in all partitions, read over a moment. Raise ProductNotFound."""
        async with self._partitions.pushes.at_home(product_id) as home:
            await self._stocks[home].levels(product_id)  # whether it is on sale
        return StockLevels(*await self._partitions.add_up(product_id, StockLevels._fields))

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
        partitions = self._partitions
        number = partitions.next() if idempotency_key is None else partitions.of_text(idempotency_key)
        changed = await self._stocks[number].change(product_id, change, idempotency_key, expected_stocks, by)
        stock_now = await _stock_after_change(self._partitions, product_id)
        return changed._replace(product=changed.product._replace(stock=stock_now))


class PartitionedBoard:
    """What the live board shows. The methods are those of Board."""

    def __init__(self, boards: Sequence[Board], partitions: Partitions) -> None:
        """`boards`: of each partition, by number."""
        self._boards = boards
        self._partitions = partitions

    async def product_ids(self, after: int, limit: int) -> list[int]:
        """Return ids of products on sale, see Board.product_ids."""
        return await self._boards[0].product_ids(after, limit)

    async def count_products(self) -> int:
        """Return how many products are on sale."""
        return await self._boards[0].count_products()

    async def products(self, ids: Sequence[int]) -> list[ProductNumbers | None]:
        """Return the numbers of these products in all partitions, added up."""
        rows = await asyncio.gather(*[board.products(ids) for board in self._boards])
        totals = await self._partitions.exchange.looks.totals(ids)
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
        found = await asyncio.gather(*[board.next_holds(limit) for board in self._boards])
        nearest = heapq.merge(*[holds.next for holds in found], key=lambda hold: hold[1])
        return NextHolds(sum(holds.total for holds in found), list(nearest)[:limit])


async def _stock_after_change(partitions: Partitions, product_id: int) -> int:
    """Return the stock of a product in all partitions. Raise OutcomeUnknown: the change has been made."""
    [stock] = await read_for_replay(partitions.add_up(product_id, ("stock",)))
    return stock

"""The list of products on sale, page by page."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from service.domain.product import ListedProduct, Product
from service.storage import keys
from service.storage.client import MAX_SCAN_STEP, SCAN_LIMIT, RedisClient
from service.storage.partition import Partition
from service.storage.records import LISTED_PRODUCT_FIELDS, read_listed_products
from service.storage.tracked_products import TrackedProducts

if TYPE_CHECKING:
    from service.domain.requests import ProductsQuery


class ProductList:
    """The list of products of a shop."""

    def __init__(
        self,
        client: RedisClient,
        partition: Partition | None,
        read_many: Callable[[Sequence[int]], Awaitable[Sequence[Product | None]]],
    ) -> None:
        """`partition`: of a shop with several; None: the shop has none. `read_many`: reads products, all units."""
        self._client = client
        self._partition = partition
        self._read_many = read_many

    async def read(self, query: "ProductsQuery") -> tuple[list[ListedProduct], int | None]:
        """Return one page, lowest id first, and the `after` of the next page, or None at the end."""
        client, partition = self._client, self._partition
        client.admit()
        tracked = await client.begin_tracking() if partition is None else None
        begun = None if partition is None else await partition.all.sums.begin()
        index, in_stock = keys.products(client.shop), query.in_stock
        found: list[ListedProduct] = []
        after, scanned, step = query.after, 0, query.limit + 1
        while len(found) <= query.limit and scanned < SCAN_LIMIT:
            ids = await client.send("ZRANGEBYSCORE", index, f"({after}", "+inf", "LIMIT", 0, step, safe_to_repeat=True)
            # This reply came after the news of all earlier changes: what is known over its connection is not older.
            if partition is None:
                page = await self._read_page(ids, client.if_current(tracked))
            else:
                page = await partition.all.sums.read(ids, begun, self._read_many)
            found += [
                product
                for product in page
                if product is not None and (in_stock is None or in_stock == (product.stock > 0))
            ]
            if len(ids) < step:
                after = 0
                break
            after, scanned, step = int(ids[-1]), scanned + step, min(2 * step, MAX_SCAN_STEP)
        if len(found) > query.limit:
            return found[: query.limit], found[query.limit - 1].id
        return found, after or None

    async def _read_page(
        self, ids: Sequence[str], known: TrackedProducts[ListedProduct] | None
    ) -> Sequence[ListedProduct | None]:
        """Return products that were in the index a moment ago, also those that were withdrawn since.

        The page then is as it was when the index was read. Asking whether each is withdrawn would cost Redis 10 %.

        `known`: the products that have not changed since they were read. Only the others are read.
        """
        names = keys.products_with(self._client.shop, ids)
        if known is None:
            return _parse(ids, await self._client.read_hashes(names, LISTED_PRODUCT_FIELDS))
        page = known.find(names)
        if None not in page:
            return page
        places = [place for place, product in enumerate(page) if product is None]
        read = await self._read_unknown([ids[place] for place in places], [names[place] for place in places], known)
        for place, product in zip(places, read, strict=True):
            page[place] = product
        return page

    async def _read_unknown(
        self, ids: Sequence[str], names: Sequence[str], known: TrackedProducts[ListedProduct]
    ) -> Sequence[ListedProduct | None]:
        """Read products, and know them from now on, if there is room."""
        if known.has_room:
            read = await self._client.read_tracked(known, names, LISTED_PRODUCT_FIELDS, lambda rows: _parse(ids, rows))
            if read is not None:
                return read
        return _parse(ids, await self._client.read_hashes(names, LISTED_PRODUCT_FIELDS))


def _parse(ids: Sequence[str], rows: Sequence[Sequence[str | None]]) -> list[ListedProduct | None]:
    return [product and product.listed() for product in read_listed_products(list(map(int, ids)), rows)]

"""What a worker knows of the products of a shop with partitions: the part of each partition, and the sums."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from service.domain.errors.storage import Overloaded
from service.domain.product import ListedProduct, Product
from service.storage import keys
from service.storage.client import RedisClient
from service.storage.records import LISTED_PRODUCT_FIELDS, read_listed_products
from service.storage.sender import ErrorReply
from service.storage.tracked_products import MAX_KEPT_BYTES, TrackedProducts

_PART_BYTES: Final = 200
"""Memory of a part of a product: its key, the objects of Python, and the place in the table."""

_SUM_BYTES: Final = 550
"""Memory of the rest of a product, and of its sum, in addition to the texts, which are kept twice."""


class Part(NamedTuple):
    """What one partition has of a product. `units`: stock - moved.

    `product`: only in the home of the product. Its id and its stock mean nothing.
    """

    units: int
    product: Product | None


def _size(part: Part) -> int:
    if part.product is None:
        return _PART_BYTES
    return _PART_BYTES + _SUM_BYTES + 2 * (len(part.product.name) + len(part.product.description))


def _parse_at_home(rows: Sequence[Sequence[Any]]) -> list[Part | None]:
    products = read_listed_products([0] * len(rows), [row[:-1] for row in rows])
    return [
        product and Part(product.stock - int(row[-1] or 0), product)
        for product, row in zip(products, rows, strict=True)
    ]


def _parse_elsewhere(rows: Sequence[Sequence[Any]]) -> list[Part | None]:
    """Return the parts of rows with stock and moved. None: the product has not come to this partition yet."""
    return [None if stock is None else Part(int(stock) - int(moved or 0), None) for stock, moved in rows]


class _Reading(NamedTuple):
    """Which fields are read, and what makes parts of their rows."""

    fields: Sequence[str]
    parse: Callable[[Sequence[Sequence[Any]]], list[Part | None]]


_AT_HOME: Final = _Reading((*LISTED_PRODUCT_FIELDS, "moved"), _parse_at_home)
_ELSEWHERE: Final = _Reading(("stock", "moved"), _parse_elsewhere)


Known: TypeAlias = list[TrackedProducts[Part]]
"""What is known of the parts over the connection to each partition."""


class BegunPage(NamedTuple):
    """The parts that a page may use after `answers` has ended: by then, parts that changed earlier are removed."""

    known: Known
    answers: "asyncio.Task[BaseException | None]"
    """Returns an error instead of raising it, for the case that nobody waits for it any more."""


class SummedProducts:
    """The products that were read in all partitions, until one of them says that its part has changed.

    A page is never older than its request: `begin` waits for a reply of each partition, and what has changed before is
    not known any more then. A sum has parts that were read at different moments, but all of them are true after that
    reply, or were read later.
    """

    def __init__(self, count: int, clients: Sequence[RedisClient]) -> None:
        """Know nothing yet. `count`: of partitions. `clients`: theirs, which are added later."""
        self._count = count
        self._clients = clients
        self._sums: dict[str, ListedProduct] = {}
        """By product id: those of which all parts are known."""
        self._known: Known = []
        """The parts that the sums were made of."""
        self._next_answers: asyncio.Task[BaseException | None] | None = None
        """Of the question that was not sent yet."""

    def new_tracked(self) -> TrackedProducts[Part]:
        """Return what is known of the parts over a new connection to a partition: nothing."""
        return TrackedProducts(MAX_KEPT_BYTES // self._count, size=_size, on_forget=self._forget)

    def _forget(self, names: Iterable[str] | None) -> None:
        if names is None:
            self._sums.clear()
            return
        for name in names:
            self._sums.pop(name.rpartition(":")[2], None)

    async def begin(self) -> BegunPage | None:
        """Begin to ask each partition what has changed until now. None: not all of them say it.

        Pages that begin together share the question. It is sent when all of them have begun.
        """
        known = self._known
        if not known or not self._is_current(known):
            if await self._clients[0].begin_tracking() is None:
                return None
            found = await asyncio.gather(*[client.begin_tracking() for client in self._clients])
            known = [parts for parts in found if parts is not None]
            if len(known) < self._count:
                return None
        if self._next_answers is None:
            self._next_answers = asyncio.create_task(self._ask_all(), name="changed-products")
        return BegunPage(known, self._next_answers)

    async def _ask_all(self) -> BaseException | None:
        self._next_answers = None  # a page that begins from now on may know of later changes
        asked: list[Awaitable[Any]] = []
        overloaded = None
        try:
            for client in self._clients:  # no comprehension: after an error, the clients asked before are awaited
                asked.append(client.catch_up())
        except Overloaded as error:
            overloaded = error
        answers = await asyncio.gather(*asked, return_exceptions=True)
        return overloaded or next((answer for answer in answers if isinstance(answer, BaseException)), None)

    async def read(
        self,
        ids: Sequence[str],
        begun: BegunPage | None,
        read_whole: Callable[[Sequence[int]], Awaitable[Sequence[Product | None]]],
    ) -> Sequence[ListedProduct | None]:
        """Return products that were in the index a moment ago. Only what is not known is read.

        `begun`: what `begin` has returned. `read_whole`: reads products in all partitions, if nothing can be known.
        """
        known = None if begun is None else await self._known_now(begun)
        if known is None:
            return await _list_whole(ids, read_whole)
        page: list[ListedProduct | None] = list(map(self._sums.get, ids))
        if None not in page:
            return page
        unknown = [product_id for product_id, product in zip(ids, page, strict=True) if product is None]
        found = await self._read_unknown(unknown, known)
        if found is None:
            found = await _list_whole(unknown, read_whole)
        products = dict(zip(unknown, found, strict=True))
        return [product or products[product_id] for product_id, product in zip(ids, page, strict=True)]

    async def _known_now(self, begun: BegunPage) -> Known | None:
        """Return what is known, when all partitions have answered. None: connections have been replaced."""
        error = await asyncio.shield(begun.answers)
        if error is not None and not isinstance(error, ErrorReply):
            raise error
        # The reads that follow an ErrorReply get the same one, and say what it means.
        return begun.known if error is None and self._is_current(begun.known) else None

    def _is_current(self, known: Known) -> bool:
        """Return whether all connections are still those over which this is known. If so, the sums are of it."""
        if [client.if_current(parts) for client, parts in zip(self._clients, known, strict=True)] != known:
            return False
        if self._known != known:
            if any(parts.on_forget != self._forget for parts in known):
                return False  # somebody else would hear of changes
            self._sums.clear()
            self._known = known
        return True

    async def _read_unknown(self, ids: Sequence[str], known: Known) -> list[ListedProduct | None] | None:
        """Read the parts that are not known, and return the sums. None: they must be read in another way."""
        names = [keys.products_with(client.shop, ids) for client in self._clients]
        parts = [of_partition.find(some) for of_partition, some in zip(known, names, strict=True)]
        reads: list[tuple[int, list[int], _Reading]] = []
        for number, column in enumerate(parts):
            if None in column:
                if not known[number].has_room:
                    return None
                places = [place for place, part in enumerate(column) if part is None]
                here = [place for place in places if int(ids[place]) % self._count == number]
                elsewhere = [place for place in places if int(ids[place]) % self._count != number]
                reads += [(number, some, how) for some, how in ((here, _AT_HOME), (elsewhere, _ELSEWHERE)) if some]
        found = await asyncio.gather(
            *[
                self._clients[number].read_tracked(
                    known[number], [names[number][place] for place in places], how.fields, how.parse
                )
                for number, places, how in reads
            ]
        )
        for (number, places, _), rows in zip(reads, found, strict=True):
            if rows is None:
                return None
            for place, part in zip(places, rows, strict=True):
                parts[number][place] = part
        return self._add_up(ids, names, parts, known)

    def _add_up(
        self, ids: Sequence[str], names: Sequence[Sequence[str]], parts: Sequence[Sequence[Part | None]], known: Known
    ) -> list[ListedProduct | None]:
        """Return the sums of parts, and keep those of which all parts are still known."""
        # Until now, each of these parts may have changed, or its connection may have been replaced.
        is_current = self._is_current(known)
        now = [of_partition.find(some) for of_partition, some in zip(known, names, strict=True)]
        found: list[ListedProduct | None] = []
        for product_id, row, row_now in zip(ids, zip(*parts, strict=True), zip(*now, strict=True), strict=True):
            home = row[int(product_id) % self._count]
            if home is None or home.product is None:
                found.append(None)
                continue
            # Between two reads, units may have moved and may have been sold where they were not counted yet.
            stock = max(0, sum([part.units for part in row if part is not None]))
            product = home.product._replace(id=int(product_id), stock=stock).listed()
            found.append(product)
            if is_current and all(
                part is not None and part is part_now for part, part_now in zip(row, row_now, strict=True)
            ):
                self._sums[product_id] = product
        return found


async def _list_whole(
    ids: Sequence[str], read_whole: Callable[[Sequence[int]], Awaitable[Sequence[Product | None]]]
) -> list[ListedProduct | None]:
    return [product and product.listed() for product in await read_whole(list(map(int, ids)))]

"""Adds up what was sold, by product, day or hour, and what came back of it: `holdfast sales`."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Literal, NamedTuple

from service.domain.money import parse_cents
from service.domain.order import UNITS_IN, OrderLine, OrderStatus, parse_lines, parse_units, with_returned
from service.domain.times import Milliseconds, format_timestamp, parse_timestamp
from service.ops.order_rows import BATCH, IdSet, read_rows, scan_batches
from service.storage.partitioned import AnyStore
from service.storage.records import HashValues
from service.storage.sender import ErrorReply

Grouping = Literal["total", "product", "day", "hour"]

FIELDS: Final = ("status", "created_at", "completed_at", "products", "returned")
"""The fields that are read of every order. `read_sale` unpacks a row in the same order."""

_PERIOD_MS: Final = {"day": 86_400_000, "hour": 3_600_000}

_LAST_MOMENT: Final = parse_timestamp("9999-12-31T23:59:59.999Z")
"""A later moment has no date in Python."""


class Sale(NamedTuple):
    """A completed order: the moment of the sale, and its lines."""

    moment: Milliseconds
    lines: Sequence[OrderLine]


@dataclass(slots=True)
class Sums:
    """The sums of some sales. `revenue` and `refunded` are in cents; a refund is not taken off the revenue."""

    orders: int = 0
    units: int = 0
    revenue: int = 0
    returned: int = 0
    refunded: int = 0

    def add(self, lines: Iterable[OrderLine]) -> None:
        """Add one order, or some lines of one order."""
        self.orders += 1
        for _, quantity, price, returned in lines:
            self.units += quantity
            self.revenue += price * quantity
            if returned:
                self.returned += returned
                self.refunded += price * returned


@dataclass
class SalesReport:
    """The sums of all sales in a time, and those of each product or period.

    `groups`: by product id, or by the number of the period since 1970.
    `names`: of the products in `groups`.
    `unreadable`: how many orders are damaged, so that they are not in the sums.
    `archived`: how many orders of archives were read.
    """

    by: Grouping
    total: Sums = field(default_factory=Sums)
    groups: defaultdict[int, Sums] = field(default_factory=lambda: defaultdict(Sums))
    names: dict[int, str] = field(default_factory=dict)
    unreadable: int = 0
    archived: int = 0

    @property
    def nameless(self) -> int:
        """How many products were sold whose name could not be read, because they are damaged."""
        return len(self.groups) - len(self.names) if self.by == "product" else 0

    def add(self, sale: Sale) -> None:
        """Add one completed order. It counts once for each of its products."""
        self.total.add(sale.lines)
        if self.by == "product":
            for line in sale.lines:
                self.groups[line.product_id].add((line,))
        elif self.by != "total":
            self.groups[sale.moment // _PERIOD_MS[self.by]].add(sale.lines)

    def rows(self) -> Iterator[tuple[Mapping[str, int | str | None], Sums]]:
        """Yield the product or the period of each row, by the names of the columns, and its sums.

        The rows are sorted. Without sales there is no row.
        """
        if self.by == "total" and self.total.orders:
            yield {"period": "total"}, self.total
        for key, sums in sorted(self.groups.items()):
            if self.by == "product":
                yield {"product_id": key, "name": self.names.get(key)}, sums
            else:
                yield {"period": self._period(key)}, sums

    def _period(self, number: int) -> str:
        text = format_timestamp(Milliseconds(number * _PERIOD_MS[self.by]))  # 2026-11-26T14:00:00.000Z
        return text[:10] if self.by == "day" else f"{text[:16]}Z"


async def add_up_sales(
    store: AnyStore,
    by: Grouping = "total",
    start: Milliseconds | None = None,
    end: Milliseconds | None = None,
    progress: Callable[[int], object] = lambda count: None,
    archived: Iterable[Mapping[str, Any]] = (),
) -> SalesReport:
    """Read all orders, in bounded batches, and add up those that were completed from `start` on and before `end`.

    Call `progress` with the number of orders of each batch. An order that changes meanwhile counts as it was before or
    after the change. `archived`: the orders of archives, as `read_archive` yields them. Each order counts once.
    """
    first, last = start or 0, _LAST_MOMENT if end is None else end - 1
    report = SalesReport(by)
    seen = IdSet()

    def add(read: Callable[[], Sale | None]) -> None:
        try:
            sale = read()
        except (KeyError, TypeError, ValueError):
            report.unreadable += 1
            return
        if sale is not None and first <= sale.moment <= last:
            report.add(sale)

    async for order_ids in scan_batches(store, seen):
        for row in await read_rows(store, order_ids, FIELDS):
            add(partial(read_sale, row))
        progress(len(order_ids))
    # After Redis: an order that is archived meanwhile is in the file then.
    for order in archived:
        if seen.add(order["id"]):
            report.archived += 1
            add(partial(read_archived_sale, order))
    if by == "product":
        product_ids = sorted(report.groups)
        for begin in range(0, len(product_ids), BATCH):
            report.names.update(await _read_names(store, product_ids[begin : begin + BATCH]))
    return report


def read_sale(row: HashValues) -> Sale | None:
    """Return the sale of a row with FIELDS. None: the order is not completed. Raise ValueError if it is damaged."""
    status, created_at, completed_at, products, returned = row
    if status != OrderStatus.COMPLETED:
        if status not in UNITS_IN:
            raise ValueError(f"unknown status: {status!r}")
        return None
    # An order that was placed as completed has no completed_at.
    moment = Milliseconds(int((created_at if completed_at is None else completed_at) or ""))
    if not 0 <= moment <= _LAST_MOMENT:
        raise ValueError(f"before 1970 or after 9999: {moment}")
    lines = parse_lines(products or "")
    return Sale(moment, lines if returned is None else _lines_with_returned(lines, returned))


def read_archived_sale(order: Mapping[str, Any]) -> Sale | None:
    """Return the sale of an order of an archive. None: the order was not completed. Raise an error if it is damaged."""
    if order["status"] != OrderStatus.COMPLETED:
        return None
    lines = [
        OrderLine(line["product_id"], line["quantity"], parse_cents(str(line["price"])), line.get("returned"))
        for line in order["products"]
    ]
    return Sale(parse_timestamp(order.get("completed_at", order["created_at"])), lines)


def _lines_with_returned(lines: tuple[OrderLine, ...], text: str) -> tuple[OrderLine, ...]:
    """Return the lines with the units that came back. Raise ValueError if more came back than was bought."""
    returned = parse_units(text)
    bought = {line.product_id: line.quantity for line in lines}
    if any(units > bought.get(product_id, 0) for product_id, units in returned.items()):
        raise ValueError(f"more came back than was bought: {text[:100]!r}")
    return with_returned(lines, returned)


async def _read_names(store: AnyStore, product_ids: Sequence[int]) -> dict[int, str]:
    """Return the names of products on sale and of withdrawn ones. A damaged product is left out."""
    try:
        products = await store.products.read_many(product_ids, include_withdrawn=True)
        return {product.id: product.name for product in products if product is not None}
    except (ErrorReply, TypeError, ValueError) as error:
        if isinstance(error, ErrorReply) and error.code != "WRONGTYPE":
            raise
    if len(product_ids) == 1:
        return {}
    middle = len(product_ids) // 2
    return {**await _read_names(store, product_ids[:middle]), **await _read_names(store, product_ids[middle:])}

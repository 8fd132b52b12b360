"""Yields all products or orders of the shop, as JSON lines or CSV: `holdfast export`."""

import csv
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Final, Literal

from service.domain.limits import MAX_ID, MAX_PAGE
from service.domain.order import Order
from service.domain.product import Product
from service.ops.product_fields import PRODUCT_COLUMNS, field_text, product_fields
from service.storage.partitioned import AnyStore
from service.storage.sender import ErrorReply

Content = Literal["products", "orders"]
ExportFormat = Literal["jsonl", "csv"]

LINE_END: Final[dict[ExportFormat, str]] = {"jsonl": "\n", "csv": "\r\n"}
"""What ends a line of the output. For CSV, RFC 4180 wants both characters."""

ORDER_COLUMNS: Final = (
    *("id", "status", "created_at", "expires_at", "total_price", "product_id", "quantity", "price"),
    *("completed_at", "reference", "customer", "returned", "refunded"),
)


def csv_header(content: Content) -> str:
    """Return the names of the columns."""
    return _csv([PRODUCT_COLUMNS if content == "products" else ORDER_COLUMNS])


async def export(
    store: AnyStore,
    content: Content,
    file_format: ExportFormat = "jsonl",
    on_damaged: Callable[[], object] = lambda: None,
) -> AsyncIterator[str]:
    """Yield all products on sale, or all pending and completed orders. Damaged ones are left out.

    JSON is what the API shows. In CSV, an order has one line per product, and each line repeats the order's columns.
    Call `on_damaged` for each product or order that cannot be read.
    """

    async def texts(ids: Sequence[int]) -> list[str]:
        if content == "products":
            products = await store.products.read_many(ids)
            return [_product_text(product, file_format) for product in products if product is not None]
        return [_order_text(order, file_format) for order in await store.orders.read_listed(ids)]

    ids = await (_product_ids(store, on_damaged) if content == "products" else _order_ids(store))
    for start in range(0, len(ids), MAX_PAGE):
        for text in await _readable(texts, ids[start : start + MAX_PAGE], on_damaged):
            yield text


async def _product_ids(store: AnyStore, on_damaged: Callable[[], object]) -> list[int]:
    """Return the ids of all products on sale, lowest first."""
    found: set[str] = set()
    async for members in store.partitions[0].inspection.scan_products():
        found.update(members)
    product_ids = [int(member) for member in found if member.isdecimal() and int(member) <= MAX_ID]
    for _ in range(len(found) - len(product_ids)):
        on_damaged()
    return sorted(product_ids)


async def _order_ids(store: AnyStore) -> list[int]:
    """Return the ids of all orders, highest first."""
    # Not as pages of the list: orders above the counter of ids would be missing after a backup was restored.
    return sorted({order_id async for order_id in store.orders.scan_ids()}, reverse=True)


async def _readable(
    texts: Callable[[Sequence[int]], Awaitable[list[str]]], ids: Sequence[int], on_damaged: Callable[[], object]
) -> list[str]:
    """Return what `texts` returns for these ids. Those that make it fail are left out."""
    try:
        return await texts(ids)
    except (ErrorReply, OverflowError, TypeError, ValueError) as error:
        if isinstance(error, ErrorReply) and error.code != "WRONGTYPE":
            raise
    if len(ids) == 1:
        on_damaged()
        return []
    # The error does not say which one it was.
    middle = len(ids) // 2
    return [*await _readable(texts, ids[:middle], on_damaged), *await _readable(texts, ids[middle:], on_damaged)]


def _product_text(product: Product, file_format: ExportFormat) -> str:
    return product.json() if file_format == "jsonl" else _csv([_product_cells(product)])


def _order_text(order: Order, file_format: ExportFormat) -> str:
    return order.json() if file_format == "jsonl" else _csv(_order_rows(order))


def _product_cells(product: Product) -> list[str]:
    fields = product_fields(product)
    return [field_text(name, fields[name]) for name in PRODUCT_COLUMNS]


def _order_rows(order: Order) -> Iterable[list[str]]:
    for line in order.lines:
        fields = {**order._asdict(), **line._asdict()}
        yield [field_text(name, fields[name]) for name in ORDER_COLUMNS]


def _csv(rows: Iterable[Iterable[str]]) -> str:
    """Return rows as RFC 4180 wants them, without the last line end."""
    text = io.StringIO()
    csv.writer(text, lineterminator=LINE_END["csv"]).writerows(rows)
    return text.getvalue().removesuffix(LINE_END["csv"])

"""Yields all products or orders of the shop, as JSON lines or CSV: `holdfast export`."""

import csv
import io
from collections.abc import AsyncIterator, Iterable
from typing import Final, Literal

from service.domain.limits import MAX_PAGE
from service.domain.order import Order
from service.domain.product import Product
from service.domain.requests import ProductsQuery
from service.ops.product_fields import PRODUCT_COLUMNS, field_text, product_fields
from service.storage.partitioned import AnyStore

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


async def export(store: AnyStore, content: Content, file_format: ExportFormat = "jsonl") -> AsyncIterator[str]:
    """Yield all products on sale, or all pending and completed orders.

    JSON is what the API shows. In CSV, an order has one line per product, and each line repeats the order's columns.
    """
    if content == "products":
        async for product in _products(store):
            yield product.json() if file_format == "jsonl" else _csv([_product_cells(product)])
    else:
        async for order in _orders(store):
            yield order.json() if file_format == "jsonl" else _csv(_order_rows(order))


async def _products(store: AnyStore) -> AsyncIterator[Product]:
    """Yield all products on sale, lowest id first."""
    after: int | None = 0
    while after is not None:
        products, after = await store.products.list(ProductsQuery.model_construct(limit=MAX_PAGE, after=after))
        for product in products:
            yield product


async def _orders(store: AnyStore) -> AsyncIterator[Order]:
    """Yield all pending and completed orders, highest id first."""
    # Not as pages of the list: orders above the counter of ids would be missing after a backup was restored.
    order_ids = sorted({order_id async for order_id in store.orders.scan_ids()}, reverse=True)
    for start in range(0, len(order_ids), MAX_PAGE):
        for order in await store.orders.read_listed(order_ids[start : start + MAX_PAGE]):
            yield order


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

"""Yields all products or orders of the shop as JSON lines: `holdfast export`."""

from collections.abc import AsyncIterator
from typing import Literal

from service.domain.limits import MAX_PAGE
from service.domain.requests import ProductsQuery
from service.storage.store import Store


def export(store: Store, what: Literal["products", "orders"]) -> AsyncIterator[str]:
    """Yield all products on sale, or all pending and completed orders, as the API shows them."""
    return _products(store) if what == "products" else _orders(store)


async def _products(store: Store) -> AsyncIterator[str]:
    """Yield all products on sale, lowest id first."""
    after: int | None = 0
    while after is not None:
        products, after = await store.products.list(ProductsQuery.model_construct(limit=MAX_PAGE, after=after))
        for product in products:
            yield product.json()


async def _orders(store: Store) -> AsyncIterator[str]:
    """Yield all pending and completed orders, highest id first."""
    # Not as pages of the list: orders above the counter of ids would be missing after a backup was restored.
    order_ids = sorted({order_id async for order_id in store.orders.scan_ids()}, reverse=True)
    for start in range(0, len(order_ids), MAX_PAGE):
        for order in await store.orders.read_listed(order_ids[start : start + MAX_PAGE]):
            yield order.json()

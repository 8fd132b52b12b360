"""Yields all products or orders of the shop as JSON lines: `holdfast export`."""

from collections.abc import AsyncIterator
from typing import Literal

from service.domain.limits import MAX_PAGE
from service.domain.requests import OrdersQuery, ProductsQuery
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
    before: int | None = None
    while True:
        orders, before = await store.orders.list(OrdersQuery.model_construct(limit=MAX_PAGE, before=before))
        for order in orders:
            yield order.json()
        if before is None:
            return

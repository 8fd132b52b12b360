"""Reads whole keys and indexes, in batches: for the audit, and for the progress bars of the commands."""

from collections.abc import AsyncIterator, Sequence
from typing import Final, NamedTuple

from service.storage import keys
from service.storage.client import RedisClient


class Unreadable(NamedTuple):
    """The row of a key that is not a hash."""

    error: str


class OrderRow(NamedTuple):
    """An order and its scores in both indexes, all read at one moment. None: absent."""

    id: str | None
    status: str | None
    total_price: str | None
    products: str | None
    created_at: str | None
    expires_at: str | None
    holds_score: str | None
    pending_score: str | None

    @property
    def exists(self) -> bool:
        return any(getattr(self, name) for name in AUDIT_ORDER_FIELDS)


class ProductRow(NamedTuple):
    """A product and its score in the index of products on sale, all read at one moment. None: absent."""

    id: str | None
    price: str | None
    stock: str | None
    held: str | None
    sold: str | None
    received: str | None
    withdrawn: str | None
    index_score: str | None

    @property
    def exists(self) -> bool:
        return any(getattr(self, name) for name in AUDIT_PRODUCT_FIELDS)


AUDIT_ORDER_FIELDS: Final = tuple(name for name in OrderRow._fields if not name.endswith("_score"))
"""The fields of an order that the script reads. The scores follow them in the reply."""

AUDIT_PRODUCT_FIELDS: Final = tuple(name for name in ProductRow._fields if not name.endswith("_score"))
"""The fields of a product that the script reads. The score follows them in the reply."""


class Inspection:
    """What the audit reads of a shop. Each method also raises what RedisClient raises."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    async def audit_orders(self, order_ids: Sequence[int]) -> tuple[str, list[OrderRow | Unreadable]]:
        """Return the id of the last event, and each order with its indexes, all read at one moment."""
        shop = self._client.shop
        names = [
            keys.events(shop),
            keys.holds(shop),
            keys.pending(shop),
            *[keys.order(shop, order_id) for order_id in order_ids],
        ]
        args = audit_orders_args(fields=AUDIT_ORDER_FIELDS, order_ids=order_ids)
        _, last_event, *rows = await self._client.run("audit_orders", names, args, safe_to_repeat=True)
        # A key that is not a hash has a row of one value, the error.
        return last_event, [OrderRow._make(row) if len(row) > 1 else Unreadable(*row) for row in rows]

    async def audit_products(self, product_ids: Sequence[int]) -> tuple[str, list[ProductRow | Unreadable]]:
        """Return the id of the last event, and each product with its index, all read at one moment."""
        shop = self._client.shop
        names = [
            keys.events(shop),
            keys.products(shop),
            *[keys.product(shop, product_id) for product_id in product_ids],
        ]
        args = audit_products_args(fields=AUDIT_PRODUCT_FIELDS, product_ids=product_ids)
        _, last_event, *rows = await self._client.run("audit_products", names, args, safe_to_repeat=True)
        return last_event, [ProductRow._make(row) if len(row) > 1 else Unreadable(*row) for row in rows]

    async def scan_keys(self, kind: str = "") -> AsyncIterator[list[str]]:
        """Yield all keys of the shop, or of a kind such as `order:`, in bounded batches. A key may come twice."""
        pattern = f"{keys.prefix(self._client.shop)}{kind}*"
        cursor = "0"
        while True:
            cursor, names = await self._client.send(
                "SCAN", cursor, "MATCH", pattern, "COUNT", 1000, safe_to_repeat=True
            )
            yield names
            if cursor == "0":
                return

    async def scan_index(self, name: str) -> AsyncIterator[list[str]]:
        """Yield all members of a sorted set, in bounded batches. A member may come twice."""
        cursor = "0"
        while True:
            cursor, members = await self._client.send("ZSCAN", name, cursor, "COUNT", 1000, safe_to_repeat=True)
            yield members[::2]
            if cursor == "0":
                return

    async def key_type(self, name: str) -> str:
        """Return `hash`, `zset`, ..., or `none` if there is no such key."""
        return str(await self._client.send("TYPE", name, safe_to_repeat=True))

    async def count_keys(self) -> int:
        """Return how many keys this Redis has, of all shops."""
        return int(await self._client.send("DBSIZE", safe_to_repeat=True))

    async def count_products(self) -> int:
        """Return how many products are on sale."""
        return int(await self._client.send("ZCARD", keys.products(self._client.shop), safe_to_repeat=True))


def audit_orders_args(*, fields: Sequence[str], order_ids: Sequence[int]) -> tuple[str | int, ...]:
    """Return ARGV of lua/audit_orders.lua."""
    return (len(fields), *fields, *order_ids)


def audit_products_args(*, fields: Sequence[str], product_ids: Sequence[int]) -> tuple[str | int, ...]:
    """Return ARGV of lua/audit_products.lua."""
    return (len(fields), *fields, *product_ids)

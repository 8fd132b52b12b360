"""Reading for the audit and the exports: whole keys and indexes, in batches."""

from collections.abc import AsyncIterator, Sequence
from typing import Final

from service.storage import keys
from service.storage.client import RedisClient

AuditRow = list[str | None]
"""Values in the order of the fields below, each or None. If the key is no hash: only the engine's error."""

AUDIT_ORDER_FIELDS: Final = ("id", "status", "total_price", "products", "created_at", "expires_at")
"""A row of `audit_orders` has these, then the scores in the indexes `holds` and `pending`."""

AUDIT_PRODUCT_FIELDS: Final = ("id", "price", "stock", "held", "sold", "received", "withdrawn")
"""A row of `audit_products` has these, then the score in the index `products`."""


class Inspection:
    """What the audit reads of a shop. Each verb also raises what RedisClient raises."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    async def audit_orders(self, order_ids: Sequence[int]) -> tuple[str, list[AuditRow]]:
        """Return the id of the last event, and each order with its indexes, all as of one moment."""
        shop = self._client.shop
        names = [
            keys.events(shop),
            keys.holds(shop),
            keys.pending(shop),
            *[keys.order(shop, order_id) for order_id in order_ids],
        ]
        args = audit_orders_args(fields=AUDIT_ORDER_FIELDS, order_ids=order_ids)
        _, last_event, *rows = await self._client.run("audit_orders", names, args, idempotent=True)
        return last_event, rows

    async def audit_products(self, product_ids: Sequence[int]) -> tuple[str, list[AuditRow]]:
        """Return the id of the last event, and each product with its index, all as of one moment."""
        shop = self._client.shop
        names = [
            keys.events(shop),
            keys.products(shop),
            *[keys.product(shop, product_id) for product_id in product_ids],
        ]
        args = audit_products_args(fields=AUDIT_PRODUCT_FIELDS, product_ids=product_ids)
        _, last_event, *rows = await self._client.run("audit_products", names, args, idempotent=True)
        return last_event, rows

    async def scan_keys(self) -> AsyncIterator[list[str]]:
        """Give all keys of the shop, in bounded batches. A key may come twice."""
        pattern = f"{keys.prefix(self._client.shop)}*"
        cursor = "0"
        while True:
            cursor, names = await self._client.send("SCAN", cursor, "MATCH", pattern, "COUNT", 1000, idempotent=True)
            yield names
            if cursor == "0":
                return

    async def scan_index(self, name: str) -> AsyncIterator[list[str]]:
        """Give all members of a sorted set, in bounded batches. A member may come twice."""
        cursor = "0"
        while True:
            cursor, members = await self._client.send("ZSCAN", name, cursor, "COUNT", 1000, idempotent=True)
            yield members[::2]
            if cursor == "0":
                return

    async def key_type(self, name: str) -> str:
        """Return `hash`, `zset`, ..., or `none` if there is no such key."""
        return str(await self._client.send("TYPE", name, idempotent=True))

    async def count_keys(self) -> int:
        """Return how many keys the engine has, of all shops."""
        return int(await self._client.send("DBSIZE", idempotent=True))

    async def count_products(self) -> int:
        """Return how many products are on sale."""
        return int(await self._client.send("ZCARD", keys.products(self._client.shop), idempotent=True))


def audit_orders_args(*, fields: Sequence[str], order_ids: Sequence[int]) -> tuple[str | int, ...]:
    """Return ARGV of lua/audit_orders.lua."""
    return (len(fields), *fields, *order_ids)


def audit_products_args(*, fields: Sequence[str], product_ids: Sequence[int]) -> tuple[str | int, ...]:
    """Return ARGV of lua/audit_products.lua."""
    return (len(fields), *fields, *product_ids)

"""Reads whole keys and indexes, in batches: for the audit, and for the progress bars of the commands."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final, NamedTuple

from service.domain.errors.storage import StorageUnavailable
from service.storage import keys
from service.storage.client import RedisClient

MAX_SCANS: Final = 3
"""Attempts to read all keys, if Redis is restarted meanwhile."""


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
    completed_at: str | None
    reference: str | None
    customer: str | None
    returned: str | None
    refunded: str | None
    written_off: str | None
    holds_score: str | None
    pending_score: str | None

    @property
    def exists(self) -> bool:
        return any(self[:-2])  # all but the scores


class ProductRow(NamedTuple):
    """A product and its score in the index of products on sale, all read at one moment. None: absent."""

    id: str | None
    price: str | None
    stock: str | None
    held: str | None
    sold: str | None
    received: str | None
    written_off: str | None
    archived: str | None
    archived_written_off: str | None
    withdrawn: str | None
    sale_rules: str | None
    index_score: str | None

    @property
    def exists(self) -> bool:
        return any(getattr(self, name) for name in AUDIT_PRODUCT_FIELDS)


class CatalogueRow(NamedTuple):
    """What the audit compares of a product between partitions, all read at one moment. None: absent."""

    moved: str | None
    version: str | None
    withdrawn: str | None
    name: str | None
    price: str | None
    sale_rules: str | None
    unpropagated: str | None


class PartitionRows(NamedTuple):
    """What one partition of a shop has given to the others and taken from them, and rows of products, at one moment.

    `sent`, `taken`: the id of the last transfer, by partition. `outgoing`: by partition, each transfer that is not
    settled and its score. All are as Redis has them.
    """

    sent: dict[str, str]
    taken: dict[str, str]
    outgoing: dict[int, list[tuple[str, str]]]
    products: list[CatalogueRow | Unreadable]


AUDIT_ORDER_FIELDS: Final = tuple(name for name in OrderRow._fields if not name.endswith("_score"))
"""The fields of an order that the script reads. The reply has the scores in front of the rows."""

AUDIT_PRODUCT_FIELDS: Final = tuple(name for name in ProductRow._fields if not name.endswith("_score"))
"""The fields of a product that the script reads. The score follows them in the reply."""

_CATALOGUE_FIELDS: Final = CatalogueRow._fields[:-1]


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
        reply = await self._client.run("audit_orders", names, args, safe_to_repeat=True)
        _, last_event, holds, pending, *rows = reply
        # A key that is not a hash has a row of one value, the error.
        return last_event, [
            OrderRow._make([*row, hold, place]) if len(row) > 1 else Unreadable(*row)
            for row, hold, place in zip(rows, holds, pending, strict=True)
        ]

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

    async def audit_partition(self, others: Sequence[int], product_ids: Sequence[int]) -> PartitionRows:
        """Return how a partition has exchanged units with these others, and products, all read at one moment."""
        shop = self._client.shop
        names = [
            keys.sent(shop),
            keys.taken(shop),
            keys.unpropagated(shop),
            *[keys.outgoing(shop, to) for to in others],
            *[keys.product(shop, product_id) for product_id in product_ids],
        ]
        args = audit_partition_args(others=len(others), fields=_CATALOGUE_FIELDS, product_ids=product_ids)
        _, sent, taken, *rows = await self._client.run("audit_partition", names, args, safe_to_repeat=True)
        return PartitionRows(
            dict(zip(sent[::2], sent[1::2], strict=True)),
            dict(zip(taken[::2], taken[1::2], strict=True)),
            {to: list(zip(found[::2], found[1::2], strict=True)) for to, found in zip(others, rows, strict=False)},
            [CatalogueRow._make(row) if len(row) > 1 else Unreadable(*row) for row in rows[len(others) :]],
        )

    async def audit_customers(self, customers: Sequence[str]) -> tuple[str, list[dict[str, str] | Unreadable]]:
        """Return the id of the last event, and the counts of each customer by product id, all read at one moment."""
        shop = self._client.shop
        names = [keys.events(shop), *[keys.customer(shop, customer) for customer in customers]]
        _, last_event, *rows = await self._client.run("audit_customers", names, (), safe_to_repeat=True)
        return last_event, [
            Unreadable(*row) if len(row) == 1 else dict(zip(row[::2], row[1::2], strict=True)) for row in rows
        ]

    async def index_members(self, names: Sequence[str], limit: int) -> list[list[str]]:
        """Return the first members of each index. Of a key that is not a sorted set: the error message."""
        rows: list[list[str]]
        _, *rows = await self._client.run("audit_indexes", names, audit_indexes_args(limit=limit), safe_to_repeat=True)
        return rows

    async def scores(self, entries: Sequence[tuple[str, int]]) -> list[str | None]:
        """Return the score of each entry, an index and an order id. None: it is not a member."""
        names, order_ids = [name for name, _ in entries], [order_id for _, order_id in entries]
        scores: list[str | None]
        _, *scores = await self._client.run("audit_members", names, order_ids, safe_to_repeat=True)
        return scores

    @property
    def server_id(self) -> str:
        """The id of the running server. After a restart or a failover it is another one."""
        return self._client.server_id

    async def scan_keys(self, kind: str = "") -> AsyncIterator[list[str]]:
        """Yield all keys of the shop, or of a kind such as `order:`, in bounded batches. A key may come twice."""
        pattern = f"{keys.prefix(self._client.shop)}{kind}*"
        async for names in self._scan(lambda cursor: self._scan_keys(cursor, pattern)):
            yield names

    async def scan_index(self, name: str) -> AsyncIterator[list[str]]:
        """Yield all members of a sorted set, in bounded batches. A member may come twice."""

        def step(cursor: str) -> Awaitable[Any]:
            return self._client.send("ZSCAN", name, cursor, "COUNT", 1000, safe_to_repeat=True)

        async for members in self._scan(step):
            yield members[::2]

    def scan_products(self) -> AsyncIterator[list[str]]:
        """Yield the ids of all products on sale as Redis has them, in bounded batches. An id may come twice."""
        return self.scan_index(keys.products(self._client.shop))

    async def shops(self) -> list[str]:
        """Return the names of all shops in this Redis that this user may see. A partition is no shop of its own."""
        return [name for name in await self.shops_and_partitions() if ":" not in name]

    async def shops_and_partitions(self) -> list[str]:
        """Return the names of all shops, and of partitions of shops, in this Redis that this user may see."""
        found = set()
        async for names in self._scan(lambda cursor: self._scan_keys(cursor, keys.meta("*"))):
            found |= {name[1 : -len("}:meta")] for name in names}
        return sorted(found)

    def _scan_keys(self, cursor: str, pattern: str) -> Awaitable[Any]:
        return self._client.send("SCAN", cursor, "MATCH", pattern, "COUNT", 1000, safe_to_repeat=True)

    async def _scan(self, step: Callable[[str], Awaitable[Any]]) -> AsyncIterator[list[str]]:
        """Yield what a command with a cursor returns. A cursor means nothing to another server: then start again.

        Raise StorageUnavailable if that happens again and again.
        """
        for _ in range(MAX_SCANS):
            cursor, server_id = "0", None
            while True:
                cursor, found = await step(cursor)
                if server_id not in (None, self.server_id):
                    break
                server_id = self.server_id
                yield found
                if cursor == "0":
                    return
        raise StorageUnavailable(f"Redis was restarted or replaced {MAX_SCANS} times while its keys were read")

    async def shop_exists(self) -> bool:
        """Return whether there is any key of this shop."""
        if await self._client.send("EXISTS", keys.meta(self._client.shop), safe_to_repeat=True):
            return True
        async for names in self.scan_keys():
            if names:
                return True
        return False

    async def counter(self, name: str) -> str | None:
        """Return the value of a counter as Redis has it, or None if there is no such key."""
        value: str | None = await self._client.send("GET", name, safe_to_repeat=True)
        return value

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


def audit_partition_args(*, others: int, fields: Sequence[str], product_ids: Sequence[int]) -> tuple[str | int, ...]:
    """Return ARGV of lua/audit_partition.lua."""
    return (others, len(fields), *fields, *product_ids)


def audit_indexes_args(*, limit: int) -> tuple[str | int, ...]:
    """Return ARGV of lua/audit_indexes.lua."""
    return (limit,)

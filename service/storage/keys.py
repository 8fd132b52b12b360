"""Every key name in Redis, as a pure function of the shop.

All keys of a shop share the hash tag `{shop}`, so a Redis Cluster puts them into one slot, and one script can use any
set of them. Those of a partition share `{shop:3}`: to these functions, it is a shop of this name
(https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags).
"""

from collections.abc import Iterable


def prefix(shop: str) -> str:
    """Return the beginning of all keys of a shop."""
    return f"{{{shop}}}:"


def product(shop: str, product_id: int) -> str:
    """Return the key of a product. Hash: id, name, description, price, stock, held, sold, received, withdrawn, ..."""
    return f"{{{shop}}}:product:{product_id}"


def products_with(shop: str, ids: Iterable[str]) -> list[str]:
    """Return the keys of several products: one call for a page."""
    return [f"{{{shop}}}:product:{product_id}" for product_id in ids]


def products(shop: str) -> str:
    """Return the key of the index of products on sale. Sorted set: product ids, score = id."""
    return f"{{{shop}}}:products"


def order(shop: str, order_id: int) -> str:
    """Return the key of an order. Hash: id, status, total_price, products, created_at, ..."""
    return f"{{{shop}}}:order:{order_id}"


def holds(shop: str) -> str:
    """Return the key of the index of holds. Sorted set: ids of pending orders, score = deadline in ms since 1970."""
    return f"{{{shop}}}:holds"


def pending(shop: str) -> str:
    """Return the key of the index that lists pending orders by id. Sorted set: their ids, score = id."""
    return f"{{{shop}}}:pending"


def customer(shop: str, customer_id: str) -> str:
    """Return the key of a customer. Hash: product id = units that the customer holds and has bought."""
    return f"{{{shop}}}:customer:{customer_id}"


def customer_orders(shop: str, customer_id: str) -> str:
    """Return the key of the index of a customer's orders. Sorted set: ids of orders in any status, score = id."""
    return f"{{{shop}}}:orders:customer:{customer_id}"


def reference_orders(shop: str, reference: str) -> str:
    """Return the key of the index of orders with a reference. Sorted set: ids of orders in any status, score = id."""
    return f"{{{shop}}}:orders:reference:{reference}"


def archived(shop: str) -> str:
    """Return the key of the index of archived orders. Sorted set: the first id of each range, score = its last id."""
    return f"{{{shop}}}:archived"


def skipped(shop: str) -> str:
    """Return the key of the order ids that a restore or a partition has skipped. Sorted set: as that of archived."""
    return f"{{{shop}}}:skipped"


def idempotency(shop: str, key: str, customer_id: str | None = None, by: str = "") -> str:
    """Return the Redis key of an Idempotency-Key. Hash: fingerprint; order, product, return or refusal.

    Each customer has keys of its own, and so has each API key, whose name is `by`. An Idempotency-Key contains no
    space, so the customer begins after the first space.
    """
    start = f"{{{shop}}}:idempotency@{by}" if by else f"{{{shop}}}:idempotency"
    return f"{start}:{key}" if customer_id is None else f"{start}:{key} {customer_id}"


def refusals(shop: str) -> str:
    """Return the key of the count of refusals that Idempotency-Keys remember. Number; begins again after a day."""
    return f"{{{shop}}}:refusals"


def events(shop: str) -> str:
    """Return the key of the event stream: one entry per change."""
    return f"{{{shop}}}:events"


def product_ids(shop: str) -> str:
    """Return the key of the counter of product ids. Number: the last id that Holdfast chose."""
    return f"{{{shop}}}:ids:products"


def order_ids(shop: str) -> str:
    """Return the key of the counter of order ids. Number: the last id that a worker reserved."""
    return f"{{{shop}}}:ids:orders"


def meta(shop: str) -> str:
    """Return the key of the facts about the shop. Hash: layout, the schema version; data_id, a random text; ..."""
    return f"{{{shop}}}:meta"


def partition(shop: str, number: int) -> str:
    """Return the name of a partition of a shop: `{shop:3}:order:7` is a key of partition 3. No shop has a colon."""
    return f"{shop}:{number}"


def sent(shop: str) -> str:
    """Return the key of the last transfer to each other partition. Hash: number of that partition = id."""
    return f"{{{shop}}}:sent"


def outgoing(shop: str, to: int) -> str:
    """Return the key of the units on their way to another partition. Sorted set: `<id> <product id> <units>`, id."""
    return f"{{{shop}}}:outgoing:{to}"


def taken(shop: str) -> str:
    """Return the key of the last transfer taken in from each other partition. Hash: number of that partition = id."""
    return f"{{{shop}}}:taken"


def unpropagated(shop: str) -> str:
    """Return the key of the products whose last change some partitions lack. Sorted set: id, score = version."""
    return f"{{{shop}}}:unpropagated"

"""Every key name in Redis, as a pure function of the shop.

All keys of a shop share the hash tag `{shop}`, so any set of them lives in one slot and may be
handed to one script on Redis Cluster (https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags).
"""


def prefix(shop: str) -> str:
    """What all keys of a shop begin with."""
    return f"{{{shop}}}:"


def product(shop: str, product_id: int) -> str:
    """Hash of one product: id, name, description, price, stock, held, sold, received, withdrawn."""
    return f"{{{shop}}}:product:{product_id}"


def products(shop: str) -> str:
    """Sorted set of the ids on sale, score = id."""
    return f"{{{shop}}}:products"


def order(shop: str, order_id: int) -> str:
    """Hash of one order: id, status, total_price, products, created_at, ..."""
    return f"{{{shop}}}:order:{order_id}"


def holds(shop: str) -> str:
    """Sorted set of the pending orders' ids, score = deadline in ms since 1970."""
    return f"{{{shop}}}:holds"


def pending(shop: str) -> str:
    """Sorted set of the pending orders' ids, score = id: pages in id order, which `holds` cannot give."""
    return f"{{{shop}}}:pending"


def idempotency(shop: str, key: str) -> str:
    """Hash of what became of one Idempotency-Key: fingerprint, and the order, product or refusal."""
    return f"{{{shop}}}:idempotency:{key}"


def events(shop: str) -> str:
    """Stream with one entry per change."""
    return f"{{{shop}}}:events"


def product_ids(shop: str) -> str:
    """Counter: the last product id handed out."""
    return f"{{{shop}}}:ids:products"


def order_ids(shop: str) -> str:
    """Counter: the last order id handed out to a worker."""
    return f"{{{shop}}}:ids:orders"


def meta(shop: str) -> str:
    """Hash: the version of this layout."""
    return f"{{{shop}}}:meta"

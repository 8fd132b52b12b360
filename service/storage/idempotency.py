"""What an Idempotency-Key remembers of a request, and for how long."""

import json
from collections.abc import Awaitable, Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, TypeVar

from service.domain.errors.storage import OutcomeUnknown, StorageError

if TYPE_CHECKING:
    from service.domain.requests import NewOrder, NewReturn, StockChange, StockCount

T = TypeVar("T")

REFUSAL_MS: Final = 24 * 60 * 60 * 1000
"""How long an Idempotency-Key remembers a refusal. It remembers an order or a stock change without a limit of time."""

SHORT_REFUSAL_MS: Final = 60 * 1000
"""How long it remembers a refusal if HOLDFAST_REFUSALS_MAX refusals are remembered already: long enough for retries."""


def order_fingerprint(new: "NewOrder", quantities: Mapping[int, int]) -> str:
    """Return the fingerprint of an order: a hash of what it asks for.

    Two requests that mean the same have the same fingerprint, even if their bytes differ.

    The order of the lines does not matter, nor whether a quantity is split over several lines.
    """
    lines = ",".join([f"{product_id}x{quantity}" for product_id, quantity in sorted(quantities.items())])
    hold_seconds = new.hold_seconds if new.status == "pending" else 0
    names = "" if new.reference is None and new.customer is None else json.dumps([new.reference, new.customer])
    return _hash(f"order {lines} {hold_seconds} {new.total_price}{names}")


def stock_change_fingerprint(product_id: int, change: "StockChange | StockCount") -> str:
    """Return the fingerprint of a stock change or a stock count."""
    if change.count is not None:
        return _hash(f"count {product_id} {change.count} {change.reason}")
    return _hash(f"stock {product_id} {change.change} {change.reason}")


def return_fingerprint(order_id: int, new: "NewReturn") -> str:
    """Return the fingerprint of a return."""
    return _hash(f"return {order_id} {sorted(new.quantities().items())} {new.restock} {new.reason}")


def _hash(text: str) -> str:
    return blake2b(text.encode(), digest_size=16).hexdigest()


async def read_for_replay(reading: Awaitable[T]) -> T:
    """Return the result of `reading`, for a repeated Idempotency-Key. Raise OutcomeUnknown if it cannot be read now.

    The first request with this key did change something, so an error that says "nothing was done" would be wrong.
    """
    try:
        return await reading
    except StorageError as error:
        raise OutcomeUnknown(error.reason) from error

"""What an Idempotency-Key remembers of a request, and for how long."""

from collections.abc import Awaitable, Mapping
from hashlib import blake2b
from typing import Final, TypeVar

from service.domain.errors.storage import OutcomeUnknown, Overloaded, StorageUnavailable
from service.domain.requests import NewOrder, StockChange

T = TypeVar("T")

REFUSAL_MS: Final = 24 * 60 * 60 * 1000
"""How long an Idempotency-Key remembers a refusal. It remembers an order or a stock change without a limit of time."""

SHORT_REFUSAL_MS: Final = 60 * 1000
"""How long it remembers a refusal if HOLDFAST_REFUSALS_MAX refusals are remembered already: long enough for retries."""


def order_fingerprint(new: NewOrder, quantities: Mapping[int, int]) -> str:
    """Return the fingerprint of an order: a hash of what it asks for.

    Two requests that mean the same have the same fingerprint, even if their bytes differ.

    The order of the lines does not matter, nor whether a quantity is split over several lines.
    """
    lines = ",".join(f"{product_id}x{quantity}" for product_id, quantity in sorted(quantities.items()))
    hold_seconds = new.hold_seconds if new.status == "pending" else 0
    return _hash(f"order {lines} {hold_seconds} {new.total_price}")


def stock_change_fingerprint(product_id: int, change: StockChange) -> str:
    """Return the fingerprint of a stock change."""
    return _hash(f"stock {product_id} {change.change} {change.reason}")


def _hash(text: str) -> str:
    return blake2b(text.encode(), digest_size=16).hexdigest()


async def read_for_replay(reading: Awaitable[T]) -> T:
    """Return the result of `reading`, for a repeated Idempotency-Key. Raise OutcomeUnknown if it cannot be read now.

    The first request with this key did change something, so an error that says "nothing was done" would be wrong.
    """
    try:
        return await reading
    except (StorageUnavailable, Overloaded) as error:
        raise OutcomeUnknown(error.reason) from error

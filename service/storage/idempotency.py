"""What an Idempotency-Key remembers of a request, and for how long."""

from collections.abc import Awaitable, Mapping
from hashlib import blake2b
from typing import Final, TypeVar

from service.domain.errors.storage import OutcomeUnknown, Overloaded, StorageUnavailable
from service.domain.requests import NewOrder, StockMove

T = TypeVar("T")

REFUSAL_MS: Final = 24 * 60 * 60 * 1000
"""How long an Idempotency-Key remembers a refusal. It remembers an order or a stock move for ever."""


def order_fingerprint(new: NewOrder, quantities: Mapping[int, int]) -> str:
    """Return a digest of what an order asks for. Two requests for the same, in different bytes, have the same digest.

    The order of the lines does not matter, nor whether a quantity is split over several lines.
    """
    lines = ",".join(f"{product_id}x{quantity}" for product_id, quantity in sorted(quantities.items()))
    hold_seconds = new.hold_seconds if new.status == "pending" else 0
    return _digest(f"order {lines} {hold_seconds} {new.total_price}")


def move_fingerprint(product_id: int, move: StockMove) -> str:
    """Return a digest of what a stock move asks for."""
    return _digest(f"stock {product_id} {move.change} {move.reason}")


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=16).hexdigest()


async def read_for_replay(reading: Awaitable[T]) -> T:
    """Return what `reading` gives, the answer to a repeated key. Raise OutcomeUnknown if it cannot be read now.

    The first request with this key did change something, so an error that says "nothing was done" would be wrong.
    """
    try:
        return await reading
    except (StorageUnavailable, Overloaded) as error:
        raise OutcomeUnknown(error.reason) from error

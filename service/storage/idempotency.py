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

RECENT_ORDERS: Final = 5000
"""A worker knows at least this number of its last orders by their Idempotency-Key, and at most twice as many: 3 MB."""


class RecentOrders:
    """The ids of the orders that recent requests with an Idempotency-Key have placed, as far as this worker knows.

    A hint, which spares a repeated request a round trip: what Redis says is true.
    """

    def __init__(self) -> None:
        self._newest: dict[str, int] = {}
        self._older: dict[str, int] = {}

    def note(self, outcome_key: str, order_id: int) -> None:
        """Note which order the Idempotency-Key with this key in Redis has placed."""
        self._newest[outcome_key] = order_id
        if len(self._newest) == RECENT_ORDERS:
            # Not one by one: an OrderedDict that removes the oldest entry takes three times as long.
            self._older, self._newest = self._newest, {}

    def id_of(self, outcome_key: str) -> int | None:
        """Return the id of that order, or None if this worker does not know one."""
        return self._newest.get(outcome_key) or self._older.get(outcome_key)


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

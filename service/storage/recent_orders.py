"""The last orders of a worker by Idempotency-Key: a replay of one of them takes one round trip.

The key in Redis decides; this memory only saves a round trip.
"""

from typing import Final

from service.domain.errors.storage import OutcomeUnknown, StorageUnavailable
from service.domain.order import Order
from service.storage import keys
from service.storage.client import RedisClient
from service.storage.records import read_order

RECENT_ORDERS: Final = 1000
"""A worker knows at least this number of its last orders with an Idempotency-Key, and at most twice as many: 0.2 MB."""


class RecentOrders:
    """The ids of the last completed orders with an Idempotency-Key, of all shops that the worker serves."""

    def __init__(self) -> None:
        # By the hash of the key in Redis, because such keys may be long. If two keys have the same hash, the order that
        # is read is not the one that Redis names, and so it is not used.
        self._newest: dict[int, int] = {}
        self._older: dict[int, int] = {}

    def note(self, outcome_key: str, order_id: int) -> None:
        """Note which order the Idempotency-Key with this key in Redis has placed."""
        self._newest[hash(outcome_key)] = order_id
        if len(self._newest) == RECENT_ORDERS:
            # Not one by one: an OrderedDict that removes the oldest entry takes three times as long.
            self._older, self._newest = self._newest, {}

    def id_of(self, outcome_key: str) -> int | None:
        """Return the id of that order, or None if this worker does not know one."""
        key = hash(outcome_key)
        return self._newest.get(key) or self._older.get(key)


async def read_known(client: RedisClient, outcome_key: str, fingerprint: str, order_id: int) -> Order | None:
    """Return this order, in one round trip, if an earlier request with this key and fingerprint has placed it.

    Return None if Redis does not have the key, if the key belongs to another request or order, or if the order does not
    exist or is not completed. Then the caller runs lua/place_order.lua, which decides.

    If Redis cannot be asked, raise OutcomeUnknown: the order may exist, and StorageUnavailable would tell the client
    that nothing was done. Other errors are raised unchanged.
    """
    try:
        word, *rows = await client.run(
            "read_placed",
            (outcome_key, keys.order(client.shop, order_id)),
            read_placed_args(fingerprint=fingerprint, order_id=order_id),
            # If this is False, the reply waits for replicas: see `read_confirmed`.
            safe_to_repeat=not client.waits_for_replicas,
        )
    except StorageUnavailable as error:
        raise OutcomeUnknown(error.reason) from error
    return read_order(order_id, rows[0]) if word == "order" else None


def read_placed_args(*, fingerprint: str, order_id: int) -> tuple[str | int, ...]:
    """Return ARGV of lua/read_placed.lua."""
    return fingerprint, order_id

"""The ledger of the audit: counts the units of each product that orders hold and have sold.

The audit gives it the orders that it has read, and then the changes from the events. The ledger itself reads nothing
from Redis.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from service.domain.event import STATUS_AFTER_EVENT, Event
from service.domain.order import UNITS_IN, OrderLine, parse_lines

_CHUNK = 65_536
"""Orders whose status is kept in one bytearray: an unused range of ids then costs no memory."""

_UNREAD, _NO_STATUS = 0, 1
_CODES = {status: code for code, status in enumerate(UNITS_IN, 2)}
_STATUS_OF = {code: status for status, code in _CODES.items()}


class OrderChange(NamedTuple):
    """The status and the lines of one order after an event."""

    order_id: int
    status: str
    lines: tuple[OrderLine, ...]


def order_change(event: Event) -> OrderChange | None:
    """Return how an event changed an order. None if the event changed no order, or if Holdfast did not write it."""
    fields = event.fields
    event_type = fields.get("event", "")
    status = fields.get("status", "") if event_type == "order_placed" else STATUS_AFTER_EVENT.get(event_type)
    if status is None:
        return None
    try:
        return OrderChange(int(fields["order"]), status, parse_lines(fields["products"]))
    except (KeyError, ValueError):
        return None


class Units(NamedTuple):
    """The units of one product that its orders hold and have sold."""

    held: int
    sold: int


class Ledger:
    """The units per product, and the last known status of each order, in one byte per order."""

    def __init__(self) -> None:
        self._held: defaultdict[int, int] = defaultdict(int)
        self._sold: defaultdict[int, int] = defaultdict(int)
        counters = {"held": self._held, "sold": self._sold}
        self._counter_of = {status: counters[name] for status, name in UNITS_IN.items() if name is not None}
        # In chunks by id: nearly all order ids are in use, but a shop may have large gaps.
        self._codes: defaultdict[int, bytearray] = defaultdict(lambda: bytearray(_CHUNK))

    def knows(self, order_id: int) -> bool:
        """Return whether set_order() was called for this order."""
        return self._codes[order_id // _CHUNK][order_id % _CHUNK] != _UNREAD

    def set_order(self, order_id: int, status: str, lines: Sequence[OrderLine]) -> None:
        """Count an order in this status, and no longer in the status that was known before.

        An order whose status is not in UNITS_IN counts nothing. The lines of an order never change.
        """
        codes, index = self._codes[order_id // _CHUNK], order_id % _CHUNK
        if codes[index] > _NO_STATUS:
            self._add(_STATUS_OF[codes[index]], lines, -1)
        code = codes[index] = _CODES.get(status, _NO_STATUS)
        if code > _NO_STATUS:
            self._add(status, lines, 1)

    def _add(self, status: str, lines: Sequence[OrderLine], sign: int) -> None:
        counter = self._counter_of.get(status)
        if counter is not None:
            for line in lines:
                counter[line.product_id] += sign * line.quantity

    def units(self, product_id: int) -> Units:
        """Return the units of a product that orders hold and have sold."""
        return Units(self._held.get(product_id, 0), self._sold.get(product_id, 0))

    def product_ids(self) -> set[int]:
        """Return the ids of all products that counted orders name."""
        return {*self._held, *self._sold}

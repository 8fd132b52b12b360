"""The ledger of the audit: counts the units of each product that orders hold and have sold.

The audit gives it the orders that it has read, and then the changes from the events. The ledger itself reads nothing
from Redis.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from service.domain.event import STATUS_AFTER_EVENT, Event, parse_archived
from service.domain.money import Cents
from service.domain.order import UNITS_IN, OrderLine, parse_lines, parse_units

_CHUNK = 65_536
"""Orders whose status is kept in one bytearray: an unused range of ids then costs no memory."""

_UNREAD, _NO_STATUS = 0, 1
_CODES = {status: code for code, status in enumerate(UNITS_IN, 2)}
_STATUS_OF = {code: status for status, code in _CODES.items()}


ARCHIVED: Final = "archived"
"""Instead of a status, for an order that is not in Redis any more. It counts nothing."""

NOTHING: Final[Mapping[int, int]] = {}


class OrderChange(NamedTuple):
    """The status of one order after an event, and its lines. After a return: what came back until then, no lines."""

    order_id: int
    status: str
    lines: tuple[OrderLine, ...] | None
    returned: Mapping[int, int] = NOTHING
    written_off: Mapping[int, int] = NOTHING
    customer: str | None = None


def order_change(event: Event) -> OrderChange | None:
    """Return how an event changed an order. None if the event changed no order, or if Holdfast did not write it."""
    fields = event.fields
    event_type = fields.get("event", "")
    status = fields.get("status", "") if event_type == "order_placed" else STATUS_AFTER_EVENT.get(event_type)
    if status is None:
        return None
    try:
        return OrderChange(
            int(fields["order"]),
            status,
            None if event_type == "order_returned" else parse_lines(fields["products"]),
            parse_units(fields["returned"]) if "returned" in fields else NOTHING,
            parse_units(fields["written_off"]) if "written_off" in fields else NOTHING,
            fields.get("customer"),
        )
    except (KeyError, ValueError):
        return None


def order_changes(event: Event) -> list[OrderChange]:
    """Return how an event changed orders: one of them, or all those that were archived together."""
    if event.fields.get("event") != "orders_archived":
        change = order_change(event)
        return [] if change is None else [change]
    try:
        archived = parse_archived(event.fields["orders"])
    except (KeyError, ValueError):
        return []
    return [
        OrderChange(order_id, ARCHIVED, tuple([OrderLine(id_, number, Cents(0)) for id_, number in units.items()]))
        for order_id, units in archived.items()
    ]


class Units(NamedTuple):
    """The units of one product that its orders hold and have sold, and that came back and were written off."""

    held: int
    sold: int
    written_off: int = 0


class Ledger:
    """The units per product, and the last known status of each order, in one byte per order."""

    def __init__(self) -> None:
        self._held: defaultdict[int, int] = defaultdict(int)
        self._sold: defaultdict[int, int] = defaultdict(int)
        counters = {"held": self._held, "sold": self._sold}
        self._counter_of = {status: counters[name] for status, name in UNITS_IN.items() if name is not None}
        self._written_off: defaultdict[int, int] = defaultdict(int)
        self._came_back: dict[int, tuple[Mapping[int, int], Mapping[int, int]]] = {}
        """For orders of which units came back: the units of each product, and those of them that were written off."""
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

    def set_returned(self, order_id: int, returned: Mapping[int, int], written_off: Mapping[int, int]) -> None:
        """Count what came back of a completed order until now, and no longer what was known before."""
        for sign, (back, lost) in (
            (-1, self._came_back.get(order_id, (NOTHING, NOTHING))),
            (1, (returned, written_off)),
        ):
            for product_id, quantity in back.items():
                self._sold[product_id] -= sign * quantity
            for product_id, quantity in lost.items():
                self._written_off[product_id] += sign * quantity
        if returned or written_off:
            self._came_back[order_id] = returned, written_off

    def set_archived(self, order_id: int, lines: Sequence[OrderLine]) -> None:
        """Count an order no longer. `lines`: the units that it had sold, without those that came back."""
        was_counted = self.knows(order_id)
        self.set_order(order_id, ARCHIVED, lines)
        returned, written_off = self._came_back.pop(order_id, (NOTHING, NOTHING))
        if not was_counted:  # it was archived before it was read, and only the event of its return was counted
            for product_id, quantity in returned.items():
                self._sold[product_id] += quantity
        for product_id, quantity in written_off.items():
            self._written_off[product_id] -= quantity

    def apply(self, change: OrderChange) -> None:
        """Bring an order to its state after an event. In the end, all events since the order was read are applied."""
        if change.lines is not None and change.status == ARCHIVED:
            self.set_archived(change.order_id, change.lines)
        elif change.lines is not None:
            self.set_order(change.order_id, change.status, change.lines)
        else:
            self.set_returned(change.order_id, change.returned, change.written_off)

    def units(self, product_id: int) -> Units:
        """Return the units of a product that orders hold, have sold and have written off."""
        return Units(self._held.get(product_id, 0), self._sold.get(product_id, 0), self._written_off.get(product_id, 0))

    def product_ids(self) -> set[int]:
        """Return the ids of all products that counted orders name."""
        return {*self._held, *self._sold}

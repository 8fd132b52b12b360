"""An entry of the event stream: its types and fields, its JSON, and its place in the stream."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from service.domain.money import format_cents, parse_cents
from service.domain.order import OrderStatus, parse_lines, parse_units
from service.domain.product import parse_sale_rules
from service.domain.times import Milliseconds, format_timestamp


class EventFields(NamedTuple):
    """The fields of an event type, in addition to the fields of every event.

    These are `event`, which has the type, and `by`: the name of the API key of the request, if there was one.
    """

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()


_WHOSE: Final = ("reference", "customer")
"""In each event of an order that has them."""

EVENT_FIELDS: Final[Mapping[str, EventFields]] = {
    # Without the description, which may be long: lua/add_product.lua.
    "product_added": EventFields(("product", "name", "price", "stock"), ("sale_rules",)),
    # Only the fields that changed.
    "product_changed": EventFields(("product",), ("name", "description", "price", "sale_rules")),
    "product_withdrawn": EventFields(("product",)),
    "stock_moved": EventFields(("product", "change", "reason", "stock")),
    "order_placed": EventFields(("order", "status", "total_price", "products"), _WHOSE),
    "order_extended": EventFields(("order", "expires_at"), _WHOSE),
    "order_completed": EventFields(("order", "products"), _WHOSE),
    "order_cancelled": EventFields(("order", "products"), _WHOSE),
    "order_expired": EventFields(("order", "products"), _WHOSE),
    "order_returned": EventFields(
        ("order", "products", "restock", "refund", "returned"), ("written_off", "reason", *_WHOSE)
    ),
    # Many orders in one event: otherwise an archive would push the events of sales out of the stream.
    "orders_archived": EventFields(("orders",)),
    # Of the shop, not of a change: what happened after `last_event`, and before this event, is lost.
    "shop_restored": EventFields(("last_event", "last_order", "next_order")),
}
"""The event types, and the fields of each."""

SUMMARY: Final = "summary"
"""Not a type of the stream: GET /events makes such messages of all events of half a second."""

STATUS_AFTER_EVENT: Final[Mapping[str, str]] = {
    "order_completed": OrderStatus.COMPLETED,
    "order_cancelled": OrderStatus.CANCELLED,
    "order_expired": OrderStatus.EXPIRED,
    "order_returned": OrderStatus.COMPLETED,
}
"""The status of an order after each event type that may change it. `order_placed` has a status field instead."""


_AMOUNT: Final = r"[0-9]+(?:\.[0-9]{1,2})?"
_UNITS: Final = "[0-9]+: [0-9]+"
_LINE: Final = rf"{_UNITS} x {_AMOUNT}"
_ARCHIVED: Final = "[0-9]+( [0-9]+:[0-9]+)*"
_RULE: Final = "(limit_per_customer|on_sale_from|on_sale_until): [0-9]+"
_HAS_FORM: Final = {
    name: re.compile(form).fullmatch
    for name, form in {
        **dict.fromkeys(("order", "product", "stock", "expires_at", "last_order", "next_order"), "[0-9]+"),
        "last_event": "[0-9]+-[0-9]+",
        **dict.fromkeys(("price", "total_price", "refund"), _AMOUNT),
        **dict.fromkeys(("returned", "written_off"), rf"{_UNITS}(\n{_UNITS})*"),
        "change": "-?[0-9]+",
        "orders": rf"{_ARCHIVED}(\n{_ARCHIVED})*",
        "products": rf"{_LINE}(?:\n{_LINE})*",
        "restock": "[01]",
        "sale_rules": rf"({_RULE}(\n{_RULE})*)?",
    }.items()
}
"""For each field that is more than any text: whether a value has the form that the scripts write."""


@lru_cache(maxsize=256)
def _checks_of(event_type: str, names: tuple[str, ...]) -> tuple[tuple[str, Callable[[str], object]], ...] | None:
    """Return the fields of an entry whose form is to be checked; None: no entry of this type has just these fields.

    Cached, because a stream has a million entries, but few types.
    """
    known = EVENT_FIELDS.get(event_type)
    if known is None or not set(known.required) <= {*names} - {"event", "by"} <= {*known.required, *known.optional}:
        return None
    return tuple((name, has_form) for name, has_form in _HAS_FORM.items() if name in names)


class Event(NamedTuple):
    """An entry of the event stream, as Redis has it.

    Of a shop with several partitions, each has a stream: `partition` is its number, and `later` the cursor after the
    entry.
    """

    id: str
    fields: dict[str, str]
    partition: int | None = None
    later: str | None = None

    @property
    def cursor(self) -> str:
        """What a reader names to get the events after this one."""
        return self.later or self.id

    def is_after(self, positions: Sequence[tuple[int, int]]) -> bool:
        """Return whether a reader that has come to these positions does not have this entry yet."""
        return event_position(self.id) > positions[self.partition or 0]

    def json(self) -> str:
        """Return the entry as one JSON object. Numbers and order lines, which are text in Redis, become JSON."""
        return (
            f'{{"id":"{self.id}",'
            + ("" if self.partition is None else f'"partition":{self.partition},"cursor":"{self.later}",')
            + ",".join(f"{json.dumps(name)}:{_shown(name, value)}" for name, value in self.fields.items())
            + "}"
        )

    def is_known(self) -> bool:
        """Return whether Holdfast writes such entries: with this type, these fields, and values of this form."""
        fields = self.fields
        checks = _checks_of(fields.get("event", ""), tuple(fields))
        if checks is None:
            return False
        for name, has_form in checks:  # noqa: SIM110 - a generator for all() would take a third longer
            if not has_form(fields[name]):
                return False
        return True


def _shown(name: str, text: str) -> str:
    """Return a value as JSON; as text if another program wrote it in another form."""
    try:
        return _json_value(name, text)
    except ValueError:
        return json.dumps(text, ensure_ascii=False)


def _json_value(name: str, text: str) -> str:
    match name:
        case "products":
            return f"[{','.join(line.json() for line in parse_lines(text))}]"
        case "returned" | "written_off":
            units = [f'{{"product_id":{id_},"quantity":{quantity}}}' for id_, quantity in parse_units(text).items()]
            return f"[{','.join(units)}]"
        case "price" | "total_price" | "refund":
            return format_cents(parse_cents(text))
        case "order" | "product" | "change" | "stock" | "last_order" | "next_order":
            return str(int(text))
        case "expires_at":
            return f'"{format_timestamp(Milliseconds(int(text)))}"'
        case "orders":
            return json.dumps([*parse_archived(text)], separators=(",", ":"))
        case "restock":
            return {"1": "true", "0": "false"}.get(text) or json.dumps(text)
        case "sale_rules":
            return f"{{{parse_sale_rules(text).json_members() if text else ''}}}"
        case _:
            return json.dumps(text, ensure_ascii=False)


def parse_archived(text: str) -> dict[int, dict[int, int]]:
    """Return the orders in the `orders` field of an event, each with the units that it had sold, by product id.

    The field has one row per order, `12 7:2 9:1`, as lua/archive_orders.lua writes it. Raise ValueError if it is
    unreadable.
    """
    orders = {}
    for row in text.split("\n"):
        order_id, *units = row.split(" ")
        pairs = [pair.partition(":") for pair in units]
        orders[int(order_id)] = {int(product_id): int(number) for product_id, _, number in pairs}
    return orders


def event_position(event_id: str) -> tuple[int, int]:
    """Return an event id as a pair that sorts in the order of the stream."""
    milliseconds, _, sequence = event_id.partition("-")
    return int(milliseconds), int(sequence or 0)


START: Final = ((0, 0),)
"""The positions of `0-0`, which may be written `0`: before all events of all streams."""


def cursor_positions(cursor: str) -> tuple[tuple[int, int], ...]:
    """Return the position in each stream: a cursor has the id of an event of each partition, with `_` between them."""
    return tuple([event_position(event_id) for event_id in cursor.split("_")])


def is_beyond(cursor: str, other: str) -> bool:
    """Return whether a cursor has come further than another one in any stream, or is one of another shop."""
    positions, others = cursor_positions(cursor), cursor_positions(other)
    return len(positions) != len(others) or any(mine > theirs for mine, theirs in zip(positions, others, strict=True))

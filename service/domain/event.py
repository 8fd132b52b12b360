"""An entry of the event stream: its types and fields, its JSON, and its place in the stream."""

import json
import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from service.domain.money import format_cents, parse_cents
from service.domain.order import OrderStatus, parse_lines
from service.domain.product import Product

EVENT_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "product_added": ("product", *[name for name in Product._fields if name not in ("id", "description")]),
    "product_changed": ("product", *[name for name in Product._fields if name not in ("id", "stock")]),
    "product_withdrawn": ("product",),
    "stock_moved": ("product", "change", "reason", "stock"),
    "order_placed": ("order", "status", "total_price", "products"),
    "order_completed": ("order", "products"),
    "order_cancelled": ("order", "products"),
    "order_expired": ("order", "products"),
}
"""The fields of each event type, in addition to the field `event`, which has the type.

`product_added` leaves out the description, which may be long: lua/add_product.lua. `product_changed` has only the
fields that changed.
"""

STATUS_AFTER_EVENT: Final[Mapping[str, str]] = {
    "order_completed": OrderStatus.COMPLETED,
    "order_cancelled": OrderStatus.CANCELLED,
    "order_expired": OrderStatus.EXPIRED,
}
"""The status of an order after each event type that ends its hold. `order_placed` has a status field instead."""


_AMOUNT: Final = r"[0-9]+(\.[0-9]{1,2})?"
_LINE: Final = rf"[0-9]+: [0-9]+ x {_AMOUNT}"
_HAS_FORM: Final = {
    name: re.compile(form).fullmatch
    for name, form in {
        **dict.fromkeys(("order", "product", "stock"), "[0-9]+"),
        **dict.fromkeys(("price", "total_price"), _AMOUNT),
        "change": "-?[0-9]+",
        "products": rf"{_LINE}(\n{_LINE})*",
    }.items()
}
"""For each field that is more than any text: whether a value has the form that the scripts write."""


class Event(NamedTuple):
    """An entry of the event stream, as Redis has it."""

    id: str
    fields: dict[str, str]

    def json(self) -> str:
        """Return the entry as one JSON object. Numbers and order lines, which are text in Redis, become JSON."""
        return (
            f'{{"id":"{self.id}",'
            + ",".join(f"{json.dumps(name)}:{_shown(name, value)}" for name, value in self.fields.items())
            + "}"
        )

    def is_known(self) -> bool:
        """Return whether Holdfast writes such entries: with this type, these fields, and values of this form."""
        names = EVENT_FIELDS.get(self.fields.get("event", ""))
        if names is None or names[0] not in self.fields:
            return False
        missing = {"event", *names} ^ self.fields.keys()
        if missing and not (self.fields["event"] == "product_changed" and missing <= set(names)):
            return False
        for name, has_form in _HAS_FORM.items():
            if name in self.fields and not has_form(self.fields[name]):
                return False
        return True


def _shown(name: str, text: str) -> str:
    """Return a value as JSON; as text if another program wrote it in another form."""
    try:
        return _json_value(name, text)
    except ValueError:
        return json.dumps(text, ensure_ascii=False)


def _json_value(name: str, text: str) -> str:
    if name == "products":
        return f"[{','.join(line.json() for line in parse_lines(text))}]"
    if name in ("price", "total_price"):
        return format_cents(parse_cents(text))
    if name in ("order", "product", "change", "stock"):
        return str(int(text))
    return json.dumps(text, ensure_ascii=False)


def event_position(event_id: str) -> tuple[int, int]:
    """Return an event id as a pair that sorts in the order of the stream."""
    milliseconds, _, sequence = event_id.partition("-")
    return int(milliseconds), int(sequence or 0)

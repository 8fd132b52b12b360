"""An entry of the event stream: its types and fields, its JSON, and its place in the stream."""

import json
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


class Event(NamedTuple):
    """An entry of the event stream, as Redis has it."""

    id: str
    fields: dict[str, str]

    def json(self) -> str:
        """Return the entry as one JSON object. Numbers and order lines, which are text in Redis, become JSON."""
        return (
            f'{{"id":"{self.id}",'
            + ",".join(f"{json.dumps(name)}:{_json_value(name, value)}" for name, value in self.fields.items())
            + "}"
        )


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

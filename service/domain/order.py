"""A placed order: its lines, its statuses, its JSON, and the text of its lines in Redis."""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Final, Literal, NamedTuple

from service.domain.money import Cents, format_cents, parse_cents
from service.domain.times import Milliseconds, format_timestamp


class OrderStatus(StrEnum):
    """The statuses of an order. The API shows an order only while it is pending or completed."""

    PENDING = "pending"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


UNITS_IN: Final[Mapping[str, Literal["held", "sold"] | None]] = {
    OrderStatus.PENDING: "held",
    OrderStatus.COMPLETED: "sold",
    OrderStatus.CANCELLED: None,
    OrderStatus.EXPIRED: None,
}
"""For each status of an order, the counter of a product that includes its units. None: they are in stock again."""


class OrderLine(NamedTuple):
    """The units of one product in an order. `price` is the price of one unit when the order was placed."""

    product_id: int
    quantity: int
    price: Cents

    def json(self) -> str:
        """Return the order line as the API shows it."""
        return f'{{"product_id":{self.product_id},"quantity":{self.quantity},"price":{format_cents(self.price)}}}'


class Order(NamedTuple):
    """A placed order. `status` is a value of OrderStatus; `expires_at` is given only while the order is pending."""

    id: int
    lines: tuple[OrderLine, ...]
    total_price: Cents
    status: str
    created_at: Milliseconds
    expires_at: Milliseconds | None = None

    def json(self) -> str:
        """Return the order as the API shows it."""
        lines = ",".join([line.json() for line in self.lines])
        expires_at = "" if self.expires_at is None else f',"expires_at":"{format_timestamp(self.expires_at)}"'
        return (
            f'{{"id":{self.id},"products":[{lines}],"total_price":{format_cents(self.total_price)},'
            f'"status":"{self.status}","created_at":"{format_timestamp(self.created_at)}"{expires_at}}}'
        )


_LINE = re.compile(r"(\d+): (\d+) x (\d+(?:\.\d{1,2})?)", re.ASCII)


def parse_lines(text: str) -> tuple[OrderLine, ...]:
    """Return the order lines in the `products` field of an order in Redis. Raise ValueError if it is unreadable.

    The field has one row of text per order line, `7: 2 x 19.99`, as lua/place_order.lua writes it.
    """
    matches = [_LINE.fullmatch(line) for line in text.split("\n")]
    if not all(matches):
        raise ValueError(f"unreadable lines of an order: {text[:100]!r}")
    return tuple(OrderLine(int(match[1]), int(match[2]), parse_cents(match[3])) for match in matches if match)

"""Refusals of orders that were not placed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from service.domain.errors.base import Problem
from service.domain.errors.obstacles import (
    CustomerMissing,
    LimitReached,
    NotInCatalogue,
    Obstacle,
    OutsideSaleTime,
    TooLittleStock,
)
from service.domain.errors.refusals import PRODUCT_NOT_FOUND
from service.domain.errors.remembered_refusals import INSUFFICIENT_STOCK, RememberedRefusal
from service.domain.limits import MAX_TOTAL
from service.domain.money import Cents, format_cents


@dataclass(frozen=True)
class UnavailableLine:
    """A line of an order that cannot be served. Several refusals may have the same object: storage/refusals.py."""

    position: int
    product_id: int
    requested: int
    obstacle: Obstacle

    @cached_property
    def entry(self) -> str:
        """The entry in the `errors` of a problem, as JSON."""
        return self.obstacle.entry(self.position, self.product_id, self.requested)


@dataclass(eq=False)
class OrderPlacementRefusal(RememberedRefusal):
    """An order that was not placed.

    The reply of the script is `reply_word`, then one text for each field that the class declares after `lines`, then
    one text per order line. For example: `price_changed`, `84.98`, `1 19.99`, `2 45.00`. The text of an order line has
    the fields that `line_type` declares after `position`, the place of the line in the request.
    """

    lines: Sequence[Any]

    line_type: ClassVar[Callable[..., Any]] = UnavailableLine


@dataclass(eq=False)
class UnavailableLines(OrderPlacementRefusal):
    """Some lines of the order cannot be served. `lines` has all of them, also those with another obstacle."""

    lines: Sequence[UnavailableLine]

    obstacle_type: ClassVar[type]
    """The obstacle that gave the refusal its class: the first in the order of ORDER_REFUSALS."""

    sentence: ClassVar[str]

    def detail(self) -> str:
        kind = self.obstacle_type
        ids = ", ".join([str(line.product_id) for line in self.lines if isinstance(line.obstacle, kind)])
        return f"{self.sentence}: {ids}. Nothing was taken."

    def further_fields(self) -> dict[str, str]:
        return {"errors": f"[{', '.join([line.entry for line in self.lines])}]"}


class ProductsNotFound(UnavailableLines):
    """Some products of the order are not on sale."""

    reply_word = "unknown"
    problem = PRODUCT_NOT_FOUND
    obstacle_type = NotInCatalogue
    sentence = "Not on sale"


class CustomerRequired(UnavailableLines):
    """Some products of the order have a limit per customer, and the order names no customer."""

    reply_word = "anonymous"
    problem = Problem(
        "customer-required",
        422,
        "The order must name its customer",
        "A product of the order has a `limit_per_customer`, and the order does not name its customer. Nothing was "
        "taken. The same Idempotency-Key gets this response for 24 hours if the order is repeated without a "
        "customer.",
        "Send `customer`: an id that you chose, the same in all orders of this customer.",
    )
    obstacle_type = CustomerMissing
    sentence = "Limited per customer, but the order names no customer"


class NotOnSale(UnavailableLines):
    """The sale of some products of the order has not begun, or is over."""

    reply_word = "closed"
    problem = Problem(
        "not-on-sale",
        409,
        "The product is not on sale at this moment",
        "The sale has not begun, or is over: `errors` says from when and until when each product is on sale. Only "
        "the clock of Redis decides. Nothing was taken. The same Idempotency-Key gets this response for 24 hours.",
        "Wait until `from`, and order with a new Idempotency-Key.",
    )
    obstacle_type = OutsideSaleTime
    sentence = "Not on sale at this moment"


class CustomerLimitExceeded(UnavailableLines):
    """The customer would have more units of some products than one customer may have."""

    reply_word = "limited"
    problem = Problem(
        "customer-limit",
        409,
        "The customer would have too many",
        "A product has a limit per customer, and this customer holds or has bought too many units already: `errors` "
        "lists each such product, with the `limit`, what the customer has `already`, and what was `requested`. Units"
        " that were returned, cancelled or have expired do not count. Nothing was taken. The same Idempotency-Key "
        "gets this response for 24 hours.",
        "Order fewer units, with a new Idempotency-Key.",
    )
    obstacle_type = LimitReached
    sentence = "Over the limit per customer"


class InsufficientStock(UnavailableLines):
    """Some lines of the order ask for more units than are in stock."""

    reply_word = "short"
    problem = INSUFFICIENT_STOCK
    obstacle_type = TooLittleStock
    sentence = "Not enough stock of"


@dataclass(frozen=True)
class CurrentPrice:
    """An order line, and the price of one unit now. Several refusals may have the same object."""

    position: int
    product_id: int
    price: Cents


@dataclass(eq=False)
class PriceChanged(OrderPlacementRefusal):
    """The client expects a different total. `total_price` is the current total."""

    lines: Sequence[CurrentPrice]
    total_price: Cents

    line_type = CurrentPrice
    reply_word = "price_changed"
    problem = Problem(
        "price-changed",
        409,
        "The price has changed",
        "The order named a `total_price`, but the products cost something else now: see `total_price` and `prices`. "
        "Nothing was taken. The same Idempotency-Key gets this response for 24 hours.",
        "Show the customer the new total. To order at the new price, use a new Idempotency-Key.",
    )

    def detail(self) -> str:
        return f"The total is {format_cents(self.total_price)} now. Nothing was taken."

    def further_fields(self) -> dict[str, str]:
        # As texts: json.dumps() would need floats.
        prices = ", ".join(
            f'{{"product_id": {line.product_id}, "price": {format_cents(line.price)}}}' for line in self.lines
        )
        return {"total_price": format_cents(self.total_price), "prices": f"[{prices}]"}


class TotalTooLarge(OrderPlacementRefusal):
    """The total is 2^53 cents or more: Lua and many JSON parsers do not keep such large numbers exact."""

    reply_word = "too_large"
    problem = Problem(
        "total-too-large",
        422,
        "The total is too large",
        "The total is 2^53 cents or more. Not all JSON parsers keep such large numbers exact. Nothing was taken. The"
        " same Idempotency-Key gets this response for 24 hours.",
        "Divide the order, and use a new Idempotency-Key for each part.",
    )

    def detail(self) -> str:
        return f"The total is above {format_cents(Cents(MAX_TOTAL))}. Nothing was taken."


ORDER_REFUSALS = (
    ProductsNotFound,
    CustomerRequired,
    NotOnSale,
    CustomerLimitExceeded,
    InsufficientStock,
    PriceChanged,
    TotalTooLarge,
)
"""The refusals of lua/place_order.lua. If lines have different obstacles, the first of these is the answer."""

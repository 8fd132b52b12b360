"""Refusals of orders and of stock changes. For 24 hours, an Idempotency-Key remembers them.

Redis stores the reply of the script, and `service/storage/refusals.py` reads it.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from service.domain.errors.base import Problem
from service.domain.errors.refusals import PRODUCT_NOT_FOUND, Refusal, not_on_sale
from service.domain.limits import MAX_STOCK, MAX_TOTAL
from service.domain.money import Cents, format_cents

_INSUFFICIENT_STOCK = Problem(
    "insufficient-stock",
    409,
    "There is not enough stock",
    "The request asks for more units than are in stock. <code>errors</code> lists each product that has too little "
    "stock, with what was requested and what is available. No stock was taken. The same "
    "Idempotency-Key gets this response for 24 hours: to try again, use a new key.",
)


@dataclass(eq=False)
class RememberedRefusal(Refusal):
    """A refusal that its Idempotency-Key remembers for 24 hours. `replayed`: an earlier request with the key got it."""

    replayed: bool

    reply_word: ClassVar[str]
    """First word of the script's reply. Redis stores such replies for 24 hours, so these words must not change."""

    def headers(self) -> dict[str, str]:
        return {"Idempotent-Replayed": "true"} if self.replayed else {}


@dataclass(eq=False)
class StockChangeRefusal(RememberedRefusal):
    """A stock change that was not made.

    The reply of the script is `reply_word`, then one number for each field that the class declares after `change`.
    """

    product_id: int
    change: int


class ProductNotFoundForStockChange(StockChangeRefusal):
    """The product of the stock change is not on sale."""

    reply_word = "absent"
    problem = PRODUCT_NOT_FOUND

    def detail(self) -> str:
        return not_on_sale(self.product_id)


@dataclass(eq=False)
class InsufficientStockForStockChange(StockChangeRefusal):
    """The change would remove more units than are in stock."""

    stock: int

    reply_word = "short"
    problem = _INSUFFICIENT_STOCK

    def detail(self) -> str:
        return f"Only {self.stock} are in stock; cannot remove {-self.change}."

    def further_fields(self) -> dict[str, str]:
        numbers = {"product_id": self.product_id, "requested": -self.change, "available": self.stock}
        return {"errors": json.dumps([{"pointer": "#/change", **numbers, "detail": self.detail()}])}


@dataclass(eq=False)
class StockLimitExceeded(StockChangeRefusal):
    """Stock and holds together would be more than a product may have."""

    stock: int
    held: int

    reply_word = "full"
    problem = Problem(
        "stock-limit",
        409,
        "There would be too much stock",
        f"A product has at most {MAX_STOCK:,} units in stock and held together. The same Idempotency-Key "
        "gets this response for 24 hours.",
    )

    def detail(self) -> str:
        return f"{self.stock} are in stock and {self.held} are held: {self.change} more would exceed {MAX_STOCK}."

    def further_fields(self) -> dict[str, str]:
        entry = {"pointer": "#/change", "product_id": self.product_id, "detail": self.detail()}
        return {"errors": json.dumps([entry])}


class UnavailableLine(NamedTuple):
    """A line of an order that cannot be served. `available` is None if the product is not on sale."""

    position: int
    product_id: int
    requested: int
    available: int | None

    def entry(self) -> dict[str, Any]:
        """Return the entry in the `errors` of a problem."""
        if self.available is None:
            return {
                "pointer": f"#/products/{self.position}/product_id",
                "product_id": self.product_id,
                "detail": not_on_sale(self.product_id),
            }
        return {
            "pointer": f"#/products/{self.position}/quantity",
            "product_id": self.product_id,
            "requested": self.requested,
            "available": self.available,
            "detail": f"{self.requested} requested, {self.available} available.",
        }


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
    """Some lines of the order cannot be served."""

    lines: Sequence[UnavailableLine]

    def further_fields(self) -> dict[str, str]:
        return {"errors": json.dumps([line.entry() for line in self.lines])}


class ProductsNotFound(UnavailableLines):
    """Some products of the order are not on sale. `lines` also has the lines with too little stock."""

    reply_word = "unknown"
    problem = PRODUCT_NOT_FOUND

    def detail(self) -> str:
        unknown = ", ".join(str(line.product_id) for line in self.lines if line.available is None)
        return f"Not on sale: {unknown}. Nothing was taken."


class InsufficientStock(UnavailableLines):
    """Some lines of the order ask for more units than are in stock."""

    reply_word = "short"
    problem = _INSUFFICIENT_STOCK

    def detail(self) -> str:
        short = ", ".join(str(line.product_id) for line in self.lines)
        return f"Not enough stock of: {short}. Nothing was taken."


class CurrentPrice(NamedTuple):
    """An order line, and the price of one unit now."""

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
        "The order named a <code>total_price</code>, but the products cost something else now: see "
        "<code>total_price</code> and <code>prices</code>. Nothing was taken. The same "
        "Idempotency-Key gets this response for 24 hours: to order at the new price, use a new key.",
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
        "The total is 2<sup>53</sup> cents or more. Not all JSON parsers keep such large numbers exact. "
        "Split the order.",
    )

    def detail(self) -> str:
        return f"The total is above {format_cents(Cents(MAX_TOTAL))}. Nothing was taken."


STOCK_REFUSALS = (ProductNotFoundForStockChange, InsufficientStockForStockChange, StockLimitExceeded)
"""The refusals of lua/move_stock.lua."""

ORDER_REFUSALS = (ProductsNotFound, InsufficientStock, PriceChanged, TotalTooLarge)
"""The refusals of lua/place_order.lua."""

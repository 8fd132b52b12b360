"""Refusals: the request is valid, but the state of the shop does not allow it. Nothing was changed.

A script refuses with a reply whose first word is the `reply_word` of the class. Such replies stand in Redis, where
an Idempotency-Key remembers them: the words do not change.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from service.domain.errors.base import HoldfastError, Problem
from service.domain.limits import MAX_STOCK, MAX_TOTAL
from service.domain.money import Cents, format_cents


class Refusal(HoldfastError):
    """The request is valid, but the state of the shop does not allow it. Nothing was changed."""

    reply_word: ClassVar[str] = ""
    """First word of the script's reply. Empty if no script answers with this refusal."""


_PRODUCT_NOT_FOUND = Problem(
    "product-not-found",
    404,
    "There is no such product",
    "No product with this id is on sale: it was never added, or it was withdrawn. For an order, "
    "<code>errors</code> lists every line that cannot be served; an order is refused as a whole.",
)


@dataclass(eq=False)
class ProductNotFound(Refusal):
    """No product with this id was ever added, or it was withdrawn from sale. The id is as the client wrote it."""

    product_id: str

    problem = _PRODUCT_NOT_FOUND

    def detail(self) -> str:
        return f"There is no product {self.product_id[:40]} on sale."


@dataclass(eq=False)
class ProductIdTaken(Refusal):
    """The id belongs to another product, on sale or withdrawn."""

    product_id: int

    problem = Problem(
        "product-id-taken",
        409,
        "The product id is taken",
        "Another product has this id. An id is never used again, not even after its product was withdrawn. "
        "Choose another id, or leave <code>id</code> out.",
    )

    def detail(self) -> str:
        return f"The id {self.product_id} belongs to another product."


@dataclass(eq=False)
class OrderNotFound(Refusal):
    """No order with this id was ever placed. The id is as the client wrote it."""

    order_id: str

    problem = Problem("order-not-found", 404, "There is no such order", "No order with this id was ever placed.")

    def detail(self) -> str:
        return f"There is no order {self.order_id[:40]}."


@dataclass(eq=False)
class OrderCompleted(Refusal):
    """A completed order cannot be cancelled."""

    order_id: int

    problem = Problem(
        "order-completed",
        409,
        "The order is completed",
        "A completed order cannot be cancelled: its stock is sold.",
    )

    def detail(self) -> str:
        return f"The order {self.order_id} is completed."


@dataclass(eq=False)
class OrderCancelled(Refusal):
    """The order was cancelled, and its stock returned."""

    order_id: int

    problem = Problem(
        "order-cancelled",
        410,
        "The order was cancelled",
        "The order was cancelled while it was pending, and its stock is on sale again. This is final: "
        "place a new order.",
    )

    def detail(self) -> str:
        return f"The order {self.order_id} was cancelled."


@dataclass(eq=False)
class OrderExpired(Refusal):
    """The order was not completed before its deadline. Its stock is released, or will be in a moment."""

    order_id: int

    problem = Problem(
        "order-expired",
        410,
        "The order has expired",
        "The order was not completed before <code>expires_at</code>, and its stock returns to sale. This is final: "
        "place a new order.",
    )

    def detail(self) -> str:
        return f"The order {self.order_id} was not completed in time."


class IdempotencyKeyReused(Refusal):
    """The key was used before, with a different request."""

    problem = Problem(
        "idempotency-key-reused",
        422,
        "The Idempotency-Key belongs to another request",
        "This key was used before, with a different order or stock move. Use a new key for each request, and the "
        "same key only to repeat a request.",
    )

    def detail(self) -> str:
        return "This Idempotency-Key was used before, with a different request."


_INSUFFICIENT_STOCK = Problem(
    "insufficient-stock",
    409,
    "There is not enough stock",
    "At least one line asks for more than is in stock. <code>errors</code> lists every such line with what was "
    "requested and what is available. No stock was taken from any line. The answer is final for its "
    "Idempotency-Key: to try again, use a new key.",
)


@dataclass(eq=False)
class KeyedRefusal(Refusal):
    """A refusal that is final for its Idempotency-Key. `replayed`: the same key got this answer before."""

    replayed: bool

    def headers(self) -> dict[str, str]:
        return {"Idempotent-Replayed": "true"} if self.replayed else {}


@dataclass(eq=False)
class StockRefused(KeyedRefusal):
    """A stock move that was not made. `stock` and `held` are what the product has now, as far as the reply says."""

    product_id: int
    change: int
    stock: int = 0
    held: int = 0

    def members(self) -> dict[str, str]:
        return {"errors": json.dumps([self._entry()])}

    def _entry(self) -> dict[str, Any]:
        return {"pointer": "#/change", "product_id": self.product_id, "detail": self.detail()}


class MoveOfUnknownProduct(StockRefused):
    """The product of the stock move is not on sale."""

    reply_word = "absent"
    problem = _PRODUCT_NOT_FOUND

    def detail(self) -> str:
        return f"There is no product {self.product_id} on sale."

    def members(self) -> dict[str, str]:
        return {}


class StockTooLow(StockRefused):
    """The move would take more units than are in stock."""

    reply_word = "short"
    problem = _INSUFFICIENT_STOCK

    def detail(self) -> str:
        return f"Only {self.stock} are in stock; cannot remove {-self.change}."

    def _entry(self) -> dict[str, Any]:
        return {
            "pointer": "#/change",
            "product_id": self.product_id,
            "requested": -self.change,
            "available": self.stock,
            "detail": self.detail(),
        }


class StockTooHigh(StockRefused):
    """Stock and holds together would be more than a product may have."""

    reply_word = "full"
    problem = Problem(
        "stock-limit",
        409,
        "There would be too much stock",
        f"A product has at most {MAX_STOCK:,} units in stock and held together. The answer is final for its "
        "Idempotency-Key.",
    )

    def detail(self) -> str:
        return f"{self.stock} are in stock and {self.held} are held: {self.change} more would exceed {MAX_STOCK}."


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
                "detail": f"There is no product {self.product_id} on sale.",
            }
        return {
            "pointer": f"#/products/{self.position}/quantity",
            "product_id": self.product_id,
            "requested": self.requested,
            "available": self.available,
            "detail": f"{self.requested} requested, {self.available} available.",
        }


@dataclass(eq=False)
class OrderRefused(KeyedRefusal):
    """An order that was not placed. `lines` has the lines that the reply names, each a `Line` of the class.

    The numbers of a line in the reply are the fields of `Line` without the position. `values_before_lines` counts the
    values that stand before the lines; they are the fields of the class that follow `lines`.
    """

    lines: list[Any]

    Line: ClassVar[Callable[..., Any]] = UnavailableLine
    values_before_lines: ClassVar[int] = 0


class UnknownProducts(OrderRefused):
    """Lines name products that are not on sale. `lines` also has the lines with too little stock."""

    reply_word = "unknown"
    problem = _PRODUCT_NOT_FOUND

    def detail(self) -> str:
        unknown = ", ".join(str(line.product_id) for line in self.lines if line.available is None)
        return f"Not on sale: {unknown}. Nothing was taken."

    def members(self) -> dict[str, str]:
        return {"errors": json.dumps([line.entry() for line in self.lines])}


class InsufficientStock(OrderRefused):
    """Lines ask for more units than are in stock."""

    reply_word = "short"
    problem = _INSUFFICIENT_STOCK

    def detail(self) -> str:
        short = ", ".join(str(line.product_id) for line in self.lines)
        return f"Not enough stock of: {short}. Nothing was taken."

    def members(self) -> dict[str, str]:
        return {"errors": json.dumps([line.entry() for line in self.lines])}


class CurrentPrice(NamedTuple):
    """A line of an order with what a unit of its product costs now."""

    position: int
    product_id: int
    price: Cents


@dataclass(eq=False)
class PriceChanged(OrderRefused):
    """The total that the client expects is not the current one, `total_price`."""

    total_price: Cents

    Line = CurrentPrice
    values_before_lines = 1
    reply_word = "price_changed"
    problem = Problem(
        "price-changed",
        409,
        "The price has changed",
        "The order named a <code>total_price</code>, but the products cost something else now: see "
        "<code>total_price</code> and <code>prices</code>. Nothing was taken. The answer is final for its "
        "Idempotency-Key: to order at the new price, use a new key.",
    )

    def detail(self) -> str:
        return f"The total is {format_cents(self.total_price)} now. Nothing was taken."

    def members(self) -> dict[str, str]:
        # As texts: json.dumps() would need floats.
        prices = ", ".join(
            f'{{"product_id": {line.product_id}, "price": {format_cents(line.price)}}}' for line in self.lines
        )
        return {"total_price": format_cents(self.total_price), "prices": f"[{prices}]"}


class TotalTooLarge(OrderRefused):
    """The total is 2^53 cents or more: Lua and many JSON readers do not keep such large numbers exact."""

    reply_word = "too_large"
    problem = Problem(
        "total-too-large",
        422,
        "The total is too large",
        "The total is 2<sup>53</sup> cents or more. Not all readers of JSON keep such large numbers exact. "
        "Split the order.",
    )

    def detail(self) -> str:
        return f"The total is above {format_cents(Cents(MAX_TOTAL))}. Nothing was taken."


STOCK_REFUSALS = (MoveOfUnknownProduct, StockTooLow, StockTooHigh)
"""The refusals of lua/move_stock.lua."""

ORDER_REFUSALS = (UnknownProducts, InsufficientStock, PriceChanged, TotalTooLarge)
"""The refusals of lua/place_order.lua."""

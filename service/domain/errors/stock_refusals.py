"""Refusals of stock changes and stock counts."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.domain.errors.refusals import PRECONDITION_FAILED, PRODUCT_NOT_FOUND, not_on_sale
from service.domain.errors.remembered_refusals import INSUFFICIENT_STOCK, STOCK_LIMIT, RememberedRefusal
from service.domain.limits import MAX_STOCK

if TYPE_CHECKING:
    from service.domain.requests import StockChange, StockCount


@dataclass(eq=False)
class StockChangeRefusal(RememberedRefusal):
    """A stock change or a stock count that was not made.

    The reply of the script is `reply_word`, then one number for each field that the class declares after `request`.
    """

    product_id: int
    request: "StockChange | StockCount"

    def pointer(self) -> str:
        """Return the pointer to the number in the request."""
        return "#/change" if self.request.count is None else "#/count"


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
    problem = INSUFFICIENT_STOCK

    def detail(self) -> str:
        return f"Only {self.stock} are in stock; cannot remove {self._requested()}."

    def further_fields(self) -> dict[str, str]:
        numbers = {"product_id": self.product_id, "requested": self._requested(), "available": self.stock}
        return {"errors": json.dumps([{"pointer": self.pointer(), **numbers, "detail": self.detail()}])}

    def _requested(self) -> int:
        assert self.request.count is None  # a count removes at most what is there
        return -self.request.change


@dataclass(eq=False)
class StockLimitExceeded(StockChangeRefusal):
    """Stock and holds together would be more than a product may have."""

    stock: int
    held: int

    reply_word = "full"
    problem = STOCK_LIMIT

    def detail(self) -> str:
        if self.request.count is not None:
            return f"{self.held} are held: with {self.request.count} in stock, that would exceed {MAX_STOCK}."
        return (
            f"{self.stock} are in stock and {self.held} are held: {self.request.change} more would exceed {MAX_STOCK}."
        )

    def further_fields(self) -> dict[str, str]:
        entry = {"pointer": self.pointer(), "product_id": self.product_id, "detail": self.detail()}
        return {"errors": json.dumps([entry])}


@dataclass(eq=False)
class StockHasMoved(StockChangeRefusal):
    """The stock is not the one that was counted: If-Match names another."""

    stock: int

    reply_word = "moved_since"
    problem = PRECONDITION_FAILED

    def detail(self) -> str:
        return f"The stock has changed since the count began: it is {self.stock} now. Count again."


STOCK_REFUSALS = (ProductNotFoundForStockChange, InsufficientStockForStockChange, StockLimitExceeded, StockHasMoved)
"""The refusals of lua/move_stock.lua."""

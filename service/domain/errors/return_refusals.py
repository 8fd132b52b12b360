"""Refusals of returns."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from service.domain.errors.base import Problem
from service.domain.errors.remembered_refusals import STOCK_LIMIT, RememberedRefusal
from service.domain.limits import MAX_STOCK


@dataclass(eq=False)
class ReturnRefusal(RememberedRefusal):
    """A return that was not made."""

    order_id: int


class ReturnOfPendingOrder(ReturnRefusal):
    """The order is pending: it has sold nothing yet."""

    reply_word = "pending"
    problem = Problem(
        "order-pending",
        409,
        "The order is pending",
        "A pending order has sold nothing yet, so there is nothing to return. Nothing was changed. The same "
        "Idempotency-Key gets this response for 24 hours.",
        "Cancel the order with `DELETE /orders/{id}`, or complete it first.",
    )

    def detail(self) -> str:
        return f"The order {self.order_id} is pending: it has sold nothing yet."


class ExcessLine(NamedTuple):
    """A line of a return with too many units. `returnable`: the units of the product that can still come back."""

    position: int
    product_id: int
    requested: int
    returnable: int


@dataclass(eq=False)
class ReturnExceedsOrder(ReturnRefusal):
    """More units would come back than were bought and have not come back yet."""

    lines: Sequence[ExcessLine]

    reply_word = "exceeds"
    problem = Problem(
        "return-exceeds-order",
        409,
        "More would come back than was bought",
        "An order can return what was bought and has not come back yet. `errors` lists every product of which the "
        "request returns more, with the units that are still `returnable`. Nothing was returned. The same "
        "Idempotency-Key gets this response for 24 hours.",
        "Return at most what is `returnable`, with a new Idempotency-Key.",
    )

    def detail(self) -> str:
        ids = ", ".join(str(line.product_id) for line in self.lines)
        return f"The order {self.order_id} cannot return so many of: {ids}. Nothing was returned."

    def further_fields(self) -> dict[str, str]:
        entries = [
            {
                "pointer": f"#/products/{line.position}/quantity",
                "product_id": line.product_id,
                "requested": line.requested,
                "returnable": line.returnable,
                "detail": f"{line.requested} to return, {line.returnable} returnable.",
            }
            for line in self.lines
        ]
        return {"errors": json.dumps(entries)}


class FullLine(NamedTuple):
    """A line of a return of a product that may not have so many units."""

    position: int
    product_id: int


@dataclass(eq=False)
class ReturnExceedsStockLimit(ReturnRefusal):
    """Some products would have more units than a product may have."""

    lines: Sequence[FullLine]

    reply_word = "full"
    problem = STOCK_LIMIT

    def detail(self) -> str:
        ids = ", ".join(str(line.product_id) for line in self.lines)
        return f"There would be more than {MAX_STOCK} units of: {ids}. Nothing was returned."

    def further_fields(self) -> dict[str, str]:
        entries = [
            {
                "pointer": f"#/products/{line.position}/quantity",
                "product_id": line.product_id,
                "detail": f"The product {line.product_id} would have more than {MAX_STOCK} units.",
            }
            for line in self.lines
        ]
        return {"errors": json.dumps(entries)}


RETURN_REFUSALS = (ReturnOfPendingOrder, ReturnExceedsOrder, ReturnExceedsStockLimit)
"""The refusals of lua/return_order.lua that an Idempotency-Key remembers."""

"""What stands in the way of one line of an order: the texts of lua/place_order.lua, and the entries in `errors`."""

import json
from typing import Any, Final, NamedTuple, Protocol

from service.domain.errors.refusals import not_on_sale
from service.domain.times import Milliseconds, format_timestamp


class Obstacle(Protocol):
    """Why a line of an order cannot be served."""

    def entry(self, position: int, product_id: int, requested: int) -> str:
        """Return the entry in the `errors` of a problem, as JSON. `position`: of the line in the request."""

    def _asdict(self) -> dict[str, Any]:
        """Return the numbers of the obstacle by their names."""


class NotInCatalogue(NamedTuple):
    """The product was never added, or was withdrawn."""

    def entry(self, position: int, product_id: int, requested: int) -> str:
        return json.dumps(
            {
                "pointer": f"#/products/{position}/product_id",
                "product_id": product_id,
                "detail": not_on_sale(product_id),
            }
        )


class TooLittleStock(NamedTuple):
    """Only `available` units are in stock."""

    available: int

    def entry(self, position: int, product_id: int, requested: int) -> str:
        # Written out: in a flash sale, nearly all orders are refused so, and json.dumps() takes ten times as long.
        return (
            f'{{"pointer": "#/products/{position}/quantity", "product_id": {product_id}, "requested": {requested}, '
            f'"available": {self.available}, "detail": "{requested} requested, {self.available} available."}}'
        )


class CustomerMissing(NamedTuple):
    """The product has a limit per customer, and the order names no customer."""

    limit: int

    def entry(self, position: int, product_id: int, requested: int) -> str:
        return json.dumps(
            {
                "pointer": "#/customer",
                "product_id": product_id,
                "limit": self.limit,
                "detail": f"The product {product_id} is limited to {self.limit} per customer: name the customer.",
            }
        )


class OutsideSaleTime(NamedTuple):
    """The sale of the product has not begun, or is over. None: the sale has no such end."""

    on_sale_from: Milliseconds | None
    on_sale_until: Milliseconds | None

    def entry(self, position: int, product_id: int, requested: int) -> str:
        window = {
            name: format_timestamp(moment)
            for name, moment in (("from", self.on_sale_from), ("until", self.on_sale_until))
            if moment is not None
        }
        words = " ".join(f"{name} {moment}" for name, moment in window.items())
        return json.dumps(
            {
                "pointer": f"#/products/{position}/product_id",
                "product_id": product_id,
                **window,
                "detail": f"The product {product_id} is on sale {words}.",
            }
        )


class LimitReached(NamedTuple):
    """One customer may have `limit` units over all orders, and has `already` units."""

    limit: int
    already: int

    def entry(self, position: int, product_id: int, requested: int) -> str:
        return json.dumps(
            {
                "pointer": f"#/products/{position}/quantity",
                "product_id": product_id,
                "limit": self.limit,
                "already": self.already,
                "requested": requested,
                "detail": f"{requested} requested; the limit per customer is {self.limit}, and this customer has "
                f"{self.already} already.",
            }
        )


NOT_IN_CATALOGUE: Final = NotInCatalogue()


def parse_obstacle(word: str) -> Obstacle:
    """Return the obstacle from the word with which lua/place_order.lua names it. Raise ValueError if it is unknown."""
    if word.isdecimal():
        return TooLittleStock(int(word))
    if word.removeprefix("-").isdecimal():  # a negative stock, which was set by hand: the audit reports it
        return TooLittleStock(0)
    if word == "unknown":
        return NOT_IN_CATALOGUE
    kind, *numbers = word.split(":")
    match kind, numbers:
        case "customer", [limit]:
            return CustomerMissing(int(limit))
        case "time", [start, end]:
            return OutsideSaleTime(_moment(start), _moment(end))
        case "limit", [limit, already]:
            return LimitReached(int(limit), int(already))
    raise ValueError(f"unknown obstacle: {word[:100]!r}")


def _moment(text: str) -> Milliseconds | None:
    return Milliseconds(int(text)) if text else None

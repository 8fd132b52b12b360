"""Refusals: the request is valid, but the state of the shop does not allow it. Nothing was changed."""

from dataclasses import dataclass

from service.domain.errors.base import HoldfastError, Problem


class Refusal(HoldfastError):
    """The request is valid, but the state of the shop does not allow it. Nothing was changed."""


PRODUCT_NOT_FOUND = Problem(
    "product-not-found",
    404,
    "There is no such product",
    "No product with this id is on sale: it was never added, or it was withdrawn. For an order, "
    "<code>errors</code> lists every line that cannot be served; an order is refused as a whole.",
)


def not_on_sale(product_id: int | str) -> str:
    """Return the sentence about a product that is not on sale."""
    return f"There is no product {product_id} on sale."


@dataclass(eq=False)
class ProductNotFound(Refusal):
    """No product with this id was ever added, or it was withdrawn from sale. The id is as the client wrote it."""

    product_id: str

    problem = PRODUCT_NOT_FOUND

    def detail(self) -> str:
        return not_on_sale(self.product_id[:40])


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
    """The order was cancelled, and its stock is released."""

    order_id: int

    problem = Problem(
        "order-cancelled",
        410,
        "The order was cancelled",
        "The order was cancelled while it was pending, and its units are in stock again. This is final: "
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
        "The order was not completed before <code>expires_at</code>, and its units are released. This is final: "
        "place a new order.",
    )

    def detail(self) -> str:
        return f"The order {self.order_id} was not completed in time."


class IdempotencyKeyReused(Refusal):
    """The Idempotency-Key was used before, with a different request."""

    problem = Problem(
        "idempotency-key-reused",
        422,
        "The Idempotency-Key belongs to another request",
        "This key was used before, with a different order or stock change. Use a new key for each request, and the "
        "same key only to repeat a request.",
    )

    def detail(self) -> str:
        return "This Idempotency-Key was used before, with a different request."

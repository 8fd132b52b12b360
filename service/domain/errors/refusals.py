"""Refusals: the request is valid, but the state of the shop does not allow it. Nothing was changed."""

from dataclasses import dataclass

from service.domain.errors.base import HoldfastError, Problem
from service.domain.order import Order
from service.domain.times import Milliseconds, format_timestamp


class Refusal(HoldfastError):
    """The request is valid, but the state of the shop does not allow it. Nothing was changed."""


PRODUCT_NOT_FOUND = Problem(
    "product-not-found",
    404,
    "There is no such product",
    "No product with this id is on sale: it was never added, or it was withdrawn. For an order, `errors` lists "
    "every line that cannot be served; an order is refused as a whole, and nothing was taken.",
    "Remove the product from the cart, or correct the id. An order needs a new Idempotency-Key then.",
)


PRECONDITION_FAILED = Problem(
    "precondition-failed",
    412,
    "Somebody else has changed it",
    "The request has `If-Match`, and what it names is not there any more (RFC 9110, section 13.1.1): somebody "
    "has changed the product meanwhile. A sale is no such change for `PATCH` and `DELETE` of a product; for a "
    "stock count, every change of the stock is. Nothing was changed.",
    "Read the product again, decide again, and send its new `ETag`.",
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
        "Another product has this id. An id is never used again, not even after its product was withdrawn. Nothing "
        "was changed.",
        "Choose another id, or leave `id` out: then the service chooses one.",
    )

    def detail(self) -> str:
        return f"The id {self.product_id} belongs to another product."


@dataclass(eq=False)
class ProductHasChanged(Refusal):
    """The catalogue part of the product is not the one that the client has seen: If-Match names another."""

    product_id: int

    problem = PRECONDITION_FAILED

    def detail(self) -> str:
        return f"The product {self.product_id} has changed meanwhile: read it again."


@dataclass(eq=False)
class SaleTimeEmpty(Refusal):
    """The sale of the product would end before it begins."""

    on_sale_from: Milliseconds
    on_sale_until: Milliseconds

    problem = Problem(
        "sale-time-empty",
        409,
        "The sale would end before it begins",
        "`on_sale_from` must be before `on_sale_until`. This request changes one of the two, and the product has the"
        " other. Nothing was changed.",
        "Change both in one request, or remove one with `null`.",
    )

    def detail(self) -> str:
        start, end = format_timestamp(self.on_sale_from), format_timestamp(self.on_sale_until)
        return f"The product would be on sale from {start} until {end}."


@dataclass(eq=False)
class OrderNotFound(Refusal):
    """No order with this id was ever placed. The id is as the client wrote it."""

    order_id: str

    problem = Problem(
        "order-not-found",
        404,
        "There is no such order",
        "No order with this id was ever placed.",
        "Correct the id. `GET /orders?reference=...` finds an order by your own number.",
    )

    def detail(self) -> str:
        return f"There is no order {self.order_id[:40]}."


@dataclass(eq=False)
class OrderArchived(Refusal):
    """The order had ended long ago. It is in a file of `holdfast archive`, and not in Redis any more."""

    order_id: int

    problem = Problem(
        "order-archived",
        410,
        "The order is archived",
        "The order ended long ago. It is in a file that `holdfast archive` wrote, and Holdfast cannot show or change "
        "it any more. Nothing was changed.",
        "Find the order in the archive of the shop. A return of its products is a matter for your own books; put the "
        "units into stock with `POST /products/{id}/stock`.",
    )

    def detail(self) -> str:
        return f"The order {self.order_id} is archived."


@dataclass(eq=False)
class OrderCompleted(Refusal):
    """A completed order cannot be cancelled, and has no hold to extend."""

    order_id: int

    problem = Problem(
        "order-completed",
        409,
        "The order is completed",
        "A completed order cannot be cancelled, and holds nothing any more: its units are sold. Nothing was changed.",
        "To take units back, use `POST /orders/{id}/returns`.",
    )

    def detail(self) -> str:
        return f"The order {self.order_id} is completed."


@dataclass(eq=False)
class EndedOrder(Refusal):
    """The hold of the order has ended without a sale. `order` has the status with which it ended."""

    order: Order

    def further_fields(self) -> dict[str, str]:
        return {"order": self.order.json()}


class OrderCancelled(EndedOrder):
    """The order was cancelled, and its stock is released."""

    problem = Problem(
        "order-cancelled",
        410,
        "The order was cancelled",
        "The order was cancelled while it was pending, and its units are in stock again. This is final. `order` is "
        "the order as it was.",
        "Place a new order.",
    )

    def detail(self) -> str:
        return f"The order {self.order.id} was cancelled."


class OrderExpired(EndedOrder):
    """The order was not completed before its deadline. Its stock is released, or will be in a moment."""

    problem = Problem(
        "order-expired",
        410,
        "The order has expired",
        "The order was not completed before `expires_at`, and its units are released. This is final. `order` is the "
        "order as it was.",
        "Place a new order. If the customer has paid for this one already, pay the money back if the new order is "
        "refused.",
    )

    def detail(self) -> str:
        return f"The order {self.order.id} was not completed in time."


class IdempotencyKeyReused(Refusal):
    """The Idempotency-Key was used before, with a different request."""

    problem = Problem(
        "idempotency-key-reused",
        422,
        "The Idempotency-Key belongs to another request",
        "This key was used before, with a different order, stock change or return. Nothing was done.",
        "Use a new key for each new request, and the same key only to repeat a request.",
    )

    def detail(self) -> str:
        return "This Idempotency-Key was used before, with a different request."

"""Requests for the state machine: from drawn numbers, and repetitions of a request with its Idempotency-Key."""

from collections.abc import Sequence
from decimal import Decimal

from service.domain.limits import MAX_STOCK
from service.domain.money import Cents, format_cents
from service.domain.order import OrderLine
from service.domain.requests import NewOrder, NewProduct, NewReturn, StockChange, StockCount
from tests.support.model_records import ModelProduct, Request, ReturnRequest, StockChangeRequest
from tests.support.shop import new_mug, new_order

Lines = list[tuple[int, int]]
"""The lines of an order: product id and quantity."""


def product_request(name: str, price: int, stock: int, **fields: object) -> NewProduct:
    """Return a product with its price in cents."""
    return new_mug(name=name, price=format_cents(Cents(price)), stock=stock, **fields)


def change_by(product: ModelProduct | None, amount: str) -> int:
    """Return the largest change that the stock allows, or one unit more. If that would be 0, return 1."""
    if product is None:
        return 1
    room = MAX_STOCK - product.stock - product.held
    changes = {
        "all": -product.stock,
        "more than all": -product.stock - 1,
        "to the maximum": room,
        "above the maximum": room + 1,
    }
    return max(-MAX_STOCK, min(changes[amount], MAX_STOCK)) or 1


def order_request(lines: Lines, hold: int | None, total: int | None, **names: str | None) -> NewOrder:
    """Return an order: pending for `hold` seconds, or completed without `hold`. `total` in cents.

    `names`: the reference and the customer.
    """
    fields: dict[str, object] = {name: value for name, value in names.items() if value is not None}
    if hold is not None:
        fields |= {"status": "pending", "hold_seconds": hold}
    if total is not None:
        fields["total_price"] = Decimal(format_cents(Cents(total)))
    return new_order(*lines, **fields)


def return_request(lines: Lines, restock: bool, reason: str | None) -> NewReturn:
    """Return a return of these units."""
    products = [{"product_id": product_id, "quantity": quantity} for product_id, quantity in lines]
    return NewReturn.model_validate({"products": products, "restock": restock, "reason": reason})


def lines_of_return(lines: Sequence[OrderLine], chosen: Lines) -> Lines:
    """Return lines of a return: the units, and the product at each position of the order, or one that is not in it."""
    return [(lines[at].product_id if at < len(lines) else 9, quantity) for at, quantity in chosen]


def repeated(first: Request, repetition: str, variant: int) -> Request:
    """Return the request that comes with the key of the first request. `variant` is 0, 1 or 2."""
    match repetition, first:
        case "other call", StockChangeRequest() if variant == 0:
            return ReturnRequest(1, return_request([(1, 1)], True, None))  # the first order has no customer
        case "other call", StockChangeRequest():
            return order_request([(first.product_id, 1)], None, None)
        case "other call", NewOrder():
            return StockChangeRequest(first.products[0].product_id, StockChange(change=1, reason="restock"))
        case "other call", ReturnRequest():
            return StockChangeRequest(first.new_return.products[0].product_id, StockCount(count=1, reason="restock"))
        case "other meaning", StockChangeRequest():
            return another_stock_change(first, variant)
        case "other meaning", NewOrder():
            return another_order(first, variant)
        case "other meaning", ReturnRequest():
            return another_return(first, variant)
        case "other bytes", NewOrder():
            return in_other_bytes(first, variant)
        case "other bytes", ReturnRequest():
            new = first.new_return
            lines = [(line.product_id, line.quantity) for line in reversed(new.products)]
            return ReturnRequest(first.order_id, return_request(lines, new.restock, new.reason))
    return first


def another_return(first: ReturnRequest, variant: int) -> ReturnRequest:
    """Return a return with another quantity, another destination of the units, or another reason."""
    new = first.new_return
    lines = [(line.product_id, line.quantity) for line in new.products]
    match variant:
        case 0:
            lines[0] = (lines[0][0], lines[0][1] % 10 + 1)
            return ReturnRequest(first.order_id, return_request(lines, new.restock, new.reason))
        case 1:
            return ReturnRequest(first.order_id, return_request(lines, not new.restock, new.reason))
        case _:
            return ReturnRequest(first.order_id, return_request(lines, new.restock, f"{new.reason}!"))


def in_other_bytes(first: NewOrder, variant: int) -> NewOrder:
    """Return the same order with its lines in reverse order, or with split lines, or both."""
    lines = [(line.product_id, line.quantity) for line in first.products]
    if variant != 0:
        lines = [
            (product_id, part)
            for product_id, quantity in lines
            for part in (quantity // 2, quantity - quantity // 2)
            if part > 0
        ]
    if variant != 1:
        lines.reverse()
    return order_request(lines, hold_of(first), first.total_price, reference=first.reference, customer=first.customer)


def another_order(first: NewOrder, variant: int) -> NewOrder:
    """Return an order of the same customer with another quantity, another hold, or another total and reference."""
    lines = [(line.product_id, line.quantity) for line in first.products]
    hold, total, reference = hold_of(first), first.total_price, first.reference
    match variant:
        case 0:
            lines[0] = (lines[0][0], lines[0][1] % 10 + 1)
        case 1:
            hold = 61 if hold is None else None if hold == 60 else 60
        case _:
            total, reference = (Cents(5), reference) if total is None else (total, f"{reference}!")
    return order_request(lines, hold, total, reference=reference, customer=first.customer)


def another_stock_change(first: StockChangeRequest, variant: int) -> StockChangeRequest:
    """Return a stock change with another change, of another product or with another reason."""
    product_id, change = first.product_id, first.stock_change
    match variant:
        case 0:
            number = 1 if isinstance(change, StockChange) and change.change == 2 else 2
            return StockChangeRequest(product_id, StockChange(change=number, reason=change.reason))
        case 1:
            return StockChangeRequest(product_id + 1, change)
        case _:
            return StockChangeRequest(product_id, change.model_copy(update={"reason": f"{change.reason}!"}))


def hold_of(order: NewOrder) -> int | None:
    """Return the `hold` with which order_request() returns such an order."""
    return order.hold_seconds if order.status == "pending" else None

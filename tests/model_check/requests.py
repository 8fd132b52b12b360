"""Requests for the state machine: from drawn numbers, and repetitions of a request with its Idempotency-Key."""

from decimal import Decimal

from service.domain.limits import MAX_STOCK
from service.domain.money import Cents, format_cents
from service.domain.requests import NewOrder, NewProduct, StockChange
from tests.support.model import ModelProduct, Request, StockChangeRequest
from tests.support.shop import new_mug, new_order

Lines = list[tuple[int, int]]
"""The lines of an order: product id and quantity."""


def product_request(name: str, price: int, stock: int, **fields: int) -> NewProduct:
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


def order_request(lines: Lines, hold: int | None, total: int | None) -> NewOrder:
    """Return an order: pending for `hold` seconds, or completed without `hold`. `total` in cents."""
    fields: dict[str, object] = {}
    if hold is not None:
        fields |= {"status": "pending", "hold_seconds": hold}
    if total is not None:
        fields["total_price"] = Decimal(format_cents(Cents(total)))
    return new_order(*lines, **fields)


def repeated(first: Request, repetition: str, variant: int) -> Request:
    """Return the request that comes with the key of the first request. `variant` is 0, 1 or 2."""
    match repetition, first:
        case "other call", StockChangeRequest():
            return order_request([(first.product_id, 1)], None, None)
        case "other call", NewOrder():
            return StockChangeRequest(first.products[0].product_id, StockChange(change=1, reason="restock"))
        case "other meaning", StockChangeRequest():
            return another_stock_change(first, variant)
        case "other meaning", NewOrder():
            return another_order(first, variant)
        case "other bytes", NewOrder():
            return in_other_bytes(first, variant)
    return first


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
    return order_request(lines, hold_of(first), first.total_price)


def another_order(first: NewOrder, variant: int) -> NewOrder:
    """Return an order with another quantity, another hold or another expected total."""
    lines = [(line.product_id, line.quantity) for line in first.products]
    hold, total = hold_of(first), first.total_price
    match variant:
        case 0:
            lines[0] = (lines[0][0], lines[0][1] % 10 + 1)
        case 1:
            hold = 61 if hold is None else None if hold == 60 else 60
        case _:
            total = Cents(5) if total is None else None
    return order_request(lines, hold, total)


def another_stock_change(first: StockChangeRequest, variant: int) -> StockChangeRequest:
    """Return a stock change with another change, of another product or with another reason."""
    product_id, change, reason = first.product_id, first.stock_change.change, first.stock_change.reason
    match variant:
        case 0:
            change = 1 if change == 2 else 2
        case 1:
            product_id += 1
        case _:
            reason += "!"
    return StockChangeRequest(product_id, StockChange(change=change, reason=reason))


def hold_of(order: NewOrder) -> int | None:
    """Return the `hold` with which order_request() returns such an order."""
    return order.hold_seconds if order.status == "pending" else None

"""A model of the shop in a few dictionaries: what the Store must return, and what Redis must hold afterwards.

It uses only values and errors of the code under test: no records, no scripts.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from service.domain.errors.refusals import (
    IdempotencyKeyReused,
    OrderCancelled,
    OrderCompleted,
    OrderExpired,
    OrderNotFound,
    ProductIdTaken,
    ProductNotFound,
    Refusal,
)
from service.domain.errors.remembered_refusals import (
    CurrentPrice,
    InsufficientStock,
    InsufficientStockForStockChange,
    OrderPlacementRefusal,
    PriceChanged,
    ProductNotFoundForStockChange,
    ProductsNotFound,
    StockChangeRefusal,
    StockLimitExceeded,
    TotalTooLarge,
    UnavailableLine,
)
from service.domain.event import EVENT_FIELDS
from service.domain.limits import MAX_STOCK, MAX_TOTAL
from service.domain.money import Cents, format_cents
from service.domain.order import Order, OrderLine
from service.domain.product import Product
from service.domain.requests import NewOrder, NewProduct, ProductChange, StockChange
from service.domain.times import Milliseconds
from service.storage.orders import PlacedOrder
from service.storage.stock import ChangedStock

Event = dict[str, str]


@dataclass
class ModelProduct:
    """A product: the fields that were added, and its four counters."""

    id: int
    added: dict[str, Any]
    """The current values of all fields but the id and the stock. The price is in cents."""
    stock: int
    received: int
    held: int = 0
    sold: int = 0
    on_sale: bool = True

    @property
    def price(self) -> Cents:
        return Cents(int(self.added["price"]))

    def returned(self) -> Product:
        """Return the product as the Store returns it."""
        return Product(id=self.id, stock=self.stock, **self.added)

    def fields(self) -> dict[str, str]:
        """Return the hash in Redis."""
        counters = {"stock": self.stock, "held": self.held, "sold": self.sold, "received": self.received}
        return {
            "id": str(self.id),
            **stored_fields(self.added),
            **{name: str(units) for name, units in counters.items()},
            "withdrawn": "0" if self.on_sale else "1",
        }


@dataclass
class ModelOrder:
    """An order in any status."""

    id: int
    lines: tuple[OrderLine, ...]
    status: str
    created_at: Milliseconds
    expires_at: Milliseconds | None
    """A cancelled or expired order keeps its deadline; a completed order has none."""
    key: str | None

    @property
    def total(self) -> Cents:
        return Cents(sum(line.quantity * line.price for line in self.lines))

    @property
    def products(self) -> str:
        return "\n".join(f"{line.product_id}: {line.quantity} x {format_cents(line.price)}" for line in self.lines)

    def returned(self) -> Order:
        """Return the order as the Store returns it."""
        return Order(self.id, self.lines, self.total, self.status, self.created_at, self.expires_at)

    def fields(self) -> dict[str, str]:
        """Return the hash in Redis."""
        return {
            "id": str(self.id),
            "status": self.status,
            "total_price": format_cents(self.total),
            "products": self.products,
            "created_at": str(self.created_at),
            **({} if self.expires_at is None else {"expires_at": str(self.expires_at)}),
            **({} if self.key is None else {"idempotency_key": self.key}),
        }


@dataclass
class StockChangeRequest:
    """A request to change the stock of a product."""

    product_id: int
    stock_change: StockChange


Request = NewOrder | StockChangeRequest
"""A request that may have an Idempotency-Key."""


@dataclass
class ModelKey:
    """The first request with an Idempotency-Key, and its outcome."""

    first: Request
    outcome: int | Refusal
    """The id of the order or the product, or the refusal."""


@dataclass
class Model:
    """A shop with the methods of the Store: the same results and the same errors. Amounts in cents."""

    clock: Callable[[], Milliseconds]
    products: dict[int, ModelProduct] = field(default_factory=dict)
    orders: dict[int, ModelOrder] = field(default_factory=dict)
    keys: dict[str, ModelKey] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)

    # Products

    def add_product(self, new: NewProduct, product_id: int) -> Product:
        """Add a product. `product_id` is the id that the request names, or that the Store assigned."""
        if product_id in self.products:
            raise ProductIdTaken(product_id)
        added = new.model_dump(exclude={"id", "stock"})
        product = self.products[product_id] = ModelProduct(product_id, added, new.stock, received=new.stock)
        event_fields = {name: value for name, value in stored_fields(added).items() if name != "description"}
        self.add_event("product_added", product=product_id, **event_fields, stock=new.stock)
        return product.returned()

    def get_product(self, product_id: int) -> Product:
        return self.on_sale(product_id).returned()

    def change_product(self, product_id: int, change: ProductChange) -> Product:
        product = self.on_sale(product_id)
        changes = {
            name: value for name, value in change.model_dump(exclude_unset=True).items() if product.added[name] != value
        }
        product.added |= changes
        if changes:
            self.add_event("product_changed", product=product_id, **stored_fields(changes))
        return product.returned()

    def withdraw_product(self, product_id: int) -> None:
        if product_id not in self.products:
            raise ProductNotFound(str(product_id))
        if self.products[product_id].on_sale:
            self.products[product_id].on_sale = False
            self.add_event("product_withdrawn", product=product_id)

    def change_stock(self, product_id: int, stock_change: StockChange, key: str | None) -> ChangedStock:
        request = StockChangeRequest(product_id, stock_change)
        known = self.known(key, request)
        if known is not None:
            if isinstance(known, int):
                return ChangedStock(self.products[known].returned(), replayed=True)
            assert isinstance(known, StockChangeRefusal)
            raise replace(known, replayed=True)
        change = stock_change.change
        try:
            if product_id not in self.products or not self.products[product_id].on_sale:
                raise ProductNotFoundForStockChange(False, product_id, change)
            product = self.products[product_id]
            if product.stock + change < 0:
                raise InsufficientStockForStockChange(False, product_id, change, product.stock)
            if change > 0 and product.stock + product.held + change > MAX_STOCK:
                raise StockLimitExceeded(False, product_id, change, product.stock, product.held)
        except Refusal as refusal:
            self.remember(key, request, refusal)
            raise
        product.stock += change
        product.received += change
        self.remember(key, request, product_id)
        self.add_event(
            "stock_moved", product=product_id, change=change, reason=stock_change.reason, stock=product.stock
        )
        return ChangedStock(product.returned(), replayed=False)

    def list_products(self, in_stock: bool | None) -> list[Product]:
        """Return all pages as one list."""
        return [
            product.returned()
            for _, product in sorted(self.products.items())
            if product.on_sale and in_stock in (None, product.stock > 0)
        ]

    def on_sale(self, product_id: int) -> ModelProduct:
        if product_id not in self.products or not self.products[product_id].on_sale:
            raise ProductNotFound(str(product_id))
        return self.products[product_id]

    # Orders

    def place_order(self, new: NewOrder, key: str | None, order_id: int) -> PlacedOrder:
        """Place an order. `order_id` is the id that the Store assigned."""
        known = self.known(key, new)
        if isinstance(known, int):
            return PlacedOrder(self.get_order(known), replayed=True)
        if known is not None:
            raise replayed_refusal(known, new)
        if (refusal := self.refusal(new)) is not None:
            self.remember(key, new, refusal)
            raise refusal
        assert order_id not in self.orders
        lines = tuple(
            OrderLine(product_id, quantity, self.products[product_id].price)
            for product_id, quantity in new.quantities().items()
        )
        expires_at = Milliseconds(self.clock() + new.hold_seconds * 1000) if new.status == "pending" else None
        order = self.orders[order_id] = ModelOrder(order_id, lines, new.status, self.clock(), expires_at, key)
        for line in lines:
            product = self.products[line.product_id]
            product.stock -= line.quantity
            if new.status == "pending":
                product.held += line.quantity
            else:
                product.sold += line.quantity
        self.remember(key, new, order_id)
        total = format_cents(order.total)
        self.add_event("order_placed", order=order_id, status=new.status, total_price=total, products=order.products)
        return PlacedOrder(order.returned(), replayed=False)

    def refusal(self, new: NewOrder) -> OrderPlacementRefusal | None:
        """Return the refusal of an order placed now, or None."""
        wanted = new.quantities()
        unavailable: list[UnavailableLine] = []
        unknown = False
        for product_id, quantity in wanted.items():
            product = self.products.get(product_id)
            if product is None or not product.on_sale:
                unknown = True
                unavailable.append(UnavailableLine(first_line(new, product_id), product_id, quantity, None))
            elif product.stock < quantity:
                unavailable.append(UnavailableLine(first_line(new, product_id), product_id, quantity, product.stock))
        if unavailable:
            return ProductsNotFound(False, unavailable) if unknown else InsufficientStock(False, unavailable)
        total = Cents(sum(quantity * self.products[product_id].price for product_id, quantity in wanted.items()))
        if total > MAX_TOTAL:
            return TotalTooLarge(False, [])
        if new.total_price not in (None, total):
            prices = [CurrentPrice(first_line(new, p), p, self.products[p].price) for p in wanted]
            return PriceChanged(False, prices, total)
        return None

    def get_order(self, order_id: int) -> Order:
        match self.state(order_id):
            case "absent":
                raise OrderNotFound(str(order_id))
            case "cancelled":
                raise OrderCancelled(order_id)
            case "expired" | "overdue":
                raise OrderExpired(order_id)
        return self.orders[order_id].returned()

    def complete_order(self, order_id: int) -> Order:
        order = self.get_order(order_id)
        if order.status == "pending":
            self.end(order_id, "completed")
        return self.orders[order_id].returned()

    def cancel_order(self, order_id: int) -> None:
        match self.state(order_id):
            case "absent":
                raise OrderNotFound(str(order_id))
            case "completed":
                raise OrderCompleted(order_id)
            case "overdue":
                self.end(order_id, "expired")
                raise OrderExpired(order_id)
            case "expired":
                raise OrderExpired(order_id)
            case "pending":
                self.end(order_id, "cancelled")

    def end(self, order_id: int, status: str) -> None:
        """End a pending order: sell the units that it holds, or give them back."""
        order = self.orders[order_id]
        order.status = status
        for line in order.lines:
            product = self.products[line.product_id]
            product.held -= line.quantity
            match status:
                case "completed":
                    product.sold += line.quantity
                case "cancelled" | "expired":
                    product.stock += line.quantity
                case _:
                    raise AssertionError(f"a pending order cannot become {status}")
        if status == "completed":
            order.expires_at = None
        self.add_event(f"order_{status}", order=order_id, products=order.products)

    def list_orders(self, status: str | None) -> list[Order]:
        """Return all pages as one list."""
        return [
            order.returned()
            for order_id, order in sorted(self.orders.items(), reverse=True)
            if self.state(order_id) in ("pending", "completed") and status in (None, order.status)
        ]

    def state(self, order_id: int) -> str:
        """Return the status, or `overdue` if the order is pending after its deadline, or `absent` if there is none."""
        if order_id not in self.orders:
            return "absent"
        order = self.orders[order_id]
        if order.status == "pending" and order.expires_at is not None and self.clock() >= order.expires_at:
            return "overdue"
        return order.status

    def in_state(self, state: str) -> list[int]:
        return [order_id for order_id in self.orders if self.state(order_id) == state]

    # Idempotency-Keys and events

    def known(self, key: str | None, request: Request) -> int | Refusal | None:
        """Return the outcome of the first request with this key, or None if this is the first."""
        if key is None or key not in self.keys:
            return None
        if meaning(request) != meaning(self.keys[key].first):
            raise IdempotencyKeyReused
        return self.keys[key].outcome

    def remember(self, key: str | None, request: Request, outcome: int | Refusal) -> None:
        if key is not None:
            self.keys[key] = ModelKey(request, outcome)

    def add_event(self, event: str, **fields: object) -> None:
        assert fields.keys() <= set(EVENT_FIELDS[event]), f"unknown fields of {event}: {sorted(fields)}"
        self.events.append({"event": event, **{name: str(value) for name, value in fields.items()}})


def stored_fields(fields: dict[str, Any]) -> dict[str, str]:
    """Return the fields of a product as Redis holds them. Redis does not hold a field that is None."""
    return {
        name: format_cents(value) if name == "price" else str(value)
        for name, value in fields.items()
        if value is not None
    }


def meaning(request: Request) -> object:
    """Return what must be equal in all requests with the same key."""
    if isinstance(request, StockChangeRequest):
        return "stock change", request.product_id, request.stock_change.change, request.stock_change.reason
    hold = request.hold_seconds if request.status == "pending" else None
    return "order", request.quantities(), hold, request.total_price


def replayed_refusal(refusal: Refusal, new: NewOrder) -> Refusal:
    """Return the first refusal with the same numbers, and with the positions of the lines in the repeated request."""
    match refusal:
        case OrderPlacementRefusal():
            lines = [line._replace(position=first_line(new, line.product_id)) for line in refusal.lines]
            return replace(refusal, replayed=True, lines=lines)
        case _:
            raise AssertionError(f"no refusal of an order: {refusal!r}")


def first_line(new: NewOrder, product_id: int) -> int:
    """Return the position of the first line with this product."""
    return [line.product_id for line in new.products].index(product_id)

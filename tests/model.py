"""The shop in a few dictionaries: what the Store must answer, and what must be in the books afterwards."""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field, replace

from service.errors import (
    CurrentPrice,
    IdempotencyKeyReused,
    InsufficientStock,
    OrderCancelled,
    OrderCompleted,
    OrderExpired,
    OrderNotFound,
    OrderRefused,
    PriceChanged,
    ProductIdTaken,
    ProductNotFound,
    Refused,
    ShortLine,
    StockRefused,
    StockTooHigh,
    StockTooLow,
    TotalTooLarge,
    UnknownProducts,
)
from service.models import (
    MAX_STOCK,
    MAX_TOTAL,
    NewOrder,
    NewProduct,
    Order,
    OrderLine,
    Product,
    ProductChange,
    StockMove,
    money,
)
from service.store import Moved, Placed

Event = dict[str, str]


@dataclass
class ModelProduct:
    id: int
    name: str
    description: str
    price: int
    stock: int
    received: int
    held: int = 0
    sold: int = 0
    on_sale: bool = True

    def seen(self) -> Product:
        return Product(self.id, self.name, self.description, self.price, self.stock)

    def fields(self) -> dict[str, str]:
        """As Redis has it."""
        return {
            "id": str(self.id),
            "name": self.name,
            "description": self.description,
            "price": money(self.price),
            "stock": str(self.stock),
            "held": str(self.held),
            "sold": str(self.sold),
            "received": str(self.received),
            "withdrawn": "0" if self.on_sale else "1",
        }


@dataclass
class ModelOrder:
    id: int
    lines: tuple[OrderLine, ...]
    status: str
    created_at: int
    expires_at: int | None
    """Stays when it is cancelled or expires; a completed order has none."""
    key: str | None

    @property
    def total(self) -> int:
        return sum(line.quantity * line.price for line in self.lines)

    @property
    def products(self) -> str:
        return "\n".join(f"{line.product_id}: {line.quantity} x {money(line.price)}" for line in self.lines)

    def seen(self) -> Order:
        return Order(self.id, self.lines, self.total, self.status, self.created_at, self.expires_at)

    def fields(self) -> dict[str, str]:
        """As Redis has it."""
        return {
            "id": str(self.id),
            "status": self.status,
            "total_price": money(self.total),
            "products": self.products,
            "created_at": str(self.created_at),
            **({} if self.expires_at is None else {"expires_at": str(self.expires_at)}),
            **({} if self.key is None else {"idempotency_key": self.key}),
        }


@dataclass
class Move:
    """A request to move stock."""

    product_id: int
    move: StockMove


Request = NewOrder | Move
"""One that may come with an Idempotency-Key."""


@dataclass
class ModelKey:
    """The first request with an Idempotency-Key, and what became of it."""

    first: Request
    outcome: int | Refused
    """The id of the order or the product, or why not."""


@dataclass
class Model:
    """Its verbs are the Store's: they give the same, and raise the same errors. Amounts in cents."""

    clock: Callable[[], int]
    products: dict[int, ModelProduct] = field(default_factory=dict)
    orders: dict[int, ModelOrder] = field(default_factory=dict)
    keys: dict[str, ModelKey] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)

    # Products

    def add_product(self, new: NewProduct, product_id: int) -> Product:
        """`product_id`: its own, or what the Store has assigned to it."""
        if product_id in self.products:
            raise ProductIdTaken(product_id)
        product = ModelProduct(product_id, new.name, new.description, new.price, new.stock, received=new.stock)
        self.products[product_id] = product
        self.tell("product_added", product=product_id, name=new.name, price=money(new.price), stock=new.stock)
        return product.seen()

    def get_product(self, product_id: int) -> Product:
        return self.on_sale(product_id).seen()

    def change_product(self, product_id: int, change: ProductChange) -> Product:
        product = self.on_sale(product_id)
        changes = {
            name: value
            for name, value in change.model_dump(exclude_unset=True).items()
            if getattr(product, name) != value
        }
        for name, value in changes.items():
            setattr(product, name, value)
        if changes:
            shown = {name: money(value) if name == "price" else value for name, value in changes.items()}
            self.tell("product_changed", product=product_id, **shown)
        return product.seen()

    def withdraw_product(self, product_id: int) -> None:
        if product_id not in self.products:
            raise ProductNotFound(str(product_id))
        if self.products[product_id].on_sale:
            self.products[product_id].on_sale = False
            self.tell("product_withdrawn", product=product_id)

    def move_stock(self, product_id: int, move: StockMove, key: str | None) -> Moved:
        request = Move(product_id, move)
        known = self.known(key, request)
        if known is not None:
            if isinstance(known, int):
                return Moved(self.products[known].seen(), replayed=True)
            raise replace(known, replayed=True) if isinstance(known, StockRefused) else copy(known)
        try:
            product = self.on_sale(product_id)
            if product.stock + move.change < 0:
                raise StockTooLow(False, product_id, move.change, product.stock)
            if move.change > 0 and product.stock + product.held + move.change > MAX_STOCK:
                raise StockTooHigh(False, product_id, move.change, product.stock, product.held)
        except Refused as refusal:
            self.remember(key, request, refusal)
            raise
        product.stock += move.change
        product.received += move.change
        self.remember(key, request, product_id)
        self.tell("stock_moved", product=product_id, change=move.change, reason=move.reason, stock=product.stock)
        return Moved(product.seen(), replayed=False)

    def list_products(self, in_stock: bool | None) -> list[Product]:
        """All pages."""
        return [
            product.seen()
            for _, product in sorted(self.products.items())
            if product.on_sale and in_stock in (None, product.stock > 0)
        ]

    def on_sale(self, product_id: int) -> ModelProduct:
        if product_id not in self.products or not self.products[product_id].on_sale:
            raise ProductNotFound(str(product_id))
        return self.products[product_id]

    # Orders

    def place_order(self, new: NewOrder, key: str | None, order_id: int) -> Placed:
        """`order_id`: what the Store has assigned to it."""
        known = self.known(key, new)
        if isinstance(known, int):
            return Placed(self.get_order(known), replayed=True)
        if known is not None:
            raise said_again(known, new)
        if (refusal := self.refusal(new)) is not None:
            self.remember(key, new, refusal)
            raise refusal
        assert order_id not in self.orders
        lines = tuple(
            OrderLine(product_id, quantity, self.products[product_id].price)
            for product_id, quantity in new.quantities().items()
        )
        expires_at = self.clock() + new.hold_seconds * 1000 if new.status == "pending" else None
        order = self.orders[order_id] = ModelOrder(order_id, lines, new.status, self.clock(), expires_at, key)
        for line in lines:
            product = self.products[line.product_id]
            product.stock -= line.quantity
            if new.status == "pending":
                product.held += line.quantity
            else:
                product.sold += line.quantity
        self.remember(key, new, order_id)
        total = money(order.total)
        self.tell("order_placed", order=order_id, status=new.status, total_price=total, products=order.products)
        return Placed(order.seen(), replayed=False)

    def refusal(self, new: NewOrder) -> OrderRefused | None:
        """Why the order cannot be placed now, or None."""
        wanted = new.quantities()
        faults: list[ShortLine] = []
        unknown = False
        for product_id, quantity in wanted.items():
            product = self.products.get(product_id)
            if product is None or not product.on_sale:
                unknown = True
                faults.append(ShortLine(first_line(new, product_id), product_id, quantity, None))
            elif product.stock < quantity:
                faults.append(ShortLine(first_line(new, product_id), product_id, quantity, product.stock))
        if faults:
            return UnknownProducts(False, faults) if unknown else InsufficientStock(False, faults)
        total = sum(quantity * self.products[product_id].price for product_id, quantity in wanted.items())
        if total > MAX_TOTAL:
            return TotalTooLarge(False)
        if new.total_price not in (None, total):
            return PriceChanged(False, total, [CurrentPrice(p, self.products[p].price) for p in wanted])
        return None

    def get_order(self, order_id: int) -> Order:
        match self.state(order_id):
            case "absent":
                raise OrderNotFound(str(order_id))
            case "cancelled":
                raise OrderCancelled(order_id)
            case "expired" | "overdue":
                raise OrderExpired(order_id)
        return self.orders[order_id].seen()

    def complete_order(self, order_id: int) -> Order:
        order = self.get_order(order_id)
        if order.status == "pending":
            self.end(order_id, "completed")
        return self.orders[order_id].seen()

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
        """Of a pending order: sells what it holds, or gives it back."""
        order = self.orders[order_id]
        order.status = status
        for line in order.lines:
            product = self.products[line.product_id]
            product.held -= line.quantity
            if status == "completed":
                product.sold += line.quantity
            else:
                product.stock += line.quantity
        if status == "completed":
            order.expires_at = None
        self.tell(f"order_{status}", order=order_id, products=order.products)

    def list_orders(self, status: str | None) -> list[Order]:
        """All pages."""
        return [
            order.seen()
            for order_id, order in sorted(self.orders.items(), reverse=True)
            if self.state(order_id) in ("pending", "completed") and status in (None, order.status)
        ]

    def state(self, order_id: int) -> str:
        """The status, where `overdue` is a pending order that the sweeper has not come to; or `absent`."""
        if order_id not in self.orders:
            return "absent"
        order = self.orders[order_id]
        if order.status == "pending" and order.expires_at is not None and self.clock() >= order.expires_at:
            return "overdue"
        return order.status

    def in_state(self, state: str) -> list[int]:
        return [order_id for order_id in self.orders if self.state(order_id) == state]

    # Idempotency-Keys and events

    def known(self, key: str | None, request: Request) -> int | Refused | None:
        """What became of the request when it came first; None if it comes first now."""
        if key is None or key not in self.keys:
            return None
        if meaning(request) != meaning(self.keys[key].first):
            raise IdempotencyKeyReused
        return self.keys[key].outcome

    def remember(self, key: str | None, request: Request, outcome: int | Refused) -> None:
        if key is not None:
            self.keys[key] = ModelKey(request, outcome)

    def tell(self, event: str, **fields: object) -> None:
        self.events.append({"event": event, **{name: str(value) for name, value in fields.items()}})


def meaning(request: Request) -> object:
    if isinstance(request, Move):
        return "move", request.product_id, request.move.change, request.move.reason
    hold = request.hold_seconds if request.status == "pending" else None
    return "order", request.quantities(), hold, request.total_price


def said_again(refusal: Refused, new: NewOrder) -> Refused:
    """The refusal of before: the very figures of then, pointing at the lines of now."""
    match refusal:
        case UnknownProducts() | InsufficientStock():
            lines = [replace(line, index=first_line(new, line.product_id)) for line in refusal.lines]
            return replace(refusal, replayed=True, lines=lines)
        case OrderRefused():
            return replace(refusal, replayed=True)
        case _:
            raise AssertionError(f"no refusal of an order: {refusal!r}")


def first_line(new: NewOrder, product_id: int) -> int:
    return [line.product_id for line in new.products].index(product_id)

"""A model of the shop in a few dictionaries: what the Store must return, and what Redis must hold afterwards.

It uses only values and errors of the code under test: no records, no scripts.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from service.domain.errors.obstacles import (
    NOT_IN_CATALOGUE,
    CustomerMissing,
    LimitReached,
    Obstacle,
    OutsideSaleTime,
    TooLittleStock,
)
from service.domain.errors.order_refusals import (
    CurrentPrice,
    CustomerLimitExceeded,
    CustomerRequired,
    InsufficientStock,
    NotOnSale,
    OrderPlacementRefusal,
    PriceChanged,
    ProductsNotFound,
    TotalTooLarge,
    UnavailableLine,
    UnavailableLines,
)
from service.domain.errors.refusals import (
    IdempotencyKeyReused,
    OrderArchived,
    OrderCancelled,
    OrderCompleted,
    OrderExpired,
    OrderNotFound,
    ProductHasChanged,
    ProductIdTaken,
    ProductNotFound,
    Refusal,
    SaleTimeEmpty,
)
from service.domain.errors.return_refusals import (
    ExcessLine,
    FullLine,
    ReturnExceedsOrder,
    ReturnExceedsStockLimit,
    ReturnOfPendingOrder,
    ReturnRefusal,
)
from service.domain.errors.stock_refusals import (
    InsufficientStockForStockChange,
    ProductNotFoundForStockChange,
    StockChangeRefusal,
    StockHasMoved,
    StockLimitExceeded,
)
from service.domain.event import EVENT_FIELDS
from service.domain.limits import MAX_HOLD_SECONDS, MAX_STOCK, MAX_TOTAL
from service.domain.money import Cents, format_cents
from service.domain.order import Order, OrderLine
from service.domain.product import Product
from service.domain.requests import (
    HoldExtension,
    NewOrder,
    NewOrderLine,
    NewProduct,
    NewReturn,
    ProductChange,
    StockChange,
    StockCount,
)
from service.domain.times import Milliseconds
from service.storage.orders import PlacedOrder
from service.storage.returns import ReturnedOrder
from service.storage.stock import ChangedStock
from tests.support.model_records import (
    ModelKey,
    ModelOrder,
    ModelProduct,
    Request,
    ReturnRequest,
    StockChangeRequest,
    lines_text,
    rules_of,
    rules_text,
    stored_fields,
    units_text,
)

Event = dict[str, str]


LINE_REFUSALS: tuple[type[UnavailableLines], ...] = (
    ProductsNotFound,
    CustomerRequired,
    NotOnSale,
    CustomerLimitExceeded,
    InsufficientStock,
)
"""If the lines of an order have different obstacles, the first of these is the answer."""


@dataclass
class Model:
    """A shop with the methods of the Store: the same results and the same errors. Amounts in cents."""

    clock: Callable[[], Milliseconds]
    products: dict[int, ModelProduct] = field(default_factory=dict)
    orders: dict[int, ModelOrder] = field(default_factory=dict)
    keys: dict[tuple[str, str | None], ModelKey] = field(default_factory=dict)
    """By Idempotency-Key and customer."""
    units_of: dict[str, dict[int, int]] = field(default_factory=dict)
    """By customer: the units of each product that the customer holds and has bought."""
    archived_units_of: dict[str, dict[int, int]] = field(default_factory=dict)
    """By customer: those of these units that were bought with archived orders."""
    archived: set[int] = field(default_factory=set)
    """The ids of archived orders."""
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

    def change_product(self, product_id: int, change: ProductChange, versions: frozenset[str] | None) -> Product:
        product = self.on_sale(product_id)
        self.check_version(product, versions)
        after = product.added | change.model_dump(exclude_unset=True)
        rules = rules_of(after)
        _, start, end = rules
        if start is not None and end is not None and start >= end:
            raise SaleTimeEmpty(start, end)
        changes = {
            name: value
            for name, value in change.model_dump(exclude_unset=True, exclude=set(rules._fields)).items()
            if product.added[name] != value
        }
        event = stored_fields(changes)
        if rules != product.rules:
            event["sale_rules"] = rules_text(after)
        product.added = after
        if event:
            self.add_event("product_changed", product=product_id, **event)
        return product.returned()

    @staticmethod
    def check_version(product: ModelProduct, versions: frozenset[str] | None) -> None:
        if versions is not None and product.returned().catalogue_version() not in versions:
            raise ProductHasChanged(product.id)

    def withdraw_product(self, product_id: int, versions: frozenset[str] | None) -> None:
        if product_id not in self.products:
            raise ProductNotFound(str(product_id))
        if self.products[product_id].on_sale:
            self.check_version(self.products[product_id], versions)
            self.products[product_id].on_sale = False
            self.add_event("product_withdrawn", product=product_id)

    def change_stock(
        self,
        product_id: int,
        stock_change: StockChange | StockCount,
        key: str | None,
        expected_stocks: frozenset[int] | None = None,
    ) -> ChangedStock:
        request = StockChangeRequest(product_id, stock_change)
        known = self.known(key, None, request)
        if known is not None:
            if isinstance(known, int):
                return ChangedStock(self.products[known].returned(), replayed=True)
            assert isinstance(known, StockChangeRefusal)
            raise replace(known, replayed=True)
        try:
            if product_id not in self.products or not self.products[product_id].on_sale:
                raise ProductNotFoundForStockChange(False, product_id, stock_change)
            product = self.products[product_id]
            if expected_stocks is not None and product.stock not in expected_stocks:
                raise StockHasMoved(False, product_id, stock_change, product.stock)
            move = stock_change
            change = move.count - product.stock if isinstance(move, StockCount) else move.change
            if product.stock + change < 0:
                raise InsufficientStockForStockChange(False, product_id, stock_change, product.stock)
            if change > 0 and product.stock + product.held + change > MAX_STOCK:
                raise StockLimitExceeded(False, product_id, stock_change, product.stock, product.held)
        except Refusal as refusal:
            self.remember(key, None, request, refusal)
            raise
        product.stock += change
        product.received += change
        self.remember(key, None, request, product_id)
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
        known = self.known(key, new.customer, new)
        if isinstance(known, int):
            return PlacedOrder(self.get_order(known), replayed=True)
        if known is not None:
            raise replayed_refusal(known, new.products)
        if (refusal := self.refusal(new)) is not None:
            self.remember(key, new.customer, new, refusal)
            raise refusal
        assert order_id not in self.orders
        lines = tuple(
            OrderLine(product_id, quantity, self.products[product_id].price)
            for product_id, quantity in new.quantities().items()
        )
        expires_at = Milliseconds(self.clock() + new.hold_seconds * 1000) if new.status == "pending" else None
        order = self.orders[order_id] = ModelOrder(
            order_id, lines, new.status, self.clock(), expires_at, key, new.reference, new.customer
        )
        for line in lines:
            product = self.products[line.product_id]
            product.stock -= line.quantity
            if new.status == "pending":
                product.held += line.quantity
            else:
                product.sold += line.quantity
        self.count_units(order, new.quantities(), 1)
        self.remember(key, new.customer, new, order_id)
        total = format_cents(order.total)
        self.add_event(
            "order_placed",
            order=order_id,
            status=new.status,
            total_price=total,
            products=order.products,
            **order.names(),
        )
        return PlacedOrder(order.returned(), replayed=False)

    def count_units(self, order: ModelOrder, units: dict[int, int], sign: int) -> None:
        """Count units that the customer of an order takes (1) or gives back (-1)."""
        if order.customer is None:
            return
        counts = self.units_of.setdefault(order.customer, {})
        for product_id, quantity in units.items():
            counts[product_id] = counts.get(product_id, 0) + sign * quantity
        self.units_of[order.customer] = {product_id: number for product_id, number in counts.items() if number}

    def refusal(self, new: NewOrder) -> OrderPlacementRefusal | None:
        """Return the refusal of an order placed now, or None."""
        wanted = new.quantities()
        unavailable = [
            UnavailableLine(first_line(new.products, product_id), product_id, quantity, obstacle)
            for product_id, quantity in wanted.items()
            if (obstacle := self.obstacle(product_id, quantity, new.customer)) is not None
        ]
        for refusal_class in LINE_REFUSALS:
            if any(isinstance(line.obstacle, refusal_class.obstacle_type) for line in unavailable):
                return refusal_class(False, unavailable)
        total = Cents(sum(quantity * self.products[product_id].price for product_id, quantity in wanted.items()))
        if total > MAX_TOTAL:
            return TotalTooLarge(False, [])
        if new.total_price not in (None, total):
            prices = [CurrentPrice(first_line(new.products, p), p, self.products[p].price) for p in wanted]
            return PriceChanged(False, prices, total)
        return None

    def obstacle(self, product_id: int, quantity: int, customer: str | None) -> Obstacle | None:
        """Return why a line cannot be served, or None."""
        product = self.products.get(product_id)
        if product is None or not product.on_sale:
            return NOT_IN_CATALOGUE
        limit, start, end = product.rules
        if limit is not None and customer is None:
            return CustomerMissing(limit)
        if (start is not None and self.clock() < start) or (end is not None and self.clock() >= end):
            return OutsideSaleTime(start, end)
        already = self.units_of.get(customer or "", {}).get(product_id, 0)
        if limit is not None and already + quantity > limit:
            return LimitReached(limit, already)
        return TooLittleStock(product.stock) if product.stock < quantity else None

    def get_order(self, order_id: int) -> Order:
        match self.state(order_id):
            case "absent":
                raise OrderNotFound(str(order_id))
            case "archived":
                raise OrderArchived(order_id)
            case "cancelled":
                raise OrderCancelled(self.orders[order_id].returned())
            case "expired" | "overdue":
                raise OrderExpired(self.orders[order_id].returned("expired"))
        return self.orders[order_id].returned()

    def release_overdue(self, order_id: int) -> None:
        """End an order whose deadline has passed, as whoever tries to complete or extend it does."""
        if self.state(order_id) == "overdue":
            self.end(order_id, "expired")

    def complete_order(self, order_id: int) -> Order:
        self.release_overdue(order_id)
        order = self.get_order(order_id)
        if order.status == "pending":
            self.end(order_id, "completed")
        return self.orders[order_id].returned()

    def cancel_order(self, order_id: int) -> None:
        match self.state(order_id):
            case "absent":
                raise OrderNotFound(str(order_id))
            case "archived":
                raise OrderArchived(order_id)
            case "completed":
                raise OrderCompleted(order_id)
            case "overdue":
                self.end(order_id, "expired")
                raise OrderExpired(self.orders[order_id].returned())
            case "expired":
                raise OrderExpired(self.orders[order_id].returned())
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
            order.expires_at, order.completed_at = None, self.clock()
        else:
            self.count_units(order, {line.product_id: line.quantity for line in order.lines}, -1)
        self.add_event(f"order_{status}", order=order_id, products=order.products, **order.names())

    def extend_hold(self, order_id: int, extension: HoldExtension) -> Order:
        self.release_overdue(order_id)
        order = self.get_order(order_id)
        if order.status == "completed":
            raise OrderCompleted(order_id)
        latest = order.created_at + MAX_HOLD_SECONDS * 1000
        expires_at = Milliseconds(min(self.clock() + extension.hold_seconds * 1000, latest))
        self.orders[order_id].expires_at = expires_at
        self.add_event("order_extended", order=order_id, expires_at=expires_at, **self.orders[order_id].names())
        return self.orders[order_id].returned()

    def return_products(self, order_id: int, new: NewReturn, key: str | None) -> ReturnedOrder:
        if order_id not in self.orders:
            self.get_order(order_id)
        order, request = self.orders[order_id], ReturnRequest(order_id, new)
        known = self.known(key, order.customer, request)
        if known is not None:
            if isinstance(known, int):
                return ReturnedOrder(order.returned(), replayed=True)
            raise replayed_refusal(known, new.products)
        self.get_order(order_id)
        if (refusal := self.return_refusal(order, new)) is not None:
            self.remember(key, order.customer, request, refusal)
            raise refusal
        back: list[OrderLine] = []
        for product_id, quantity in sorted(new.quantities().items()):
            product = self.products[product_id]
            product.sold -= quantity
            if new.restock:
                product.stock += quantity
            else:
                product.received -= quantity
                product.written_off = (product.written_off or 0) + quantity
                order.written_off[product_id] = order.written_off.get(product_id, 0) + quantity
            order.came_back[product_id] = order.came_back.get(product_id, 0) + quantity
            price = next(line.price for line in order.lines if line.product_id == product_id)
            back.append(OrderLine(product_id, quantity, price))
        self.count_units(order, new.quantities(), -1)
        self.remember(key, order.customer, request, order_id)
        order.returned_at = self.clock()
        order.return_keys += [] if key is None else [key]
        written_off, reason = units_text(order.written_off), new.reason
        self.add_event(
            "order_returned",
            order=order_id,
            products=lines_text(back),
            restock=int(new.restock),
            refund=format_cents(Cents(sum(line.quantity * line.price for line in back))),
            returned=units_text(order.came_back),
            **({"written_off": written_off} if written_off else {}),
            **({"reason": reason} if reason else {}),
            **order.names(),
        )
        return ReturnedOrder(order.returned(), replayed=False)

    def return_refusal(self, order: ModelOrder, new: NewReturn) -> ReturnRefusal | None:
        """Return the refusal of a return made now, or None."""
        if order.status == "pending":
            return ReturnOfPendingOrder(False, order.id)
        bought = {line.product_id: line.quantity for line in order.lines}
        excess = [
            ExcessLine(first_line(new.products, product_id), product_id, quantity, returnable)
            for product_id, quantity in sorted(new.quantities().items())
            if quantity > (returnable := bought.get(product_id, 0) - order.came_back.get(product_id, 0))
        ]
        if excess:
            return ReturnExceedsOrder(False, order.id, excess)
        full = [
            FullLine(first_line(new.products, product_id), product_id)
            for product_id, quantity in sorted(new.quantities().items())
            if self.products[product_id].stock + self.products[product_id].held + quantity > MAX_STOCK
        ]
        return ReturnExceedsStockLimit(False, order.id, full) if new.restock and full else None

    def archive(self, order_ids: list[int]) -> None:
        """Archive these orders together."""
        rows = []
        for order_id in order_ids:
            order = self.orders.pop(order_id)
            self.archived.add(order_id)
            sold = {line.product_id: line.quantity - order.came_back.get(line.product_id, 0) for line in order.lines}
            sold = sold if order.status == "completed" else {}
            rows.append(" ".join([str(order_id), *(f"{id_}:{units}" for id_, units in sold.items())]))
            for product_id, units in sold.items():
                product = self.products[product_id]
                lost = order.written_off.get(product_id, 0)
                if units or lost:
                    product.archived = (product.archived or 0) + units
                if lost:
                    product.archived_written_off = (product.archived_written_off or 0) + lost
                if order.customer is None:
                    continue
                if product.on_sale and product.rules.limit_per_customer is not None:
                    archived = self.archived_units_of.setdefault(order.customer, {})
                    archived[product_id] = archived.get(product_id, 0) + units
                else:
                    self.count_units(order, {product_id: units}, -1)
            keys = {order.key, *order.return_keys}
            self.keys = {
                (key, customer): known
                for (key, customer), known in self.keys.items()
                if (key, customer) not in {(own, order.customer) for own in keys} or isinstance(known.outcome, Refusal)
            }
        self.add_event("orders_archived", orders="\n".join(rows))

    def list_orders(self, status: str | None, customer: str | None = None, reference: str | None = None) -> list[Order]:
        """Return all pages as one list."""
        return [
            order.returned()
            for order_id, order in sorted(self.orders.items(), reverse=True)
            if self.state(order_id) in ("pending", "completed")
            and status in (None, order.status)
            and customer in (None, order.customer)
            and reference in (None, order.reference)
        ]

    def state(self, order_id: int) -> str:
        """Return the status, or `overdue` if the order is pending after its deadline, or `absent` or `archived`."""
        if order_id not in self.orders:
            return "archived" if order_id in self.archived else "absent"
        order = self.orders[order_id]
        if order.status == "pending" and order.expires_at is not None and self.clock() >= order.expires_at:
            return "overdue"
        return order.status

    def in_state(self, state: str) -> list[int]:
        return [order_id for order_id in self.orders if self.state(order_id) == state]

    # Idempotency-Keys and events

    def known(self, key: str | None, customer: str | None, request: Request) -> int | Refusal | None:
        """Return the outcome of the first request with this key, or None if this is the first."""
        if key is None or (key, customer) not in self.keys:
            return None
        if meaning(request) != meaning(self.keys[key, customer].first):
            raise IdempotencyKeyReused
        return self.keys[key, customer].outcome

    def remember(self, key: str | None, customer: str | None, request: Request, outcome: int | Refusal) -> None:
        if key is not None:
            self.keys[key, customer] = ModelKey(request, outcome)

    def add_event(self, event: str, **fields: object) -> None:
        known = EVENT_FIELDS[event]
        assert set(known.required) <= fields.keys() <= {*known.required, *known.optional}, f"{event}: {sorted(fields)}"
        self.events.append({"event": event, **{name: str(value) for name, value in fields.items()}})


def meaning(request: Request) -> object:
    """Return what must be equal in all requests with the same key."""
    match request:
        case StockChangeRequest(product_id, change):
            return "stock change", product_id, change
        case ReturnRequest(order_id, new):
            return "return", order_id, new.quantities(), new.restock, new.reason
        case NewOrder():
            hold = request.hold_seconds if request.status == "pending" else None
            return "order", request.quantities(), hold, request.total_price, request.reference, request.customer


def replayed_refusal(refusal: Refusal, lines: list[NewOrderLine]) -> Refusal:
    """Return the first refusal with the same numbers, and with the positions of the lines in the repeated request."""
    match refusal:
        case OrderPlacementRefusal():
            moved = [replace(line, position=first_line(lines, line.product_id)) for line in refusal.lines]
            return replace(refusal, replayed=True, lines=sorted(moved, key=lambda line: line.position))
        case ReturnExceedsOrder():
            excess = [line._replace(position=first_line(lines, line.product_id)) for line in refusal.lines]
            return replace(refusal, replayed=True, lines=excess)
        case ReturnExceedsStockLimit():
            full = [line._replace(position=first_line(lines, line.product_id)) for line in refusal.lines]
            return replace(refusal, replayed=True, lines=full)
        case ReturnRefusal():
            return replace(refusal, replayed=True)
        case _:
            raise AssertionError(f"no refusal that is remembered: {refusal!r}")


def first_line(lines: list[NewOrderLine], product_id: int) -> int:
    """Return the position of the first line with this product."""
    return [line.product_id for line in lines].index(product_id)

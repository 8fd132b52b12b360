"""What the model of the shop keeps: products, orders, and the requests with an Idempotency-Key."""

from dataclasses import dataclass, field
from typing import Any

from service.domain.errors.refusals import Refusal
from service.domain.money import Cents, format_cents
from service.domain.order import Order, OrderLine
from service.domain.product import Product, SaleRules
from service.domain.requests import NewOrder, NewReturn, StockChange, StockCount
from service.domain.times import Milliseconds


@dataclass
class ModelProduct:
    """A product: the fields that were added, and its counters."""

    id: int
    added: dict[str, Any]
    """The current values of all fields but the id and the stock. The price is in cents."""
    stock: int
    received: int
    held: int = 0
    sold: int = 0
    written_off: int | None = None
    archived: int | None = None
    """Of `sold`: the units that archived orders sold. None: no completed order was archived."""
    archived_written_off: int | None = None
    on_sale: bool = True

    @property
    def price(self) -> Cents:
        return Cents(int(self.added["price"]))

    @property
    def rules(self) -> SaleRules:
        return rules_of(self.added)

    def returned(self) -> Product:
        """Return the product as the Store returns it."""
        name, description = self.added["name"], self.added["description"]
        return Product(self.id, name, description, self.price, self.stock, self.rules)

    def fields(self) -> dict[str, str]:
        """Return the hash in Redis."""
        counters = {
            "stock": self.stock,
            "held": self.held,
            "sold": self.sold,
            "received": self.received,
            "written_off": self.written_off,
            "archived": self.archived,
            "archived_written_off": self.archived_written_off,
        }
        return {
            "id": str(self.id),
            **stored_fields(self.added),
            **{name: str(units) for name, units in counters.items() if units is not None},
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
    reference: str | None = None
    customer: str | None = None
    completed_at: Milliseconds | None = None
    came_back: dict[int, int] = field(default_factory=dict)
    """Units of each product that came back, in the sequence in which the products first came back."""
    written_off: dict[int, int] = field(default_factory=dict)
    returned_at: Milliseconds | None = None
    return_keys: list[str] = field(default_factory=list)

    @property
    def ended_at(self) -> Milliseconds | None:
        """The moment of the last change, or later. None: the order is pending."""
        if self.status == "pending":
            return None
        moments = (self.created_at, self.expires_at, self.completed_at, self.returned_at)
        return max(moment for moment in moments if moment is not None)

    @property
    def total(self) -> Cents:
        return Cents(sum(line.quantity * line.price for line in self.lines))

    @property
    def refunded(self) -> Cents:
        return Cents(sum(self.came_back.get(line.product_id, 0) * line.price for line in self.lines))

    @property
    def products(self) -> str:
        return lines_text(self.lines)

    def names(self) -> dict[str, str]:
        """Return the reference and the customer, if there are."""
        names = {"reference": self.reference, "customer": self.customer}
        return {name: value for name, value in names.items() if value is not None}

    def returned(self, status: str | None = None) -> Order:
        """Return the order as the Store returns it, or as it is with another status."""
        lines = self.lines
        if self.came_back:
            lines = tuple(line._replace(returned=self.came_back.get(line.product_id, 0)) for line in lines)
        return Order(
            self.id,
            lines,
            self.total,
            status or self.status,
            self.created_at,
            self.expires_at,
            self.completed_at,
            self.reference,
            self.customer,
            self.refunded if self.came_back else None,
        )

    def fields(self) -> dict[str, str]:
        """Return the hash in Redis."""
        optional = {
            "expires_at": self.expires_at,
            "completed_at": self.completed_at,
            "idempotency_key": self.key,
            **self.names(),
            "returned": units_text(self.came_back) or None,
            "refunded": format_cents(self.refunded) if self.came_back else None,
            "written_off": units_text(self.written_off) or None,
            "returned_at": self.returned_at,
            "return_keys": "\n".join(self.return_keys) or None,
        }
        return {
            "id": str(self.id),
            "status": self.status,
            "total_price": format_cents(self.total),
            "products": self.products,
            "created_at": str(self.created_at),
            **{name: str(value) for name, value in optional.items() if value is not None},
        }


@dataclass
class StockChangeRequest:
    """A request to change the stock of a product, or to set it to a count."""

    product_id: int
    stock_change: StockChange | StockCount


@dataclass
class ReturnRequest:
    """A request to return units of an order."""

    order_id: int
    new_return: NewReturn


Request = NewOrder | StockChangeRequest | ReturnRequest
"""A request that may have an Idempotency-Key."""


@dataclass
class ModelKey:
    """The first request with an Idempotency-Key, and its outcome."""

    first: Request
    outcome: int | Refusal
    """The id of the order or the product, or the refusal."""


def rules_of(fields: dict[str, Any]) -> SaleRules:
    """Return the rules about the sale among the fields of a product."""
    return SaleRules(*[fields.get(name) for name in SaleRules._fields])


def stored_fields(fields: dict[str, Any]) -> dict[str, str]:
    """Return the fields of a product as Redis holds them. Redis does not hold a field that is None."""
    stored = {
        name: format_cents(value) if name == "price" else str(value)
        for name, value in fields.items()
        if value is not None and name not in SaleRules._fields
    }
    rules = rules_text(fields)
    return {**stored, "sale_rules": rules} if rules else stored


def rules_text(fields: dict[str, Any]) -> str:
    """Return the rules about the sale as Redis holds them."""
    return "\n".join(f"{name}: {fields[name]}" for name in SaleRules._fields if fields.get(name) is not None)


def lines_text(lines: tuple[OrderLine, ...] | list[OrderLine]) -> str:
    """Return the lines of an order as Redis holds them."""
    return "\n".join(f"{line.product_id}: {line.quantity} x {format_cents(line.price)}" for line in lines)


def units_text(units: dict[int, int]) -> str:
    """Return units of products as an order in Redis holds them."""
    return "\n".join(f"{product_id}: {quantity}" for product_id, quantity in units.items())

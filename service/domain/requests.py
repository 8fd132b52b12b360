"""Bodies and queries of requests: which fields an API call takes, and the rules between them."""

from collections.abc import Iterable
from operator import attrgetter
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from service.domain.fields import (
    Cursor,
    CustomerLimit,
    Description,
    EventId,
    EventTypes,
    Flag,
    HoldSeconds,
    Id,
    Moment,
    Name,
    PageLimit,
    Price,
    Quantity,
    Reason,
    Reference,
    SaleEnd,
    Stock,
    Total,
)
from service.domain.limits import DEFAULT_HOLD_SECONDS, DEFAULT_PAGE, MAX_LINES, MAX_STOCK
from service.domain.money import Cents
from service.domain.product import SaleRules

DOT: Final = ord(".")
"""An int: `b"." in text` takes ten times as long, because Python first tries to convert `b"."` to an int."""

MAX_QUICK_BYTES: Final = 4000
"""Most orders of 100 lines are shorter. A longer text is read by Python's decoder alone: it refuses numbers of more
than 4,300 digits, and objects with too many fields."""

_values_of_rules = attrgetter(*SaleRules._fields)


class RequestModel(BaseModel):
    """Base of all bodies and queries. `true` and `"5"` are not accepted as numbers, and an unknown field is refused."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    @classmethod
    def read_quickly(cls, _: bytes) -> Self | None:
        """Return the request if this JSON can be read without `read_json` and `validate`, which take longer.

        Otherwise return None. The JSON may still be valid: the caller then uses `read_json` and `validate`.
        """
        return None


class NewProduct(RequestModel):
    """Body of POST /products. Without an id, Holdfast chooses an id. The last three fields are SaleRules."""

    id: Id | None = None
    name: Name
    description: Description
    price: Price
    stock: Stock
    limit_per_customer: CustomerLimit | None = None
    on_sale_from: Moment | None = None
    on_sale_until: SaleEnd = None

    def rules(self) -> SaleRules:
        """Return the rules about the sale."""
        return SaleRules._make(_values_of_rules(self))


class ProductChange(RequestModel):
    """Body of PATCH /products/{id}, an RFC 7396 merge patch.

    The default values are never used: they only mark a field that may be left out. A null removes a rule about the
    sale. The other fields are required in a product, so their null is refused.
    """

    name: Name = ""
    description: Description = ""
    price: Price = Cents(0)
    limit_per_customer: CustomerLimit | None = None
    on_sale_from: Moment | None = None
    on_sale_until: SaleEnd = None


class NewOrderLine(RequestModel):
    """One line of an order, as the client sent it."""

    product_id: Id
    quantity: Quantity


NewOrderLines = Annotated[list[NewOrderLine], Field(min_length=1, max_length=MAX_LINES)]


def add_quantities(lines: Iterable[NewOrderLine]) -> dict[int, int]:
    """Return the units of each product, sorted by where the product first appears.

    If several lines name the same product, their quantities are added.
    """
    wanted: dict[int, int] = {}
    for line in lines:
        wanted[line.product_id] = wanted.get(line.product_id, 0) + line.quantity
    return wanted


class NewOrder(RequestModel):
    """Body of POST /orders. `total_price` is the total that the client showed to its customer.

    `reference` is the shop's own number of the order, or the id of its cart; `customer` says who orders.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "if": {"required": ["hold_seconds"]},
            "then": {"required": ["status"], "properties": {"status": {"const": "pending"}}},
        }
    )

    products: NewOrderLines
    status: Literal["completed", "pending"] = "completed"
    hold_seconds: HoldSeconds = DEFAULT_HOLD_SECONDS
    total_price: Total | None = None
    reference: Reference | None = None
    customer: Reference | None = None

    @classmethod
    def read_quickly(cls, text: bytes) -> Self | None:
        """Return the order if pydantic accepts its JSON, and if the JSON has no dot and no unexpected quotes.

        Otherwise return None. A dot may belong to a number with a fraction, which pydantic would read as a float.
        pydantic also accepts a field that is given twice. To notice this, count the quotes: each name and each
        text has two. If the JSON has only the quotes that the fields of the order need, no field is given twice.
        """
        if DOT in text or len(text) > MAX_QUICK_BYTES:
            return None
        try:
            order = cls.__pydantic_validator__.validate_json(text)
        except ValidationError:
            return None
        further_quotes = text.count(b'"') - 2 - 4 * len(order.products)
        return order if further_quotes == 0 or further_quotes == order._quotes_beside_products() else None

    def _quotes_beside_products(self) -> int:
        """Return how many quotes the JSON of this order has at least, without its products."""
        names = self.model_fields_set - {"products"}
        texts = ("status" in names) + (self.reference is not None) + (self.customer is not None)
        return 2 * (len(names) + texts)

    @field_validator("hold_seconds")
    @classmethod
    def _only_of_pending_orders(cls, hold_seconds: int, info: ValidationInfo) -> int:
        if info.data.get("status") == "completed":
            raise PydanticCustomError("hold_of_completed", "Only an order of status pending can be held")
        return hold_seconds

    def quantities(self) -> dict[int, int]:
        """Return the units of each product that the order asks for, as `add_quantities` does."""
        return add_quantities(self.products)


class HoldExtension(RequestModel):
    """Body of PATCH /orders/{id}. The seconds count from now."""

    hold_seconds: HoldSeconds


class NewReturn(RequestModel):
    """Body of POST /orders/{id}/returns. `restock`: the units are in stock again; otherwise they are written off."""

    products: NewOrderLines
    restock: bool = True
    reason: Reason | None = None

    def quantities(self) -> dict[int, int]:
        """Return the units of each product that come back, as `add_quantities` does."""
        return add_quantities(self.products)


def _not_zero(number: int) -> int:
    if number == 0:
        raise PydanticCustomError("zero", "Input should not be 0")
    return number


def _refuse_beside_count(value: object) -> None:
    raise PydanticCustomError("change_and_count", "Give either change or count, not both")


class StockChange(RequestModel):
    """Body of POST /products/{id}/stock. A negative change removes units. `count` tells it from a StockCount."""

    count: ClassVar[None] = None

    change: Annotated[
        int, Field(ge=-MAX_STOCK, le=MAX_STOCK, json_schema_extra={"not": {"const": 0}}), AfterValidator(_not_zero)
    ]
    reason: Reason


class StockCount(RequestModel):
    """Body of POST /products/{id}/stock with the units that were counted: the stock becomes this number."""

    count: Stock
    reason: Reason
    change: Annotated[Any, BeforeValidator(_refuse_beside_count)] = None
    """Only a client that gives both gets to see this field: in its error."""


class ProductsQuery(RequestModel):
    """Query of GET /products: products with an id above `after`, and with stock (true) or sold out (false)."""

    limit: PageLimit = DEFAULT_PAGE
    after: Cursor = 0
    in_stock: Flag | None = None


class EventsQuery(RequestModel):
    """Query of GET /events: only these types, with commas between them; only events after this id."""

    type: EventTypes = frozenset()
    after: EventId | None = None


class OrdersQuery(RequestModel):
    """Query of GET /orders: orders with an id below `before`, pending or completed or both.

    `customer`, `reference`: only orders with this customer or this reference.
    """

    limit: PageLimit = DEFAULT_PAGE
    before: Cursor | None = None
    status: Literal["pending", "completed"] | None = None
    customer: Reference | None = None
    reference: Reference | None = None

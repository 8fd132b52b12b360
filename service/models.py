"""Requests, responses and their limits.

Money is a decimal at the edge and integer cents inside; it is never a float.
"""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache
from json.encoder import encode_basestring as quoted  # what JSONEncoder(ensure_ascii=False) does to text
from typing import Annotated, Final, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

MAX_BODY_BYTES: Final = 64 * 1024
MAX_ID: Final = 2**53 - 1
"""Largest integer that every JSON reader keeps exact (RFC 7493, section 2.2)."""
MAX_PRICE: Final = 99_999_999_999
"""In cents: 999,999,999.99."""
MAX_STOCK: Final = 1_000_000_000
"""Units of one product, in stock and held."""
MAX_QUANTITY: Final = 1_000_000
MAX_REASON: Final = 200
MAX_HOLD_SECONDS: Final = 86_400
DEFAULT_HOLD_SECONDS: Final = 900
MAX_LINES: Final = 100
MAX_TOTAL: Final = 2**53 - 1
"""In cents. From 2^53 on doubles, which Lua and most JSON readers count in, skip integers."""
MAX_PAGE: Final = 1000
DEFAULT_PAGE: Final = 100
MAX_IDEMPOTENCY_KEY: Final = 255

_CENT = Decimal("0.01")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@lru_cache(maxsize=10_000)
def money(cents: int) -> str:
    """Cents as the decimal that JSON and Redis show: 1999 is `19.99`."""
    return f"{cents // 100}.{cents % 100:02d}"


def timestamp(milliseconds: int) -> str:
    """Milliseconds since 1970 as a date and time of RFC 3339, in UTC."""
    return f"{_second(milliseconds // 1000)}.{milliseconds % 1000:03d}Z"


@lru_cache(maxsize=1024)
def _second(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).isoformat(timespec="seconds").removesuffix("+00:00")


class OrderStatus(StrEnum):
    """The states an order can be read in. A cancelled or expired one is gone."""

    PENDING = "pending"
    COMPLETED = "completed"


def _to_cents(most: int) -> BeforeValidator:
    """From a JSON number to cents: 0 to `most` cents, at most two decimals, refused rather than rounded."""
    limit = Decimal(money(most))

    def to_cents(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int | Decimal):
            raise PydanticCustomError("amount_type", "Input should be a number")
        if not 0 <= value <= limit:
            raise PydanticCustomError("amount_range", "Input should be between 0 and {limit}", {"limit": str(limit)})
        amount = Decimal(value)
        if amount != amount.quantize(_CENT):
            raise PydanticCustomError("amount_decimals", "Input should have at most two decimals")
        return int(amount * 100)

    return BeforeValidator(to_cents)


def _not_blank(text: str) -> str:
    if text.isspace():
        raise PydanticCustomError("blank", "Input should not be blank")
    return text


def _not_zero(number: int) -> int:
    if number == 0:
        raise PydanticCustomError("zero", "Input should not be 0")
    return number


def _from_digits(value: str) -> int:
    """Of a query parameter, where everything is text. int() would take `1_0`, ` 7` and `-0`, too."""
    if not re.fullmatch("[0-9]{1,16}", value):
        raise PydanticCustomError("digits", "Input should be a whole number in decimal digits")
    return int(value)


def _from_true_or_false(value: str) -> bool:
    if value not in ("true", "false"):
        raise PydanticCustomError("true_or_false", "Input should be true or false")
    return value == "true"


Id = Annotated[int, Field(ge=1, le=MAX_ID)]
Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_not_blank)]
Description = Annotated[str, Field(max_length=5_000)]
Price = Annotated[int, _to_cents(MAX_PRICE)]
Total = Annotated[int, _to_cents(MAX_TOTAL)]
Stock = Annotated[int, Field(ge=0, le=MAX_STOCK)]
PageLimit = Annotated[int, BeforeValidator(_from_digits), Field(ge=1, le=MAX_PAGE)]
PageKey = Annotated[int, BeforeValidator(_from_digits), Field(ge=0, le=MAX_ID)]


class _Request(BaseModel):
    """Strict (`true` and `"5"` are no integers), and what is not named here is refused, never ignored."""

    model_config = ConfigDict(strict=True, extra="forbid")


class NewProduct(_Request):
    """Body of POST /products. The server assigns the id where there is none."""

    id: Id | None = None
    name: Name
    description: Description
    price: Price
    stock: Stock


class ProductChange(_Request):
    """Body of PATCH /products/{id}, an RFC 7396 merge patch. The defaults stand for 'not given'.

    None of the members may be removed, so null is refused.
    """

    name: Name = ""
    description: Description = ""
    price: Price = 0


class NewOrderLine(_Request):
    """One line of an order as the client sent it."""

    product_id: Id
    quantity: Annotated[int, Field(ge=1, le=MAX_QUANTITY)]


class NewOrder(_Request):
    """Body of POST /orders. `total_price` is what the client believes it pays, in cents."""

    products: Annotated[list[NewOrderLine], Field(min_length=1, max_length=MAX_LINES)]
    status: Literal["completed", "pending"] = "completed"
    hold_seconds: Annotated[int, Field(ge=1, le=MAX_HOLD_SECONDS)] = DEFAULT_HOLD_SECONDS
    total_price: Total | None = None

    @field_validator("hold_seconds")
    @classmethod
    def _only_of_pending_orders(cls, hold_seconds: int, info: ValidationInfo) -> int:
        if info.data.get("status") == "completed":
            raise PydanticCustomError("hold_of_completed", "Only an order of status pending can be held")
        return hold_seconds

    def quantities(self) -> dict[int, int]:
        """Units wanted of each product, in the order of its first line. Lines of one product are added up."""
        wanted: dict[int, int] = {}
        for line in self.products:
            wanted[line.product_id] = wanted.get(line.product_id, 0) + line.quantity
        return wanted


class StockMove(_Request):
    """Body of POST /products/{id}/stock."""

    change: Annotated[int, Field(ge=-MAX_STOCK, le=MAX_STOCK), AfterValidator(_not_zero)]
    reason: Annotated[str, Field(min_length=1, max_length=MAX_REASON), AfterValidator(_not_blank)]


class ProductsQuery(_Request):
    """Query of GET /products: products with an id above `after`, with stock (true) or sold out (false)."""

    limit: PageLimit = DEFAULT_PAGE
    after: PageKey = 0
    in_stock: Annotated[bool, BeforeValidator(_from_true_or_false)] | None = None


class OrdersQuery(_Request):
    """Query of GET /orders: orders with an id below `before`, of one status or of any."""

    limit: PageLimit = DEFAULT_PAGE
    before: PageKey | None = None
    status: Annotated[OrderStatus, Field(strict=False)] | None = None


class Product(NamedTuple):
    """A product on sale. `price` in cents."""

    id: int
    name: str
    description: str
    price: int
    stock: int

    def json(self) -> str:
        """The product as the contract shows it."""
        return (
            f'{{"id":{self.id},"name":{quoted(self.name)},"description":{quoted(self.description)},'
            f'"price":{money(self.price)},"stock":{self.stock}}}'
        )


class OrderLine(NamedTuple):
    """What an order holds of one product. `price` of one unit in cents, at the moment of ordering."""

    product_id: int
    quantity: int
    price: int

    def json(self) -> str:
        """The line as the contract shows it."""
        return f'{{"product_id":{self.product_id},"quantity":{self.quantity},"price":{money(self.price)}}}'


class Order(NamedTuple):
    """A placed order. `total_price` in cents, times in ms since 1970; `expires_at` only while it is pending."""

    id: int
    lines: tuple[OrderLine, ...]
    total_price: int
    status: str
    created_at: int
    expires_at: int | None = None

    def json(self) -> str:
        """The order as the contract shows it."""
        lines = ",".join([line.json() for line in self.lines])
        expires_at = "" if self.expires_at is None else f',"expires_at":"{timestamp(self.expires_at)}"'
        return (
            f'{{"id":{self.id},"products":[{lines}],"total_price":{money(self.total_price)},'
            f'"status":"{self.status}","created_at":"{timestamp(self.created_at)}"{expires_at}}}'
        )

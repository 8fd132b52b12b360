"""What can go wrong, as data. `problems.py` says how each looks over HTTP.

HoldfastError
 ├── RequestError                 the request itself is at fault; nothing was looked up
 │    ├── MalformedJson
 │    ├── UnsupportedMediaType
 │    ├── BodyTooLarge
 │    ├── InvalidRequest
 │    └── InvalidIdempotencyKey
 ├── Refused                      the request is fine, the shop says no; nothing was changed
 │    ├── ProductNotFound
 │    ├── ProductIdTaken
 │    ├── OrderNotFound
 │    ├── OrderCompleted
 │    ├── OrderCancelled
 │    ├── OrderExpired
 │    ├── IdempotencyKeyReused
 │    ├── StockRefused            final for the move's Idempotency-Key
 │    │    ├── StockTooLow
 │    │    └── StockTooHigh
 │    └── OrderRefused            final for the order's Idempotency-Key
 │         ├── UnknownProducts
 │         ├── InsufficientStock
 │         ├── PriceChanged
 │         └── TotalTooLarge
 ├── StorageError                 Redis is at fault; the client may try again
 │    ├── Overloaded              refused before anything was sent
 │    ├── StorageUnavailable      nothing was done
 │    └── OutcomeUnknown          the command had left when the connection broke
 └── Unfit                        this Redis must not be used as it is set up; the operator must act
"""

from dataclasses import dataclass


class HoldfastError(Exception):
    """Base of all errors raised on purpose."""


@dataclass(eq=False)
class RequestError(HoldfastError):
    """The request itself is at fault. `detail` tells the client what to change."""

    detail: str


class MalformedJson(RequestError):
    """The body is not JSON (RFC 8259), or not UTF-8."""


@dataclass(eq=False)
class UnsupportedMediaType(RequestError):
    """The body is not declared as JSON. `accepts` lists the media types that are."""

    accepts: tuple[str, ...]


class BodyTooLarge(RequestError):
    """The body is larger than any valid request."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a request: where (RFC 6901 pointer as a URI fragment), and what."""

    pointer: str
    detail: str
    source: str = "body"


@dataclass(eq=False)
class InvalidRequest(RequestError):
    """JSON, but not of the schema. `faults` names everything that is wrong."""

    faults: list[Fault]


class InvalidIdempotencyKey(RequestError):
    """The Idempotency-Key header is no key."""


class Refused(HoldfastError):
    """The request is fine, but the state of the shop does not allow it. Nothing was changed."""


@dataclass(eq=False)
class ProductNotFound(Refused):
    """No product of this id was ever added, or it was withdrawn from sale."""

    product_id: str


@dataclass(eq=False)
class ProductIdTaken(Refused):
    """The id belongs to another product, on sale or withdrawn."""

    product_id: int


@dataclass(eq=False)
class OrderNotFound(Refused):
    """No order of this id was ever placed."""

    order_id: str


@dataclass(eq=False)
class OrderCompleted(Refused):
    """A completed order cannot be cancelled."""

    order_id: int


@dataclass(eq=False)
class OrderCancelled(Refused):
    """The order was cancelled, its stock returned."""

    order_id: int


@dataclass(eq=False)
class OrderExpired(Refused):
    """The order was not completed before its deadline, its stock returned or is about to."""

    order_id: int


class IdempotencyKeyReused(Refused):
    """The key came before, with a request of another meaning."""


@dataclass(eq=False)
class StockRefused(Refused):
    """A stock move that was not made. `replayed`: this answer was given to the same key before."""

    replayed: bool
    product_id: int
    change: int
    stock: int


class StockTooLow(StockRefused):
    """More was to go than there is."""


@dataclass(eq=False)
class StockTooHigh(StockRefused):
    """Stock and holds together would be more than a product may have."""

    held: int


@dataclass(frozen=True, slots=True)
class ShortLine:
    """A line that cannot be served. `available` is None where the product is unknown."""

    index: int
    product_id: int
    requested: int
    available: int | None


@dataclass(eq=False)
class OrderRefused(Refused):
    """An order that was not placed. `replayed`: this answer was given to the same key before."""

    replayed: bool


@dataclass(eq=False)
class UnknownProducts(OrderRefused):
    """Lines name products that are not on sale. `lines` holds the short lines, too."""

    lines: list[ShortLine]


@dataclass(eq=False)
class InsufficientStock(OrderRefused):
    """Lines ask for more than there is."""

    lines: list[ShortLine]


@dataclass(frozen=True, slots=True)
class CurrentPrice:
    """What a product costs now, in cents."""

    product_id: int
    price: int


@dataclass(eq=False)
class PriceChanged(OrderRefused):
    """The client's total is not the current one. `total` and the prices are in cents."""

    total: int
    prices: list[CurrentPrice]


class TotalTooLarge(OrderRefused):
    """The total is 2^53 cents or more, past the integers that Lua and JSON keep exact."""


@dataclass(eq=False)
class StorageError(HoldfastError):
    """Redis is at fault. `reason` is for the log, never for the client."""

    reason: str


class Overloaded(StorageError):
    """More calls wait for Redis than it can answer in time. This one was not sent."""


class StorageUnavailable(StorageError):
    """Redis did not execute the call."""


class OutcomeUnknown(StorageError):
    """The call had left when the connection broke or the deadline passed: it may have been executed."""


@dataclass(eq=False)
class Unfit(HoldfastError):
    """This Redis must not be used: too old, a newer layout, or less durable than was asked for."""

    reason: str

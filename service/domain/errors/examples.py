"""An example of each problem type, for the pages that explain it and for the description of the API.

Imported when the first page is asked for. The tests compare the examples with real answers.
"""

from typing import Final

from service.domain.errors.access import CrossSiteRequest, MissingScope, MissingShop, NotAuthenticated, RateLimited
from service.domain.errors.base import HoldfastError, InternalError
from service.domain.errors.obstacles import (
    NOT_IN_CATALOGUE,
    CustomerMissing,
    LimitReached,
    OutsideSaleTime,
    TooLittleStock,
)
from service.domain.errors.order_refusals import (
    CurrentPrice,
    CustomerLimitExceeded,
    CustomerRequired,
    InsufficientStock,
    NotOnSale,
    PriceChanged,
    ProductsNotFound,
    TotalTooLarge,
    UnavailableLine,
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
    SaleTimeEmpty,
)
from service.domain.errors.request import (
    BodyTooLarge,
    FieldError,
    HeadTooLarge,
    InvalidIdempotencyKey,
    InvalidRequest,
    MalformedJson,
    MalformedRequest,
    MethodNotAllowed,
    PathNotFound,
    RequestTimeout,
    ShopNotFound,
    UnsupportedHttpVersion,
    UnsupportedMediaType,
)
from service.domain.errors.return_refusals import ExcessLine, ReturnExceedsOrder, ReturnOfPendingOrder
from service.domain.errors.stock_refusals import StockLimitExceeded
from service.domain.errors.storage import OutcomeUnknown, Overloaded, StorageUnavailable
from service.domain.limits import MAX_BODY_BYTES, MAX_HEADER_FIELDS, MAX_IDEMPOTENCY_KEY
from service.domain.money import Cents
from service.domain.order import Order, OrderLine, OrderStatus
from service.domain.requests import StockChange
from service.domain.times import parse_timestamp

_OPENING: Final = parse_timestamp("2026-11-27T09:00:00Z")
_END: Final = parse_timestamp("2026-11-27T10:00:00Z")

_ORDER: Final = Order(
    id=41,
    lines=(OrderLine(1, 2, Cents(1999)),),
    total_price=Cents(3998),
    status=OrderStatus.CANCELLED.value,
    created_at=parse_timestamp("2026-11-26T09:30:00.123Z"),
    expires_at=parse_timestamp("2026-11-26T09:45:00.123Z"),
)

_EXAMPLES: Final[tuple[HoldfastError, ...]] = (
    InternalError(),
    MalformedRequest("This is not HTTP/1.1: Invalid method encountered."),
    RequestTimeout("The rest of the request did not arrive in time."),
    HeadTooLarge(f"The request has more than {MAX_HEADER_FIELDS} header fields."),
    UnsupportedHttpVersion("Use HTTP/1.1, not HTTP/2.0."),
    MalformedJson("This is not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)."),
    InvalidIdempotencyKey(f"Idempotency-Key takes 1 to {MAX_IDEMPOTENCY_KEY} visible ASCII characters."),
    BodyTooLarge(f"The body is larger than {MAX_BODY_BYTES} bytes."),
    UnsupportedMediaType("Send the body with Content-Type: application/json.", ("application/json",)),
    InvalidRequest("The body is not valid: see errors.", [FieldError("#/products", "Field is required")]),
    NotAuthenticated("Send the header Authorization: Bearer <key>.", has_key=False),
    MissingScope("orders:write", "warehouse"),
    MissingShop(["berlin", "paris"], "warehouse"),
    CrossSiteRequest(),
    RateLimited("warehouse", "50 requests in 1 s", 1),
    PathNotFound("/product", "/docs"),
    ShopNotFound("/orders", has_shop=False),
    MethodNotAllowed("PUT", "/products/1", ["DELETE", "GET", "PATCH"]),
    ProductsNotFound(replayed=False, lines=[UnavailableLine(0, 7, 1, NOT_IN_CATALOGUE)]),
    ProductIdTaken(1),
    ProductHasChanged(1),
    SaleTimeEmpty(_END, _OPENING),
    OrderNotFound("41"),
    OrderArchived(41),
    OrderCompleted(41),
    OrderCancelled(_ORDER),
    OrderExpired(_ORDER._replace(status=OrderStatus.EXPIRED.value)),
    IdempotencyKeyReused(),
    StockLimitExceeded(False, 1, StockChange(change=1_000_000_000, reason="delivery 7"), stock=10, held=0),
    CustomerRequired(replayed=False, lines=[UnavailableLine(0, 1, 1, CustomerMissing(2))]),
    NotOnSale(replayed=False, lines=[UnavailableLine(0, 1, 1, OutsideSaleTime(_OPENING, _END))]),
    CustomerLimitExceeded(replayed=False, lines=[UnavailableLine(0, 1, 2, LimitReached(2, 1))]),
    InsufficientStock(replayed=False, lines=[UnavailableLine(1, 2, 3, TooLittleStock(2))]),
    PriceChanged(replayed=False, lines=[CurrentPrice(0, 1, Cents(2099))], total_price=Cents(4198)),
    TotalTooLarge(replayed=False, lines=[]),
    ReturnOfPendingOrder(False, 41),
    ReturnExceedsOrder(False, 41, [ExcessLine(0, 1, 3, 2)]),
    StorageUnavailable("connection refused"),
    Overloaded("4096 commands wait for Redis already"),
    OutcomeUnknown("no reply within 2.0 s"),
)

EXAMPLES: Final = {error.problem.name: error for error in _EXAMPLES}
"""By the name of the problem."""

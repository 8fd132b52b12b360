"""The classes of errors: each concrete class has a problem, and says what happened in valid JSON."""

import json
import re
from collections.abc import Iterator
from decimal import Decimal

import pytest

from service.domain import errors
from service.domain.errors.access import CrossSiteRequest, MissingScope, MissingShop, NotAuthenticated, RateLimited
from service.domain.errors.base import HoldfastError, InternalError
from service.domain.errors.catalog import all_problems
from service.domain.errors.obstacles import (
    NOT_IN_CATALOGUE,
    CustomerMissing,
    LimitReached,
    OutsideSaleTime,
    TooLittleStock,
)
from service.domain.errors.order_refusals import (
    ORDER_REFUSALS,
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
    SaleTimeEmpty,
)
from service.domain.errors.remembered_refusals import RememberedRefusal
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
from service.domain.errors.return_refusals import (
    RETURN_REFUSALS,
    ExcessLine,
    FullLine,
    ReturnExceedsOrder,
    ReturnExceedsStockLimit,
    ReturnOfPendingOrder,
)
from service.domain.errors.stock_refusals import (
    STOCK_REFUSALS,
    InsufficientStockForStockChange,
    ProductNotFoundForStockChange,
    StockChangeRefusal,
    StockHasMoved,
    StockLimitExceeded,
)
from service.domain.errors.storage import (
    OutcomeUnknown,
    Overloaded,
    ReplicaRedis,
    StorageError,
    StorageUnavailable,
)
from service.domain.limits import MAX_TOTAL
from service.domain.money import Cents
from service.domain.order import Order, OrderLine
from service.domain.requests import StockChange, StockCount
from service.domain.times import Milliseconds

LONG = 'x"☕\ud800' * 1000
"""Text of a client that a detail quotes: long, with a quote and a lone surrogate."""

ORDER = Order(41, (OrderLine(7, 2, Cents(1999)),), Cents(3998), "cancelled", Milliseconds(1000), Milliseconds(2000))
CHANGE = StockChange(change=-5, reason="damaged")

EXAMPLES: list[HoldfastError] = [
    InternalError(),
    MalformedJson("This is not JSON."),
    MalformedRequest("This is not HTTP/1.1."),
    RequestTimeout("The rest of the request did not arrive in time."),
    HeadTooLarge("The request has more than 128 header fields."),
    UnsupportedHttpVersion("Use HTTP/1.1, not HTTP/0.9."),
    InvalidIdempotencyKey("The key is empty."),
    BodyTooLarge("The body is too large."),
    UnsupportedMediaType("Send JSON.", ("application/json", "application/merge-patch+json")),
    InvalidRequest("See errors.", [FieldError("#/name", "Field is required"), FieldError("#/limit", "Bad", "query")]),
    NotAuthenticated("Send a key.", has_key=True),
    MissingScope("orders:write", "k" * 32),
    MissingShop(["s" * 64, "paris"], "k" * 32),
    CrossSiteRequest(),
    RateLimited("k" * 32, "9999999 requests in 3600 s", 3600),
    PathNotFound(LONG, "/docs"),
    ShopNotFound(LONG, has_shop=False),
    MethodNotAllowed("PUT", LONG, ["GET", "POST"]),
    ProductNotFound(LONG),
    ProductIdTaken(7),
    OrderNotFound(LONG),
    OrderArchived(41),
    OrderCompleted(41),
    ProductHasChanged(7),
    SaleTimeEmpty(Milliseconds(2000), Milliseconds(1000)),
    OrderCancelled(ORDER),
    OrderExpired(ORDER._replace(status="expired")),
    IdempotencyKeyReused(),
    ProductNotFoundForStockChange(False, 7, CHANGE),
    InsufficientStockForStockChange(True, 7, CHANGE, 3),
    StockLimitExceeded(False, 7, StockCount(count=5, reason="counted"), 1_000_000_000, 2),
    StockHasMoved(False, 7, StockCount(count=5, reason="counted"), 3),
    ProductsNotFound(False, [UnavailableLine(0, 7, 5, NOT_IN_CATALOGUE), UnavailableLine(1, 8, 5, TooLittleStock(3))]),
    CustomerRequired(False, [UnavailableLine(1, 8, 5, CustomerMissing(2))]),
    NotOnSale(False, [UnavailableLine(1, 8, 5, OutsideSaleTime(Milliseconds(1000), None))]),
    CustomerLimitExceeded(False, [UnavailableLine(1, 8, 5, LimitReached(2, 1))]),
    InsufficientStock(True, [UnavailableLine(1, 8, 5, TooLittleStock(3))]),
    ReturnOfPendingOrder(False, 41),
    ReturnExceedsOrder(False, 41, [ExcessLine(0, 7, 3, 2)]),
    ReturnExceedsStockLimit(False, 41, [FullLine(0, 7)]),
    PriceChanged(False, [CurrentPrice(0, 7, Cents(1999)), CurrentPrice(1, 8, Cents(5))], Cents(MAX_TOTAL)),
    TotalTooLarge(False, []),
    Overloaded("512 calls wait"),
    StorageUnavailable("connection refused"),
    OutcomeUnknown("connection lost"),
    ReplicaRedis("this Redis is a replica"),
]
"""An error of each concrete class."""


def name_of(error: HoldfastError) -> str:
    return type(error).__name__


def concrete_classes(error_class: type[HoldfastError] = HoldfastError) -> Iterator[type[HoldfastError]]:
    """Return the classes of errors without a subclass: only these are raised."""
    children = [child for child in error_class.__subclasses__() if child.__module__.startswith("service.")]
    if not children:
        yield error_class
    for child in children:
        yield from concrete_classes(child)


CONCRETE = sorted(set(concrete_classes()), key=lambda error_class: error_class.__name__)


def test_each_concrete_class_has_an_example_here() -> None:
    assert sorted(name_of(error) for error in EXAMPLES) == [error_class.__name__ for error_class in CONCRETE]


@pytest.mark.parametrize("error_class", CONCRETE)
def test_each_concrete_class_has_a_problem_with_a_page(error_class: type[HoldfastError]) -> None:
    assert error_class.problem in all_problems()
    assert 400 <= error_class.problem.status < 600
    assert error_class.problem.title
    for text in (error_class.problem.meaning, error_class.problem.remedy):
        assert text.endswith(".")
        assert text.count("`") % 2 == 0


def classes_in_docstring() -> dict[str, tuple[str, str]]:
    """Return the tree in the docstring of the package: each class with its parent and its module."""
    assert errors.__doc__
    _, _, tree = errors.__doc__.partition("\n\n")
    found: dict[str, tuple[str, str]] = {}
    path, module = [""], ""
    for line in tree.splitlines():
        match = re.match(r"(?:([ │]*)[├└]── )?(\w+)(?: +(\w+)\.py\b)?", line)
        assert match, line
        depth = 0 if match[1] is None else len(match[1]) // 5 + 1
        module = match[3] or module  # a module is named only beside its first class
        found[match[2]] = path[depth], module
        path = [*path[: depth + 1], match[2]]
    return found


def test_the_docstring_of_the_package_shows_the_tree_of_the_classes() -> None:
    classes, tree = [HoldfastError], {"HoldfastError": ("", "base")}
    for parent in classes:
        for child in parent.__subclasses__():
            if child.__module__.startswith("service."):
                classes.append(child)
                tree[child.__name__] = parent.__name__, child.__module__.rpartition(".")[2]
    assert classes_in_docstring() == tree


def test_problems_differ_in_name_and_in_status_and_title() -> None:
    problems = {error_class.problem for error_class in CONCRETE}
    assert problems == set(all_problems())
    assert len({problem.name for problem in problems}) == len(problems)
    assert len({(problem.status, problem.title) for problem in problems}) == len(problems)


@pytest.mark.parametrize("error_class", CONCRETE)
def test_only_storage_errors_and_the_internal_error_have_a_status_of_500_or_more(
    error_class: type[HoldfastError],
) -> None:
    if issubclass(error_class, StorageError):
        assert error_class.problem.status == 503
    else:
        assert (error_class.problem.status >= 500) == (error_class in (InternalError, UnsupportedHttpVersion))


@pytest.mark.parametrize(
    "refusals", [ORDER_REFUSALS, STOCK_REFUSALS, RETURN_REFUSALS], ids=["orders", "stock changes", "returns"]
)
def test_reply_words_of_a_script_differ(refusals: tuple[type[RememberedRefusal], ...]) -> None:
    words = [error_class.reply_word for error_class in refusals]
    assert all(word.isidentifier() for word in words)
    assert len(set(words)) == len(words)


def test_list_of_refusals_of_a_script_has_all_concrete_classes() -> None:
    assert set(ORDER_REFUSALS) == {
        error_class for error_class in CONCRETE if issubclass(error_class, OrderPlacementRefusal)
    }
    assert set(STOCK_REFUSALS) == {
        error_class for error_class in CONCRETE if issubclass(error_class, StockChangeRefusal)
    }
    assert {error_class for error_class in CONCRETE if issubclass(error_class, RememberedRefusal)} == {
        *ORDER_REFUSALS,
        *STOCK_REFUSALS,
        *RETURN_REFUSALS,
    }


@pytest.mark.parametrize("error", EXAMPLES, ids=name_of)
def test_fields_of_a_problem_are_json_texts(error: HoldfastError) -> None:
    for name, text in error.further_fields().items():
        assert name.isidentifier()
        assert name not in ("type", "title", "status", "detail", "instance")
        json.loads(text)


@pytest.mark.parametrize("error", EXAMPLES, ids=name_of)
def test_detail_is_a_short_sentence(error: HoldfastError) -> None:
    assert error.detail().endswith(".")
    assert len(error.detail()) < 300


@pytest.mark.parametrize("error", EXAMPLES, ids=name_of)
def test_header_fields_of_an_error_are_ascii_lines(error: HoldfastError) -> None:
    for name, value in error.headers().items():
        assert f"{name}: {value}".isascii()
        assert f"{name}: {value}".isprintable()


@pytest.mark.parametrize("error", [error for error in EXAMPLES if isinstance(error, StorageError)], ids=name_of)
def test_reason_of_a_storage_error_is_not_shown_to_clients(error: StorageError) -> None:
    assert error.reason not in error.detail()
    assert error.further_fields() == {}
    assert error.headers().keys() == {"Retry-After"}
    assert 1 <= int(error.headers()["Retry-After"]) <= (4 if isinstance(error, Overloaded) else 1)


def test_refusal_from_an_earlier_request_is_marked_as_replayed() -> None:
    marked = {name_of(error) for error in EXAMPLES if "Idempotent-Replayed" in error.headers()}
    assert marked == {"InsufficientStockForStockChange", "InsufficientStock"}


def test_prices_of_a_refusal_are_exact_decimals() -> None:
    error = PriceChanged(False, [CurrentPrice(0, 7, Cents(1999)), CurrentPrice(1, 8, Cents(5))], Cents(MAX_TOTAL))
    fields = {name: json.loads(text, parse_float=Decimal) for name, text in error.further_fields().items()}
    assert fields == {
        "total_price": Decimal("90071992547409.91"),
        "prices": [{"product_id": 7, "price": Decimal("19.99")}, {"product_id": 8, "price": Decimal("0.05")}],
    }


def test_unknown_products_also_list_the_lines_with_too_little_stock() -> None:
    error = ProductsNotFound(
        False, [UnavailableLine(0, 7, 5, NOT_IN_CATALOGUE), UnavailableLine(3, 8, 5, TooLittleStock(2))]
    )
    assert error.detail() == "Not on sale: 7. Nothing was taken."
    assert json.loads(error.further_fields()["errors"]) == [
        {"pointer": "#/products/0/product_id", "product_id": 7, "detail": "There is no product 7 on sale."},
        {
            "pointer": "#/products/3/quantity",
            "product_id": 8,
            "requested": 5,
            "available": 2,
            "detail": "5 requested, 2 available.",
        },
    ]


@pytest.mark.parametrize(
    ("error", "entry"),
    [
        (FieldError("#/name", "Bad"), {"pointer": "#/name", "detail": "Bad"}),
        (FieldError("#/limit", "Bad", "query"), {"pointer": "#/limit", "detail": "Bad", "in": "query"}),
        (FieldError("#/price", "Bad", "row"), {"pointer": "#/price", "detail": "Bad", "in": "row"}),
    ],
)
def test_field_error_outside_the_body_names_its_part_of_the_request(error: FieldError, entry: dict[str, str]) -> None:
    assert error.entry() == entry

"""Refusals from the replies of scripts: each reply word has its class, and each number has its place."""

from typing import Any

import pytest

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
from service.domain.errors.refusals import IdempotencyKeyReused
from service.domain.errors.return_refusals import (
    RETURN_REFUSALS,
    ExcessLine,
    FullLine,
    ReturnExceedsOrder,
    ReturnExceedsStockLimit,
    ReturnOfPendingOrder,
    ReturnRefusal,
)
from service.domain.errors.stock_refusals import (
    STOCK_REFUSALS,
    InsufficientStockForStockChange,
    ProductNotFoundForStockChange,
    StockChangeRefusal,
    StockHasMoved,
    StockLimitExceeded,
)
from service.domain.money import Cents
from service.domain.requests import NewReturn, StockChange
from service.domain.times import Milliseconds
from service.storage.refusals import read_order_refusal, read_return_refusal, read_stock_refusal
from tests.support.shop import new_order

ORDER = new_order((9, 1), (7, 8), (99, 1), (7, 3))
"""Two lines name product 7: a refusal points at the first of them, at position 1."""

STOCK_CHANGE = StockChange(change=-12, reason="damaged")

ORDER_REPLIES: dict[str, tuple[list[str], type[OrderPlacementRefusal], dict[str, Any]]] = {
    "unknown": (
        ["unknown", "7 11 10", "99 1 unknown"],
        ProductsNotFound,
        {"lines": [UnavailableLine(1, 7, 11, TooLittleStock(10)), UnavailableLine(2, 99, 1, NOT_IN_CATALOGUE)]},
    ),
    "anonymous": (
        ["anonymous", "7 11 customer:2"],
        CustomerRequired,
        {"lines": [UnavailableLine(1, 7, 11, CustomerMissing(2))]},
    ),
    "closed": (
        ["closed", "9 1 time:1795770000000:", "7 11 time::1795770000001", "99 1 time:1:2"],
        NotOnSale,
        {
            "lines": [
                UnavailableLine(0, 9, 1, OutsideSaleTime(Milliseconds(1_795_770_000_000), None)),
                UnavailableLine(1, 7, 11, OutsideSaleTime(None, Milliseconds(1_795_770_000_001))),
                UnavailableLine(2, 99, 1, OutsideSaleTime(Milliseconds(1), Milliseconds(2))),
            ]
        },
    ),
    "limited": (
        ["limited", "7 11 limit:12:2"],
        CustomerLimitExceeded,
        {"lines": [UnavailableLine(1, 7, 11, LimitReached(12, 2))]},
    ),
    "short": (
        ["short", "9 1 0", "7 11 10"],
        InsufficientStock,
        {"lines": [UnavailableLine(0, 9, 1, TooLittleStock(0)), UnavailableLine(1, 7, 11, TooLittleStock(10))]},
    ),
    "price_changed": (
        ["price_changed", "90071992547409.91", "9 7.00", "7 0.05", "99 19.99"],
        PriceChanged,
        {
            "total_price": 2**53 - 1,
            "lines": [
                CurrentPrice(0, 9, Cents(700)),
                CurrentPrice(1, 7, Cents(5)),
                CurrentPrice(2, 99, Cents(1999)),
            ],
        },
    ),
    "too_large": (["too_large"], TotalTooLarge, {"lines": []}),
}

STOCK_REPLIES: dict[str, tuple[list[str], type[StockChangeRefusal], dict[str, Any]]] = {
    "absent": (["absent"], ProductNotFoundForStockChange, {}),
    "short": (["short", "10"], InsufficientStockForStockChange, {"stock": 10}),
    "full": (["full", "999999990", "8"], StockLimitExceeded, {"stock": 999_999_990, "held": 8}),
    "moved_since": (["moved_since", "10"], StockHasMoved, {"stock": 10}),
}


RETURN = NewReturn.model_validate(
    {"products": [{"product_id": product_id, "quantity": 2} for product_id in (9, 7, 99, 7)], "reason": "damaged"}
)

RETURN_REPLIES: dict[str, tuple[list[str], type[ReturnRefusal], dict[str, Any]]] = {
    "pending": (["pending"], ReturnOfPendingOrder, {}),
    "exceeds": (
        ["exceeds", "3", "", "0"],
        ReturnExceedsOrder,
        {"lines": [ExcessLine(1, 7, 4, 3), ExcessLine(2, 99, 2, 0)]},
    ),
    "full": (["full", "7", "9"], ReturnExceedsStockLimit, {"lines": [FullLine(1, 7), FullLine(0, 9)]}),
}


def remembered(reply: list[str]) -> list[str]:
    """Return the reply to a repeated request: a key remembers the first reply as one text."""
    return ["refused", "\n".join(reply)]


@pytest.mark.parametrize("word", ORDER_REPLIES)
def test_each_refusal_of_an_order_is_read_from_its_reply(word: str) -> None:
    reply, refusal_class, values = ORDER_REPLIES[word]
    refusal = read_order_refusal(ORDER, reply)
    assert type(refusal) is refusal_class
    assert vars(refusal) == {"replayed": False, **values}


@pytest.mark.parametrize("word", ORDER_REPLIES)
def test_a_remembered_refusal_of_an_order_is_read_as_the_same_refusal(word: str) -> None:
    reply, _, _ = ORDER_REPLIES[word]
    first = read_order_refusal(ORDER, reply)
    repeated = read_order_refusal(ORDER, remembered(reply))
    assert type(repeated) is type(first)
    assert vars(repeated) == {**vars(first), "replayed": True}


def test_a_replayed_refusal_has_the_positions_of_the_repeated_request() -> None:
    reply, _, _ = ORDER_REPLIES["unknown"]
    refusal = read_order_refusal(new_order((99, 1), (9, 1), (7, 11)), remembered(reply))
    assert isinstance(refusal, ProductsNotFound)
    assert [line.position for line in refusal.lines] == [2, 0]


def test_a_cached_line_is_used_again_only_for_the_same_position_and_text() -> None:
    """Two obstacles with equal numbers are equal tuples, so the cache must not compare obstacles."""

    def entry(position: int, obstacle: str) -> str:
        request = new_order(*[(100 + n, 1) for n in range(position)], (7, 3))
        refusal = read_order_refusal(request, ["short", f"7 3 {obstacle}"])
        assert isinstance(refusal, InsufficientStock)
        return refusal.lines[0].entry

    first, second = entry(0, "2"), entry(1, "2")
    assert second == first.replace("products/0", "products/1") != first
    entries = {entry(0, obstacle) for obstacle in ("2", "customer:2", "limit:2:2", "time:2:2", "unknown")}
    assert len(entries) == 5
    assert entry(0, "2") is first


@pytest.mark.parametrize("word", STOCK_REPLIES)
def test_each_refusal_of_a_stock_change_is_read_from_its_reply(word: str) -> None:
    reply, refusal_class, values = STOCK_REPLIES[word]
    refusal = read_stock_refusal(7, STOCK_CHANGE, reply)
    assert type(refusal) is refusal_class
    expected = {"replayed": False, "product_id": 7, "request": STOCK_CHANGE, **values}
    assert {name: getattr(refusal, name) for name in expected} == expected


@pytest.mark.parametrize("word", STOCK_REPLIES)
def test_a_remembered_refusal_of_a_stock_change_is_read_as_the_same_refusal(word: str) -> None:
    reply, _, _ = STOCK_REPLIES[word]
    first = read_stock_refusal(7, STOCK_CHANGE, reply)
    repeated = read_stock_refusal(7, STOCK_CHANGE, remembered(reply))
    assert type(repeated) is type(first)
    assert vars(repeated) == {**vars(first), "replayed": True}


@pytest.mark.parametrize("replayed", [False, True])
@pytest.mark.parametrize("word", RETURN_REPLIES)
def test_each_refusal_of_a_return_is_read_from_its_reply(word: str, replayed: bool) -> None:
    reply, refusal_class, values = RETURN_REPLIES[word]
    refusal = read_return_refusal(41, RETURN, remembered(reply) if replayed else reply)
    assert type(refusal) is refusal_class
    assert vars(refusal) == {"replayed": replayed, "order_id": 41, **values}


@pytest.mark.parametrize(("text", "cents"), [("20", 2000), ("20.5", 2050), ("0", 0), ("19.99", 1999)])
def test_a_price_without_decimals_in_redis_is_read_as_an_amount(text: str, cents: int) -> None:
    """Somebody may have written it by hand, and all other readers take it."""
    refusal = read_order_refusal(new_order((7, 1)), ["price_changed", text, f"7 {text}"])
    assert isinstance(refusal, PriceChanged)
    assert (refusal.total_price, refusal.lines[0].price) == (cents, cents)


def test_a_key_that_was_used_for_a_different_request_is_refused() -> None:
    assert isinstance(read_order_refusal(ORDER, ["reused"]), IdempotencyKeyReused)
    assert isinstance(read_stock_refusal(7, STOCK_CHANGE, ["reused"]), IdempotencyKeyReused)


def test_every_refusal_class_has_an_example_above_and_its_own_word() -> None:
    assert {refusal_class.reply_word: refusal_class for refusal_class in ORDER_REFUSALS} == {
        word: row[1] for word, row in ORDER_REPLIES.items()
    }
    assert {refusal_class.reply_word: refusal_class for refusal_class in STOCK_REFUSALS} == {
        word: row[1] for word, row in STOCK_REPLIES.items()
    }
    assert {refusal_class.reply_word: refusal_class for refusal_class in RETURN_REFUSALS} == {
        word: row[1] for word, row in RETURN_REPLIES.items()
    }
    assert len({refusal_class.reply_word for refusal_class in ORDER_REFUSALS}) == len(ORDER_REFUSALS)
    assert len({refusal_class.reply_word for refusal_class in STOCK_REFUSALS}) == len(STOCK_REFUSALS)


@pytest.mark.parametrize("word", ["", "placed", "sold_out", "SHORT", "full", "absent"])
def test_an_unknown_word_about_an_order_raises_an_assertion_error(word: str) -> None:
    with pytest.raises(AssertionError, match=f"place_order.lua replied .*{word}"):
        read_order_refusal(ORDER, [word, "7 11 10"])


@pytest.mark.parametrize("word", ["", "moved", "sold_out", "SHORT", "unknown", "too_large"])
def test_an_unknown_word_about_a_stock_change_raises_an_assertion_error(word: str) -> None:
    with pytest.raises(AssertionError, match=f"move_stock.lua replied .*{word}"):
        read_stock_refusal(7, STOCK_CHANGE, [word, "10"])

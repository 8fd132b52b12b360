"""What an Idempotency-Key remembers: fingerprints of requests, and refusals for a day."""

import re
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain.errors.obstacles import NOT_IN_CATALOGUE, TooLittleStock
from service.domain.errors.order_refusals import (
    InsufficientStock,
    OrderPlacementRefusal,
    ProductsNotFound,
    UnavailableLine,
)
from service.domain.errors.refusals import OrderNotFound
from service.domain.errors.storage import OutcomeUnknown, Overloaded, StorageError, StorageUnavailable
from service.domain.requests import NewOrder, StockChange
from service.storage import keys
from service.storage.connection import MultiplexedConnection
from service.storage.idempotency import REFUSAL_MS, order_fingerprint, read_for_replay, stock_change_fingerprint
from service.storage.sender import CommandSender
from tests.support.model import meaning
from tests.support.model_records import StockChangeRequest
from tests.support.shop import SHOP, add_mugs, make_store, new_order

stable = settings(derandomize=True, deadline=None)
"""The same examples in every run, and no failure on a slow machine."""

# Few values, so that two requests often agree in all points but one.
lines = st.lists(st.tuples(st.sampled_from([1, 2, 11]), st.sampled_from([1, 2, 12])), min_size=1, max_size=3)
other_fields: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {}, optional={"total_price": st.sampled_from([0, Decimal("0.01"), 1, 12])}
).flatmap(
    lambda fields: st.sampled_from(
        [
            fields,
            {**fields, "status": "pending"},
            {**fields, "status": "pending", "hold_seconds": 1},
            {**fields, "status": "pending", "hold_seconds": 900},
        ]
    )
)
orders = st.builds(lambda lines, fields: new_order(*lines, **fields), lines, other_fields)
stock_changes = st.builds(
    lambda product_id, change, reason: StockChangeRequest(product_id, StockChange(change=change, reason=reason)),
    st.sampled_from([1, 2, 12]),
    st.sampled_from([1, 2, 12, -1]),
    st.sampled_from(["found", "found ", "2 found", "1", "None"]),
)


def fingerprint(new: NewOrder) -> str:
    return order_fingerprint(new, new.quantities())


# Fingerprints


@stable
@given(st.data(), lines, other_fields)
def test_the_order_of_lines_and_split_quantities_do_not_change_the_fingerprint(
    data: st.DataObject, lines: list[tuple[int, int]], fields: dict[str, Any]
) -> None:
    units = [(product_id, 1) for product_id, quantity in lines for _ in range(quantity)]
    shuffled = data.draw(st.permutations(lines))
    shuffled_units = data.draw(st.permutations(units))
    expected = fingerprint(new_order(*lines, **fields))
    assert fingerprint(new_order(*shuffled, **fields)) == expected
    assert fingerprint(new_order(*shuffled_units, **fields)) == expected


@stable
@given(orders, orders)
def test_fingerprints_of_orders_are_equal_if_and_only_if_the_orders_mean_the_same(
    first: NewOrder, second: NewOrder
) -> None:
    assert (fingerprint(first) == fingerprint(second)) == (meaning(first) == meaning(second))


@pytest.mark.parametrize(
    "other",
    [
        new_order((1, 2), (2, 1), status="pending", hold_seconds=60, total_price=7),
        new_order((1, 1), (3, 1), status="pending", hold_seconds=60, total_price=7),
        new_order((1, 1), status="pending", hold_seconds=60, total_price=7),
        new_order((1, 1), (2, 1), (3, 1), status="pending", hold_seconds=60, total_price=7),
        new_order((1, 1), (2, 1), status="pending", hold_seconds=61, total_price=7),
        new_order((1, 1), (2, 1), status="pending", hold_seconds=60, total_price=Decimal("7.01")),
        new_order((1, 1), (2, 1), status="pending", hold_seconds=60),
        new_order((1, 1), (2, 1), status="pending", total_price=7),
        new_order((1, 1), (2, 1), total_price=7),
    ],
)
def test_each_difference_between_orders_changes_the_fingerprint(other: NewOrder) -> None:
    order = new_order((1, 1), (2, 1), status="pending", hold_seconds=60, total_price=7)
    assert fingerprint(other) != fingerprint(order)


def test_fingerprint_separates_product_id_and_quantity() -> None:
    assert fingerprint(new_order((1, 12))) != fingerprint(new_order((11, 2)))


@stable
@given(stock_changes, stock_changes)
def test_fingerprints_of_stock_changes_are_equal_if_and_only_if_the_changes_mean_the_same(
    first: StockChangeRequest, second: StockChangeRequest
) -> None:
    fingerprints = [stock_change_fingerprint(request.product_id, request.stock_change) for request in (first, second)]
    assert (fingerprints[0] == fingerprints[1]) == (meaning(first) == meaning(second))


@stable
@given(orders, stock_changes)
def test_an_order_and_a_stock_change_never_have_the_same_fingerprint(
    order: NewOrder, request: StockChangeRequest
) -> None:
    assert fingerprint(order) != stock_change_fingerprint(request.product_id, request.stock_change)


def test_fingerprints_are_the_same_in_every_version_because_redis_holds_them_for_ever() -> None:
    assert fingerprint(new_order((2, 1), (1, 1), (1, 1))) == "10fddb63ddecf9103e1a129601bf6206"
    pending = new_order((1, 2), status="pending", hold_seconds=60, total_price=Decimal("39.98"))
    assert fingerprint(pending) == "b9bef7153c155fb6e5fae76e7b2e6989"
    assert stock_change_fingerprint(7, StockChange(change=-2, reason="Bruch ☕")) == "378a627e649ee19accd7cd7185bfe343"


# Replays


@pytest.mark.parametrize(
    "error",
    [StorageUnavailable("away"), Overloaded("10 commands wait for Redis already"), OutcomeUnknown("away")],
)
async def test_a_replay_that_cannot_be_read_has_an_unknown_outcome(error: StorageError) -> None:
    async def reading() -> None:
        raise error

    with pytest.raises(OutcomeUnknown) as raised:
        await read_for_replay(reading())
    assert raised.value.reason == error.reason
    assert raised.value.__cause__ is error


@pytest.mark.parametrize("error", [OrderNotFound("1"), ValueError("unreadable")])
async def test_other_errors_of_a_replay_are_raised_unchanged(error: Exception) -> None:
    async def reading() -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        await read_for_replay(reading())
    assert raised.value is error


async def test_a_replay_that_can_be_read_is_returned() -> None:
    async def reading() -> str:
        return "the first result"

    assert await read_for_replay(reading()) == "the first result"


# Refusals


async def test_the_store_remembers_a_refusal_for_a_day(redis: CommandSender) -> None:
    store = make_store(redis)
    mugs = await add_mugs(store, stock=1000)
    with pytest.raises(InsufficientStock):
        await store.orders.place(new_order((mugs, 1001)), "k-1")
    left = await redis.send("PTTL", keys.idempotency(SHOP, "k-1"))
    assert REFUSAL_MS - 60_000 < left <= REFUSAL_MS == 86_400_000


LINES = {
    "all unknown": [(2**53 - 1 - number, 1) for number in range(100)],
    "mixed, not in order of id": [(9, 11), (1, 1), (50, 3), (7, 2), (2, 1), (51, 1), (3, 99), (8, 1), (52, 1)],
    "one product in two lines": [(2, 6), (50, 1), (2, 6), (1, 1)],
    "too little stock of the last": [(1, 1), (2, 1), (9, 99)],
    "price": [(9, 1), (1, 1), (2, 3)],
}


@pytest.mark.parametrize("lines", LINES.values(), ids=LINES)
async def test_a_repeated_refusal_says_the_same_as_the_first(
    redis: CommandSender, lines: list[tuple[int, int]]
) -> None:
    store = make_store(redis)
    for product_id in (1, 2, 3, 7, 8, 9):
        await add_mugs(store, id=product_id, stock=10)
    fields: dict[str, Any] = {"total_price": Decimal("0.01")} if lines == LINES["price"] else {}
    with pytest.raises(OrderPlacementRefusal) as first:
        await store.orders.place(new_order(*lines, **fields), "k-1")
    for product_id in (1, 2, 3):
        await store.stock.change(product_id, StockChange(change=1000, reason="delivery"))
    with pytest.raises(OrderPlacementRefusal) as repeated:
        await store.orders.place(new_order(*lines, **fields), "k-1")
    assert type(repeated.value) is type(first.value)
    # repr(), because obstacles are tuples: two of different classes with the same numbers are equal.
    assert repr(vars(repeated.value)) == repr({**vars(first.value), "replayed": True})
    # A request with the lines in another order means the same, and points at its own lines.
    with pytest.raises(OrderPlacementRefusal) as reversed_:
        await store.orders.place(new_order(*lines[::-1], **fields), "k-1")
    without_position = [
        sorted(re.sub("position=[0-9]+", "", str(line)) for line in error.value.lines) for error in (first, reversed_)
    ]
    assert without_position[0] == without_position[1]


async def test_a_refusal_that_an_older_holdfast_remembered_is_repeated(redis: CommandSender) -> None:
    store = make_store(redis)
    await add_mugs(store, id=7, stock=100)
    order = new_order((7, 11), (8, 1))
    fingerprint_ = order_fingerprint(order, order.quantities())
    text = "unknown\n7 11 10\n8 1 unknown"
    await redis.send("HSET", keys.idempotency(SHOP, "k-1"), "fingerprint", fingerprint_, "refusal", text)
    with pytest.raises(ProductsNotFound) as repeated:
        await store.orders.place(order, "k-1")
    assert repeated.value.lines == [
        UnavailableLine(0, 7, 11, TooLittleStock(10)),
        UnavailableLine(1, 8, 1, NOT_IN_CATALOGUE),
    ]


async def test_refusals_of_100_unknown_products_take_little_memory(engine: MultiplexedConnection) -> None:
    store = make_store(engine)
    with pytest.raises(ProductsNotFound):
        await store.orders.place(new_order(*LINES["all unknown"]), "k-1")
    assert await engine.send("MEMORY", "USAGE", keys.idempotency(SHOP, "k-1")) <= 250


async def test_many_remembered_refusals_do_not_fill_a_small_memory(engine: MultiplexedConnection) -> None:
    """Remembered in full, 2,900 refusals of 100 unknown products took 12 MB, and then no order could be placed."""
    store = make_store(engine)
    mugs = await add_mugs(store)
    await store.orders.place(new_order((mugs, 1)))
    used = int(re.search(r"used_memory:(\d+)", await engine.send("INFO", "memory"))[1])  # type: ignore[index]
    await engine.send("CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", used + 1_000_000)
    try:
        for number in range(500):
            with pytest.raises(ProductsNotFound):
                await store.orders.place(new_order(*LINES["all unknown"]), f"cart-{number}")
        assert (await store.orders.place(new_order((mugs, 1)), "good")).order.id > 1
    finally:
        await engine.send("CONFIG", "SET", "maxmemory", 0)

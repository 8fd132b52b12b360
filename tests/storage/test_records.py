"""Products, orders and events from the values that Redis holds, and the values for Redis from requests."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain.event import Event
from service.domain.limits import MAX_STOCK
from service.domain.money import Cents, format_cents
from service.domain.order import ListedOrder, Order, OrderLine
from service.domain.product import Product
from service.domain.requests import ProductChange
from service.domain.times import Milliseconds
from service.storage.records import (
    ORDER_FIELDS,
    PRODUCT_FIELDS,
    change_pairs,
    product_pairs,
    read_event,
    read_listed_orders,
    read_orders,
    read_products,
)
from tests.support.orders import ids, order_row, orders, prices, times
from tests.support.products import product_hash
from tests.support.shop import new_mug

stable = settings(derandomize=True, deadline=None)
"""The same examples in every run, and no failure on a slow machine."""

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=50)


def fields_of(pairs: list[str]) -> dict[str, str]:
    """Return the fields of name, value, name, value, ..."""
    return dict(zip(pairs[::2], pairs[1::2], strict=True))


# Products


@stable
@given(ids, texts.filter(lambda text: not text.isspace()), texts | st.just(""), prices, st.integers(0, MAX_STOCK))
def test_a_new_product_is_read_as_it_was_requested(
    product_id: int, name: str, description: str, price: Cents, stock: int
) -> None:
    new = new_mug(name=name, description=description, price=format_cents(price), stock=stock)
    stored = {**fields_of(product_pairs(new)), "stock": str(stock), "withdrawn": "0"}
    row = [stored.get(field) for field in PRODUCT_FIELDS]
    assert read_products([product_id], [row]) == [Product(product_id, name, description, price, stock)]


def test_the_pairs_of_a_new_product_have_every_field_but_the_id_and_the_stock() -> None:
    new = new_mug(id=7)
    pairs = fields_of(product_pairs(new))
    assert pairs.keys() == new.model_fields_set - {"id", "stock"}
    assert pairs.items() <= product_hash(7).items()


@pytest.mark.parametrize(
    ("changes", "pairs"),
    [
        ({}, []),
        ({"price": Decimal("5")}, ["price", "5.00"]),
        ({"description": ""}, ["description", ""]),
        ({"limit_per_customer": 2}, ["limit_per_customer", "2"]),
        ({"limit_per_customer": None}, ["limit_per_customer", ""]),
        ({"on_sale_until": "2026-11-27T09:00:00Z"}, ["on_sale_until", "1795770000000"]),
        (
            {"name": "Cup", "description": "Holds tea.", "price": Decimal("0.5")},
            ["name", "Cup", "description", "Holds tea.", "price", "0.50"],
        ),
    ],
)
def test_the_pairs_of_a_change_have_only_the_given_fields(changes: dict[str, object], pairs: list[str]) -> None:
    assert fields_of(change_pairs(ProductChange.model_validate(changes))) == fields_of(pairs)


def test_absent_and_withdrawn_products_are_read_as_none_in_their_places() -> None:
    on_sale, withdrawn = product_hash(7), product_hash(8, withdrawn=True)
    rows = [[stored.get(field) for field in PRODUCT_FIELDS] for stored in (withdrawn, on_sale, {})]
    mug = Product(7, "Mug", "Holds coffee.", Cents(1999), 10)
    assert read_products([8, 7, 9], rows) == [None, mug, None]
    assert read_products([8, 7, 9], rows, include_withdrawn=True) == [mug._replace(id=8), mug, None]


@pytest.mark.parametrize(("field", "value"), [("price", "cheap"), ("price", "-1.00"), ("price", ""), ("stock", "many")])
def test_an_unreadable_product_raises_value_error(field: str, value: str) -> None:
    row = [{**product_hash(7), field: value}.get(name) for name in PRODUCT_FIELDS]
    with pytest.raises(ValueError, match=r"unreadable amount|invalid literal"):
        read_products([7], [row])


# Orders


@stable
@given(orders("pending"))
def test_a_pending_order_is_read_with_its_deadline(order: Order) -> None:
    assert order.expires_at is not None
    assert read_orders([order.id], [order_row(order)]) == [order]


@pytest.mark.parametrize(
    ("status", "expires_at"), [("completed", None), ("cancelled", Milliseconds(5)), ("expired", Milliseconds(5))]
)
@stable
@given(data=st.data())
def test_an_order_that_is_not_pending_is_read_with_the_deadline_that_it_had(
    status: str, expires_at: Milliseconds | None, data: st.DataObject
) -> None:
    order = data.draw(orders(status, expires_at=st.just(expires_at)))
    assert read_orders([order.id], [order_row(order)]) == [order]


def test_an_order_is_read_with_all_its_optional_fields() -> None:
    lines = (OrderLine(7, 2, Cents(1999), returned=1), OrderLine(9, 1, Cents(5), returned=0))
    order = Order(
        *(41, lines, Cents(4003), "completed", Milliseconds(1), None),
        *(Milliseconds(2), "cart 1", "anna", Cents(1999)),
    )
    assert read_orders([41], [order_row(order, returned="7: 1", refunded="19.99")]) == [order]


@stable
@given(
    order=orders("pending", "completed", expires_at=times | st.none()),
    completed_at=times | st.none(),
    reference=texts | st.none(),
    customer=texts | st.none(),
)
def test_an_order_in_a_list_is_shown_as_it_is_shown_alone(order: Order, **optional: Any) -> None:
    order = order._replace(**optional)
    if order.status == "pending":
        order = order._replace(expires_at=order.expires_at or Milliseconds(5))
    row = order_row(order)
    assert read_listed_orders([order.id], [row]) == [ListedOrder(order.id, order.json())]


def test_an_order_with_returned_units_is_shown_in_a_list_as_it_is_shown_alone() -> None:
    order = Order(41, (OrderLine(7, 2, Cents(1999)),), Cents(3998), "completed", Milliseconds(1))
    row = order_row(order, returned="7: 1", refunded="19.99")
    [alone] = read_orders([41], [row])
    assert alone is not None
    assert read_listed_orders([41], [row]) == [ListedOrder(41, alone.json())]


@pytest.mark.parametrize("returned", ["", "7", "7: 1\n", "7: -1", "7: 1 x 19.99"])
def test_unreadable_returned_units_raise_value_error(returned: str) -> None:
    order = Order(41, (OrderLine(7, 2, Cents(1999)),), Cents(3998), "completed", Milliseconds(1))
    with pytest.raises(ValueError, match="unreadable units"):
        read_orders([41], [order_row(order, returned=returned)])


@pytest.mark.parametrize("rules", ["", "limit", "limit_per_customer: two", "limit_per_customer: 2\n", "colour: 1"])
def test_unreadable_sale_rules_raise_value_error(rules: str) -> None:
    row = [{**product_hash(7), "sale_rules": rules}.get(name) for name in PRODUCT_FIELDS]
    with pytest.raises(ValueError, match="unreadable sale rules"):
        read_products([7], [row])


def test_an_absent_order_is_read_as_none_in_its_place() -> None:
    order = Order(2, (OrderLine(7, 1, Cents(1999)),), Cents(1999), "completed", Milliseconds(1), None)
    absent = [None] * len(ORDER_FIELDS)
    assert read_orders([1, 2, 3], [absent, order_row(order), absent]) == [None, order, None]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("products", "two mugs"),
        ("products", ""),
        ("products", "7: 1 x 19.99\n"),
        ("total_price", "much"),
        ("created_at", "yesterday"),
        ("expires_at", "soon"),
    ],
)
def test_an_unreadable_order_raises_value_error(field: str, value: str) -> None:
    order = Order(1, (OrderLine(7, 1, Cents(1999)),), Cents(1999), "pending", Milliseconds(1), Milliseconds(2))
    row = order_row(order)
    assert read_orders([1], [row]) == [order]
    row[ORDER_FIELDS.index(field)] = value
    for read in (read_orders, read_listed_orders):
        with pytest.raises(ValueError, match=r"unreadable|invalid literal"):
            read([1], [row])


def test_a_pending_order_whose_hold_has_no_end_is_an_error() -> None:
    row = order_row(Order(1, (OrderLine(7, 1, Cents(1999)),), Cents(1999), "pending", Milliseconds(1)))
    for read in (read_orders, read_listed_orders):
        with pytest.raises(TypeError):
            read([1], [row])


@pytest.mark.parametrize(("read", "fields"), [(read_products, PRODUCT_FIELDS), (read_orders, ORDER_FIELDS)])
def test_a_missing_row_is_an_error(read: object, fields: tuple[str, ...]) -> None:
    assert callable(read)
    assert read([], []) == []
    with pytest.raises(ValueError, match="shorter"):
        read([1, 2], [[None] * len(fields)])


# Events


def test_an_event_is_read_with_its_id_and_its_fields_in_order() -> None:
    event = read_event(("5-1", ["event", "product_withdrawn", "product", "7"]))
    assert event == Event("5-1", {"event": "product_withdrawn", "product": "7"})
    assert list(event.fields) == ["event", "product"]

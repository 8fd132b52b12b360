"""Events: the JSON of each type, and the order of event ids."""

import json
from decimal import Decimal

import pytest

from service.domain.event import EVENT_FIELDS, STATUS_AFTER_EVENT, Event, event_position
from service.domain.order import OrderStatus

TEXTS = {
    "product": "7",
    "order": "41",
    "last_order": "41",
    "next_order": "9000000001",
    "last_event": "1754000000123-0",
    "name": 'Mug "blue" ☕',
    "description": "",
    "price": "19.99",
    "stock": "10",
    "change": "-3",
    "reason": "Bruch,\n3 Stück",
    "status": "pending",
    "total_price": "90071992547409.91",
    "products": "7: 2 x 19.99\n3: 1 x 0.05",
    "expires_at": "1754000000123",
    "restock": "0",
    "refund": "19.99",
    "returned": "7: 2\n3: 1",
    "written_off": "3: 1",
    "sale_rules": "limit_per_customer: 2\non_sale_until: 1754000000123",
    "orders": "41 7:2 3:1\n42",
}
"""A value of each field as Redis has it. All values are text there."""

VALUES = {
    **TEXTS,
    "product": 7,
    "order": 41,
    "last_order": 41,
    "next_order": 9_000_000_001,
    "price": Decimal("19.99"),
    "stock": 10,
    "change": -3,
    "total_price": Decimal("90071992547409.91"),
    "products": [
        {"product_id": 7, "quantity": 2, "price": Decimal("19.99")},
        {"product_id": 3, "quantity": 1, "price": Decimal("0.05")},
    ],
    "expires_at": "2025-07-31T22:13:20.123Z",
    "restock": False,
    "refund": Decimal("19.99"),
    "returned": [{"product_id": 7, "quantity": 2}, {"product_id": 3, "quantity": 1}],
    "written_off": [{"product_id": 3, "quantity": 1}],
    "orders": [41, 42],
    "sale_rules": {"limit_per_customer": 2, "on_sale_until": "2025-07-31T22:13:20.123Z"},
}
"""The same values as JSON shows them."""


@pytest.mark.parametrize("event_type", EVENT_FIELDS)
def test_event_as_json_has_numbers_and_lines_instead_of_text(event_type: str) -> None:
    names = [*EVENT_FIELDS[event_type].required, *EVENT_FIELDS[event_type].optional]
    event = Event("1754000000123-0", {"event": event_type, **{name: TEXTS.get(name, "text") for name in names}})
    assert event.is_known()
    document = json.loads(event.json(), parse_float=Decimal)
    assert list(document) == ["id", "event", *names]
    assert document == {
        "id": "1754000000123-0",
        "event": event_type,
        **{name: VALUES.get(name, "text") for name in names},
    }


@pytest.mark.parametrize("event_type", EVENT_FIELDS)
def test_an_event_without_a_required_field_or_with_another_field_is_not_known(event_type: str) -> None:
    fields = {"event": event_type, **{name: TEXTS.get(name, "text") for name in EVENT_FIELDS[event_type].required}}
    assert Event("1-0", fields).is_known()
    assert not Event("1-0", {**fields, "colour": "red"}).is_known()
    for name in EVENT_FIELDS[event_type].required:
        assert not Event("1-0", {key: value for key, value in fields.items() if key != name}).is_known()


def test_the_event_of_removed_sale_rules_shows_none() -> None:
    event = Event("1-0", {"event": "product_changed", "product": "7", "sale_rules": ""})
    assert event.is_known()
    assert event.json() == '{"id":"1-0","event":"product_changed","product":7,"sale_rules":{}}'


def test_event_as_json_is_one_line() -> None:
    fields = {"event": "stock_moved", "product": "7", "change": "5", "reason": "a\r\nb", "stock": "5"}
    assert Event("1-0", fields).json() == (
        '{"id":"1-0","event":"stock_moved","product":7,"change":5,"reason":"a\\r\\nb","stock":5}'
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [("stock", "many"), ("product", ""), ("price", "1.005"), ("products", "7: 2"), ("order", "4x1"), ("restock", "2")],
)
def test_a_value_in_another_form_is_shown_as_text_and_the_event_is_not_known(name: str, text: str) -> None:
    event = Event("1-0", {"event": "order_placed", name: text})
    assert json.loads(event.json()) == {"id": "1-0", "event": "order_placed", name: text}
    assert not event.is_known()


@pytest.mark.parametrize(
    ("event_id", "position"), [("1754000000123-7", (1_754_000_000_123, 7)), ("5", (5, 0)), ("0-0", (0, 0))]
)
def test_event_id_is_a_time_and_a_number(event_id: str, position: tuple[int, int]) -> None:
    assert event_position(event_id) == position


def test_event_ids_sort_as_numbers_and_not_as_text() -> None:
    event_ids = ["100-1", "10-10", "9-0", "10-2", "10-0"]
    assert sorted(event_ids, key=event_position) == ["9-0", "10-0", "10-2", "10-10", "100-1"]


def test_each_event_of_an_order_with_products_has_a_status_after_it() -> None:
    ending = {
        event_type
        for event_type, fields in EVENT_FIELDS.items()
        if {"order", "products"} <= set(fields.required) and "status" not in fields.required
    }
    assert STATUS_AFTER_EVENT.keys() == ending
    assert set(STATUS_AFTER_EVENT.values()) == set(OrderStatus) - {OrderStatus.PENDING}

"""Events: the JSON of each type, and the order of event ids."""

import json
from decimal import Decimal

import pytest

from service.domain.event import EVENT_FIELDS, STATUS_AFTER_EVENT, Event, event_position
from service.domain.order import OrderStatus

TEXTS = {
    "product": "7",
    "order": "41",
    "name": 'Mug "blue" ☕',
    "description": "",
    "price": "19.99",
    "stock": "10",
    "change": "-3",
    "reason": "Bruch,\n3 Stück",
    "status": "pending",
    "total_price": "90071992547409.91",
    "products": "7: 2 x 19.99\n3: 1 x 0.05",
}
"""A value of each field as Redis has it. All values are text there."""

VALUES = {
    **TEXTS,
    "product": 7,
    "order": 41,
    "price": Decimal("19.99"),
    "stock": 10,
    "change": -3,
    "total_price": Decimal("90071992547409.91"),
    "products": [
        {"product_id": 7, "quantity": 2, "price": Decimal("19.99")},
        {"product_id": 3, "quantity": 1, "price": Decimal("0.05")},
    ],
}
"""The same values as JSON shows them."""


@pytest.mark.parametrize("event_type", EVENT_FIELDS)
def test_event_as_json_has_numbers_and_lines_instead_of_text(event_type: str) -> None:
    fields = {"event": event_type, **{name: TEXTS.get(name, "text") for name in EVENT_FIELDS[event_type]}}
    document = json.loads(Event("1754000000123-0", fields).json(), parse_float=Decimal)
    assert list(document) == ["id", "event", *EVENT_FIELDS[event_type]]
    assert document == {
        "id": "1754000000123-0",
        "event": event_type,
        **{name: VALUES.get(name, "text") for name in EVENT_FIELDS[event_type]},
    }


def test_event_as_json_is_one_line() -> None:
    fields = {"event": "stock_moved", "product": "7", "change": "5", "reason": "a\r\nb", "stock": "5"}
    assert Event("1-0", fields).json() == (
        '{"id":"1-0","event":"stock_moved","product":7,"change":5,"reason":"a\\r\\nb","stock":5}'
    )


@pytest.mark.parametrize(
    ("name", "text"), [("stock", "many"), ("product", ""), ("price", "1.005"), ("products", "7: 2"), ("order", "4x1")]
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


def test_each_event_that_ends_a_hold_has_a_status_after_it() -> None:
    ending = {event_type for event_type, fields in EVENT_FIELDS.items() if "order" in fields and "status" not in fields}
    assert STATUS_AFTER_EVENT.keys() == ending
    assert set(STATUS_AFTER_EVENT.values()) == set(OrderStatus) - {OrderStatus.PENDING}

"""Bodies of requests: rules that need more than one field, blank texts, and orders that are read quickly."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from service.domain.decoding import read_json, validate
from service.domain.requests import NewOrder, ProductChange, StockChange
from tests.support.shop import new_order


def test_quantities_of_the_same_product_are_added() -> None:
    assert new_order((7, 1), (3, 5), (7, 2)).quantities() == {7: 3, 3: 5}


def test_quantities_keep_the_order_of_the_first_lines() -> None:
    assert list(new_order((7, 1), (3, 5), (7, 2), (5, 1)).quantities()) == [7, 3, 5]


def test_order_is_completed_without_a_hold_time_by_default() -> None:
    order = new_order((7, 1))
    assert (order.status, order.total_price) == ("completed", None)
    assert "hold_seconds" not in order.model_fields_set


@pytest.mark.parametrize("fields", [{"hold_seconds": 60}, {"hold_seconds": 60, "status": "completed"}])
def test_only_a_pending_order_may_have_hold_seconds(fields: dict[str, object]) -> None:
    assert new_order((7, 1), **{**fields, "status": "pending"}).hold_seconds == 60
    with pytest.raises(ValidationError, match="Only an order of status pending can be held"):
        new_order((7, 1), **fields)


def test_hold_seconds_may_stand_before_the_status() -> None:
    document = {"hold_seconds": 60, "status": "pending", "products": [{"product_id": 7, "quantity": 1}]}
    assert NewOrder.model_validate(document).hold_seconds == 60


BLANK = [
    " ",
    "\t\n",
    "\N{NO-BREAK SPACE}",
    "\N{ZERO WIDTH SPACE}",
    "\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}",
    "\N{WORD JOINER}",
    "\N{ZERO WIDTH NO-BREAK SPACE}",
    "\N{RIGHT-TO-LEFT OVERRIDE} \N{LEFT-TO-RIGHT MARK}",
    "\N{SOFT HYPHEN}",
    "\N{COMBINING ACUTE ACCENT}",
    "\N{VARIATION SELECTOR-16}",
    "\N{HANGUL FILLER}",
    "\N{BRAILLE PATTERN BLANK}",
]


@pytest.mark.parametrize("text", BLANK, ids=ascii)
def test_a_text_without_a_visible_character_is_blank(text: str) -> None:
    with pytest.raises(ValidationError, match="Input should not be blank"):
        ProductChange.model_validate({"name": text})
    with pytest.raises(ValidationError, match="Input should not be blank"):
        StockChange.model_validate({"change": 1, "reason": text})


@pytest.mark.parametrize("text", ["x", ".", "茶", "ü", "☕", "\N{ZERO WIDTH SPACE}x", "हिन्दी", "\U0010fffd", "-"])
def test_a_text_with_a_visible_character_is_kept_as_it_is(text: str) -> None:
    assert ProductChange.model_validate({"name": text}).name == text


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"status": "pending", "hold_seconds": 60},
        {"total_price": 20, "reference": "cart-1", "customer": "Zoë"},
        {"reference": None, "status": "completed"},
    ],
)
@pytest.mark.parametrize("indent", [None, 1])
def test_most_orders_are_read_quickly(fields: dict[str, object], indent: int | None) -> None:
    document = {**fields, "products": [{"product_id": 7, "quantity": 2}, {"quantity": 1, "product_id": 3}]}
    assert NewOrder.read_quickly(json.dumps(document, indent=indent).encode()) == validate(NewOrder, document)


@pytest.mark.parametrize(
    "text",
    [
        '{"products": [{"product_id": 7, "quantity": 2, "quantity": 2}]}',
        '{"products": [{"product_id": 7, "quantity": 2, "quantit\\u0079": 3}]}',
        '{"products": [], "products": [{"product_id": 7, "quantity": 2}]}',
        '{"products": [{"product_id": 7, "quantity": 2}], "status": "pending", "status": "pending"}',
        '{"status": "completed", "products": [{"product_id": 7, "quantity": 2}], "status": "pending"}',
        '{"products": [{"product_id": 7, "quantity": 2}], "reference": "a", "reference": null}',
        '{"products": [{"product_id": 7, "quantity": 2}], "reference": null, "reference": "a"}',
        '{"products": [{"product_id": 7, "quantity": 2}], "reference": "a \\" b"}',
        '{"products": [{"product_id": 7, "quantity": 2}], "total_price": 19.99}',
        '{"products": [{"product_id": 7, "quantity": 2}], "total_price": 20, "total_price": 20}',
        '{"products": [{"product_id": 7, "quantity": 2}], "hold_seconds": 60}',
        '{"products": [{"product_id": 7, "quantity": 2}]' + " " * 4000 + "}",
        '{"products": [{"product_id": 7, "quantity": 2.0}]}',
        '{"products": [{"product_id": 7, "quantity": 2e0}]}',
        '{"products": [{"product_id": "7", "quantity": 2}]}',
        '{"products": [{"product_id": 7, "quantity": 0}]}',
        '{"products": [{"product_id": 7}]}',
        '{"products": []}',
        "[]",
        '{"products": [{"product_id": 7, "quantity": 2}]} 1',
        "",
        "[" * 3900,
        f'{{"products": [{{"product_id": {"9" * 3900}, "quantity": 2}}]}}',
    ],
    ids=lambda text: text[:70],
)
def test_invalid_or_unusual_orders_are_not_read_quickly(text: str) -> None:
    assert NewOrder.read_quickly(text.encode()) is None


_NUMBERS = st.sampled_from(["1", "2", "1000", "0", "-0", "1.0", "1e0", "9007199254740991", "true", "null", '"1"'])
_NAMES = st.sampled_from(["product_id", "quantity", "product\\u005fid", "other"])
_MEMBERS = st.tuples(_NAMES, _NUMBERS).map(lambda member: f'"{member[0]}" : {member[1]}')
_LINE_TEXTS = st.lists(_MEMBERS, max_size=3).map(lambda members: f"{{{','.join(members)}}}")
_GOOD_LINES = st.tuples(st.integers(1, 99), st.integers(1, 99)).map(
    lambda numbers: f'{{"product_id":{numbers[0]},"quantity":{numbers[1]}}}'
)
_LISTS = st.lists(_LINE_TEXTS | _GOOD_LINES, max_size=3).map(lambda lines: f'"products":[{",".join(lines)}]')
_TEXTS = (st.none() | st.text(max_size=3)).map(json.dumps)
_OTHER_FIELDS = st.sampled_from(
    ['"status":"pending"', '"status":"completed"', '"total_price":5', '"total_price":5.5', '"hold_seconds":60']
) | st.tuples(st.sampled_from(["reference", "customer", "other"]), _TEXTS).map(lambda field: f'"{field[0]}":{field[1]}')
_ORDER_TEXTS = st.lists(_LISTS | _OTHER_FIELDS, max_size=5).map(lambda members: f"{{{','.join(members)}}}")


@given(_ORDER_TEXTS)
def test_the_quick_way_and_the_exact_way_read_the_same_order(text: str) -> None:
    order = NewOrder.read_quickly(text.encode())
    if order is not None:
        other = validate(NewOrder, read_json(text.encode()))
        assert (order, order.model_fields_set) == (other, other.model_fields_set)

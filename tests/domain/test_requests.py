"""Bodies of requests: rules that need more than one field, and blank texts."""

import pytest
from pydantic import ValidationError

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

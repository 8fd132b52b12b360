"""Bodies of requests: the rules that need more than one field."""

import pytest
from pydantic import ValidationError

from service.domain.requests import NewOrder
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

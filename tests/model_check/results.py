"""Results of a verb: compared, and named for counting."""

from collections.abc import Callable
from typing import Any

from service.domain.errors.refusals import Refusal
from service.storage.orders import PlacedOrder


def result_or_refusal(call: Callable[[], object]) -> Any:
    """Return what the call returns, or the refusal that it raises."""
    try:
        return call()
    except Refusal as refusal:
        return refusal


def assert_same_result(found: object, expected: object) -> None:
    """Assert that both are equal. Refusals are equal if they have the same class and the same values."""
    if isinstance(found, Refusal) and isinstance(expected, Refusal):
        # repr(), because obstacles are tuples: two of different classes with the same numbers are equal.
        assert (type(found), repr(vars(found))) == (type(expected), repr(vars(expected)))
    else:
        assert found == expected


def outcome_name(found: object) -> str:
    """Return the status of a placed order, or the name of the result's class."""
    return found.order.status if isinstance(found, PlacedOrder) else type(found).__name__

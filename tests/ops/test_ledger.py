"""service/ops/ledger.py: the units of a product, counted from orders and from events."""

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.event import STATUS_AFTER_EVENT, Event
from service.domain.money import Cents
from service.domain.order import UNITS_IN, OrderLine
from service.ops.ledger import Ledger, OrderChange, Units, order_change
from tests.support.orders import order_lines

MUGS = (OrderLine(1, 2, Cents(1999)),)
BOTH = (OrderLine(1, 2, Cents(1999)), OrderLine(2, 5, Cents(100)))


def event(event_type: str, order_id: int = 7, products: str = "1: 2 x 19.99", **fields: str) -> Event:
    return Event("1-0", {"event": event_type, "order": str(order_id), "products": products, **fields})


# --- Orders -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "units"),
    [
        ("pending", Units(held=2, sold=0)),
        ("completed", Units(held=0, sold=2)),
        ("cancelled", Units(0, 0)),
        ("expired", Units(0, 0)),
        ("lost", Units(0, 0)),
        ("", Units(0, 0)),
    ],
)
def test_the_status_of_an_order_decides_which_counter_includes_its_units(status: str, units: Units) -> None:
    ledger = Ledger()
    ledger.set_order(7, status, MUGS)
    assert ledger.units(1) == units


def test_the_units_of_all_lines_and_orders_are_added_up() -> None:
    ledger = Ledger()
    ledger.set_order(1, "completed", BOTH)
    ledger.set_order(2, "completed", MUGS)
    ledger.set_order(3, "pending", BOTH)
    assert (ledger.units(1), ledger.units(2)) == (Units(held=2, sold=4), Units(held=5, sold=5))
    assert ledger.product_ids() == {1, 2}


def test_a_product_without_orders_has_no_units() -> None:
    ledger = Ledger()
    assert ledger.units(99) == Units(0, 0)
    assert ledger.product_ids() == set()


@pytest.mark.parametrize("before", ["pending", "completed", "lost"])
@pytest.mark.parametrize("after", UNITS_IN)
def test_an_order_counts_only_in_its_last_status(before: str, after: str) -> None:
    changed, direct = Ledger(), Ledger()
    changed.set_order(7, before, MUGS)
    changed.set_order(7, after, MUGS)
    direct.set_order(7, after, MUGS)
    assert changed.units(1) == direct.units(1)


@pytest.mark.parametrize("status", [*UNITS_IN, "lost", ""])
@pytest.mark.parametrize("order_id", [1, 65_535, 65_536, 2**53 - 1])
def test_the_ledger_knows_only_the_orders_that_were_counted(order_id: int, status: str) -> None:
    ledger = Ledger()
    assert not ledger.knows(order_id)
    ledger.set_order(order_id, status, MUGS)
    assert ledger.knows(order_id)
    assert not ledger.knows(order_id + 1)
    assert not ledger.knows(order_id - 1)


# --- Events -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["pending", "completed"])
def test_a_placed_order_has_the_status_in_its_event(status: str) -> None:
    assert order_change(event("order_placed", status=status)) == OrderChange(7, status, MUGS)


@pytest.mark.parametrize(("event_type", "status"), STATUS_AFTER_EVENT.items())
def test_the_type_of_an_event_decides_the_status_after_it(event_type: str, status: str) -> None:
    assert status in UNITS_IN
    if event_type == "order_returned":
        returned = event(event_type, returned="1: 1", written_off="1: 1", customer="anna")
        assert order_change(returned) == OrderChange(7, status, None, {1: 1}, {1: 1}, "anna")
    else:
        assert order_change(event(event_type, customer="anna")) == OrderChange(7, status, MUGS, customer="anna")


@pytest.mark.parametrize(
    "other",
    [
        Event("1-0", {}),
        Event("1-0", {"note": "hello"}),
        Event("1-0", {"event": "stock_moved", "product": "1", "change": "5"}),
        Event("1-0", {"event": "order_completed"}),
        Event("1-0", {"event": "order_completed", "order": "7"}),
        event("order_completed", products="two mugs"),
        Event("1-0", {"event": "order_completed", "order": "seven", "products": "1: 2 x 19.99"}),
    ],
)
def test_an_event_that_changes_no_order_is_ignored(other: Event) -> None:
    assert order_change(other) is None


# --- Orders that change while they are read ---------------------------------------------------------------------------


class History(NamedTuple):
    """The lines of an order, each of its statuses with the moment when it began, and each return with its moment."""

    lines: tuple[OrderLine, ...]
    statuses: list[tuple[int, str]]
    returns: list[tuple[int, dict[int, int]]]
    """What came back until then. Every second unit was written off."""


MOMENTS = 20
LINES = order_lines(product_ids=st.integers(1, 3), quantities=st.integers(1, 9), prices=st.just(Cents(100)), max_size=3)


def half_of(units: dict[int, int]) -> dict[int, int]:
    return {product_id: number // 2 for product_id, number in units.items()}


@st.composite
def histories(draw: st.DrawFn) -> History:
    placed, ended, *later = sorted(draw(st.lists(st.integers(1, MOMENTS), min_size=2, max_size=4, unique=True)))
    end = draw(st.sampled_from([None, "completed", "cancelled", "expired"]))
    statuses = [(placed, draw(st.sampled_from(["pending", "completed"])))]
    if end is not None and statuses[0][1] == "pending":
        statuses.append((ended, end))
    lines = draw(LINES)
    returns, back = [], dict.fromkeys((line.product_id for line in lines), 0)
    for moment in later if statuses[-1][1] == "completed" else []:
        back = {product_id: number + draw(st.integers(0, 3)) for product_id, number in back.items()}
        returns.append((moment, back))
    return History(lines, statuses, returns)


@given(st.lists(histories(), max_size=8), st.data())
def test_the_ledger_is_correct_after_all_events_if_orders_were_read_at_different_moments(
    orders: list[History], data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, MOMENTS), label="start of the audit")
    followed, expected = Ledger(), Ledger()
    changes: list[tuple[int, OrderChange]] = []
    for order_id, history in enumerate(orders, 1):
        read_at = data.draw(st.integers(start, MOMENTS), label=f"order {order_id} is read")
        known = [status for moment, status in history.statuses if moment <= read_at]
        if known:  # an order that is placed later does not exist yet
            followed.set_order(order_id, known[-1], history.lines)
        for moment, back in history.returns:
            if moment <= read_at:
                followed.set_returned(order_id, back, half_of(back))
            expected.set_returned(order_id, back, half_of(back))
            changes.append((moment, OrderChange(order_id, "completed", None, back, half_of(back))))
        expected.set_order(order_id, history.statuses[-1][1], history.lines)
        changes += [(moment, OrderChange(order_id, status, history.lines)) for moment, status in history.statuses]
    for moment, change in sorted(changes, key=lambda change: change[0]):
        if moment > start:
            followed.apply(change)
    for product_id in (1, 2, 3):
        assert followed.units(product_id) == expected.units(product_id)

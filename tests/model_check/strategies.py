"""The random values of the state machine. Values that lead to interesting outcomes are drawn more often."""

from collections.abc import Callable
from typing import TypeVar

from hypothesis import strategies as st

from service.domain.limits import MAX_PRICE, MAX_STOCK

T = TypeVar("T", int, str, tuple[str, str | None])

OrderCalls = list[tuple[int, str]]
"""Calls about one order, each a worker and a verb."""

VERBS = ("get", "complete", "cancel", "extend")
REPETITIONS = ("same", "same", "other bytes", "other meaning", "other call")
"""How an Idempotency-Key is repeated. A request with another meaning or for another API call must be refused."""

# Most orders should find their products on sale and in stock. Otherwise all of them would be refused early.
ids = st.sampled_from([1, 1, 2, 2, 3, 4, 5, 6, 10])
ids_to_add = st.sampled_from([None, 1, 3, 4, 5, 6])
ids_to_withdraw = st.sampled_from([3, 4, 5, 6, 7])
ids_to_order = st.sampled_from([1, 1, 1, 1, 2, 2, 2, 3, 3, 3, 6, 9])
names = st.sampled_from(["Mug", "Pot", "Ünïcode ☕", "two\nlines", " 'quoted' \"\\ "])
prices = st.sampled_from([0, 1, 29, 700, 1999, MAX_PRICE])
stocks = st.sampled_from([0, 1, 9, 10, 30, 10_000_000, MAX_STOCK])
quantities = st.sampled_from([1, 1, 1, 1, 2, 2, 3, 3, 4, 10, 12, 1_000_000])
lines_of_an_order = st.lists(st.tuples(ids_to_order, quantities), min_size=1, max_size=4)
holds = st.sampled_from([None, None, 1, 2, 60, 900, 86_400])
total_kinds = st.sampled_from([None, None, None, "correct", "correct", "wrong"])
customers = st.sampled_from([None, "anna", "anna", "ben"])
references = st.sampled_from([None, None, "cart 1", "Größe:2"])
orders = st.lists(
    st.tuples(lines_of_an_order, total_kinds, holds, customers, references, st.booleans()), min_size=1, max_size=3
)
customer_limits = st.sampled_from([None, None, 2, 4, 30])
sale_times = st.sampled_from([None, None, None, -60, -1, 0, 1, 60, 900])
"""Seconds from now to the begin or the end of a sale."""
lines_to_return = st.lists(st.tuples(st.integers(0, 3), st.sampled_from([1, 1, 1, 2, 1000])), min_size=1, max_size=3)
"""The position of an order's line and units of it. An order may have fewer lines: then the product is not in it."""
counts = st.sampled_from([0, 1, 25, 30, MAX_STOCK])
expectations = st.sampled_from(["any", "any", "any", "current", "other"])
"""What If-Match names."""
amounts = st.sampled_from(
    [1, 25, -1, -2, "all", "more than all", "to the maximum", "above the maximum", "above the maximum"]
)
reasons = st.sampled_from(["restock", "Ünïcode\nlines"])
limits = st.integers(1, 4)
workers = st.integers(0, 1)
calls = st.lists(st.tuples(workers, st.sampled_from(VERBS)), min_size=1, max_size=3)
data = st.data()


def draw_evenly(data: st.DataObject, things: list[T], group_of: Callable[[T], str]) -> T:
    """Draw one of the things. Each group is drawn equally often, however many things it has."""
    group = data.draw(st.sampled_from(sorted({group_of(thing) for thing in things})), label="group")
    drawn: T = data.draw(st.sampled_from([thing for thing in things if group_of(thing) == group]))
    return drawn

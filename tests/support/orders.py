"""How an order appears in Redis, and random orders.

Only these functions write a whole order, so a new optional field of Order or OrderLine needs a change here only if it
appears differently in Redis, or if the tests of all orders must use it.
"""

from collections.abc import Iterable

from hypothesis import strategies as st

from service.domain.limits import MAX_ID, MAX_LINES, MAX_PRICE, MAX_QUANTITY, MAX_TOTAL
from service.domain.money import Cents, format_cents
from service.domain.order import Order, OrderLine, OrderStatus
from service.domain.times import Milliseconds
from service.storage.records import ORDER_FIELDS

HASH_FIELDS = frozenset(
    {
        *("id", "status", "total_price", "products", "created_at", "expires_at", "completed_at"),
        *("reference", "customer", "by", "idempotency_key", "returned", "refunded", "written_off"),
        *("returned_at", "return_keys"),
    }
)
"""All fields that the hash of an order may have in Redis. Each test that uses assert_balanced() checks this."""


def lines_text(lines: Iterable[OrderLine]) -> str:
    """Return the field `products` of an order in Redis."""
    return "\n".join(f"{line.product_id}: {line.quantity} x {format_cents(line.price)}" for line in lines)


def order_hash(order: Order, **fields: object) -> dict[str, str]:
    """Return the hash of an order in Redis, with these fields added or replaced.

    The hash has no field for a value that is None or the default of Order.
    """
    defaults = Order._field_defaults
    given = {name: value for name, value in order._asdict().items() if name not in defaults or value != defaults[name]}
    stored = {**given, "products": lines_text(order.lines), "total_price": format_cents(order.total_price), **fields}
    return {name: str(value) for name, value in stored.items() if name != "lines" and value is not None}


def order_row(order: Order, **fields: object) -> list[str | None]:
    """Return the values of ORDER_FIELDS in `order_hash(order, **fields)`."""
    stored = order_hash(order, **fields)
    return [stored.get(name) for name in ORDER_FIELDS]


# Random orders. `st.builds(Order, ...)` would also fill the optional fields.

ids = st.integers(1, MAX_ID)
prices = st.integers(0, MAX_PRICE).map(Cents)
quantities = st.integers(1, MAX_LINES * MAX_QUANTITY)
times = st.integers(0, 253_402_300_799_999).map(Milliseconds)


def order_lines(
    *,
    product_ids: st.SearchStrategy[int] = ids,
    quantities: st.SearchStrategy[int] = quantities,
    prices: st.SearchStrategy[Cents] = prices,
    max_size: int = 5,
) -> st.SearchStrategy[tuple[OrderLine, ...]]:
    """Return a strategy for the lines of an order."""
    line = st.tuples(product_ids, quantities, prices).map(lambda values: OrderLine(*values))
    return st.lists(line, min_size=1, max_size=max_size).map(tuple)


def orders(*statuses: str, expires_at: st.SearchStrategy[Milliseconds | None] = times) -> st.SearchStrategy[Order]:
    """Return a strategy for orders with one of these statuses, or with any status. The total is any amount."""
    totals = st.integers(0, MAX_TOTAL).map(Cents)
    status = st.sampled_from(statuses or [status.value for status in OrderStatus])
    return st.tuples(ids, order_lines(), totals, status, times, expires_at).map(lambda values: Order(*values))

"""Checks the rows that the audit has read, and returns findings. Pure functions: nothing is read here."""

import re

from service.domain.money import Cents, format_cents, parse_cents
from service.domain.order import UNITS_IN, OrderLine, parse_lines, parse_units
from service.domain.product import parse_sale_rules
from service.ops.audit_report import Finding
from service.ops.ledger import Units
from service.storage import keys
from service.storage.inspection import OrderRow, ProductRow, Unreadable
from service.storage.partition import Partition

_WHOLE_NUMBER, _AMOUNT = "a whole number, 0 or more", "an amount like 19.99"
_UNITS = "product and units, like 7: 2"

_is_number = re.compile("[0-9]{1,18}").fullmatch


def lines_of(row: OrderRow | Unreadable) -> tuple[OrderLine, ...] | None:
    """Return the lines of an order, None if they cannot be read."""
    try:
        return None if isinstance(row, Unreadable) else parse_lines(row.products or "")
    except ValueError:
        return None


def check_order(
    shop: str, order_id: int, row: OrderRow | Unreadable, lines: tuple[OrderLine, ...] | None
) -> list[Finding]:
    """Return what is wrong with one order and its places in the indexes. `lines` is lines_of(row)."""
    if isinstance(row, Unreadable):
        return [Finding(keys.order(shop, order_id), f"cannot be read: {row.error}")]
    wrong: list[str] = []
    if row.id != str(order_id):
        wrong.append(_not_expected("id", row.id, str(order_id)))
    if lines is None:
        wrong.append(_not_expected("products", row.products, "lines like 7: 2 x 19.99"))
    elif what := _wrong_total(row.total_price, lines):
        wrong.append(what)
    if not _is_number(row.created_at or ""):
        wrong.append(_not_expected("created_at", row.created_at, _WHOLE_NUMBER))
    if row.completed_at is not None:
        wrong += _check_completion(row.status, row.completed_at)
    if not (row.returned is None and row.refunded is None and row.written_off is None):
        wrong += _check_returned(row, lines)
    if row.status == "pending":
        wrong += _check_pending(shop, order_id, row)
    elif row.status not in UNITS_IN:
        wrong.append(_not_expected("status", row.status, f"one of {', '.join(UNITS_IN)}"))
    else:
        if row.holds_score is not None:
            wrong.append(f"is {row.status}, but is in {keys.holds(shop)}")
        if row.pending_score is not None:
            wrong.append(f"is {row.status}, but is in {keys.pending(shop)}")
    return [Finding(keys.order(shop, order_id), what) for what in wrong] if wrong else []


def _check_completion(status: str | None, completed_at: str) -> list[str]:
    if status != "completed":
        return [f"is {status}, but has completed_at {completed_at}"]
    return [] if _is_number(completed_at) else [_not_expected("completed_at", completed_at, _WHOLE_NUMBER)]


def returned_of(row: OrderRow | Unreadable) -> tuple[dict[int, int], dict[int, int]]:
    """Return the units of each product of an order that came back, and those that were written off.

    Nothing if they cannot be read: check_order() reports that.
    """
    if isinstance(row, Unreadable) or row.status != "completed":
        return {}, {}
    try:
        return parse_units(row.returned) if row.returned else {}, parse_units(
            row.written_off
        ) if row.written_off else {}
    except ValueError:
        return {}, {}


def _check_returned(row: OrderRow, lines: tuple[OrderLine, ...] | None) -> list[str]:
    """Return what is wrong with the returns of an order: more came back than was bought, or its price is another."""
    if row.status != "completed":
        return [f"is {row.status}, but units of it came back"]
    if row.returned is None:
        return ["has a field refunded or written_off, but no field returned"]
    returned, lost = _read_units(row.returned), {} if row.written_off is None else _read_units(row.written_off)
    if returned is None:
        return [_not_expected("returned", row.returned, _UNITS)]
    if lost is None:
        return [_not_expected("written_off", row.written_off, _UNITS)]
    wrong = [
        f"has returned {number} units of {product_id}, but {bought} were bought"
        for product_id, number in returned.items()
        if number > (bought := sum(line.quantity for line in lines or () if line.product_id == product_id))
    ]
    wrong += [
        f"has written off {number} units of {product_id}, but {returned.get(product_id, 0)} came back"
        for product_id, number in lost.items()
        if number > returned.get(product_id, 0)
    ]
    expected = format_cents(Cents(sum(line.price * returned.get(line.product_id, 0) for line in lines or ())))
    if row.refunded != expected:
        wrong.append(_not_expected("refunded", row.refunded, expected))
    return wrong


def _read_units(text: str) -> dict[int, int] | None:
    try:
        return parse_units(text)
    except ValueError:
        return None


def _wrong_total(total: str | None, lines: tuple[OrderLine, ...]) -> str | None:
    expected = 0
    for line in lines:
        expected += line.price * line.quantity
    text = format_cents(Cents(expected))
    if total == text:
        return None
    try:
        cents = parse_cents(total or "")
    except ValueError:
        return _not_expected("total_price", total, _AMOUNT)
    return None if cents == expected else f"has total_price {total}, but the sum of its lines is {text}"


def _check_pending(shop: str, order_id: int, row: OrderRow) -> list[str]:
    wrong: list[str] = []
    holds, pending = keys.holds(shop), keys.pending(shop)
    if row.expires_at is None or not _is_number(row.expires_at):
        wrong.append(_not_expected("expires_at", row.expires_at, _WHOLE_NUMBER))
    elif row.holds_score is not None and not _same(row.holds_score, row.expires_at):
        wrong.append(f"has expires_at {row.expires_at}, but its score in {holds} is {row.holds_score}")
    if row.holds_score is None:
        wrong.append(f"is pending, but is not in {holds}: it would never expire")
    if row.pending_score is None:
        wrong.append(f"is pending, but is not in {pending}")
    elif not _same(row.pending_score, order_id):
        wrong.append(f"is pending, but its score in {pending} is {row.pending_score}, expected {order_id}")
    return wrong


def indexes_of(shop: str, row: OrderRow) -> list[str]:
    """Return the indexes of the order's customer and reference."""
    return [
        *([] if row.customer is None else [keys.customer_orders(shop, row.customer)]),
        *([] if row.reference is None else [keys.reference_orders(shop, row.reference)]),
    ]


def check_score(shop: str, index: str, order_id: int, score: str | None) -> list[Finding]:
    """Return a finding if an order is not in the index of its customer or reference, or not at its place."""
    if score is None:
        return [Finding(keys.order(shop, order_id), f"is not in {index}")]
    if score.startswith("WRONGTYPE"):
        return []  # reading the index reports it
    if not _same(score, order_id):
        return [Finding(keys.order(shop, order_id), f"has the score {score} in {index}, expected {order_id}")]
    return []


def check_place(shop: str, order_id: int, row: OrderRow | Unreadable, partition: Partition) -> list[Finding]:
    """Return a finding if an order belongs to another partition than the one in which it is."""
    wrong = []
    if (place := partition.all.of_order(order_id)) != partition.number:
        wrong.append(f"is in partition {partition.number}, but its id is one of partition {place}")
    customer = None if isinstance(row, Unreadable) else row.customer
    if customer is not None and (place := partition.all.of_text(customer)) != partition.number:
        wrong.append(f"is in partition {partition.number}, but its customer belongs to partition {place}")
    return [Finding(keys.order(shop, order_id), what) for what in wrong]


def check_product(
    shop: str, product_id: int, row: ProductRow | Unreadable, units: Units, *, in_partition: bool = False
) -> list[Finding]:
    """Return what is wrong with one product. `units`: its units that orders hold and have sold.

    `in_partition`: its units may have come from another partition before the rest of the product.
    """
    key, index = keys.product(shop, product_id), keys.products(shop)
    if isinstance(row, Unreadable):
        return [Finding(key, f"cannot be read: {row.error}")]
    if not row.exists:
        if row.index_score is not None:
            return [Finding(index, f"has the member {product_id}, but there is no such product")]
        if units.held or units.sold:
            what = f"does not exist, but its orders hold {units.held} units and have sold {units.sold}"
            return [Finding(key, what)]
        return []
    wrong: list[str] = []
    if in_partition and row.id is None and row.withdrawn == "1" and row.index_score is None:
        return [Finding(key, what) for what in _check_units(row, units)]
    if row.id != str(product_id):
        wrong.append(_not_expected("id", row.id, str(product_id)))
    try:
        parse_cents(row.price or "")
    except ValueError:
        wrong.append(_not_expected("price", row.price, _AMOUNT))
    try:
        if row.sale_rules is not None:
            parse_sale_rules(row.sale_rules)
    except ValueError:
        wrong.append(_not_expected("sale_rules", row.sale_rules, "rows like limit_per_customer: 2"))
    if row.withdrawn == "0":
        if row.index_score is None:
            wrong.append(f"is on sale, but is not in {index}")
        elif not _same(row.index_score, product_id):
            wrong.append(f"is on sale, but its score in {index} is {row.index_score}, expected {product_id}")
    elif row.withdrawn != "1":
        wrong.append(_not_expected("withdrawn", row.withdrawn, "0 or 1"))
    elif row.index_score is not None:
        wrong.append(f"is withdrawn, but is in {index}")
    wrong += _check_units(row, units)
    return [Finding(key, what) for what in wrong]


def _check_units(row: ProductRow, units: Units) -> list[str]:
    counters = {"stock": row.stock, "held": row.held, "sold": row.sold, "received": row.received}
    numbers = {name: int(value) for name, value in counters.items() if value is not None and _is_number(value)}
    if len(numbers) < len(counters):
        return [_not_expected(name, counters[name], _WHOLE_NUMBER) for name in counters if name not in numbers]
    wrong: list[str] = []
    stock, held, sold, received = numbers["stock"], numbers["held"], numbers["sold"], numbers["received"]
    if received != stock + held + sold:
        wrong.append(f"has received {received}, but stock {stock} + held {held} + sold {sold} is {stock + held + sold}")
    if held != units.held:
        wrong.append(f"has held {held}, but its orders add up to {units.held}")
    wrong += _check_with_archived("sold", str(sold), units.sold, "archived", row.archived)
    wrong += _check_with_archived(
        *("written_off", row.written_off or "0", units.written_off),
        *("archived_written_off", row.archived_written_off),
    )
    return wrong


def _check_with_archived(
    name: str, counted: str, of_orders: int, archived_name: str, of_archived: str | None
) -> list[str]:
    """Compare a counter with what the orders add up to, and with what it says of archived orders."""
    if of_archived is None:
        return [] if counted == str(of_orders) else [f"has {name} {counted}, but its orders add up to {of_orders}"]
    if not _is_number(of_archived):
        return [_not_expected(archived_name, of_archived, _WHOLE_NUMBER)]
    if counted == str(of_orders + int(of_archived)):
        return []
    return [f"has {name} {counted}, but its orders add up to {of_orders}, and {archived_name} to {of_archived}"]


def check_indexed_order(index: str, order_id: int, row: OrderRow | Unreadable) -> list[Finding]:
    """Return a finding if an index has a member without an order.

    If there is an order, check_order() compares the order with its indexes.
    """
    if isinstance(row, OrderRow) and not row.exists:
        return [Finding(index, f"has the member {order_id}, but there is no such order")]
    return []


def _not_expected(field: str, value: str | None, expected: str) -> str:
    if value is None:
        return f"has no field {field}"
    return f"has {field} {value[:100]!r}, expected {expected}"


def _same(score: str, number: str | int) -> bool:
    """Return whether a score, which is a double, is exactly this number."""
    return float(score) == float(number)

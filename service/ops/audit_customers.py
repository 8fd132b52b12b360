"""The part of the audit about customers and references: the counts of units, and the indexes of orders.

A customer's count must be what the customer's orders hold and have bought. Both change meanwhile. So the audit reads
the orders of some customers, then their counts with the id of the last event, and applies the events in between.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import NamedTuple

from service.domain.order import UNITS_IN
from service.ops.audit_checks import check_indexed_order, lines_of, returned_of
from service.ops.audit_keys import check_members
from service.ops.audit_report import EVENTS_MISSING, AuditInconclusive, Finding
from service.ops.audit_steps import BATCH, events_between
from service.ops.ledger import ARCHIVED, OrderChange, order_changes
from service.storage import keys
from service.storage.inspection import OrderRow, Unreadable
from service.storage.store import Store

_MAX_SMALL = 20
"""Orders in an index that is read together with others. A larger one is read for itself, in steps."""


class _OrderUnits(NamedTuple):
    """What one order counts for its customer."""

    status: str
    bought: dict[int, int]
    returned: dict[int, int]


class _CustomerLedger:
    """The orders of some customers, as they were read and after events."""

    def __init__(self, customers: Iterable[str]) -> None:
        self._orders: dict[str, dict[int, _OrderUnits]] = {customer: {} for customer in customers}

    def set_order(self, customer: str, order_id: int, row: OrderRow) -> None:
        bought = {line.product_id: line.quantity for line in lines_of(row) or ()}
        self._orders[customer][order_id] = _OrderUnits(row.status or "", bought, returned_of(row)[0])

    def apply(self, change: OrderChange) -> None:
        """Bring an order to its state after an event."""
        if change.status == ARCHIVED:  # the event does not name the customer
            for known in self._orders.values():
                known.pop(change.order_id, None)
            return
        orders = self._orders.get(change.customer or "")
        if orders is None:
            return
        before = orders.get(change.order_id, _OrderUnits("", {}, {}))
        bought = before.bought if change.lines is None else {line.product_id: line.quantity for line in change.lines}
        returned = before.returned if change.lines is not None else dict(change.returned)
        orders[change.order_id] = _OrderUnits(change.status, bought, returned)

    def units(self, customer: str) -> dict[int, int]:
        """Return the units of each product that a customer holds and has bought, without products of 0 units."""
        units: dict[int, int] = {}
        for order in self._orders[customer].values():
            if UNITS_IN.get(order.status) is not None:
                for product_id, quantity in order.bought.items():
                    units[product_id] = units.get(product_id, 0) + quantity - order.returned.get(product_id, 0)
        return {product_id: number for product_id, number in units.items() if number}


async def audit_names(store: Store, shop: str, progress: Callable[[int], object]) -> list[Finding]:
    """Check the counts of all customers, and the indexes of all customers and references.

    `progress`: see `audit`. Raise AuditInconclusive if events are missing.
    """
    counts, customers, references = name_prefixes(shop)
    findings: list[Finding] = []
    async for names in store.inspection.scan_keys():
        batch = sorted({name.removeprefix(customers) for name in names if name.startswith(customers)})
        if batch:
            findings += await _audit_customers(store, shop, batch)
        named = sorted({name.removeprefix(references) for name in names if name.startswith(references)})
        findings += await _audit_references(store, shop, named)
        counted = sorted({name.removeprefix(counts) for name in names if name.startswith(counts)})
        indexes = [keys.customer_orders(shop, customer) for customer in counted]
        members = await store.inspection.index_members(indexes, 1) if indexes else []
        for customer, first in zip(counted, members, strict=True):
            # Counts of a customer that no order explains: all orders of this customer may be archived.
            if not first and await _audit_customers(store, shop, [customer]):
                what = "counts units, but this customer has no orders"
                findings.append(Finding(keys.customer(shop, customer), what))
        progress(len(batch))
    return findings


def name_prefixes(shop: str) -> tuple[str, str, str]:
    """Return how the keys begin of the counts of customers, and of the indexes of customers and references."""
    return keys.customer(shop, ""), keys.customer_orders(shop, ""), keys.reference_orders(shop, "")


async def _audit_customers(store: Store, shop: str, customers: Sequence[str]) -> list[Finding]:
    """Compare the counts and the indexes of these customers with their orders.

    Raise AuditInconclusive if the event stream does not have all events that are needed.
    """
    start = await store.events.last_id()
    ledger = _CustomerLedger(customers)
    findings: list[Finding] = []
    of_index = {keys.customer_orders(shop, customer): customer for customer in customers}
    async for index, order_id, row, found in _indexed_orders(store, list(of_index)):
        findings += found
        if isinstance(row, OrderRow) and row.customer == of_index[index]:
            ledger.set_order(of_index[index], order_id, row)
        elif row is not None:
            findings.append(Finding(index, f"has the member {order_id}, which is no order of this customer"))
    moment, rows = await store.inspection.audit_customers(customers)
    async for events in events_between(store.events, start, moment):
        for event in events:
            for change in order_changes(event):
                ledger.apply(change)
    for customer, counts in zip(customers, rows, strict=True):
        key = keys.customer(shop, customer)
        if isinstance(counts, Unreadable):
            findings.append(Finding(key, f"cannot be read: {counts.error}"))
            continue
        expected = {str(product_id): str(number) for product_id, number in ledger.units(customer).items()}
        counts = _take_archived(counts, expected)
        findings += [
            Finding(key, f"has {counts.get(id_, 'no')} units of {id_}, but its orders add up to {expected.get(id_, 0)}")
            for id_ in sorted(counts.keys() | expected.keys())
            if counts.get(id_) != expected.get(id_)
        ]
    if not await store.events.has_all_after(start):
        raise AuditInconclusive(EVENTS_MISSING)
    return findings


def _take_archived(counts: dict[str, str], expected: dict[str, str]) -> dict[str, str]:
    """Add the units of archived orders to those that are expected. Return the other counts, those by product id."""
    for name, number in counts.items():
        product_id = name.removeprefix("archived:")
        if product_id != name and number.isascii() and number.isdigit():
            expected[product_id] = str(int(expected.get(product_id, 0)) + int(number))
    return {name: number for name, number in counts.items() if not name.startswith("archived:")}


async def _audit_references(store: Store, shop: str, references: Sequence[str]) -> list[Finding]:
    """Find members of the indexes of references that are not orders with this reference."""
    of_index = {keys.reference_orders(shop, reference): reference for reference in references}
    findings = []
    async for index, order_id, row, found in _indexed_orders(store, list(of_index)):
        findings += found
        if row is not None and (isinstance(row, Unreadable) or row.reference != of_index[index]):
            findings.append(Finding(index, f"has the member {order_id}, which is no order with this reference"))
    return findings


Indexed = tuple[str, int, OrderRow | Unreadable | None, list[Finding]]
"""An index, the id of an order in it, its row, None if it does not exist, and what is wrong with the member."""


async def _indexed_orders(store: Store, indexes: Sequence[str]) -> AsyncIterator[Indexed]:
    """Yield all orders in these indexes. Small indexes are read together: most have one order or two."""
    small: list[tuple[str, int]] = []
    for at in range(0, len(indexes), BATCH):
        batch = indexes[at : at + BATCH]
        for index, members in zip(batch, await store.inspection.index_members(batch, _MAX_SMALL + 1), strict=True):
            if members and members[0].startswith("WRONGTYPE"):
                yield index, 0, None, [Finding(index, f"cannot be read: {members[0]}")]
            elif len(members) > _MAX_SMALL:
                async for step in store.inspection.scan_index(index):
                    order_ids, findings = check_members(index, step)
                    async for indexed in _read_orders(store, [(index, order_id) for order_id in order_ids]):
                        yield indexed
                    yield index, 0, None, findings
            else:
                order_ids, findings = check_members(index, members)
                small += [(index, order_id) for order_id in order_ids]
                yield index, 0, None, findings
        async for indexed in _read_orders(store, small):
            yield indexed
        small.clear()


async def _read_orders(store: Store, entries: Sequence[tuple[str, int]]) -> AsyncIterator[Indexed]:
    for at in range(0, len(entries), BATCH):
        batch = entries[at : at + BATCH]
        _, rows = await store.inspection.audit_orders([order_id for _, order_id in batch])
        for (index, order_id), row in zip(batch, rows, strict=True):
            found = check_indexed_order(index, order_id, row)
            if found and await store.inspection.scores([(index, order_id)]) == [None]:
                continue  # it was archived after its index was read
            yield index, order_id, None if found else row, found

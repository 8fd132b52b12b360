"""Checks that stock and orders agree, for each product: `holdfast audit`.

`received = stock + held + sold` must be true, and `held` and `sold` must be the sums over the orders.

The service may run during the audit. Two keys are compared only if they were read at the same moment:

- One script reads a product with its index, or an order with its indexes.
- Reading all orders takes some time, and some orders change meanwhile. But each change writes an event in
  the same script. First the audit counts each order as it was read. Then it applies all events since the start
  of the audit. The result, the ledger, is the exact state after a certain event.
- Each batch of products is read together with the id of the last event. The audit applies all events up to this
  event to the ledger before it compares the batch.

If the stream was cut during the audit, events may be missing. Then the audit raises AuditInconclusive.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

from service.domain.errors.storage import StorageUnavailable
from service.domain.event import event_position
from service.domain.limits import MAX_ID
from service.ops.audit_archive import archived_ids, skipped_ids
from service.ops.audit_checks import (
    check_indexed_order,
    check_order,
    check_place,
    check_product,
    check_score,
    indexes_of,
    lines_of,
    returned_of,
)
from service.ops.audit_customers import audit_names, name_prefixes
from service.ops.audit_keys import (
    check_counter,
    check_event,
    check_members,
    check_names,
    check_type,
    counters,
    expected_types,
    partition_types,
)
from service.ops.audit_report import EVENTS_MISSING, AuditInconclusive, Finding, Report, ShopIsEmpty
from service.ops.audit_steps import BATCHES_AHEAD, batches, events_between, let_commands_leave, read_ahead
from service.ops.ledger import Ledger, order_changes
from service.storage import keys
from service.storage.inspection import OrderRow, ProductRow, Unreadable
from service.storage.sender import ErrorReply
from service.storage.store import Store

MAX_ATTEMPTS: Final = 3
"""How often the audit begins, if Redis is restarted or replaced during it."""


_Rows = tuple[str, Sequence[OrderRow | Unreadable]]
"""The id of the last event, and the rows of orders, all read at one moment."""


async def audit(store: Store, shop: str, progress: Callable[[int], object] = lambda count: None) -> Report:
    """Read and check everything, in bounded batches. Call `progress` with the number of keys of each batch.

    If Redis is restarted or replaced meanwhile, its cursors mean nothing any more, and changes that were read may be
    lost: the audit begins again. Raise AuditInconclusive if that happens again and again, if events are missing, and if
    the shop is empty.
    """
    await store.inspection.count_keys()  # the first command: now the server is known
    for _ in range(MAX_ATTEMPTS):
        server_id = store.inspection.server_id
        try:
            report = await _Audit(store, shop, progress).run()
        except (AuditInconclusive, ErrorReply, StorageUnavailable):
            if store.inspection.server_id == server_id:
                raise
            continue
        if store.inspection.server_id != server_id:
            continue
        if not (report.products or report.orders or report.findings):
            raise ShopIsEmpty(f"the shop {shop!r} is empty: it has no product and no order")
        return report
    raise AuditInconclusive(f"Redis was restarted or replaced during each of {MAX_ATTEMPTS} attempts")


class _Audit:
    """One run: reads the rows, calls the checks, and counts the orders in the ledger."""

    def __init__(self, store: Store, shop: str, progress: Callable[[int], object]) -> None:
        self.store = store
        self.shop = shop
        self.partition = store.partition
        self.progress = progress
        self.report = Report()
        self.ledger = Ledger()
        self.position = "0-0"
        """The last event that the ledger includes."""
        self.product_ids: set[int] = set()
        self.has_names = False
        """Whether there is any key of a customer or a reference."""
        self.name_prefixes = name_prefixes(shop)
        self.id_step = 1 if self.partition is None else self.partition.all.count
        self.server_id = ""
        """Of the server from which all orders must be read."""
        self.archived = archived_ids(shop, [])
        self.skipped = skipped_ids(shop, [])
        self.counts_archived = False
        """Whether a product counts units of archived orders."""
        self.findings: dict[Finding, None] = {}
        """A dict, because it keeps the order and has no duplicates: SCAN may return a key twice."""

    async def run(self) -> Report:
        types = expected_types(self.shop)
        if self.partition is not None:
            types |= partition_types(self.shop, self.partition.number, self.partition.all.count)
        for key, expected in types.items():
            self.add_findings(check_type(key, await self.store.inspection.key_type(key), expected))
        if not self.findings:
            for key in counters(self.shop):
                self.add_findings(check_counter(key, await self.store.inspection.counter(key)))
            await self.read_all()
        else:
            self.report.is_readable = False
        self.report.product_ids = self.product_ids | self.ledger.product_ids()
        self.report.findings = list(self.findings)
        return self.report

    async def read_all(self) -> None:
        start = self.position = await self.store.events.last_id()
        await self.check_events(start)
        await self.read_archived()
        await self.read_orders()
        await self.read_indexes()
        if self.has_names:
            self.add_findings(await audit_names(self.store, self.shop, self.progress))
        await self.follow_events(await self.store.events.last_id())
        await self.read_products()
        if self.counts_archived and not [found async for found in self.store.archive.ranges()]:
            what = "has no id, but products count units of archived orders"
            self.add_findings([Finding(keys.archived(self.shop), what)])
        newest = await self.store.events.last_id()
        if event_position(newest) < event_position(self.position) or not await self.store.events.has_all_after(start):
            raise AuditInconclusive(EVENTS_MISSING)

    def add_findings(self, findings: Iterable[Finding]) -> None:
        self.findings.update(dict.fromkeys(findings))

    async def read_archived(self) -> None:
        """Read and check the ids that no order in Redis may have: those of archived orders, and skipped ones.

        They are read before the orders.
        """
        for _ in range(MAX_ATTEMPTS):  # because ranges may be joined while they are read
            self.archived = archived_ids(
                self.shop, [found async for found in self.store.archive.ranges()], self.id_step
            )
            if not self.archived.wrong:
                break
        self.skipped = skipped_ids(self.shop, [found async for found in self.store.skipped.ranges()], self.id_step)
        last_id = await self.last_order_id()
        self.add_findings(self.archived.check(last_id))
        self.add_findings(self.skipped.check(last_id))
        self.report.archived = len(self.archived)

    async def read_orders(self) -> None:
        """Read and check all orders, and count them. Remember which products there are."""
        prefix = keys.prefix(self.shop)
        last_id = await self.last_order_id()
        self.server_id = self.store.inspection.server_id
        ahead: deque[tuple[Sequence[int], Awaitable[_Rows]]] = deque()
        async for names in read_ahead(self.store.inspection.scan_keys()):
            product_ids, findings = check_names(names, f"{prefix}product:")
            self.product_ids.update(product_ids)
            self.add_findings(findings)
            self.has_names = self.has_names or any(name.startswith(self.name_prefixes) for name in names)
            order_ids, findings = check_names(names, f"{prefix}order:")
            self.add_findings(findings)
            if order_ids and max(order_ids) > last_id:
                last_id = await self.last_order_id()
            for order_id in order_ids:
                if order_id > last_id:
                    what = f"is not listed by GET /orders: {keys.order_ids(self.shop)} is only {last_id}"
                    self.add_findings([Finding(keys.order(self.shop, order_id), what)])
            unread = [order_id for order_id in dict.fromkeys(order_ids) if not self.ledger.knows(order_id)]
            for batch in batches(unread):
                # Redis reads these orders while the audit checks earlier ones.
                ahead.append((batch, asyncio.ensure_future(self.store.inspection.audit_orders(batch))))
                await let_commands_leave()
                if len(ahead) > BATCHES_AHEAD:
                    await self.check_orders(*ahead.popleft())
        while ahead:
            await self.check_orders(*ahead.popleft())

    async def check_orders(self, order_ids: Sequence[int], reading: Awaitable[_Rows]) -> None:
        """Wait until orders have been read, then check and count them."""
        _, rows = await reading
        if self.store.inspection.server_id != self.server_id:
            raise AuditInconclusive("Redis was restarted or replaced")
        for order_id, row in zip(order_ids, rows, strict=True):
            if self.ledger.knows(order_id):
                continue  # SCAN may return a key twice
            if isinstance(row, Unreadable) or row.exists or not await self.was_archived(order_id, row):
                self.count_order(order_id, row)
        await self.check_named(order_ids, rows)
        self.progress(len(order_ids))

    async def check_named(self, order_ids: Sequence[int], rows: Sequence[OrderRow | Unreadable]) -> None:
        """Find orders with a customer or a reference that are not in the index of it. They never leave that index."""
        entries = [
            (index, order_id)
            for order_id, row in zip(order_ids, rows, strict=True)
            if isinstance(row, OrderRow) and not (row.customer is None and row.reference is None)
            for index in indexes_of(self.shop, row)
        ]
        if not entries:
            return
        self.has_names = True
        for (index, order_id), score in zip(entries, await self.store.inspection.scores(entries), strict=True):
            if found := check_score(self.shop, index, order_id, score):
                _, [row] = await self.store.inspection.audit_orders([order_id])
                if not await self.was_archived(order_id, row):
                    self.add_findings(found)

    async def was_archived(self, order_id: int, row: OrderRow | Unreadable) -> bool:
        """Return whether an order was removed after its id was read."""
        if isinstance(row, Unreadable) or row.exists:
            return False
        return await self.store.inspection.key_type(keys.order(self.shop, order_id)) == "none"

    async def last_order_id(self) -> int:
        try:
            return await self.store.orders.last_id()
        except ValueError:
            return MAX_ID  # there is a finding about it already

    def count_order(self, order_id: int, row: OrderRow | Unreadable) -> None:
        if self.archived or self.skipped:
            self.add_findings([*self.archived.check_order(order_id), *self.skipped.check_order(order_id)])
        lines = lines_of(row)
        if findings := check_order(self.shop, order_id, row, lines):
            self.add_findings(findings)
        if self.partition is not None:
            self.add_findings(check_place(self.shop, order_id, row, self.partition))
        status = "" if isinstance(row, Unreadable) else row.status or ""
        self.ledger.set_order(order_id, status, lines or ())
        if isinstance(row, OrderRow) and (row.returned or row.written_off):
            self.ledger.set_returned(order_id, *returned_of(row))
        self.report.orders += 1
        self.report.pending += status == "pending"

    async def read_indexes(self) -> None:
        """Find members of an index that have no order or product.

        read_orders() has already found members that do not agree with their order.
        """
        for index in (keys.holds(self.shop), keys.pending(self.shop)):
            async for members in self.store.inspection.scan_index(index):
                order_ids, findings = check_members(index, members)
                self.add_findings(findings)
                for batch in batches(order_ids):
                    _, rows = await self.store.inspection.audit_orders(batch)
                    for order_id, row in zip(batch, rows, strict=True):
                        found = check_indexed_order(index, order_id, row)
                        if found and await self.store.inspection.scores([(index, order_id)]) != [None]:
                            self.add_findings(found)
        index = keys.products(self.shop)
        async for members in self.store.inspection.scan_index(index):
            product_ids, findings = check_members(index, members)
            self.product_ids.update(product_ids)
            self.add_findings(findings)

    async def read_products(self) -> None:
        """Read and check all products: those that have a key, and those that only the index or orders name."""
        for batch in batches(sorted(self.product_ids | self.ledger.product_ids())):
            moment, rows = await self.store.inspection.audit_products(batch)
            await self.follow_events(moment)
            for product_id, row in zip(batch, rows, strict=True):
                if isinstance(row, Unreadable) or row.exists:
                    self.report.products += 1
                self.counts_archived |= isinstance(row, ProductRow) and row.archived is not None
                units = self.ledger.units(product_id)
                self.add_findings(
                    check_product(self.shop, product_id, row, units, in_partition=self.partition is not None)
                )
            self.progress(len(batch))

    async def check_events(self, end: str) -> None:
        """Check the entries of the stream up to the event `end`."""
        async for events in read_ahead(events_between(self.store.events, "0-0", end)):
            for event in events:
                if findings := check_event(self.shop, event):
                    self.add_findings(findings)

    async def follow_events(self, end: str) -> None:
        """Bring the ledger from the state after the event `position` to the state after the event `end`."""
        async for events in events_between(self.store.events, self.position, end):
            for event in events:
                self.add_findings(check_event(self.shop, event))
                for change in order_changes(event):
                    self.ledger.apply(change)
            self.report.events_followed += len(events)
            self.position = events[-1].id

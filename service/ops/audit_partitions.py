"""The audit of a shop with several partitions: each one by the laws of a shop, then the laws across all of them.

The units of a product that all partitions have taken in, less those that they have given away, plus those on their way,
are 0. Only this law sees a unit that was lost or doubled on its way: each partition by itself is balanced.

Units move while the partitions are read. What a lost unit leaves behind is the same in each read, what a transfer
during a read does is not. So a product that is off is read again, until several reads agree.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from service.ops.audit import audit
from service.ops.audit_report import AuditInconclusive, Finding, Report, ShopIsEmpty
from service.ops.audit_transfers import (
    Seen,
    check_catalogue,
    check_marks,
    check_moved,
    check_sent,
    excess_finding,
    excess_units,
    is_current,
    is_one_moment,
)
from service.storage import keys
from service.storage.inspection import PartitionRows, Unreadable
from service.storage.partitioned import AnyStore, PartitionedStore
from service.storage.store import Store

_BATCH: Final = 500
"""Products that one script reads in each partition: Redis executes nothing else meanwhile."""

AGREEING_READS: Final = 5
"""So many reads in succession must find the same number of lost units. One in some thousand reads is wrong by itself:
a transfer must be given, taken in and settled between the moments at which two partitions are read."""

MAX_READS: Final = 200
"""Reads of a batch of products, after which the audit gives up: that is some seconds."""

PAUSE_SECONDS: Final = 0.01


async def audit_whole_shop(
    store: AnyStore, shop: str, progress: Callable[[int], object] = lambda count: None
) -> Report:
    """Audit a shop, with or without partitions. See `audit` for what it raises, and for `progress`."""
    if isinstance(store, Store):
        return await audit(store, shop, progress)
    reports = [await _audit_partition(partition, shop, progress) for partition in store.partitions]
    total = Report(
        products=max(report.products for report in reports),
        orders=sum(report.orders for report in reports),
        pending=sum(report.pending for report in reports),
        archived=sum(report.archived for report in reports),
        events_followed=sum(report.events_followed for report in reports),
        findings=[finding for report in reports for finding in report.findings],
        product_ids=set().union(*[report.product_ids for report in reports]),
    )
    if all(report.is_readable for report in reports):
        law = _Across(store, shop)
        await law.check(total.product_ids)
        total.products = law.products
        total.findings += law.findings
    if not (total.products or total.orders or total.findings):
        raise ShopIsEmpty(f"the shop {shop!r} is empty: it has no product and no order")
    return total


async def _audit_partition(store: Store, shop: str, progress: Callable[[int], object]) -> Report:
    assert store.partition is not None
    try:
        return await audit(store, keys.partition(shop, store.partition.number), progress)
    except ShopIsEmpty:
        return Report()


class _Across:
    """The laws across partitions. `products`: how many there are."""

    def __init__(self, store: PartitionedStore, shop: str) -> None:
        self.products = 0
        self._found: dict[Finding, None] = {}
        self._store = store
        self._shop = shop

    @property
    def findings(self) -> list[Finding]:
        return list(self._found)

    async def check(self, product_ids: Iterable[int]) -> None:
        """Check all these products, and those on their way."""
        seen = await self._read(())
        on_their_way = {
            int(member.split()[1])
            for partition in seen.partitions
            for members in partition.outgoing.values()
            for member, _ in members
            if member.count(" ") == 2 and member.split()[1].isdecimal()
        }
        self._add(check_marks(seen))
        ids = sorted({*product_ids, *on_their_way})
        for start in range(0, len(ids) or 1, _BATCH):
            await self._check_batch(ids[start : start + _BATCH])

    async def _check_batch(self, product_ids: Sequence[int]) -> None:
        seen = await self._read(product_ids)
        self.products += sum(
            any(isinstance(row, Unreadable) or row.version is not None for row in rows) for _, rows in seen.rows()
        )
        self._add(check_marks(seen))
        self._add(check_moved(seen))
        # If all is well in one read, there is nothing to ask again.
        if not (is_one_moment(seen) and is_current(seen) and not excess_units(seen)):
            await self._check_again(seen)

    async def _check_again(self, before: Seen) -> None:
        """Read a batch again, until it is known of each product whether units are lost."""
        undecided = set(before.product_ids)
        agreeing: dict[int, tuple[int, int]] = {}
        """The excess of a product, and how many reads in succession have found it."""
        for _ in range(MAX_READS):
            seen = await self._read(before.product_ids)
            never_sent = check_sent(before, seen)
            self._add([*never_sent, *check_catalogue(before, seen)])
            before = seen
            if is_one_moment(seen) or never_sent:
                excess = excess_units(seen)
                undecided &= excess.keys()
                for product_id in sorted(undecided):
                    units, reads = agreeing.get(product_id, (0, 0))
                    agreeing[product_id] = excess[product_id], reads + 1 if units == excess[product_id] else 1
                    if agreeing[product_id][1] == AGREEING_READS:
                        self._add([excess_finding(seen, product_id, excess[product_id])])
                        undecided.discard(product_id)
            if not undecided:
                return
            await asyncio.sleep(PAUSE_SECONDS)
        raise AuditInconclusive(
            f"units of product {min(undecided)} moved between partitions during each of {MAX_READS} reads: "
            "run the audit when there are fewer changes"
        )

    async def _read(self, product_ids: Sequence[int]) -> Seen:
        async def read(store: Store) -> PartitionRows:
            assert store.partition is not None
            others = [number for number in range(len(self._store.partitions)) if number != store.partition.number]
            return await store.inspection.audit_partition(others, product_ids)

        return Seen(self._shop, product_ids, await self._store.gather(read))

    def _add(self, findings: Iterable[Finding]) -> None:
        self._found.update(dict.fromkeys(findings))

"""The part of the audit about ids without an order in Redis: archived orders, and ids that were skipped.

Pure functions: nothing is read here.

How many units they sold is checked with each product: audit_checks.py.
"""

from bisect import bisect_left
from collections.abc import Sequence

from service.ops.audit_keys import is_id
from service.ops.audit_report import Finding
from service.storage import keys
from service.storage.id_ranges import Range


class UnusedIds:
    """Ids that no order in Redis may have, from the ranges in a key.

    `wrong`: what is wrong with damaged ranges, which are left out.
    """

    def __init__(self, shop: str, key: str, reason: str, ranges: Sequence[Range], step: int) -> None:
        """`reason`: what the key says about its ids. `ranges`: sorted by their last id, as Redis has them.

        `step`: from one order id of a partition to the next; 1: the shop has no partitions.
        """
        self._step = step
        self._shop = shop
        self._key = key
        self._reason = reason
        self.wrong: list[str] = []
        self._first: list[int] = []
        self._last: list[int] = []
        for first, last in ranges:
            if not (is_id(first) and is_id(last) and int(first) <= int(last) and (int(last) - int(first)) % step == 0):
                self.wrong.append(f"has the range {first!r} to {last}, which is no range of ids")
            elif self._last and int(first) <= self._last[-1]:
                self.wrong.append(
                    f"has the range {first} to {last}, which overlaps the range that ends at {self._last[-1]}"
                )
            else:
                self._first.append(int(first))
                self._last.append(int(last))

    def __bool__(self) -> bool:
        return bool(self._last)

    def __len__(self) -> int:
        return (sum(self._last) - sum(self._first)) // self._step + len(self._first)

    def check(self, last_id: int) -> list[Finding]:
        """Return what is wrong with the ranges. `last_id`: the counter of order ids, read after the ranges."""
        findings = [Finding(self._key, what) for what in self.wrong]
        if self._last and self._last[-1] > last_id:
            counter = keys.order_ids(self._shop)
            findings.append(Finding(self._key, f"has ids up to {self._last[-1]}, but {counter} is only {last_id}"))
        return findings

    def check_order(self, order_id: int) -> list[Finding]:
        """Return a finding if an order that is in Redis has one of these ids: it would count twice."""
        at = bisect_left(self._last, order_id)
        if at == len(self._last) or self._first[at] > order_id or (order_id - self._first[at]) % self._step:
            return []
        return [Finding(keys.order(self._shop, order_id), f"exists, but {self._key} says that {self._reason}")]


def archived_ids(shop: str, ranges: Sequence[Range], step: int = 1) -> UnusedIds:
    """Return the ids of archived orders. `step`: see UnusedIds."""
    return UnusedIds(shop, keys.archived(shop), "this order was archived", ranges, step)


def skipped_ids(shop: str, ranges: Sequence[Range], step: int = 1) -> UnusedIds:
    """Return the ids that a restore has skipped, or a partition that was far behind the others."""
    return UnusedIds(shop, keys.skipped(shop), "no order has this id", ranges, step)

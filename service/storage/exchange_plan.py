"""The plan of an exchange of units: which partition gives how many to which, for the orders that wait."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from service.storage.transfers import Units, Wish


class Waiting(NamedTuple):
    """An order that waits for units in a partition. `found`: the units of the products of which it has too few.

    `deadline`: in event-loop time.
    """

    partition: int
    needs: Mapping[int, int]
    found: Mapping[int, int]
    attempt: int
    deadline: float
    totals: "asyncio.Future[dict[int, int] | None]"


class Plan:
    """The transfers of a cycle: `wishes` by source and destination, then by product."""

    def __init__(self, partitions: int) -> None:
        """Begin without transfers. `partitions`: their number."""
        self.wishes: dict[tuple[int, int], dict[int, Wish]] = {}
        self.totals: dict[int, int] = {}
        self._partitions = partitions
        self._rows: Sequence[Mapping[int, Units]] = ()
        self._local: list[dict[int, int]] = []
        """Units in each partition that no order of this cycle was promised."""

    def note(self, product_ids: Sequence[int], looks: Sequence[Mapping[int, Units] | None]) -> None:
        """Note what a look found. A partition that did not answer has nothing to give.

        Without that partition, the sum of stock - moved is wrong by the units that moved to or from it. But the stock
        of each other partition can be used.
        """
        nothing = dict.fromkeys(product_ids, Units(0, 0, is_known=False))
        self._rows = [nothing if row is None else row for row in looks]
        self.totals = add_up(self._rows)
        self._local = [{id_: units.stock for id_, units in row.items()} for row in self._rows]

    def too_few(self, order: Waiting) -> dict[int, int]:
        """Return the units of each product of which there are too few for an order, those on their way included."""
        return {id_: max(0, self.totals[id_]) for id_, units in order.needs.items() if self.totals[id_] < units}

    def incomplete(self, product_ids: Collection[int]) -> list[int]:
        """Return those of these products that some partitions have and some do not."""
        return [id_ for id_ in product_ids if len({row[id_].is_known for row in self._rows}) > 1]

    def richest(self, product_id: int) -> int:
        """Return the partition that has most units of a product."""
        return max(range(self._partitions), key=lambda number: self._local[number][product_id])

    def ask(self, source: int, to: int, wish: Wish) -> None:
        """Ask a partition for units, in addition to what it was asked for."""
        wishes = self.wishes.setdefault((source, to), {})
        before = wishes.get(wish.product_id)
        if before is not None:
            wider = min if min(before.wish, wish.wish) < 0 else max
            wish = Wish(wish.product_id, before.need + wish.need, wider(before.wish, wish.wish), wish.keep)
        wishes[wish.product_id] = wish

    def add(self, order: Waiting) -> bool:
        """Plan the transfers for an order. Return False if other orders, or transfers on their way, have the units."""
        local, to = self._local, order.partition
        asks: list[tuple[int, Wish]] = []
        for product_id, quantity in order.needs.items():
            need = quantity - local[to][product_id]
            if need <= 0:
                continue
            fair = max(0, self.totals[product_id]) // self._partitions
            others = [number for number in range(self._partitions) if number != to and local[number][product_id] > 0]
            for source in sorted(others, key=lambda number: -local[number][product_id]):
                there = local[source][product_id]
                part = min(need, there)
                asks.append((source, Wish(product_id, part, max(part, min(fair, there - fair)), fair)))
                need -= part
                if need == 0:
                    break
            if need > 0:
                return False
        for source, wish in asks:
            self.ask(source, to, wish)
            local[source][wish.product_id] -= wish.wish
            local[to][wish.product_id] += wish.wish
        for product_id, quantity in order.needs.items():
            local[to][product_id] -= quantity
        return True


def add_up(rows: Sequence[Mapping[int, Units]]) -> dict[int, int]:
    """Return stock - moved of each product, added up over all partitions."""
    return {id_: sum(row[id_].stock - row[id_].moved for row in rows) for id_ in rows[0]}

"""Reads how many units of products each partition has. A partition that does not answer delays no order for long."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Final

from service.storage.background import BackgroundTasks, has_failed
from service.storage.exchange_plan import add_up
from service.storage.transfers import Transfers, Units

_SHORT_PATIENCE_SECONDS: Final = 0.05
"""For so long, a look waits for a partition that did not answer the last look in time."""


class Looks:
    """Looks at the units of all partitions. `silent`: the partitions that have not answered the last look yet."""

    def __init__(self, partitions: Sequence[Transfers], patience: float) -> None:
        """`partitions`: may grow later. `patience`: for so many seconds, a look waits for a partition."""
        self.silent: set[int] = set()
        self._partitions = partitions
        self._patience = patience
        self._tasks = BackgroundTasks()

    async def look(self, product_ids: Sequence[int]) -> list[dict[int, Units] | None]:
        """Return the units of products in each partition; None for a partition that does not answer.

        The sum of stock - moved over all partitions is the number of units in stock or on their way, at one moment of
        the look.
        """
        looks = [self._tasks.start(partition.units(product_ids), "exchange-look") for partition in self._partitions]
        hopeless = [looks[number] for number in self.silent]
        if hopeful := [look for number, look in enumerate(looks) if number not in self.silent]:
            await asyncio.wait(hopeful, timeout=self._patience)
        if hopeless:
            await asyncio.wait(hopeless, timeout=_SHORT_PATIENCE_SECONDS)
        rows: list[dict[int, Units] | None] = []
        for number, look in enumerate(looks):
            row = None
            if not look.done():
                self.silent.add(number)
                look.add_done_callback(partial(self._end_late_look, number))
            elif not has_failed(look):
                self.silent.discard(number)
                row = dict(zip(product_ids, look.result(), strict=True))
            rows.append(row)
        return rows

    def _end_late_look(self, number: int, look: asyncio.Task[list[Units]]) -> None:
        if not look.cancelled() and look.exception() is None:
            self.silent.discard(number)

    async def totals(self, product_ids: Sequence[int], *, without: int | None = None) -> dict[int, int]:
        """Return the units of products in all partitions and on their way. All partitions must answer.

        `without`: a partition that is not asked, because the caller knows its units.
        """
        asked = [partition for number, partition in enumerate(self._partitions) if number != without]
        rows = await asyncio.gather(*[partition.units(product_ids) for partition in asked])
        return add_up([dict(zip(product_ids, row, strict=True)) for row in rows])

    async def close(self) -> None:
        """Cancel the looks that wait for silent partitions."""
        await self._tasks.close()

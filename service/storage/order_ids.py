"""Reserves order ids in advance, because a script needs the key of the new order in KEYS before it runs."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

ID_BLOCK_SIZE: Final = 256
"""Ids that a worker reserves at a time; more if more orders wait. Ids that are not used when it stops are lost.

For all partitions of a shop together: GET /orders reads the unused ids, too.
"""

MIN_BLOCK_SIZE: Final = 16
"""Ids that a worker reserves at a time for each partition at least."""


class OrderIds:
    """The ids that this worker may use for orders, reserved from the shop's counter in blocks.

    `highest`: the highest id that was ever reserved here, or 0.
    """

    def __init__(self, reserve: Callable[[int], Awaitable[int]], *, step: int = 1) -> None:
        """Begin without ids. `reserve(n)` must reserve n ids for this worker and return the first.

        `step`: the distance between two ids, which is the number of partitions of the shop.
        """
        self._reserve = reserve
        self._step = step
        self._block_size = max(MIN_BLOCK_SIZE, ID_BLOCK_SIZE // step)
        self._refill: asyncio.Task[None] | None = None
        self._unused: deque[int] = deque()
        self._waiting = 0
        self._dropped = 0
        self.highest = 0

    @property
    def reach(self) -> int:
        """The distance from the first id of a block to that of the next."""
        return self._block_size * self._step

    @property
    def next(self) -> int:
        """The id of the next order, if one is reserved; otherwise the highest that ever was, or 0."""
        return self._unused[0] if self._unused else self.highest

    def take_reserved(self) -> int:
        """Return an id for a new order, as `take` does, or 0 if none is reserved or only a few."""
        return self._unused.popleft() if len(self._unused) >= self._block_size // 2 else 0

    async def take(self) -> int:
        """Return an id for a new order.

        If the counter was lost or set back, an order with this id may exist already: then call `drop`.

        Raise what `reserve` raises.
        """
        if len(self._unused) < self._block_size // 2:
            self.start_refill()  # early, so that nearly no order waits for ids
        while not self._unused:
            self._waiting += 1
            try:
                await asyncio.shield(self.start_refill())  # all waiting callers share this task, and its error
            finally:
                self._waiting -= 1
        return self._unused.popleft()

    def start_refill(self) -> asyncio.Task[None]:
        """Reserve a block, unless that is being done already."""
        if self._refill is None:
            self._refill = asyncio.create_task(self._reserve_block())
            # If no caller waits, asyncio would log the error. No log is needed: the next order tries again.
            self._refill.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._refill

    async def _reserve_block(self) -> None:
        try:
            length = max(self._block_size, self._waiting)
            first = await self._reserve(length)
            ids = range(first, first + length * self._step, self._step)
            self._unused.extend(ids)
            self.highest = max(self.highest, ids[-1])
        finally:
            self._refill = None

    def give_back(self, order_id: int) -> None:
        """Use this id for the next order, because no order was written with it."""
        if not self.is_dropped(order_id):
            self._unused.appendleft(order_id)

    def drop(self) -> None:
        """Forget all ids that were reserved until now. The next ids must be above them."""
        self._unused.clear()
        self._dropped = self.highest

    def is_dropped(self, order_id: int) -> bool:
        return order_id <= self._dropped

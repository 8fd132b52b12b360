"""Reserves order ids in advance, because a script needs the key of the new order in KEYS before it runs."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from service.domain.limits import MAX_ID

ID_BLOCK_SIZE: Final = 256
"""Ids that a worker reserves at a time; more if more orders wait. Ids that are not used when it stops are lost."""

_MAX_BLOCK_SIZE: Final = 1_000_000
"""skip() doubles the block size up to here. One reservation then passes a million ids that are in use."""


class OrderIds:
    """The ids that this worker may use for orders, reserved from the shop's counter in blocks."""

    def __init__(self, reserve: Callable[[int], Awaitable[int]]) -> None:
        """Begin without ids. `reserve(n)` must reserve n ids for this worker and return the first."""
        self._reserve = reserve
        self._refill: asyncio.Task[None] | None = None
        self._unused: deque[int] = deque()
        self._waiting = 0
        self._first = 0
        self._length = self._next_length = ID_BLOCK_SIZE

    async def take(self) -> int:
        """Return an id for a new order.

        If the counter was lost or set back, an order with this id may exist already: then call `skip`.

        Raise what `reserve` raises.
        """
        if len(self._unused) < ID_BLOCK_SIZE // 2:
            self._start_refill()  # early, so that nearly no order waits for ids
        while not self._unused:
            self._waiting += 1
            try:
                await asyncio.shield(self._start_refill())  # all waiting callers share this task, and its error
            finally:
                self._waiting -= 1
        return self._unused.popleft()

    def _start_refill(self) -> asyncio.Task[None]:
        if self._refill is None:
            self._refill = asyncio.create_task(self._reserve_block())
            # If no caller waits, asyncio would log the error. No log is needed: the next order tries again.
            self._refill.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._refill

    async def _reserve_block(self) -> None:
        try:
            length, self._next_length = max(self._next_length, self._waiting), ID_BLOCK_SIZE
            first = await self._reserve(length)
            self._first = min(self._first, first) if self._unused else first
            self._length = length
            self._unused.extend(range(first, first + length))
        finally:
            self._refill = None

    def give_back(self, order_id: int) -> None:
        """Use this id for the next order, because no order was written with it."""
        self._unused.appendleft(order_id)

    def skip(self, order_id: int) -> None:
        """Drop the reserved ids, because an order has this id already.

        Double the block size, to pass all ids in use.
        """
        if order_id >= self._first:  # otherwise an earlier skip() has dropped the block of this id
            self._unused.clear()
            self._first = MAX_ID
            self._next_length = min(2 * self._length, _MAX_BLOCK_SIZE)

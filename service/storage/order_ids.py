"""Reserves order ids in advance, so that a script can tell a repeated call from a new order."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from service.domain.limits import MAX_ID

BLOCK: Final = 256
"""Ids that a worker reserves at a time; more if more orders wait. Ids that it has not used when it stops are lost."""

_MAX_BLOCK: Final = 1_000_000


class OrderIds:
    """The ids that this worker may give to orders, reserved from the shop's counter in blocks."""

    def __init__(self, reserve: Callable[[int], Awaitable[int]]) -> None:
        """Take `reserve(n)`: it reserves n ids for this worker and returns the first."""
        self._reserve = reserve
        self._refill: asyncio.Task[None] | None = None
        self._unused: deque[int] = deque()
        self._waiting = 0
        self._first = 0
        self._length = self._next_length = BLOCK

    async def take(self) -> int:
        """Return an id that no order has. If the counter was lost or set back, an order may have it: then `skip` it.

        Raise what `reserve` raises.
        """
        if len(self._unused) < BLOCK // 2:
            self._start_refill()  # early, so that hardly any order waits for it
        while not self._unused:
            self._waiting += 1
            try:
                await asyncio.shield(self._start_refill())  # all waiting callers share it, and its error
            finally:
                self._waiting -= 1
        return self._unused.popleft()

    def _start_refill(self) -> asyncio.Task[None]:
        if self._refill is None:
            self._refill = asyncio.create_task(self._reserve_block())
            # If no caller waits, asyncio would log the error. It is not needed: the next order tries again.
            self._refill.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._refill

    async def _reserve_block(self) -> None:
        try:
            length, self._next_length = max(self._next_length, self._waiting), BLOCK
            first = await self._reserve(length)
            self._first = min(self._first, first) if self._unused else first
            self._length = length
            self._unused.extend(range(first, first + length))
        finally:
            self._refill = None

    def give_back(self, order_id: int) -> None:
        """Use this id for the next order: its own order was refused."""
        self._unused.appendleft(order_id)

    def skip(self, order_id: int) -> None:
        """Drop the reserved ids: an order has this id already. Double the block size, to pass all ids in use."""
        if order_id >= self._first:  # otherwise another call has dropped the block of this id before
            self._unused.clear()
            self._first = MAX_ID
            self._next_length = min(2 * self._length, _MAX_BLOCK)

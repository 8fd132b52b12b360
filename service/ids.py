"""Order ids, before there are orders: so a script can tell a repeated call from a new one."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from service.models import MAX_ID

BLOCK: Final = 256
"""Ids a worker takes at a time, more if more orders wait. What it has not used when it stops is never used."""

_LONGEST_BLOCK: Final = 1_000_000


class OrderIds:
    """The ids that this worker may give to orders, taken from the shop's counter a block at a time."""

    def __init__(self, lease: Callable[[int], Awaitable[int]]) -> None:
        """`lease`: the first of so many ids that nobody else gets."""
        self._lease = lease
        self._refill: asyncio.Task[None] | None = None
        self._unused: deque[int] = deque()
        self._waiting = 0
        self._first = 0
        self._length = self._next_length = BLOCK

    async def take(self) -> int:
        """An id that no order has, unless the counter was lost or set back. Raises what `lease` raises."""
        if len(self._unused) < BLOCK // 2:
            self._take_block()  # already now, so that hardly any order waits for it
        while not self._unused:
            self._waiting += 1
            try:
                await asyncio.shield(self._take_block())  # all who wait share it, and its error
            finally:
                self._waiting -= 1
        return self._unused.popleft()

    def _take_block(self) -> asyncio.Task[None]:
        if self._refill is None:
            self._refill = asyncio.create_task(self._lease_block())
            # asyncio would complain of an error that nobody waited for. The next order tries again.
            self._refill.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._refill

    async def _lease_block(self) -> None:
        try:
            length, self._next_length = max(self._next_length, self._waiting), BLOCK
            first = await self._lease(length)
            self._first = min(self._first, first) if self._unused else first
            self._length = length
            self._unused.extend(range(first, first + length))
        finally:
            self._refill = None

    def give_back(self, order_id: int) -> None:
        """The order of this id was refused: the next one gets it."""
        self._unused.appendleft(order_id)

    def skip(self, order_id: int) -> None:
        """An order has this id already. Ever longer blocks get past all that there are."""
        if order_id >= self._first:  # else a racing order has said so of these ids before
            self._unused.clear()
            self._first = MAX_ID
            self._next_length = min(2 * self._length, _LONGEST_BLOCK)

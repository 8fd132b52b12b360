"""Order ids, before there are orders: so a script can tell a repeated call from a new one."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from service.models import MAX_ID

BLOCK: Final = 64
"""Ids a worker takes at a time. What it has not used when it stops is never used."""

_LONGEST_BLOCK: Final = 1_000_000


class OrderIds:
    """The ids that this worker may give to orders, taken from the shop's counter a block at a time."""

    def __init__(self, lease: Callable[[int], Awaitable[int]]) -> None:
        """`lease`: the first of so many ids that nobody else gets."""
        self._lease = lease
        self._lock = asyncio.Lock()
        self._unused: deque[int] = deque()
        self._first = 0
        self._length = self._next_length = BLOCK

    async def take(self) -> int:
        """An id that no order has, unless the counter was lost or set back."""
        while not self._unused:
            async with self._lock:
                if not self._unused:  # not refilled by another task while this one waited
                    self._length, self._next_length = self._next_length, BLOCK
                    self._first = await self._lease(self._length)
                    self._unused.extend(range(self._first, self._first + self._length))
        return self._unused.popleft()

    def give_back(self, order_id: int) -> None:
        """The order of this id was refused: the next one gets it."""
        self._unused.appendleft(order_id)

    def skip(self, order_id: int) -> None:
        """An order has this id already. Ever longer blocks get past all that there are."""
        if order_id >= self._first:  # else a racing order has said so of this block before
            self._unused.clear()
            self._first = MAX_ID
            self._next_length = min(2 * self._length, _LONGEST_BLOCK)

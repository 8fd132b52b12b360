"""Shared reads: requests for the same thing that arrive together cost one load."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class SharedReads(Generic[T]):
    """Loads the same thing once for all who ask while a load is under way: they share the next one.

    Never the one under way, which may have read before they asked. So nobody gets anything older than
    their own request, and there are at most two loads of a thing at a time: one running, one waiting.
    """

    def __init__(self, at_once: int = 4) -> None:
        """`at_once`: loads of different things under way. More would keep smaller requests waiting for long."""
        self._slots = asyncio.Semaphore(at_once)
        self._running: dict[Hashable, asyncio.Task[T]] = {}
        self._waiting: dict[Hashable, asyncio.Task[T]] = {}

    async def read(self, key: Hashable, load: Callable[[], Awaitable[T]]) -> T:
        """What `load` gives when it is called after this. Raises what it raises, to all who share or await it."""
        if key in self._waiting:
            task = self._waiting[key]
        elif key in self._running:
            task = self._waiting[key] = asyncio.create_task(self._load_after(self._running[key], key, load))
        else:
            task = self._running[key] = asyncio.create_task(self._load(key, load))
        # One who goes away must not take the load from the others.
        return await asyncio.shield(task)

    async def _load(self, key: Hashable, load: Callable[[], Awaitable[T]]) -> T:
        try:
            async with self._slots:
                return await load()
        finally:
            if key not in self._waiting:
                del self._running[key]

    async def _load_after(self, running: asyncio.Task[T], key: Hashable, load: Callable[[], Awaitable[T]]) -> T:
        await asyncio.wait([running])
        self._running[key] = self._waiting.pop(key)
        if not running.cancelled() and (error := running.exception()) is not None:
            del self._running[key]
            raise error  # not another wait for a storage that just did not answer
        return await self._load(key, load)

"""Shared reads: requests for the same thing that arrive together cost one load."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class SharedReads(Generic[T]):
    """Loads the same thing once for all who ask before the load begins.

    Who asks while one is under way shares the next one, never that one, which may have read before they
    asked. So nobody gets anything older than their own request, and there are at most two loads of a thing
    at a time: one running, one waiting.
    """

    def __init__(self, at_once: int = 4) -> None:
        """`at_once`: loads of different things under way. More would keep smaller requests waiting for long."""
        self._slots = asyncio.Semaphore(at_once)
        self._running: dict[Hashable, asyncio.Task[T]] = {}
        self._waiting: dict[Hashable, asyncio.Task[T]] = {}

    async def read(self, key: Hashable, load: Callable[[], Awaitable[T]]) -> T:
        """What `load` gives when it is called after this. Raises what it raises, to all who share or await it."""
        task = self._waiting.get(key)
        if task is None:
            # As a task it begins after all requests that this tick has brought: they share it.
            task = self._waiting[key] = asyncio.create_task(self._load(key, load, self._running.get(key)))
        try:
            # One who goes away must not take the load from the others.
            return await asyncio.shield(task)
        finally:
            del task  # else an error, its traceback and the task keep each other, for the garbage collector

    async def _load(self, key: Hashable, load: Callable[[], Awaitable[T]], running: asyncio.Task[T] | None) -> T:
        try:
            if running is not None:
                await asyncio.wait([running])
                error = None if running.cancelled() else running.exception()
                if error is not None:
                    try:
                        raise error  # not another wait for a storage that just did not answer
                    finally:
                        del error, running  # as above
            await self._slots.acquire()
        except BaseException:
            del self._waiting[key]
            raise
        self._running[key] = self._waiting.pop(key)
        try:
            return await load()
        finally:
            self._slots.release()
            del self._running[key]

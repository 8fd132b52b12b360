"""Request coalescing: requests for the same page that arrive at the same time share one load."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class RequestCoalescer(Generic[T]):
    """Loads the same thing once for all callers that ask before the load begins.

    A caller that arrives while a load is running waits for the next load, because the running load may have read
    older data. So no caller gets anything older than its own request, and there are at most two loads of a thing at
    a time: one running, one waiting.
    """

    def __init__(self, max_concurrent: int = 4) -> None:
        """Allow `max_concurrent` loads at the same time. With more loads, small requests would wait longer."""
        self._slots = asyncio.Semaphore(max_concurrent)
        self._running: dict[Hashable, asyncio.Task[T]] = {}
        self._waiting: dict[Hashable, asyncio.Task[T]] = {}

    async def read(self, key: Hashable, load: Callable[[], Awaitable[T]]) -> T:
        """Return what `load` returns when it is called after this moment.

        If `load` raises an error, all callers that share it get that error.
        """
        task = self._waiting.get(key)
        if task is None:
            # As a task, the load begins after all requests of this round of the event loop: they share it.
            task = self._waiting[key] = asyncio.create_task(self._load(key, load, self._running.get(key)))
        try:
            # A cancelled caller must not cancel the shared load.
            return await asyncio.shield(task)
        finally:
            del task  # otherwise an error, its traceback and the task form a reference cycle

    async def _load(self, key: Hashable, load: Callable[[], Awaitable[T]], running: asyncio.Task[T] | None) -> T:
        try:
            if running is not None:
                await asyncio.wait([running])
                error = None if running.cancelled() else running.exception()
                if error is not None:
                    try:
                        raise error  # the storage has just failed: a second load would fail, too, but after a timeout
                    finally:
                        del error, running  # otherwise they form a reference cycle, too
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

"""Tasks that may go on when nobody awaits them any more: they end by themselves, or with their owner."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from service.domain.errors.storage import StorageError

T = TypeVar("T")


class BackgroundTasks:
    """The tasks of one owner. asyncio itself keeps only weak references to tasks, so one could vanish."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Start a task, and keep it until it ends."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """Cancel all tasks, and wait until they have ended."""
        while self._tasks:  # a task that ends may have started another
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)


def has_failed(work: "asyncio.Future[Any]") -> bool:
    """Return whether a script was not run, or its outcome is not known. Raise other errors: they are bugs."""
    if work.cancelled():
        return True
    error = work.exception()
    if error is not None and not isinstance(error, StorageError):
        raise error
    return error is not None

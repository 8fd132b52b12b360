"""Keeps tasks that may run on when nobody awaits them any more, and cancels them when their owner ends."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from service.domain.errors.storage import StorageError

T = TypeVar("T")


class BackgroundTasks:
    """The tasks of one owner. asyncio keeps only weak references to tasks, so a task could be deleted too early."""

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
    """Return whether work was cancelled, or has ended with a StorageError. Raise any other error: it is a bug."""
    if work.cancelled():
        return True
    error = work.exception()
    if error is not None and not isinstance(error, StorageError):
        raise error
    return error is not None

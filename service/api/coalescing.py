"""Request coalescing: requests for the same page that arrive at the same time share one load."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable
from enum import IntEnum
from typing import Generic, NamedTuple, TypeVar

from starlette.requests import ClientDisconnect

from service.domain.errors.storage import Overloaded

T = TypeVar("T")


class ClientState(IntEnum):
    """Whether a client still waits for its response."""

    WAITS = 0
    MAY_BE_GONE = 1
    """It has closed its side of the connection. It may still read, or it may have closed the connection."""
    GONE = 2


class Caller(NamedTuple):
    """Who asks for a page."""

    client: str
    """Address of the client. The pages of one client do not displace those of others."""
    state: Callable[[], ClientState]


UNKNOWN_CALLER = Caller("", lambda: ClientState.WAITS)


class _Page(Generic[T]):
    """A load that has not begun yet."""

    task: asyncio.Task[T]

    def __init__(self, caller: Caller) -> None:
        self.client = caller.client
        self.callers = [caller]
        self.turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def state(self) -> ClientState:
        """Return the state of that caller which most surely waits."""
        return min(caller.state() for caller in self.callers)


class RequestCoalescer(Generic[T]):
    """Loads the same thing once for all callers that ask before the load begins.

    A caller that arrives while a load is running waits for the next load, because the running load may have read
    older data. So no caller gets anything older than its own request, and there are at most two loads of a thing at
    a time: one running, one waiting.

    If more different things are asked for than may be loaded at the same time, they wait in a queue. First come those
    whose callers surely wait, and of these, those of the client for which the fewest loads are running. A load whose
    callers are all gone does not begin.
    """

    def __init__(self, max_concurrent: int = 4, max_queued: int = 256, max_wait_seconds: float = 2) -> None:
        """Allow `max_concurrent` loads at the same time. With more loads, small requests would wait longer.

        `max_queued` loads may wait for their turn, and each for `max_wait_seconds`. What is more gets Overloaded.
        """
        self._free_slots = max_concurrent
        self._max_queued = max_queued
        self._max_wait_seconds = max_wait_seconds
        self._running: dict[Hashable, asyncio.Task[T]] = {}
        self._waiting: dict[Hashable, _Page[T]] = {}
        self._queue: dict[_Page[T], None] = {}
        """In the order in which they came: a dict, because a load is often removed from the middle."""
        self._queued_for: Counter[str] = Counter()
        self._running_for: Counter[str] = Counter()

    async def read(self, key: Hashable, load: Callable[[], Awaitable[T]], caller: Caller = UNKNOWN_CALLER) -> T:
        """Return what `load` returns when it is called after this moment.

        If `load` raises an error, all callers that share it get that error. Raise Overloaded, and ClientDisconnect if
        nobody waits any more.
        """
        page = self._waiting.get(key)
        if page is not None:
            page.callers.append(caller)
        else:
            page = self._waiting[key] = _Page(caller)
            # As a task, the load begins after all requests of this round of the event loop: they share it.
            page.task = asyncio.create_task(self._load(key, load, page))
        try:
            # A cancelled caller must not cancel the shared load.
            return await asyncio.shield(page.task)
        finally:
            del page  # otherwise an error, its traceback and the task form a reference cycle

    def is_idle(self) -> bool:
        """Return whether no load is running or waiting."""
        return not (self._running or self._waiting or self._queue or self._queued_for or self._running_for)

    async def _load(self, key: Hashable, load: Callable[[], Awaitable[T]], page: _Page[T]) -> T:
        try:
            running = self._running.get(key)
            if running is not None:
                await asyncio.wait([running])
                error = None if running.cancelled() else running.exception()
                if error is not None:
                    try:
                        raise error  # the storage has just failed: a second load would fail, too, but after a timeout
                    finally:
                        del error, running  # otherwise they form a reference cycle, too
            if self._free_slots and not self._queue:
                self._free_slots -= 1
            else:
                await self._wait_for_turn(page)
        except BaseException:
            del self._waiting[key]
            raise
        del self._waiting[key]
        self._running[key] = page.task
        client = page.client
        self._running_for[client] += 1
        del page
        try:
            return await load()
        finally:
            del self._running[key]
            self._running_for[client] -= 1
            if not self._running_for[client]:
                del self._running_for[client]
            self._pass_slot_on()

    async def _wait_for_turn(self, page: _Page[T]) -> None:
        """Wait for a slot. Raise Overloaded or ClientDisconnect."""
        self._queue[page] = None
        self._queued_for[page.client] += 1
        if len(self._queue) > self._max_queued:
            self._drop_one()
        too_late = Overloaded(f"a page waited for {self._max_wait_seconds} seconds for others")
        timer = asyncio.get_running_loop().call_later(self._max_wait_seconds, self._end_wait, page, too_late)
        try:
            await page.turn
        finally:
            timer.cancel()

    def _end_wait(self, page: _Page[T], error: Exception | None) -> None:
        """Take a load out of the queue: it may begin, or its callers get the error."""
        if page not in self._queue:
            return
        del self._queue[page]
        self._queued_for[page.client] -= 1
        if not self._queued_for[page.client]:
            del self._queued_for[page.client]
        if error is None:
            page.turn.set_result(None)
        else:
            page.turn.set_exception(error)

    def _drop_one(self) -> None:
        """Refuse the load of which a client needs the least: of the client with the most of them, the youngest."""
        page = max(reversed(self._queue), key=lambda page: (page.state(), self._queued_for[page.client]))
        self._end_wait(page, Overloaded(f"{self._max_queued} pages wait already"))

    def _pass_slot_on(self) -> None:
        """Give a slot to the next load in the queue, or keep it free."""
        while self._queue:
            page = self._next()
            if page.state() is not ClientState.GONE:
                self._end_wait(page, None)
                return
            self._end_wait(page, ClientDisconnect())
        self._free_slots += 1

    def _next(self) -> _Page[T]:
        """Return the load whose turn it is."""
        best_rank = ClientState.WAITS, min(self._running_for[client] for client in self._queued_for)
        ranks = {}
        for page in self._queue:
            rank = ranks[page] = page.state(), self._running_for[page.client]
            if rank == best_rank:
                return page
        return min(ranks, key=lambda page: ranks[page])

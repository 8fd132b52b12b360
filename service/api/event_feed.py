"""Server-sent events: one reader of the event stream per worker, for all clients that listen.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final

import structlog

from service.api.sales_summary import SalesSummary
from service.domain.errors.storage import Overloaded, StorageError
from service.domain.event import START, SUMMARY, Event, cursor_positions, is_beyond
from service.metrics.counters import Metrics
from service.metrics.families import STREAMS
from service.storage.partitioned import AnyStore

log = structlog.get_logger()

POLL_SECONDS: Final = 0.2
"""Pause between two reads of the stream. XREAD BLOCK would need no pauses, but it blocks the orders of the worker."""

BATCH: Final = 500
"""Events that are read at a time: preparing them takes the worker about 5 ms, in which no order is placed."""

MAX_LISTENERS: Final = 500
"""Clients per worker. Each may have MAX_WAITING_BYTES waiting, so that is 256 MB at most."""

MAX_WAITING_BYTES: Final = 512 * 1024
"""Bytes that may wait for a client: about 3,000 events. A client that reads more slowly is cut off."""

HEARTBEAT_SECONDS: Final = 15.0
"""After this silence, a comment is sent: proxies close silent connections, often after 60 seconds."""

_MAX_CATCHING_UP: Final = 4
"""Clients that read old events at the same time."""

_HEARTBEAT: Final = b":\n\n"
_RETRY: Final = b"retry: 1000\n\n"
"""An EventSource connects again after a second."""


class SlowReader(Exception):
    """The client reads more slowly than events come."""


class Listener:
    """A client, and the messages that wait for it."""

    def __init__(self, types: frozenset[str], position: str) -> None:
        """Begin without messages. `types`: of events; empty: all. `position`: the last event that it has."""
        self.types = types
        self.cursor = position
        self._waiting: list[bytes] = []
        self._size = 0
        self._arrived = asyncio.Event()

    def add(self, message: bytes) -> None:
        """Let a message wait. If too much waits already, all of it is dropped: the client is cut off."""
        self._size += len(message)
        if self._size > MAX_WAITING_BYTES:
            self._waiting.clear()
        else:
            self._waiting.append(message)
        self._arrived.set()

    async def next(self, seconds: float) -> bytes:
        """Return what waits, or a heartbeat if nothing comes in this time. Raise SlowReader."""
        if not self._waiting:
            try:
                await asyncio.wait_for(self._arrived.wait(), seconds)
            except TimeoutError:
                return _HEARTBEAT
        if self._size > MAX_WAITING_BYTES:
            raise SlowReader
        data = b"".join(self._waiting)
        self._waiting.clear()
        self._size = 0
        self._arrived.clear()
        return data


class EventFeed:
    """Gives the events of the shop to all clients of this worker. Without clients, it sends Redis nothing."""

    def __init__(
        self,
        store: AnyStore,
        metrics: Metrics,
        *,
        shop: str = "",
        poll_seconds: float = POLL_SECONDS,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
    ) -> None:
        """Begin without listeners. `poll_seconds`: the pause between two reads of the stream."""
        self._store = store
        self._shop = shop
        self._metrics = metrics
        self._poll_seconds = poll_seconds
        self._heartbeat_seconds = heartbeat_seconds
        self._summary = SalesSummary(store, metrics.refused_orders)
        self._open = 0
        self._listeners: set[Listener] = set()
        self._position = ""
        self._reader: asyncio.Task[None] | None = None
        self._catching_up = asyncio.Semaphore(_MAX_CATCHING_UP)

    @property
    def streams(self) -> int:
        """The number of streams of events: one for each partition of the shop."""
        return len(self._store.partitions)

    def is_cursor(self, text: str) -> bool:
        """Return whether a text is the cursor of an event of a shop with so many streams, or the start."""
        return cursor_positions(text) == START or len(cursor_positions(text)) == self.streams

    async def open(self, types: frozenset[str], after: str | None) -> AsyncGenerator[bytes]:
        """Return the messages for a new client, without end. Raise Overloaded, and what the Store raises.

        `after`: the last event that the client has; None: only events from now on come.
        """
        position = await self._store.events.last_id()
        lost = False
        if after is not None and cursor_positions(after) == START:
            after = "_".join(["0-0"] * len(cursor_positions(position)))
        if after is not None and is_beyond(after, position):
            lost = True  # of other data, such as those before a backup was restored: they may never come so far
        elif after is not None:
            lost = not await self._store.events.has_all_after(after)
            position = after
        # From here to the first message, nothing else runs in this worker, so that the number of clients is true.
        if self._open >= MAX_LISTENERS:
            raise Overloaded(f"{MAX_LISTENERS} clients listen to events already")
        messages = self._messages(types, position, _lost_message(after or "") if lost else b"")
        await anext(messages)  # an unstarted generator would not run its `finally`
        return messages

    async def _messages(self, types: frozenset[str], position: str, lost: bytes) -> AsyncGenerator[bytes]:
        self._open += 1
        self._metrics.set_part(STREAMS, self._shop, self._open)
        listener = None
        try:
            yield b""
            yield _RETRY + lost
            last = position
            async for data, last in self._old_events(types, position):  # noqa: B007
                yield data
            listener = Listener(types, last)
            self._join(listener, last)
            if SUMMARY in types:
                async for data in self._summary.snapshot():
                    yield data
            while True:
                yield await listener.next(self._heartbeat_seconds)
        finally:
            self._open -= 1
            self._metrics.set_part(STREAMS, self._shop, self._open)
            if listener is not None:
                self._listeners.discard(listener)

    async def _old_events(self, types: frozenset[str], position: str) -> AsyncIterator[tuple[bytes, str]]:
        """Yield the events after a position, until the shared reader has no more, each time with the new position."""
        while True:
            try:
                async with self._catching_up:
                    events = await self._store.events.read(position, limit=BATCH)
            except StorageError:
                await asyncio.sleep(1)
                yield _HEARTBEAT, position
                continue
            if events:
                position = events[-1].cursor
                yield b"".join(_encode(event) for event in events if _is_wanted(event, types)), position
            is_behind = self._reader is not None and is_beyond(self._position, position)
            if len(events) < BATCH and not is_behind:
                return
            if not events:
                await asyncio.sleep(self._poll_seconds)  # the data are older than before: the reader will notice

    def _join(self, listener: Listener, position: str) -> None:
        """Let a client hear what the shared reader reads. Nothing may be awaited between the last read and this."""
        self._listeners.add(listener)
        if self._reader is None:
            self._position = position
            self._reader = asyncio.create_task(self._read(), name="event-reader")

    async def _read(self) -> None:
        """Read the stream as long as anybody listens."""
        server_id = self._store.server_id
        try:
            while self._listeners:
                try:
                    events = await self._store.events.read(self._position, limit=BATCH)
                    if not events and server_id != self._store.server_id:
                        await self._check_position()
                        server_id = self._store.server_id
                    if events:
                        self._give_out(events)
                        self._position = events[-1].cursor
                    if any(SUMMARY in listener.types for listener in self._listeners):
                        self._summary.note(events)
                        if message := await self._summary.tick():
                            self._give_to_all(message, SUMMARY)
                    else:
                        self._summary.forget()
                except StorageError:
                    events = []  # nothing is lost: the next read begins at the same position
                except Exception:
                    log.exception("event_reader_failed")
                    events = []
                await asyncio.sleep(0 if len(events) == BATCH else self._poll_seconds)
        finally:
            self._reader = None
            self._summary.forget()

    async def _check_position(self) -> None:
        """Begin at the end of the stream if it has other data than before: an older backup, for example."""
        last_id = await self._store.events.last_id()
        if is_beyond(self._position, last_id):
            message = _lost_message(self._position)
            self._position = last_id
            for listener in self._listeners:
                listener.cursor = last_id
                listener.add(message)
            self._summary.forget()

    def _give_out(self, events: list[Event]) -> None:
        """Give events to all clients that want them. Each event is encoded once, and each selection joined once."""
        encoded = [(event, _encode(event)) for event in events]
        selections: dict[frozenset[str], bytes] = {}
        for listener in self._listeners:
            if listener.cursor and is_beyond(listener.cursor, self._position):  # it has just joined, and has some
                positions = cursor_positions(listener.cursor)
                data = b"".join(
                    text for event, text in encoded
                    if event.is_after(positions) and _is_wanted(event, listener.types)
                )  # fmt: skip
            else:
                if listener.types not in selections:
                    selections[listener.types] = b"".join(
                        text for event, text in encoded if _is_wanted(event, listener.types)
                    )
                listener.cursor = ""  # the reader has passed it
                data = selections[listener.types]
            if data:
                listener.add(data)

    def _give_to_all(self, message: bytes, kind: str) -> None:
        for listener in self._listeners:
            if kind in listener.types:
                listener.add(message)


def _is_wanted(event: Event, types: frozenset[str]) -> bool:
    return not types or event.fields.get("event", "") in types


def _encode(event: Event) -> bytes:
    """Return an event as a message. A line feed in it cannot begin another field: JSON has none."""
    kind = event.fields.get("event", "")
    name = f"event: {kind}\n" if kind.isidentifier() and kind.isascii() else ""
    return f"id: {event.cursor}\n{name}data: {event.json()}\n\n".encode()


def _lost_message(after: str) -> bytes:
    return f'event: events_lost\ndata: {{"after":"{after}"}}\n\n'.encode()

"""The event streams of a shop with several partitions, read as one.

All events of one order are in one stream, in their sequence. Between streams, events are put together by the clocks of
their servers, as they come: one that comes later may have an earlier time.
"""

import asyncio
import heapq
from collections.abc import Sequence
from typing import Final

from service.domain.event import START, Event, cursor_positions, event_position
from service.domain.times import Milliseconds
from service.storage.events import Events

_POLL_SECONDS: Final = 0.05


class PartitionedEvents:
    """The event streams of all partitions. The methods are those of Events.

    A cursor has the id of the last event of each stream, with `_` between them.
    """

    def __init__(self, streams: Sequence[Events]) -> None:
        self._streams = streams

    async def read(self, after: str, until: str = "+", limit: int = 1000) -> list[Event]:
        """Return the events after a cursor, at most `limit`. `until`: a cursor, or `+`: all."""
        cursor = self._ids(after)
        ends = [until] * len(cursor) if until == "+" else self._ids(until)
        found = await asyncio.gather(
            *[stream.read(start, end, limit) for stream, start, end in zip(self._streams, cursor, ends, strict=True)]
        )
        streams = [[event._replace(partition=number) for event in events] for number, events in enumerate(found)]
        merged = heapq.merge(*streams, key=lambda event: (event_position(event.id), event.partition))
        events: list[Event] = []
        for event in merged:
            if len(events) == limit:
                break
            assert event.partition is not None
            cursor[event.partition] = event.id
            events.append(event._replace(later="_".join(cursor)))
        return events

    async def wait(self, after: str, milliseconds: int) -> list[Event]:
        """Return the events after a cursor. If there is none, wait for the next; return an empty list if none comes."""
        deadline = asyncio.get_running_loop().time() + milliseconds / 1000
        # Not with XREAD BLOCK: one stream that has an event would wait for another one that has none.
        while True:
            events = await self.read(after)
            if events or asyncio.get_running_loop().time() > deadline:
                return events
            await asyncio.sleep(_POLL_SECONDS)

    async def last_id(self) -> str:
        """Return the cursor after the newest event of each stream."""
        return "_".join(await asyncio.gather(*[stream.last_id() for stream in self._streams]))

    async def count(self) -> int:
        """Return how many events the streams have."""
        return sum(await asyncio.gather(*[stream.count() for stream in self._streams]))

    async def trim(self, before: Milliseconds) -> int:
        """Remove the events before this moment, see Events.trim."""
        return sum(await asyncio.gather(*[stream.trim(before) for stream in self._streams]))

    async def has_all_after(self, cursor: str) -> bool:
        """Return whether the streams surely have all events after a cursor."""
        ids = self._ids(cursor)
        return all(
            await asyncio.gather(
                *[stream.has_all_after(event_id) for stream, event_id in zip(self._streams, ids, strict=True)]
            )
        )

    def _ids(self, cursor: str) -> list[str]:
        """Return the ids in a cursor. `0-0`, which may be written `0`, is the start of all streams."""
        ids = cursor.split("_")
        return ["0-0"] * len(self._streams) if cursor_positions(cursor) == START else ids

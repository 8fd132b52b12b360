"""The event stream: one entry per change, written by the script that makes the change."""

from service.domain.event import Event, event_position
from service.domain.times import Milliseconds
from service.storage import keys
from service.storage.client import RedisClient
from service.storage.records import read_event
from service.storage.replies import read_map
from service.storage.sender import ErrorReply


class Events:
    """The event stream of a shop. Each method also raises what RedisClient raises."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client
        self._key = keys.events(client.shop)

    async def read(self, after: str, until: str = "+", limit: int = 1000) -> list[Event]:
        """Return the events after the id `after`, oldest first, up to and including `until`."""
        entries = await self._client.send("XRANGE", self._key, f"({after}", until, "COUNT", limit, safe_to_repeat=True)
        return [read_event(entry) for entry in entries]

    async def wait(self, after: str, milliseconds: int) -> list[Event]:
        """Return the events after the id `after`. If there is no such event, wait for the next.

        Return an empty list if no event comes in this time. All other commands of the connection wait, too.
        """
        reply = await self._client.send(
            "XREAD", "COUNT", 1000, "BLOCK", milliseconds, "STREAMS", self._key, after, safe_to_repeat=True
        )
        return [read_event(entry) for entry in reply[0][1]] if reply else []

    async def last_id(self) -> str:
        """Return the id of the newest event, or `0-0` if there is none."""
        newest = await self._client.send("XREVRANGE", self._key, "+", "-", "COUNT", 1, safe_to_repeat=True)
        return str(newest[0][0]) if newest else "0-0"

    async def count(self) -> int:
        """Return how many events the stream has."""
        return int(await self._client.send("XLEN", self._key, safe_to_repeat=True))

    async def trim(self, before: Milliseconds) -> int:
        """Remove the events before this moment, in bounded steps, but not the newest one. Return how many they were.

        Redis removes whole blocks of about 100 events, so some may stay.
        """
        newest, oldest_kept = await self.last_id(), f"{before}-0"
        if event_position(newest) < event_position(oldest_kept):
            oldest_kept = newest
        total = 0
        while removed := await self._client.send(
            "XTRIM", self._key, "MINID", "~", oldest_kept, "LIMIT", 1000, safe_to_repeat=True
        ):
            total += removed
        return total

    async def has_all_after(self, event_id: str) -> bool:
        """Return whether the stream surely has all events after this id: its oldest event must not be newer.

        After `0-0`, which may be written `0`: whether it has all events of the shop.
        """
        from_start = event_position(event_id) == (0, 0)
        try:
            info = await self._client.send("XINFO", "STREAM", self._key, safe_to_repeat=True)
        except ErrorReply:  # there is no such key
            return from_start
        facts = read_map(info)
        if from_start:
            return bool(facts["entries-added"] == facts["length"])
        oldest = facts["first-entry"]
        return oldest is not None and event_position(oldest[0]) <= event_position(event_id)

"""Ranges of order ids in a sorted set: the first id of each range; the score is its last id."""

from collections.abc import AsyncIterator
from typing import Final, NamedTuple

from service.storage.client import RedisClient
from service.storage.replies import read_scores

_RANGES_PER_STEP: Final = 1000


class Range(NamedTuple):
    """Consecutive ids, from the first to the last. The numbers are texts if they are damaged."""

    first: str
    last: str


class IdRanges:
    """The ranges in one key. Each method also raises what RedisClient raises."""

    def __init__(self, client: RedisClient, key: str) -> None:
        self._client = client
        self._key = key

    async def has(self, order_id: int) -> bool:
        """Return whether this id is in a range."""
        return await self.range_below(order_id + self._client.id_step) is not None

    async def range_below(self, before: int) -> int | None:
        """Return the first id of the range that contains the id below `before`. None: there is no such range."""
        for first, _ in await self._first_ranges(before - self._client.id_step, 1):
            if int(first) < before:
                return int(first)
        return None

    async def add(self, first: int, last: int) -> None:
        """Add a range of ids that are in no other range."""
        await self._client.send("ZADD", self._key, last, first, safe_to_repeat=True)

    async def highest_id(self) -> int:
        """Return the highest id of all ranges, or 0. A new order must not get such an id."""
        reply = await self._client.send(
            "ZREVRANGEBYSCORE", self._key, "+inf", "-inf", "WITHSCORES", "LIMIT", 0, 1, safe_to_repeat=True
        )
        return int(float(read_scores(reply)[0][1])) if reply else 0

    async def count(self) -> int:
        """Return how many ids are in the ranges. Damaged ranges do not count: the audit names them."""
        step = self._client.id_step
        return sum(
            [(int(float(last)) - int(first)) // step + 1 async for first, last in self.ranges() if first.isdecimal()]
        )

    async def ranges(self) -> AsyncIterator[Range]:
        """Yield all ranges, lowest first. If there are many, two may have been joined between two reads."""
        after, ranges = "-inf", None
        while ranges is None or len(ranges) == _RANGES_PER_STEP:
            ranges = await self._first_ranges(after, _RANGES_PER_STEP)
            for found in ranges:
                yield found
                after = f"({found.last}"

    async def _first_ranges(self, lowest: int | str, limit: int) -> list[Range]:
        reply = await self._client.send(
            "ZRANGEBYSCORE", self._key, lowest, "+inf", "WITHSCORES", "LIMIT", 0, limit, safe_to_repeat=True
        )
        return [Range(first, last) for first, last in read_scores(reply)]

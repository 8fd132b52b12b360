"""Reads how the engine and the shop are at this moment, for /metrics."""

import asyncio
from collections.abc import Mapping
from typing import Any, NamedTuple

from service.domain.times import Milliseconds
from service.storage import keys
from service.storage.client import RedisClient
from service.storage.replies import read_map, read_scores
from service.storage.sender import ErrorReply


class ConsumerGroup(NamedTuple):
    """Readers of the event stream that share their work. `lag`: events that none has read; None: Redis cannot tell.

    `pending`: events that were read, but not acknowledged. `oldest_unread`: the age in seconds of the oldest event that
    none has read; 0: there is none.
    """

    name: str
    lag: int | None
    pending: int
    oldest_unread: float


class SlowestWrites(NamedTuple):
    """The slow writes of a kind, such as `aof-fsync-always`: the last one and the slowest one, in seconds.

    `last_at`: the moment of the last one, in seconds since 1970.
    """

    last: float
    last_at: float
    slowest: float


class EngineStatus(NamedTuple):
    """The engine and the shop. None, or empty: this user of Redis may not read it, or there is no such thing.

    `info`: the reply to INFO, by name. `oldest_overdue`: for how many seconds the oldest hold is overdue. `events_max`:
    about how many events are kept.
    `slowest_writes`: by the name that the latency monitor of Redis has for them.
    """

    info: Mapping[str, str]
    products: int | None
    pending_orders: int | None
    oldest_overdue: float | None
    events: int | None
    events_max: int
    groups: list[ConsumerGroup]
    slowest_writes: Mapping[str, SlowestWrites]


class EngineStatusReader:
    """Reads the status of the engine. Each method also raises what RedisClient raises."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    async def read(self) -> EngineStatus:
        """Return the status. What this user of Redis may not read is left out."""
        shop = self._client.shop
        info, debug, latency, products, holds, events, groups, oldest, now = await asyncio.gather(
            self._try("INFO"),
            self._try("INFO", "debug"),
            self._try("LATENCY", "LATEST"),
            self._try("ZCARD", keys.products(shop)),
            self._try("ZCARD", keys.holds(shop)),
            self._try("XLEN", keys.events(shop)),
            self._try("XINFO", "GROUPS", keys.events(shop)),
            self._try("ZRANGEBYSCORE", keys.holds(shop), "-inf", "+inf", "WITHSCORES", "LIMIT", 0, 1),
            self._client.now(),
        )
        return EngineStatus(
            info={**parse_info(info or ""), **parse_info(debug or "")},
            products=products,
            pending_orders=holds,
            oldest_overdue=None
            if oldest is None
            else max(0.0, now / 1000 - float(read_scores(oldest)[0][1]) / 1000)
            if oldest
            else 0.0,
            events=events,
            events_max=self._client.events_max,
            groups=await asyncio.gather(*[self._read_group(reply, now) for reply in groups or ()]),
            slowest_writes={
                name: SlowestWrites(last / 1000, float(last_at), slowest / 1000)
                for name, last_at, last, slowest, *_ in latency or ()
                if name.startswith("aof-")
            },
        )

    async def _read_group(self, reply: Any, now: Milliseconds) -> ConsumerGroup:
        facts = read_map(reply)
        after = f"({facts['last-delivered-id']}"
        unread = await self._try("XRANGE", keys.events(self._client.shop), after, "+", "COUNT", 1)
        # The id of an event begins with its time. The next event may be missing here, if the stream was cut.
        age = max(0.0, (now - int(unread[0][0].partition("-")[0])) / 1000) if unread else 0.0
        return ConsumerGroup(facts["name"], facts.get("lag"), facts["pending"], age)

    async def _try(self, *command: str | int) -> Any:
        """Return the reply to a command, or None if Redis refuses it."""
        try:
            return await self._client.send(*command, safe_to_repeat=True)
        except ErrorReply:
            return None


def parse_info(text: str) -> dict[str, str]:
    """Return the facts of a reply to INFO, by name."""
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)

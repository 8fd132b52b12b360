"""Reads everything that `holdfast doctor` wants to know of a Redis, also of one that Holdfast would refuse to use."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

from service.storage import keys
from service.storage.addresses import Address
from service.storage.dial import Dialer, Execute
from service.storage.engine_status import parse_info
from service.storage.replies import read_map
from service.storage.requirements import LAYOUT_FIELD, UPGRADE_FIELD, rights_to_try
from service.storage.scripts import load_scripts
from service.storage.sender import ErrorReply

SETTINGS: Final = (
    *("appendonly", "appendfsync", "no-appendfsync-on-rewrite", "maxmemory", "maxmemory-policy"),
    *("latency-monitor-threshold", "timeout", "maxclients", "min-replicas-to-write"),
)

ROUND_TRIPS: Final = 200
"""Of each kind. They take 20 ms with a Redis on the same machine, and 0.4 s with one that is 1 ms away."""

WRITES: Final = 50

RECENT_EVENTS: Final = 1000
"""The number of newest events in which those of placed orders are counted."""

MIN_SECONDS: Final = 3600
"""The events must cover this many seconds: otherwise the orders per day cannot be estimated."""


class Sizes(NamedTuple):
    """How much there is of a shop. `overdue`: holds that should have ended."""

    products: int
    orders: int
    holds: int
    overdue: int
    events: int
    refusals: int
    keys_in_database: int


class Growth(NamedTuple):
    """How fast orders come, for a forecast of the memory. `orders`: about how many are in Redis now."""

    orders: int
    orders_per_day: float


class Diagnosis(NamedTuple):
    """What was read. None: the user may not read it, or Redis cannot tell. Times in seconds."""

    info: Mapping[str, str] | None
    config: Mapping[str, str] | None
    user: str | None
    rights: Sequence[str] | None
    """The reply of lua/check_rights.lua."""
    rights_error: str
    forbidden: Sequence[str]
    """Commands outside of scripts that the user may not run, as an ACL names them."""
    pings: Sequence[float]
    scripts: Sequence[float]
    writes: Sequence[float]
    slow_writes: Mapping[str, tuple[float, float]] | None
    """The last and the slowest write of each kind, by the latency monitor."""
    clock_ahead: float | None
    """By how much the clock of Redis is ahead of this machine's."""
    clock_error: float
    schema_version: str | None
    sizes: Sizes | None
    groups: Mapping[str, int | None] | None
    """The events that each consumer group has not read. None: Redis cannot tell."""
    growth: Growth | None = None
    unfinished_upgrade: str | None = None
    lost: str = ""
    """Why the data that are missing must be brought back. Empty: they were never there."""


async def diagnose(
    url: str,
    *,
    timeout_seconds: float,
    shop: str,
    write_test: bool = False,
    waits_for_replicas: bool = False,
    node: Address | None = None,
) -> Diagnosis:
    """Return what a Redis says about itself. Nothing is written, but one key with `write_test`, which is removed.

    `waits_for_replicas`: whether WAIT is needed, too. `node`: the one of a cluster that has the shop.

    Raise UnsupportedRedis for a wrong URL, and OSError if Redis cannot be reached, or refuses the user.
    """
    found: list[Diagnosis] = []

    async def read(execute: Execute) -> None:
        found.append(await _Reader(execute, shop).read(write_test=write_test, waits_for_replicas=waits_for_replicas))

    async with Dialer(url, timeout=timeout_seconds, node=node).connect(read):
        pass
    return found[0]


async def read_hash(url: str, key: str, *, timeout_seconds: float, node: Address | None = None) -> dict[str, str]:
    """Return the fields of a hash. Raise as `diagnose` does."""
    found: dict[str, str] = {}

    async def read(execute: Execute) -> None:
        with suppress(ErrorReply):
            found.update(read_map(await execute("HGETALL", key)))

    async with Dialer(url, timeout=timeout_seconds, node=node).connect(read):
        pass
    return found


class _Reader:
    """Reads over one connection."""

    def __init__(self, execute: Execute, shop: str) -> None:
        self._execute = execute
        self._shop = shop
        self._forbidden: list[str] = []

    async def read(self, *, write_test: bool, waits_for_replicas: bool) -> Diagnosis:
        """Return everything."""
        shop = self._shop
        info = await self._send("INFO", "everything")
        config = await self._send("CONFIG", "GET", *SETTINGS)
        user = await self._optional("ACL", "WHOAMI")
        rights, rights_error = await self._rights()
        clock_ahead, clock_error = await self._clock()
        latency = await self._send("LATENCY", "LATEST")
        schema_version = await self._send("HGET", keys.meta(shop), LAYOUT_FIELD)
        unfinished_upgrade = await self._send("HGET", keys.meta(shop), UPGRADE_FIELD)
        sizes = await self._sizes()
        groups = await self._groups()
        if waits_for_replicas:
            await self._send("WAIT", 0, 1)
        for command in (
            ("SCAN", 0, "COUNT", 1),
            ("XREAD", "COUNT", 1, "STREAMS", keys.events(shop), "$"),
            ("CLIENT", "TRACKING", "OFF"),
            ("CLIENT", "CACHING", "YES"),  # an error, because nothing is tracked
        ):
            await self._send(*command)
        for name in (keys.products(shop), keys.pending(shop)):
            await self._send("ZSCAN", name, 0, "COUNT", 1)
            await self._send("ZREVRANGEBYSCORE", name, 0, 0)
        return Diagnosis(
            info=None if info is None else parse_info(info),
            config=None if config is None else dict(zip(config[::2], config[1::2], strict=True)),
            user=user,
            rights=rights,
            rights_error=rights_error,
            forbidden=list(dict.fromkeys(self._forbidden)),
            pings=await self._time(ROUND_TRIPS, "PING"),
            scripts=await self._time(
                ROUND_TRIPS, "EVAL", load_scripts()["read_hashes"].source, 1, keys.product(shop, 0), "stock"
            ),
            writes=await self._time_writes() if write_test else (),
            slow_writes=None
            if latency is None
            else {name: (last / 1000, slowest / 1000) for name, _, last, slowest, *_ in latency if "aof" in name},
            clock_ahead=clock_ahead,
            clock_error=clock_error,
            schema_version=schema_version,
            unfinished_upgrade=unfinished_upgrade,
            sizes=sizes,
            groups=groups,
            growth=None if sizes is None else await self._growth(sizes.orders),
        )

    async def _send(self, *command: str | int) -> Any:
        """Return the reply to a command that Holdfast runs, too. Without the right to run it, note that: None."""
        try:
            return await self._execute(*command)
        except ErrorReply as error:
            if error.code == "NOPERM":
                subcommand = f"|{command[1]}" if command[0] in ("CONFIG", "XINFO", "LATENCY", "CLIENT") else ""
                self._forbidden.append(f"{command[0]}{subcommand}".lower())
            return None

    async def _optional(self, *command: str | int) -> Any:
        with suppress(ErrorReply):
            return await self._execute(*command)

    async def _rights(self) -> tuple[list[str] | None, str]:
        names, calls = rights_to_try(self._shop)
        try:
            return await self._execute("EVAL", load_scripts()["check_rights"].source, len(names), *names, *calls), ""
        except ErrorReply as error:
            return None, str(error)

    async def _clock(self) -> tuple[float | None, float]:
        before = time.time()
        reply = await self._send("TIME")
        after = time.time()
        if reply is None:
            return None, 0
        return int(reply[0]) + int(reply[1]) / 1_000_000 - (before + after) / 2, (after - before) / 2

    async def _sizes(self) -> Sizes | None:
        shop = self._shop
        now_ms = int(time.time() * 1000)
        numbers = [
            await self._send("ZCARD", keys.products(shop)),
            await self._send("GET", keys.order_ids(shop)),
            await self._send("ZCARD", keys.holds(shop)),
            await self._send("ZCOUNT", keys.holds(shop), "-inf", now_ms - 5000),
            await self._send("XLEN", keys.events(shop)),
            await self._send("GET", keys.refusals(shop)),
            await self._send("DBSIZE"),
        ]
        with suppress(ValueError):
            return Sizes(*[int(number or 0) for number in numbers])
        return None

    async def _growth(self, last_order_id: int) -> Growth | None:
        """Return how many orders there are, and how fast they came since the oldest event of the stream."""
        shop = self._shop
        limits = ("-inf", "+inf", "WITHSCORES", "LIMIT", 0, 1000)
        ranges = await self._send("ZRANGEBYSCORE", keys.archived(shop), *limits)
        skipped = await self._send("ZRANGEBYSCORE", keys.skipped(shop), *limits)
        newest = await self._send("XREVRANGE", keys.events(shop), "+", "-", "COUNT", RECENT_EVENTS)
        oldest = await self._send("XRANGE", keys.events(shop), "-", "+", "COUNT", 1)
        length = await self._send("XLEN", keys.events(shop))
        clock = await self._send("TIME")
        if not (newest and oldest and length and clock) or ranges is None or skipped is None:
            return None
        with suppress(ValueError):
            both = [*ranges, *skipped]
            pairs = zip(both[::2], both[1::2], strict=True)
            unused = sum(int(float(last)) - int(first) + 1 for first, last in pairs)
            placed = sum("order_placed" in fields for _, fields in newest) / len(newest)
            seconds = int(clock[0]) - int(oldest[0][0].partition("-")[0]) / 1000
            if seconds >= MIN_SECONDS:
                return Growth(last_order_id - unused, length * placed / seconds * 86_400)
        return None

    async def _groups(self) -> dict[str, int | None] | None:
        reply = await self._send("XINFO", "GROUPS", keys.events(self._shop))
        if reply is None:
            return None
        groups = [dict(zip(group[::2], group[1::2], strict=True)) for group in reply]
        return {group["name"]: group.get("lag") for group in groups}

    async def _time(self, count: int, *command: str | int) -> list[float]:
        times = []
        for _ in range(count):
            before = time.perf_counter()
            try:
                await self._execute(*command)
            except ErrorReply:
                return []
            times.append(time.perf_counter() - before)
        return times

    async def _time_writes(self) -> list[float]:
        key = keys.idempotency(self._shop, "holdfast-doctor")
        try:
            return await self._time(WRITES, "HSET", key, "written_by", "holdfast doctor")
        finally:
            await self._optional("PEXPIRE", key, 0)  # removes it

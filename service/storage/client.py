"""What all classes of the Store share: the shop, the clock, and the way commands and scripts are run."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

from service.domain.errors.storage import OutcomeUnknown, Overloaded, StorageUnavailable
from service.domain.limits import MAX_ID
from service.domain.times import Milliseconds
from service.logger import Logger
from service.metrics.counters import Metrics
from service.settings import Durability
from service.storage import keys
from service.storage.engine_check import EngineCheck
from service.storage.replies import read_map
from service.storage.scripts import load_scripts
from service.storage.sender import CommandSender, ErrorReply
from service.storage.tracked_products import TrackedProducts, Tracking

T = TypeVar("T")

log = Logger()

SCAN_LIMIT: Final = 10_000
"""When a page has read this number of keys, no further step begins, so that one request cannot read the whole shop.

Without this limit, that would happen if few items fit the filter, or if most orders were cancelled. The page may end
there with fewer items than `limit`; the next page continues after it.
"""

MAX_SCAN_STEP: Final = 1000
"""Keys that one command for a page reads at most, because Redis executes nothing else meanwhile.

Only the first command of a page may read one key more: `limit` + 1, to know whether there is a next page.
"""

# With one of these errors, Redis refuses a script before the script starts, because the script begins with `#!lua`. So
# these codes mean "not executed" for scripts, too.
_NOT_EXECUTED: Final = frozenset(
    {
        *("ASK", "MOVED", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN", "READONLY", "NOREPLICAS"),
        *("LOADING", "BUSY", "UNKILLABLE", "MISCONF", "OOM", "NOAUTH", "WRONGPASS"),
    }
)
"""Codes of the errors that Redis replies with before it executes anything."""


class RedisClient:
    """Runs commands and scripts for one shop.

    Every method that sends something raises StorageUnavailable, Overloaded or UnsupportedRedis if nothing was done,
    and OutcomeUnknown if a change may have been made.
    """

    def __init__(
        self,
        sender: CommandSender,
        *,
        shop: str,
        durability: Durability,
        events_max: int,
        refusals_max: int,
        clock: Callable[[], Milliseconds] | None = None,
        engine_check: EngineCheck | None = None,
        metrics: Metrics | None = None,
        has_room: Callable[[], bool] | None = None,
        tracked: Callable[[], TrackedProducts[Any]] | None = None,
        id_step: int = 1,
        id_remainder: int = 0,
    ) -> None:
        """Prepare commands for this shop. Nothing is sent yet.

        `events_max`: the number of entries to keep in the event stream.
        `refusals_max`: the number of refusals a day that are remembered for a day.
        `clock`: for tests, instead of the clock of Redis.
        `engine_check`: the one that also verifies the connections, if there is one.
        `metrics`: counts what the Store does; None: a new one.
        `has_room`: whether new work may be begun; None: always.
        `tracked`: what is known of products over the connection that is open now; None: there is nothing of this kind.
        `id_step`, `id_remainder`: of a partition. Its orders have the ids with this remainder, divided by `id_step`.
        """
        self.id_step = id_step
        self.id_remainder = id_remainder
        self.metrics = metrics or Metrics()
        self.shop = shop
        self.events_max = events_max
        self.refusals_max = refusals_max
        self._sender = sender
        self._clock = clock
        self._has_room = has_room
        self._tracked = tracked
        self._scripts = load_scripts()
        self._engine_check = engine_check or EngineCheck(shop, durability)
        self.after_check = self._engine_check.after_check

    @property
    def waits_for_replicas(self) -> bool:
        """Whether a change is answered only when replicas have it."""
        return self._engine_check.waits_for_replicas

    @property
    def server_id(self) -> str:
        """The id of the running server. After a restart or a failover it is another one."""
        return self._engine_check.server_id

    async def check(self) -> None:
        """Check that this Redis may be used. Raise UnsupportedRedis.

        As long as the last check has not passed, every command first repeats the check.
        """
        await self._engine_check.run(self.send)

    async def check_if_due(self) -> None:
        """Check Redis, unless the last check has passed. Raise UnsupportedRedis.

        After this, commands that are sent together keep their sequence. Otherwise, each would wait for its own check.
        """
        if not self._engine_check.passed:
            await self._engine_check.run(self.send)

    def admit(self) -> None:
        """Raise Overloaded if new work would wait too long.

        New work is placing an order, and reading a product, its stock, or a list. All other calls do not use this
        method, so that completing and cancelling orders go first.
        """
        if self._has_room is not None and not self._has_room():
            raise Overloaded("Redis answers more slowly than requests come")

    async def check_writable(self) -> None:
        """Raise StorageUnavailable if Redis refuses scripts that write: memory or disk are full, for example.

        Redis then refuses to start any script that may write. This one finds no product 0, and writes nothing. If
        replicas are waited for, it is sent like a change: then also raise StorageUnavailable if they are too few.
        """
        names = (keys.product(self.shop, 0), keys.products(self.shop), keys.events(self.shop))
        try:
            await self.run(
                "withdraw_product", names, (0, self.events_max, ""), safe_to_repeat=not self.waits_for_replicas
            )
        except OutcomeUnknown as error:
            raise StorageUnavailable(error.reason) from error

    async def now(self) -> Milliseconds:
        """Return the time by the only clock that decides: the clock of Redis."""
        if self._clock is not None:
            return self._clock()
        seconds, microseconds = await self.send("TIME", safe_to_repeat=True)
        return Milliseconds(int(seconds) * 1000 + int(microseconds) // 1000)

    def next_own_id(self, order_id: int) -> int:
        """Return the lowest id above this one that an order of this partition may have."""
        return order_id + 1 + (self.id_remainder - order_id - 1) % self.id_step

    def clock_argument(self) -> int | str:
        """Return the time of a test's clock for a script. Without it, return an empty text: the script asks Redis."""
        return "" if self._clock is None else self._clock()

    async def read_confirmed(self, keys: Sequence[str], fields: Sequence[str]) -> list[list[Any]]:
        """Return the same as `read_hashes`, but only if replicas have it, where they are waited for.

        A primary that was cut off, and was replaced, would otherwise answer with what is not true any more.
        """
        try:
            return await self.read_hashes(keys, fields, safe_to_repeat=not self.waits_for_replicas)
        except OutcomeUnknown as error:  # nothing was to be changed
            raise StorageUnavailable(error.reason) from error

    async def read_hashes(
        self, keys: Sequence[str], fields: Sequence[str], *, safe_to_repeat: bool = True
    ) -> list[list[Any]]:
        """Return the same fields of many hashes, None where a field is absent.

        One script for 100 hashes takes a fifth of the Python time that 100 HMGET commands in one write take. For one
        hash, a script costs the engine more than twice the time of HMGET.
        """
        if not keys:
            return []
        if len(keys) == 1:
            return [await self.send("HMGET", keys[0], *fields, safe_to_repeat=safe_to_repeat)]
        rows: list[list[Any]]
        _, *rows = await self.run("read_hashes", keys, fields, safe_to_repeat=safe_to_repeat)
        return rows

    async def begin_tracking(self) -> TrackedProducts[Any] | None:
        """Return what is known of products over this connection, and let Redis say what changes.

        None: Redis does not, or not yet.
        """
        tracked = None if self._tracked is None else self._tracked()
        if tracked is None or tracked.tracking is Tracking.ON:
            return tracked
        if tracked.tracking is not Tracking.OFF:
            return None
        tracked.tracking = Tracking.ASKED
        try:
            server = read_map(await self.send("HELLO", 3, safe_to_repeat=True))
            if server["server"] == "redis" and server["version"].startswith("7.0."):
                # It notes all keys of a script once for each key: a page of 100 products costs three times as much.
                tracked.tracking = Tracking.REFUSED
                return None
            # OPTIN: only what is read behind CLIENT CACHING YES. Orders read products, too, and would pay for it.
            await self.send("CLIENT", "TRACKING", "ON", "OPTIN", safe_to_repeat=True)
            await self.send("CLIENT", "CACHING", "YES", safe_to_repeat=True)  # whether that is allowed
        except ErrorReply as error:
            tracked.tracking = Tracking.REFUSED
            log.warning("products_not_tracked", reason=str(error), then="each list of products reads all of them")
            return None
        except BaseException:
            tracked.tracking = Tracking.OFF
            raise
        tracked.tracking = Tracking.ON
        return tracked

    def if_current(self, tracked: TrackedProducts[T] | None) -> TrackedProducts[T] | None:
        """Return this object, or None if its connection has been replaced: Redis says nothing more about it."""
        return tracked if self._tracked is not None and self._tracked() is tracked else None

    def catch_up(self) -> Awaitable[Any]:
        """Wait for a reply: before it, Redis says all that has changed until now. Raise ErrorReply, too."""
        if self._engine_check.passed:
            return self._sender.send("PING", safe_to_repeat=True)
        return self.send("PING", safe_to_repeat=True)

    async def read_tracked(
        self,
        known: TrackedProducts[Any],
        keys: Sequence[str],
        fields: Sequence[str],
        parse: Callable[[Sequence[Sequence[Any]]], Sequence[T]],
    ) -> Sequence[T] | None:
        """Read the same fields of many hashes, return what `parse` makes of the rows, and know it from now on.

        None: Redis refused this. `read_hashes` mends the reason, or raises it.
        """
        sha = self._scripts["read_hashes"].sha
        mark = known.expect(keys)
        try:
            # One directly behind the other, because the first is about the next command of this connection.
            _, reply = await asyncio.gather(
                self._sender.send("CLIENT", "CACHING", "YES", safe_to_repeat=True),
                self._sender.send("EVALSHA", sha, len(keys), *keys, *fields, safe_to_repeat=True),
            )
            read = parse(reply[1:])
            known.keep(mark, zip(keys, read, strict=True))
            return read
        except ErrorReply:
            return None
        finally:
            known.abandon(mark, keys)

    async def move_counter(self, counter: str, value: int) -> bool:
        """Set a counter of ids to this value, if it is lower, or past the highest id.

        Return False if another worker has moved it at the same moment.
        """
        found = await self.send("GET", counter, safe_to_repeat=True)
        now = int(found or 0)
        if value <= now <= MAX_ID:
            return True
        reply = await self.run("move_counter", (counter,), move_counter_args(expected=found or "", step=value - now))
        return bool(reply == ["moved"])

    async def run(
        self, name: str, keys: Sequence[str], args: Sequence[str | int], *, safe_to_repeat: bool = False
    ) -> Any:
        """Return the reply of a script. Redis forgets scripts when it restarts; then EVAL loads the script again."""
        script = self._scripts[name]
        if not self._engine_check.passed:
            await self._engine_check.run(self.send)
        try:
            # Not by self.send(): each coroutine in between costs every order something.
            return await self._sender.send(
                "EVALSHA", script.sha, len(keys), *keys, *args, safe_to_repeat=safe_to_repeat
            )
        except ErrorReply as error:
            if error.code in _NOT_EXECUTED:
                raise StorageUnavailable(str(error)) from error
            if error.code != "NOSCRIPT":
                raise
        return await self.send("EVAL", script.source, len(keys), *keys, *args, safe_to_repeat=safe_to_repeat)

    async def run_many(self, name: str, calls: Sequence[tuple[Sequence[str], Sequence[str | int]]]) -> list[Any]:
        """Return the replies of a script to many calls, each with KEYS and ARGV. They are sent together.

        Half the Python time of as many `run()`: there is no task for each. Raise the first error after all have ended.
        If an error is raised, some calls may have run, also if the error is Overloaded.
        """
        if not calls:
            return []
        first = await self.run(name, *calls[0])  # now Redis has been checked, and has the script
        sha = self._scripts[name].sha
        sent: list[Awaitable[Any]] = []
        full: Overloaded | None = None
        for names, args in calls[1:]:
            try:
                sent.append(self._sender.send("EVALSHA", sha, len(names), *names, *args))
            except Overloaded as error:
                full = error
                break
        replies = [first, *await asyncio.gather(*sent, return_exceptions=True)]
        for number, reply in enumerate(replies):
            if isinstance(reply, ErrorReply) and reply.code in ("NOSCRIPT", *_NOT_EXECUTED):
                replies[number] = await self.run(name, *calls[number])  # run() loads the script, or raises
            elif isinstance(reply, BaseException):
                raise reply
        if full is not None:
            raise full
        return replies

    async def send(self, *command: str | int, safe_to_repeat: bool = False, skip_check: bool = False) -> Any:
        """Return the reply to a command. An error that says "not executed" becomes StorageUnavailable."""
        if not (self._engine_check.passed or skip_check):
            await self._engine_check.run(self.send)
        try:
            return await self._sender.send(*command, safe_to_repeat=safe_to_repeat)
        except ErrorReply as error:
            if error.code in _NOT_EXECUTED:
                raise StorageUnavailable(str(error)) from error
            raise


def move_counter_args(*, expected: str, step: int) -> tuple[str | int, ...]:
    """Return ARGV of lua/move_counter.lua."""
    return (expected, step)

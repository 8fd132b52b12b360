"""What all subjects of the Store share: the shop, the clock, and the way commands and scripts are run."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from service.domain.errors.storage import StorageUnavailable
from service.domain.times import Milliseconds
from service.settings import Durability
from service.storage.engine_check import EngineCheck
from service.storage.scripts import load_scripts
from service.storage.sender import CommandSender, ErrorReply

SCAN_LIMIT: Final = 10_000
"""Keys that one page reads at most. A page with a filter may end there; the next page continues after it."""

MAX_SCAN_STEP: Final = 1000
"""Keys that one call for a page reads at most."""

# Scripts begin with `#!lua`, so these hold for them, too: the engine refuses a script before it starts.
_NOT_EXECUTED: Final = frozenset(
    {
        *("ASK", "MOVED", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN", "READONLY", "NOREPLICAS"),
        *("LOADING", "BUSY", "UNKILLABLE", "MISCONF", "OOM", "NOAUTH", "WRONGPASS"),
    }
)
"""Codes of the errors that an engine replies with before it executes anything."""


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
        clock: Callable[[], Milliseconds] | None = None,
    ) -> None:
        """Take the number of entries to keep in the event stream, and for tests a clock instead of the engine's."""
        self.shop = shop
        self.events_max = events_max
        self._sender = sender
        self._clock = clock
        self._scripts = load_scripts()
        self._engine_check = EngineCheck(self.send, shop, durability)

    async def check(self) -> None:
        """Check that this engine may be used. Raise UnsupportedRedis.

        Until the check has passed once, every command begins with it.
        """
        await self._engine_check.run()

    async def now(self) -> Milliseconds:
        """Return the time by the only clock that decides: the engine's."""
        if self._clock is not None:
            return self._clock()
        seconds, microseconds = await self.send("TIME", idempotent=True)
        return Milliseconds(int(seconds) * 1000 + int(microseconds) // 1000)

    def clock_argument(self) -> int | str:
        """Return the time for a script: the test's, or an empty text, which stands for the engine's clock."""
        return "" if self._clock is None else self._clock()

    async def read_hashes(self, keys: Sequence[str], fields: Sequence[str]) -> list[list[Any]]:
        """Return the same fields of many hashes, None where a field is absent.

        By a script: for 100 hashes it takes a fifth of the Python time of 100 commands in one write.
        """
        if not keys:
            return []
        rows: list[list[Any]]
        _, *rows = await self.run("read_hashes", keys, fields, idempotent=True)
        return rows

    async def run(self, name: str, keys: Sequence[str], args: Sequence[str | int], *, idempotent: bool = False) -> Any:
        """Return the reply of a script. An engine forgets its scripts when it restarts; then EVAL loads it again."""
        script = self._scripts[name]
        try:
            return await self.send("EVALSHA", script.sha, len(keys), *keys, *args, idempotent=idempotent)
        except ErrorReply as error:
            if error.code != "NOSCRIPT":
                raise
        return await self.send("EVAL", script.source, len(keys), *keys, *args, idempotent=idempotent)

    async def send(self, *command: str | int, idempotent: bool = False, skip_check: bool = False) -> Any:
        """Return the reply to a command. An error that says "not executed" becomes StorageUnavailable."""
        if not (self._engine_check.passed or skip_check):
            await self._engine_check.run()
        try:
            return await self._sender.send(*command, idempotent=idempotent)
        except ErrorReply as error:
            if error.code in _NOT_EXECUTED:
                raise StorageUnavailable(str(error)) from error
            raise

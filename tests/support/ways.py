"""The way from a Store to one partition: it can be broken as a network or a Redis breaks."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from service.domain.errors.storage import OutcomeUnknown, StorageError, StorageUnavailable
from service.storage.scripts import load_scripts
from service.storage.sender import CommandSender

COUNT: Final = 4
"""Partitions of the shop at the end of the fixture `ways`."""

SILENT_SECONDS: Final = 0.3
"""After this time, a connection to a silent partition gives up."""

_NAMES = {text: name for name, script in load_scripts().items() for text in (script.sha, script.source)}


def works(_: str) -> None:
    """Let everything work."""


class Way:
    """The way to one partition. `fails`: returns the error with which a script or a command fails, by its name."""

    def __init__(self, redis: CommandSender) -> None:
        self._redis = redis
        self.fails: Callable[[str], StorageError | None] = works
        self.loses_reply_to = ""
        """The script that is run, but whose reply does not come back."""
        self.ran: list[str] = []
        """All scripts and commands until now, by name."""
        self.before_run: Callable[[str], Awaitable[None]] | None = None
        """What others do before a script or a command is run. It gets the name."""
        self.before_reply: Callable[[str, Any], Awaitable[None]] | None = None
        """What others do while a reply is on its way. It gets the name, and the reply."""
        self.is_silent = False
        self.silent_seconds = SILENT_SECONDS
        """After this time, a connection gives up."""

    def send(self, *command: bytes | str | int, safe_to_repeat: bool = False) -> Awaitable[Any]:
        return asyncio.ensure_future(self._send(*command, safe_to_repeat=safe_to_repeat))

    async def _send(self, *command: Any, safe_to_repeat: bool) -> Any:
        name = _NAMES.get(command[1], command[0]) if len(command) > 1 else command[0]
        self.ran.append(name)
        if self.is_silent:
            await asyncio.sleep(self.silent_seconds)
            raise StorageUnavailable("no reply")
        if error := self.fails(name):
            raise error
        if self.before_run is not None:
            await self.before_run(name)
        reply = await self._redis.send(*command, safe_to_repeat=safe_to_repeat)
        if self.before_reply is not None:
            await self.before_reply(name, reply)
        if name == self.loses_reply_to:
            raise OutcomeUnknown("the connection broke")
        return reply

"""fakeredis as a CommandSender. It is fast; the same tests also run on a real engine."""

import asyncio
import re
from collections.abc import Awaitable
from typing import Any

from fakeredis import FakeAsyncRedis, FakeServer
from redis.exceptions import ResponseError

from service.storage.scripts import load_scripts
from service.storage.sender import ErrorReply


class FakeRedis:
    """A CommandSender on fakeredis, which does not know `#!lua`: the first line of each script is removed."""

    def __init__(self, server: FakeServer | None = None) -> None:
        self.client = FakeAsyncRedis(server=server or FakeServer(), protocol=2, decode_responses=True)
        self.client.response_callbacks.clear()  # return replies unchanged, as MultiplexedConnection does
        self.lock = asyncio.Lock()  # one command at a time, as on one connection
        self.loaded: set[str] = set()
        self.source_of = {script.sha: script.source for script in load_scripts().values()}

    def forget_scripts(self) -> None:
        """Lose all scripts, as an engine does that restarts."""
        self.loaded.clear()

    def send(self, *command: bytes | str | int, safe_to_repeat: bool = False) -> Awaitable[Any]:
        return asyncio.ensure_future(self._send(*command))

    async def _send(self, name: Any, *args: Any) -> Any:
        if name == "EVALSHA":
            if args[0] not in self.loaded:
                raise ErrorReply("NOSCRIPT No matching script.")
            name, args = "EVAL", (self.source_of[args[0]], *args[1:])
        if name == "EVAL":
            self.loaded |= {sha for sha, source in self.source_of.items() if source == args[0]}
            args = (re.sub("^#!lua.*", "", args[0]), *args[1:])
        async with self.lock:
            try:
                return await self.client.execute_command(name, *args)  # type: ignore[no-untyped-call]
            except ResponseError as error:
                raise ErrorReply(str(error)) from error

"""fakeredis as a CommandSender. It is fast; the same tests also run on a real engine."""

import asyncio
import re
from collections.abc import Awaitable
from typing import Any

from fakeredis import FakeAsyncRedis, FakeServer, FakeStrictRedis
from redis.exceptions import ResponseError

from service.storage.scripts import load_scripts
from service.storage.sender import ErrorReply


class FakeRedis:
    """A CommandSender on fakeredis, which does not know `#!lua`: the first line of each script is removed."""

    def __init__(self, server: FakeServer | None = None) -> None:
        self.server = server or FakeServer()
        # Not FakeAsyncRedis: a command takes 0.14 ms with that, and 0.09 ms with this one.
        self.client = FakeStrictRedis(server=self.server, protocol=2, decode_responses=True)
        self.client.response_callbacks.clear()  # return replies unchanged, as MultiplexedConnection does
        self.loaded: set[str] = set()
        self.source_of = {script.sha: script.source for script in load_scripts().values()}

    def forget_scripts(self) -> None:
        """Lose all scripts, as an engine does that restarts."""
        self.loaded.clear()

    def send(self, *command: bytes | str | int, safe_to_repeat: bool = False) -> Awaitable[Any]:
        if "BLOCK" in command:
            return asyncio.ensure_future(self._wait(*command))
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        # The reply comes in a later turn of the event loop, as that of a real connection does.
        try:
            loop.call_soon(_reply, future, self._execute(*command))
        except ErrorReply as error:
            loop.call_soon(_fail, future, error)
        return future

    def _execute(self, name: Any, *args: Any) -> Any:
        if name == "EVALSHA":
            if args[0] not in self.loaded:
                raise ErrorReply("NOSCRIPT No matching script.")
            name, args = "EVAL", (self.source_of[args[0]], *args[1:])
        if name == "EVAL":
            self.loaded |= {sha for sha, source in self.source_of.items() if source == args[0]}
            args = (re.sub("^#!lua.*", "", args[0]), *args[1:])
        try:
            return self.client.execute_command(name, *args)  # type: ignore[no-untyped-call]
        except ResponseError as error:
            raise ErrorReply(str(error)) from error

    async def _wait(self, *command: Any) -> Any:
        async with FakeAsyncRedis(server=self.server, protocol=2, decode_responses=True) as client:
            client.response_callbacks.clear()
            return await client.execute_command(*command)  # type: ignore[no-untyped-call]


def _reply(future: asyncio.Future[Any], reply: Any) -> None:
    if not future.done():  # otherwise its caller was cancelled
        future.set_result(reply)


def _fail(future: asyncio.Future[Any], error: ErrorReply) -> None:
    if not future.done():
        future.set_exception(error)

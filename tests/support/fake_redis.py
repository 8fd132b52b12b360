"""fakeredis as a CommandSender. It is fast; the same tests also run on a real engine."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any, Final

from fakeredis import FakeAsyncRedis, FakeServer, FakeStrictRedis
from fakeredis._socket import FakeSocket
from fakeredis.commands_mixins import scripting_mixin
from redis import Redis

from service.storage.scripts import load_scripts
from service.storage.sender import ErrorReply

_SHA_OF: Final = {script.source: script.sha for script in load_scripts().values()}
_SOURCE_OF: Final = {sha: source for source, sha in _SHA_OF.items()}

# fakeredis looks for new globals at each redis.call() of a script, which took a tenth of the time of a script. A real
# engine refuses them, and the same tests run there.
scripting_mixin._check_for_lua_globals = lambda *_: None


@cache
def _without_first_line(source: str) -> str:
    return re.sub("^#!lua.*", "", source)


class CompiledScripts:
    """Takes the place of fakeredis' LuaRuntime, and compiles each script only once, as an engine does.

    fakeredis makes a runtime for each server, and compiles a script and collects all garbage of Lua each time it runs
    one. That took three quarters of the time of a script.
    """

    def __init__(self, runtime: Any) -> None:
        self.globals = runtime.globals
        self.table_from = runtime.table_from
        self._runtime = runtime
        self._compiled: dict[bytes, Callable[[], Any]] = {}

    def execute(self, source: bytes | str) -> Any:
        if source == "collectgarbage()":
            return None  # Lua collects its garbage by itself
        if not isinstance(source, bytes):
            return self._runtime.execute(source)
        compiled = self._compiled.get(source)
        if compiled is None:
            compiled = self._compiled[source] = self._runtime.compile(source)
        return compiled()


@cache
def _lua_of_all_servers() -> dict[str, Any]:
    """Return the attributes that fakeredis gives a server when it runs the first script. No script leaves a global."""
    server = FakeServer()
    FakeStrictRedis(server=server).eval("return 1", 0)
    lua = {name: value for name, value in vars(server).items() if name.startswith("_lua_")}
    return {**lua, "_lua_runtime": CompiledScripts(lua["_lua_runtime"])}


class FakeRedis:
    """A CommandSender on fakeredis, which does not know `#!lua`: the first line of each script is removed."""

    def __init__(self, server: FakeServer | None = None) -> None:
        self.server = server or FakeServer()
        vars(self.server).update(_lua_of_all_servers())
        self._replies: list[Any] = []
        # The commands go to the fake server without a client: with one, a command took twice the time.
        self._socket: Any = FakeSocket(self.server, db=0, client_class=Redis, client_info={"resp": 2})
        vars(self._socket)["put_response"] = self._replies.append
        self.loaded: set[str] = set()

    def close(self) -> None:
        self._socket.close()

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
            name, args = "EVAL", (_SOURCE_OF[args[0]], *args[1:])
        if name == "EVAL":
            if sha := _SHA_OF.get(args[0]):
                self.loaded.add(sha)
            args = (_without_first_line(args[0]), *args[1:])
        fields = [part if isinstance(part, bytes) else str(part).encode() for part in (*name.split(), *args)]
        self._socket._process_command(fields)
        reply = self._replies.pop()
        if isinstance(reply, Exception):
            raise ErrorReply(str(reply))
        return _decoded(reply)

    async def _wait(self, *command: Any) -> Any:
        async with FakeAsyncRedis(server=self.server, protocol=2, decode_responses=True) as client:
            client.response_callbacks.clear()
            return await client.execute_command(*command)  # type: ignore[no-untyped-call]


def _decoded(reply: Any) -> Any:
    """Return a reply with text instead of bytes, as MultiplexedConnection does."""
    if isinstance(reply, bytes):
        return reply.decode()
    if isinstance(reply, list):
        return [_decoded(part) for part in reply]
    return reply


def _reply(future: asyncio.Future[Any], reply: Any) -> None:
    if not future.done():  # otherwise its caller was cancelled
        future.set_result(reply)


def _fail(future: asyncio.Future[Any], error: ErrorReply) -> None:
    if not future.done():
        future.set_exception(error)

"""Opens connections to Redis (to dial: to open a connection). The only importer of redis-py.

redis-py handles TLS, users and passwords, Unix sockets and database numbers.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from redis.asyncio.connection import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from service.domain.errors.storage import UnsupportedRedis
from service.storage.sender import ErrorReply

_WRONG_URL: Final = (
    "the Redis URL cannot be used. Its form is redis://user:password@host:6379/0 or unix:///path?db=0. In user and "
    "password, write %23 for #, %2F for /, %3F for ?, %40 for @, %3A for : and %25 for %"
)
"""Without the reason of redis-py, which may quote a part of the password."""


class Execute(Protocol):
    """Executes a command on a new connection. Raises ErrorReply."""

    async def __call__(self, *command: str | int) -> Any: ...


Verify = Callable[[Execute], Awaitable[None]]


class Dialer:
    """Opens connections to one address."""

    def __init__(self, url: str, *, timeout: float) -> None:
        """Read a URL in the form of redis-py. Raise UnsupportedRedis if it is wrong.

        `timeout`: the seconds for connecting.
        """
        _check_url(url)
        try:
            self._pool = ConnectionPool.from_url(
                url,
                protocol=2,  # RESP2: replies come in the order of the commands, and Redis sends nothing else
                retry=Retry(NoBackoff(), 0),  # redis-py would execute a command up to 11 times
                socket_timeout=timeout,
                socket_connect_timeout=timeout,
                decode_responses=True,
                driver_info=None,  # CLIENT SETINFO needs a permission that no other command here needs
            )
            self._pool.make_connection()  # type: ignore[no-untyped-call]  # checks the parts of the URL
        except (ValueError, TypeError, RedisError):
            raise UnsupportedRedis(_WRONG_URL) from None

    @asynccontextmanager
    async def connect(
        self, verify: Verify | None = None
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """Yield the streams of a connection to a Redis that replies, and close it at the end.

        `verify` is called first, with a function that executes a command on this connection.

        Raise OSError, and what `verify` raises.
        """
        connection = self._pool.make_connection()  # type: ignore[no-untyped-call]

        async def execute(*command: str | int) -> Any:
            await connection.send_command(*command)
            try:
                return await connection.read_response()
            except NoPermissionError as error:  # redis-py removes the code from the text
                raise ErrorReply(f"NOPERM {error}") from None
            except ResponseError as error:
                raise ErrorReply(str(error)) from None

        try:
            try:
                await connection.connect()
                # A Redis that hangs still accepts connections, and a Redis that loads its data replies LOADING.
                await connection.send_command("PING")
                with suppress(NoPermissionError):  # this is a reply, too
                    await connection.read_response()
                if verify is not None:
                    await verify(execute)
            except RedisError as error:
                raise ConnectionError(str(error)) from error
            except ErrorReply as error:
                raise ConnectionError(str(error)) from error
            # redis-py has no public way to its streams; Holdfast uses only these two private names.
            reader, writer = connection._reader, connection._writer
            assert reader is not None
            assert writer is not None
            yield reader, writer
        finally:
            with suppress(RedisError, OSError):
                await connection.disconnect(nowait=True)


def _check_url(url: str) -> None:
    """Raise UnsupportedRedis for a URL that redis-py would understand in another way than its author."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise UnsupportedRedis(_WRONG_URL) from None
    # In a password, `#` begins a fragment, `/` begins the path, and `?` the query, which then contains the `@`.
    if "#" in url or "@" in parts.query or (parts.scheme != "unix" and not re.fullmatch(r"(/[0-9]*)?", parts.path)):
        raise UnsupportedRedis(_WRONG_URL)

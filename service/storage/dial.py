"""Opens connections to Redis (to dial: to open a connection). The only importer of redis-py.

redis-py handles TLS, users and passwords, Unix sockets and database numbers.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from redis.asyncio.connection import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError, RedisError

from service.domain.errors.storage import UnsupportedRedis


class Dialer:
    """Opens connections to one address."""

    def __init__(self, url: str, *, timeout: float) -> None:
        """Read a URL in the form of redis-py. Raise UnsupportedRedis if it is wrong.

        `timeout`: the seconds for connecting.
        """
        try:
            self._pool = ConnectionPool.from_url(
                url,
                protocol=2,  # RESP2: replies come in the order of the commands, and Redis sends nothing else
                retry=Retry(NoBackoff(), 0),  # redis-py would execute a command up to 11 times
                socket_timeout=timeout,
                socket_connect_timeout=timeout,
                driver_info=None,  # CLIENT SETINFO needs a permission that no other command here needs
            )
            self._pool.make_connection()  # type: ignore[no-untyped-call]  # checks the parts of the URL
        except (ValueError, TypeError, RedisError) as error:
            raise UnsupportedRedis(f"the Redis URL cannot be used: {error}") from None

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """Yield the streams of a connection to a Redis that replies, and close it at the end. Raise OSError."""
        connection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            try:
                await connection.connect()
                # A Redis that hangs still accepts connections, and a Redis that loads its data replies LOADING.
                await connection.send_command("PING")
                with suppress(NoPermissionError):  # this is a reply, too
                    await connection.read_response()
            except RedisError as error:
                raise ConnectionError(str(error)) from error
            # redis-py has no public way to its streams; Holdfast uses only these two private names.
            reader, writer = connection._reader, connection._writer
            assert reader is not None
            assert writer is not None
            yield reader, writer
        finally:
            with suppress(RedisError, OSError):
                await connection.disconnect(nowait=True)

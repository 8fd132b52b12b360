"""Opens connections to an engine. The only importer of redis-py: TLS, ACL, unix sockets and databases are its work."""

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
        """Take a URL as redis-py does, and the seconds for connecting. Raise UnsupportedRedis for a wrong URL."""
        try:
            self._pool = ConnectionPool.from_url(
                url,
                protocol=2,  # replies in order, and no message that was not asked for
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
        """Give the streams of a connection whose engine answers, and close it at the end. Raise OSError."""
        connection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            try:
                await connection.connect()
                # An engine that hangs still accepts connections, and an engine that loads its data replies LOADING.
                await connection.send_command("PING")
                with suppress(NoPermissionError):  # an answer, too
                    await connection.read_response()
            except RedisError as error:
                raise ConnectionError(str(error)) from error
            # redis-py has no public way to its streams; these two names are all that Holdfast takes.
            reader, writer = connection._reader, connection._writer
            assert reader is not None
            assert writer is not None
            yield reader, writer
        finally:
            with suppress(RedisError, OSError):
                await connection.disconnect(nowait=True)

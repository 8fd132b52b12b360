"""Opens connections to Redis (to dial: to open a connection). The only importer of redis-py.

redis-py handles TLS, users and passwords, Unix sockets and database numbers. Sentinels and the nodes of a cluster are
asked here where the primaries are: redis-py believes the first that answers, also if a failover has taken place
without it.
"""

import asyncio
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, Protocol

from redis.asyncio.connection import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from service.domain.errors.storage import ReplicaRedis, UnsupportedRedis
from service.storage.addresses import Address
from service.storage.cluster_topology import Topology, newest, read_cluster_url, read_shards, read_slots, read_topology
from service.storage.sender import ErrorReply
from service.storage.sentinel import current_primary, read_sentinel_url

_WRONG_URL: Final = (
    "the Redis URL cannot be used. Its form is redis://user:password@host:6379/0, unix:///path?db=0, "
    "redis+sentinel://user:password@host1,host2,host3/name?sentinel_password=password or "
    "redis+cluster://user:password@host1:6379,host2:6379. In user and password, write "
    "%23 for #, %2F for /, %3F for ?, %40 for @, %3A for : and %25 for %"
)
"""Without the reason of redis-py, which may quote a part of the password."""


class Execute(Protocol):
    """Executes a command on a new connection. Raises ErrorReply."""

    async def __call__(self, *command: str | int) -> Any: ...


Verify = Callable[[Execute], Awaitable[None]]


_MAX_ASKING_SECONDS: Final = 0.5
"""Seconds that a sentinel, or a node of a cluster, may take to answer. Often it was on the machine of the primary, and
is lost, too."""

_MAX_ASKED_NODES: Final = 6
"""How many nodes of a cluster are asked where the slots are, in addition to those of the URL."""


class Dialer:
    """Opens connections to one address, or to the primary that sentinels name."""

    def __init__(self, url: str, *, timeout: float, node: Address | None = None) -> None:
        """Read a URL in the form of redis-py, or one of sentinels. Raise UnsupportedRedis if it is wrong.

        `timeout`: the seconds for connecting. `node`: of the cluster that the URL is about.
        """
        self._node = node
        try:
            _check_url(url)
            sentinels = read_sentinel_url(url)
            if node is not None:
                self._pool = _pool(read_cluster_url(url).node_url, timeout)
            else:
                self._pool = _pool(url if sentinels is None else sentinels.primary, timeout)
            self._sentinels = [
                _pool(each, min(timeout, _MAX_ASKING_SECONDS)) for each in (sentinels.sentinels if sentinels else ())
            ]
        except (ValueError, TypeError, RedisError):
            raise UnsupportedRedis(_WRONG_URL) from None
        self._primary_name = sentinels.name if sentinels else ""
        self._address = node
        """The address of the primary when the last connection was opened."""

    @property
    def asks_sentinels(self) -> bool:
        """Whether sentinels must be asked for the address of the primary."""
        return bool(self._sentinels)

    async def has_moved(self) -> bool:
        """Return whether sentinels name another primary than at the last connection. Raise OSError if none knows."""
        return await self._find_primary() != self._address

    @asynccontextmanager
    async def connect(
        self, verify: Verify | None = None
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """Yield the streams of a connection to a Redis that replies, and close it at the end.

        `verify` is called first, with a function that executes a command on this connection.

        Raise OSError, and what `verify` raises.
        """
        if self._sentinels:
            self._address = await self._find_primary()
        is_found = bool(self._sentinels) or self._node is not None
        async with _opened(self._pool, self._address, verify, is_found=is_found) as connection:
            # redis-py has no public way to its streams; Holdfast uses only these two private names.
            reader, writer = connection._reader, connection._writer
            assert reader is not None
            assert writer is not None
            yield reader, writer

    async def _find_primary(self) -> Address:
        """Ask all sentinels at once. Raise OSError if none knows the primary."""
        answers = await asyncio.gather(*[self._ask(sentinel) for sentinel in self._sentinels])
        address = current_primary([answer for answer in answers if not isinstance(answer, str)])
        if address is None:
            reasons = "; ".join(dict.fromkeys(map(str, answers)))
            raise ConnectionError(f"no sentinel knows the primary {self._primary_name!r}: {reasons}")
        return address

    async def _ask(self, sentinel: ConnectionPool) -> list[str] | str:
        """Return what a sentinel says about the primary, or why it says nothing."""
        reply: list[str] = []

        async def ask(execute: Execute) -> None:
            reply.extend(await execute("SENTINEL", "MASTER", self._primary_name))

        try:
            async with _opened(sentinel, None, ask):
                return reply
        except OSError as error:
            return str(error)


class ClusterExplorer:
    """Asks the nodes of a cluster where the slots are."""

    def __init__(self, url: str, *, timeout: float) -> None:
        """Read the URL of a cluster. Raise UnsupportedRedis if it is wrong. `timeout`: the seconds for an answer."""
        try:
            _check_url(url)
            self._url = read_cluster_url(url)
            self._pool = _pool(self._url.node_url, min(timeout, _MAX_ASKING_SECONDS))
        except (ValueError, TypeError, RedisError):
            raise UnsupportedRedis(_WRONG_URL) from None

    async def topology(self, known: Sequence[Address] = ()) -> Topology:
        """Ask several nodes at once, and return what counts. Raise OSError if none answers.

        `known`: nodes that were named before. The nodes of the URL may be gone.
        """
        others = random.sample(known, min(len(known), _MAX_ASKED_NODES))
        asked = dict.fromkeys((*self._url.seeds, *others))
        answers = await asyncio.gather(*[self._ask(address) for address in asked])
        found = newest(answer for answer in answers if isinstance(answer, Topology))
        if found is None:
            reasons = dict.fromkeys(f"{address}: {answer}" for address, answer in zip(asked, answers, strict=True))
            raise ConnectionError(f"no node of the cluster says where its slots are: {'; '.join(reasons)}")
        return found

    async def _ask(self, address: Address) -> Topology | str:
        """Return what a node says, or why it says nothing."""
        replies: list[Topology] = []

        async def ask(execute: Execute) -> None:
            try:
                reply = await execute("CLUSTER", "SHARDS")
                shards = read_shards(reply, address, has_tls=self._url.has_tls)
            except ErrorReply as error:
                if "unknown subcommand" not in str(error).lower():
                    raise
                shards = read_slots(await execute("CLUSTER", "SLOTS"), address)
            replies.append(read_topology(shards, await execute("CLUSTER", "INFO")))

        try:
            async with _opened(self._pool, address, ask, is_found=True):
                return replies[0]
        except (OSError, ValueError, KeyError) as error:
            return str(error)


def _pool(url: str, timeout: float) -> ConnectionPool:
    """Return what makes connections to a URL. Raise ValueError, TypeError and RedisError if it is wrong."""
    pool = ConnectionPool.from_url(
        url,
        protocol=2,  # RESP2: replies come in the order of the commands, and Redis sends nothing else
        retry=Retry(NoBackoff(), 0),  # redis-py would execute a command up to 11 times
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        decode_responses=True,
        driver_info=None,  # CLIENT SETINFO needs a permission that no other command here needs
    )
    pool.make_connection()  # type: ignore[no-untyped-call]  # checks the parts of the URL
    return pool


@asynccontextmanager
async def _opened(
    pool: ConnectionPool, address: Address | None, verify: Verify | None, *, is_found: bool = False
) -> AsyncIterator[Any]:
    """Yield a connection of redis-py to a server that replies. Raise OSError, and what `verify` raises.

    `address`: instead of the one in the URL. `is_found`: sentinels or a cluster named it, so if it is a replica, a
    failover goes on.
    """
    connection = pool.make_connection()  # type: ignore[no-untyped-call]
    if address is not None:
        connection.host, connection.port = address

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
        except (RedisError, ErrorReply) as error:
            raise ConnectionError(str(error)) from error
        except RuntimeError as error:
            if "closed" not in str(error):  # uvloop says so of a connection that has just been reset
                raise
            raise ConnectionError(str(error)) from error
        except ReplicaRedis as error:
            if is_found:
                raise ConnectionError(error.reason) from error
            raise
        yield connection
    finally:
        with suppress(RedisError, OSError):
            await connection.disconnect(nowait=True)


def _check_url(url: str) -> None:
    """Raise ValueError for a URL that redis-py would understand in another way than its author."""
    # Not urlsplit(): since Python 3.12 it refuses several hosts if the first is an IPv6 address.
    scheme, _, rest = url.partition("://")
    before_query, _, query = rest.partition("?")
    _, slash, path = before_query.partition("/")
    # In a password, `#` begins a fragment, `/` begins the path, and `?` the query, which then contains the `@`.
    has_path = scheme == "unix" or scheme.endswith(("+sentinel", "+cluster"))
    if "#" in url or "@" in query or (not has_path and not re.fullmatch(r"(/[0-9]*)?", slash + path)):
        raise ValueError

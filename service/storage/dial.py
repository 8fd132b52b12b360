"""Opens connections to Redis (to dial: to open a connection).

Sentinels and the nodes of a cluster are asked here where the primaries are: all of them at once, because the first that
answers may not have heard of a failover.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol

from service.domain.errors.storage import ReplicaRedis, UnsupportedRedis
from service.storage.addresses import Address
from service.storage.cluster_topology import Topology, newest, read_cluster_url, read_shards, read_slots, read_topology
from service.storage.protocol import INCOMPLETE, pack, reply_reader
from service.storage.redis_url import RedisUrl, check_form, read_redis_url, tls_context
from service.storage.sender import ErrorReply
from service.storage.sentinel import current_primary, read_sentinel_url

_WRONG_URL: Final = (
    "the Redis URL cannot be used. Its form is redis://user:password@host:6379/0, unix:///path?db=0, "
    "redis+sentinel://user:password@host1,host2,host3/name?sentinel_password=password or "
    "redis+cluster://user:password@host1:6379,host2:6379. In user and password, write "
    "%23 for #, %2F for /, %3F for ?, %40 for @, %3A for : and %25 for %"
)
"""The message does not quote the wrong part of the URL: it may be a part of the password."""


class Execute(Protocol):
    """Executes a command on a new connection. Raises ErrorReply."""

    async def __call__(self, *command: str | int) -> Any: ...


Verify = Callable[[Execute], Awaitable[None]]


_MAX_ASKING_SECONDS: Final = 0.5
"""Seconds that a sentinel, or a node of a cluster, may take to answer. Often it was on the machine of the primary, and
is lost, too."""

_READ_SIZE: Final = 64 * 1024
"""Bytes that one read returns at most."""

_MAX_ASKED_NODES: Final = 6
"""How many nodes of a cluster are asked where the slots are, in addition to those of the URL."""


class Dialer:
    """Opens connections to one address, or to the primary that sentinels name."""

    def __init__(self, url: str, *, timeout: float, node: Address | None = None) -> None:
        """Read the URL of a Redis, or one of sentinels. Raise UnsupportedRedis if it is wrong.

        `timeout`: the seconds for connecting, and for each reply meanwhile. `node`: of the cluster that the URL is
        about.
        """
        self._node = node
        self._timeout = timeout
        try:
            check_form(url)
            sentinels = read_sentinel_url(url)
            if node is not None:
                self._url = read_redis_url(read_cluster_url(url).node_url)
            else:
                self._url = read_redis_url(url if sentinels is None else sentinels.primary)
            self._sentinels = [read_redis_url(each) for each in (sentinels.sentinels if sentinels else ())]
        except ValueError:
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
        async with _opened(self._url, self._address, self._timeout, verify, is_found=is_found) as streams:
            yield streams

    async def _find_primary(self) -> Address:
        """Ask all sentinels at once. Raise OSError if none knows the primary."""
        answers = await asyncio.gather(*[self._ask(sentinel) for sentinel in self._sentinels])
        address = current_primary([answer for answer in answers if not isinstance(answer, str)])
        if address is None:
            reasons = "; ".join(dict.fromkeys(map(str, answers)))
            raise ConnectionError(f"no sentinel knows the primary {self._primary_name!r}: {reasons}")
        return address

    async def _ask(self, sentinel: RedisUrl) -> list[str] | str:
        """Return what a sentinel says about the primary, or why it says nothing."""
        reply: list[str] = []

        async def ask(execute: Execute) -> None:
            reply.extend(await execute("SENTINEL", "MASTER", self._primary_name))

        try:
            async with _opened(sentinel, None, min(self._timeout, _MAX_ASKING_SECONDS), ask):
                return reply
        except OSError as error:
            return str(error)


class ClusterExplorer:
    """Asks the nodes of a cluster where the slots are."""

    def __init__(self, url: str, *, timeout: float) -> None:
        """Read the URL of a cluster. Raise UnsupportedRedis if it is wrong. `timeout`: the seconds for an answer."""
        try:
            check_form(url)
            self._url = read_cluster_url(url)
            self._node_url = read_redis_url(self._url.node_url)
        except ValueError:
            raise UnsupportedRedis(_WRONG_URL) from None
        self._timeout = min(timeout, _MAX_ASKING_SECONDS)

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
            async with _opened(self._node_url, address, self._timeout, ask, is_found=True):
                return replies[0]
        except (OSError, ValueError, KeyError) as error:
            return str(error)


@asynccontextmanager
async def _opened(
    url: RedisUrl, address: Address | None, seconds: float, verify: Verify | None, *, is_found: bool = False
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Yield the streams of a connection to a server that replies. Raise OSError, and what `verify` raises.

    `address`: instead of the one in the URL. `is_found`: sentinels or a cluster named it, so if it is a replica, a
    failover goes on. `seconds`: for connecting, and for each reply.
    """
    reader, writer = await _open_streams(url, address or url.address, seconds)
    replies = reply_reader(ConnectionError)

    async def execute(*command: str | int) -> Any:
        writer.write(pack(command))
        try:
            async with asyncio.timeout(seconds):
                while (reply := replies.gets()) is INCOMPLETE:
                    data = await reader.read(_READ_SIZE)
                    if not data:
                        raise ConnectionError("Redis closed the connection")
                    replies.feed(data)
        except TimeoutError:
            raise ConnectionError(f"no reply within {seconds} s") from None
        if isinstance(reply, ErrorReply):
            raise reply
        return reply

    try:
        try:
            await _log_in(execute, url)
            if verify is not None:
                await verify(execute)
        except ErrorReply as error:
            raise ConnectionError(str(error)) from error
        except RuntimeError as error:
            if "closed" not in str(error):  # uvloop says so of a connection that has just been reset
                raise
            raise ConnectionError(str(error)) from error
        except ReplicaRedis as error:
            if is_found:
                raise ConnectionError(error.reason) from error
            raise
        yield reader, writer
    finally:
        writer.close()


async def _open_streams(
    url: RedisUrl, address: Address, seconds: float
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect, also with TLS. Raise OSError that says where."""
    place = url.path or str(address)
    try:
        async with asyncio.timeout(seconds):
            if url.path:
                return await asyncio.open_unix_connection(url.path)
            tls = None if url.tls is None else tls_context(url.tls)
            return await asyncio.open_connection(address.host, address.port, ssl=tls)
    except TimeoutError:
        raise ConnectionError(f"no connection to {place} within {seconds} s") from None
    except OSError as error:
        raise ConnectionError(f"cannot connect to {place}: {error.strerror or error}") from error


async def _log_in(execute: Execute, url: RedisUrl) -> None:
    """Do what the URL says about user, database and name, and wait for a reply. Raise ErrorReply and OSError."""
    if url.login:
        await execute("AUTH", *url.login)
    if url.client_name:
        await execute("CLIENT", "SETNAME", url.client_name)
    if url.database:
        await execute("SELECT", url.database)
    try:
        # A Redis that hangs still accepts connections, and a Redis that loads its data replies LOADING.
        await execute("PING")
    except ErrorReply as error:
        if error.code != "NOPERM":  # this is a reply, too
            raise

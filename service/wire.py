"""One connection to Redis, shared by all requests of a worker.

The commands of one event-loop tick leave in one write, or in a few; the replies come back in the same
order, as text, and each wakes the call it belongs to. redis-py opens the connection (TLS, ACL, unix sockets, database);
its asyncio client has no multiplexing (https://github.com/redis/redis-py/issues/3767).

A call ends in exactly one of these ways:

- its reply, or the error that Redis replied with, as redis-py's exception;
- `Overloaded`: too many calls were under way, it was not sent;
- `StorageUnavailable`: it was not sent until its deadline, or is repeatable and got no reply;
- `OutcomeUnknown`: it was sent, and the connection broke or the deadline passed.

A call that was not sent when the connection breaks is sent over the next one. One that was sent is
never sent again, unless the caller says that it is repeatable.
"""

import asyncio
import random
from collections import deque
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import hiredis
import structlog
from redis.asyncio.connection import AbstractConnection, ConnectionPool  # noqa: TID251
from redis.asyncio.retry import Retry  # noqa: TID251
from redis.backoff import NoBackoff  # noqa: TID251
from redis.exceptions import InvalidResponse, NoPermissionError, RedisError  # noqa: TID251

from service.errors import OutcomeUnknown, Overloaded, StorageUnavailable, Unfit

log = structlog.get_logger()

_READ_SIZE = 256 * 1024
_BATCH = 32
"""Commands that leave before their tick ends: Redis begins with them while we go on. Half as many are as good."""
_FIRST_BACKOFF, _LONGEST_BACKOFF = 0.01, 1.0
_SHORTEST_WATCH = 0.05
_INCOMPLETE = object()


class _Call:
    """A command on its way. `deadline` in event-loop time."""

    __slots__ = ("command", "deadline", "future", "repeatable")

    def __init__(self, command: bytes, repeatable: bool, deadline: float, future: asyncio.Future[Any]) -> None:
        self.command = command
        self.repeatable = repeatable
        self.deadline = deadline
        self.future = future


class Wire:
    """A multiplexed connection that opens on `async with`, reopens when it breaks, and closes at the end."""

    def __init__(self, url: str, *, timeout: float, max_in_flight: int) -> None:
        """`url` as redis-py takes it; `timeout` in seconds, of connecting and of each call. Raises Unfit."""
        self._timeout = timeout
        self._max_in_flight = max_in_flight
        try:
            self._pool = ConnectionPool.from_url(
                url,
                protocol=2,  # replies in order, and nothing that was not asked for
                retry=Retry(NoBackoff(), 0),  # redis-py would repeat commands, see DESIGN.md
                socket_timeout=timeout,
                socket_connect_timeout=timeout,
                driver_info=None,  # CLIENT SETINFO needs a permission that nothing else here does
            )
            self._pool.make_connection()  # type: ignore[no-untyped-call]  # what the URL says is looked at here
        except (ValueError, TypeError, RedisError) as error:
            raise Unfit(f"the Redis URL cannot be used: {error}") from None
        self._unsent: deque[_Call] = deque()
        self._unanswered: deque[_Call] = deque()
        self._writer: asyncio.StreamWriter | None = None
        self._lost_at: float | None = None
        self._heard_at = 0.0
        self._reason = "not connected yet"
        self._flush_is_due = False
        self._watch_is_due = False
        self._watch_at = 0.0
        self._watch_was_late = False
        self._keeper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._lost_at = self._loop.time()
        self._keeper = asyncio.create_task(self._keep_connected(), name="wire")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        keeper, self._keeper = self._keeper, None
        assert keeper is not None
        while not keeper.done():
            # Again and again: before Python 3.12 wait_for(), which redis-py connects with, can lose a
            # cancellation (https://github.com/python/cpython/issues/86296).
            keeper.cancel()
            await asyncio.wait([keeper], timeout=0.1)
        while self._unsent:
            self._fail(self._unsent.popleft(), StorageUnavailable("the service is shutting down"))

    def send(self, *command: bytes | str | int, repeatable: bool = False) -> asyncio.Future[Any]:
        """Sends a command with the others of this tick; the future brings its reply.

        `repeatable`: executing it twice does no harm. Raises Overloaded.
        """
        if len(self._unsent) + len(self._unanswered) >= self._max_in_flight:
            raise Overloaded(f"{self._max_in_flight} calls are under way")
        now = self._loop.time()
        future = self._loop.create_future()
        packed = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub knows tuples of one
        call = _Call(packed, repeatable, now + self._timeout, future)
        if self._lost_at is not None and now - self._lost_at > self._timeout:
            # Down for longer than any call may wait: say so at once.
            self._fail(call, StorageUnavailable(self._reason))
            return future
        self._unsent.append(call)
        if len(self._unsent) >= _BATCH:
            self._flush()
        elif not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self._flush_rest)
        if not self._watch_is_due:
            self._watch_is_due = True
            self._watch_again_at(call.deadline)
        return future

    def _flush_rest(self) -> None:
        self._flush_is_due = False
        self._flush()

    def _flush(self) -> None:
        if self._writer is None or self._writer.transport.is_closing() or not self._unsent:
            return  # what is not sent now goes over the next connection
        # A caller that went away before its command left is not worth a command.
        calls = [call for call in self._unsent if not call.future.done()]
        self._unsent.clear()
        self._unanswered.extend(calls)
        self._writer.write(b"".join([call.command for call in calls]))

    def _watch(self) -> None:
        """Ends the calls whose deadline has passed. Both queues are in the order of their deadlines."""
        now = self._loop.time()
        if now > self._watch_at + _SHORTEST_WATCH and not self._watch_was_late:
            # It is we who were held up, not Redis: first, what it has sent meanwhile is read.
            self._watch_was_late = True
            self._watch_again_at(now + _SHORTEST_WATCH)
            return
        self._watch_was_late = False
        if self._unanswered and self._unanswered[0].deadline <= now:
            if now - self._heard_at >= self._timeout:
                # Redis hangs, or the network swallows. All that was sent is lost; what comes now is not
                # sent after it into the void, it waits for a connection that answers.
                self._break(f"no reply within {self._timeout} s")
            for call in self._unanswered:  # slow, but alive: the replies will still be consumed in order
                if call.deadline > now:
                    break
                self._fail_overdue(call)
        while self._unsent and self._unsent[0].deadline <= now:
            self._fail(self._unsent.popleft(), StorageUnavailable(self._reason))
        heads = [calls[0].deadline for calls in (self._unanswered, self._unsent) if calls]
        self._watch_is_due = bool(heads)
        if heads:
            self._watch_again_at(max(min(heads), now + _SHORTEST_WATCH))

    def _watch_again_at(self, moment: float) -> None:
        self._watch_at = moment
        self._loop.call_at(moment, self._watch)

    def _fail_overdue(self, call: _Call) -> None:
        reason = f"no reply within {self._timeout} s"
        self._fail(call, StorageUnavailable(reason) if call.repeatable else OutcomeUnknown(reason))

    def _break(self, reason: str) -> None:
        """Gives up the connection: what was sent over it will get no reply."""
        self._reason = reason
        if self._writer is None:
            return
        if self._keeper is not None:
            log.warning("redis_lost", reason=reason, unanswered=len(self._unanswered))
        self._writer.transport.abort()
        self._writer = None
        now = self._lost_at = self._loop.time()
        for call in reversed(self._unanswered):
            if not call.repeatable:
                self._fail(call, OutcomeUnknown(reason))
            elif call.deadline <= now:
                self._fail(call, StorageUnavailable(reason))
            else:
                self._unsent.appendleft(call)
        self._unanswered.clear()

    def _fail(self, call: _Call, error: Exception) -> None:
        if not call.future.done():
            call.future.set_exception(error)

    async def _keep_connected(self) -> None:
        backoff = _FIRST_BACKOFF
        while True:
            connection = self._pool.make_connection()  # type: ignore[no-untyped-call]
            try:
                await connection.connect()
                await self._greet(connection)
                log.info("redis_connected")
                backoff = _FIRST_BACKOFF
                await self._serve(connection)
            except asyncio.CancelledError:
                self._break("the service is shutting down")
                raise
            except (RedisError, OSError) as error:
                if backoff == _FIRST_BACKOFF and self._writer is None:
                    log.warning("redis_unreachable", reason=str(error))
                self._break(str(error))
            except Exception as error:
                log.exception("redis_connection_failed")  # a fault of ours or of redis-py: it must not be the last try
                self._break(repr(error))
            finally:
                with suppress(RedisError, OSError):
                    await connection.disconnect(nowait=True)
            # Jitter, so that the workers of a fleet do not all come back in the same moment.
            await asyncio.sleep(backoff * random.uniform(0.5, 1.0))  # noqa: S311
            backoff = min(backoff * 2, _LONGEST_BACKOFF)

    async def _greet(self, connection: AbstractConnection) -> None:
        """Waits for an answer. A Redis that hangs still accepts connections, and one that loads its data refuses."""
        await connection.send_command("PING")
        with suppress(NoPermissionError):  # an answer, too
            await connection.read_response()

    async def _serve(self, connection: AbstractConnection) -> None:
        """Gives out the replies of one connection until it ends."""
        # redis-py has no public way to its streams and its errors; these three names are all we take.
        reader, self._writer = connection._reader, connection._writer
        parse_error = connection._parser.parse_error
        assert reader is not None
        replies = hiredis.Reader(
            protocolError=InvalidResponse,
            replyError=parse_error,
            encoding="utf-8",
            errors="replace",
            notEnoughData=_INCOMPLETE,
        )
        self._lost_at = None
        self._heard_at = self._loop.time()
        self._flush()
        while data := await reader.read(_READ_SIZE):
            self._heard_at = self._loop.time()
            replies.feed(data)
            while (reply := replies.gets()) is not _INCOMPLETE:
                if not self._unanswered:
                    raise InvalidResponse("a reply that nothing asked for")
                future = self._unanswered.popleft().future
                if future.done():
                    continue  # its caller went away
                if isinstance(reply, Exception):
                    future.set_exception(reply)
                else:
                    future.set_result(reply)
        if self._writer is not None:  # else it is we who gave it up, and said why
            raise ConnectionError("Redis closed the connection")

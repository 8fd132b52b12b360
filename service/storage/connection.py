"""One connection to an engine, shared by all requests of a worker.

Commands that are sent in the same round of the event loop leave in one write, or in a few. The replies come back in
the same order, as text, and each wakes the call that it belongs to. redis-py's asyncio client cannot share a
connection between calls (https://github.com/redis/redis-py/issues/3767).

A call ends in exactly one of these ways:

- its reply, or `ErrorReply`;
- `Overloaded`: too many calls were under way, so it was not sent;
- `StorageUnavailable`: it was not sent before its deadline, or it is idempotent and got no reply;
- `OutcomeUnknown`: it was sent, and the connection broke or the deadline passed.

A call that was not yet sent when the connection breaks is sent over the next connection. A call that was sent is
never sent again, unless the caller says that it is idempotent.
"""

import asyncio
import random
from collections import deque
from types import TracebackType
from typing import Any, Final, Self

import hiredis
import structlog

from service.domain.errors.storage import OutcomeUnknown, Overloaded, StorageUnavailable
from service.storage.dial import Dialer
from service.storage.sender import ErrorReply

log = structlog.get_logger()

_READ_SIZE: Final = 256 * 1024
_BATCH: Final = 32
"""Commands that are written before the round of the event loop ends. The engine works on them meanwhile.

Half as many are as good.
"""
_FIRST_BACKOFF: Final = 0.01
_MAX_BACKOFF: Final = 1.0
_MIN_CHECK_INTERVAL: Final = 0.05
_INCOMPLETE: Final = object()


class _ProtocolError(Exception):
    """The engine sent what is no reply, or a reply to nothing."""


class _Call:
    """A command on its way. `deadline` in event-loop time."""

    __slots__ = ("command", "deadline", "future", "idempotent")

    def __init__(self, command: bytes, idempotent: bool, deadline: float, future: asyncio.Future[Any]) -> None:
        self.command = command
        self.idempotent = idempotent
        self.deadline = deadline
        self.future = future


class MultiplexedConnection:
    """A shared connection. `async with` opens it; it reopens when it breaks, and closes at the end."""

    def __init__(self, url: str, *, timeout: float, max_in_flight: int) -> None:
        """Take a URL as redis-py does, and the seconds for connecting and for each call. Raise UnsupportedRedis."""
        self._dialer = Dialer(url, timeout=timeout)
        self._timeout = timeout
        self._max_in_flight = max_in_flight
        self._unsent: deque[_Call] = deque()
        self._unanswered: deque[_Call] = deque()
        self._writer: asyncio.StreamWriter | None = None
        self._lost_at: float | None = None
        self._last_reply_at = 0.0
        self._reason = "not connected yet"
        self._flush_is_due = False
        self._check_is_due = False
        self._check_at = 0.0
        self._check_was_late = False
        self._reconnect_task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._lost_at = self._loop.time()
        self._reconnect_task = asyncio.create_task(self._keep_connected(), name="redis-connection")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task, self._reconnect_task = self._reconnect_task, None
        assert task is not None
        while not task.done():
            # Repeated: before Python 3.12, wait_for(), which redis-py connects with, can lose a cancellation
            # (https://github.com/python/cpython/issues/86296).
            task.cancel()
            await asyncio.wait([task], timeout=0.1)
        while self._unsent:
            self._fail(self._unsent.popleft(), StorageUnavailable("the service is shutting down"))

    def send(self, *command: bytes | str | int, idempotent: bool = False) -> asyncio.Future[Any]:
        """Send a command, together with the others of this round of the event loop. The future gives its reply.

        `idempotent`: executing the command twice does no harm. Raise Overloaded.
        """
        if len(self._unsent) + len(self._unanswered) >= self._max_in_flight:
            raise Overloaded(f"{self._max_in_flight} calls are under way")
        now = self._loop.time()
        future = self._loop.create_future()
        packed = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub knows only tuples with one part
        call = _Call(packed, idempotent, now + self._timeout, future)
        if self._lost_at is not None and now - self._lost_at > self._timeout:
            # The engine has been away for longer than any call may wait: fail at once.
            self._fail(call, StorageUnavailable(self._reason))
            return future
        self._unsent.append(call)
        if len(self._unsent) >= _BATCH:
            self._flush()
        elif not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self._flush_rest)
        if not self._check_is_due:
            self._check_is_due = True
            self._check_again_at(call.deadline)
        return future

    def _flush_rest(self) -> None:
        self._flush_is_due = False
        self._flush()

    def _flush(self) -> None:
        if self._writer is None or self._writer.transport.is_closing() or not self._unsent:
            return  # calls that are not sent now are sent over the next connection
        # A call whose caller was cancelled before the write is left out.
        calls = [call for call in self._unsent if not call.future.done()]
        self._unsent.clear()
        self._unanswered.extend(calls)
        self._writer.write(b"".join([call.command for call in calls]))

    def _check_deadlines(self) -> None:
        """End the calls whose deadline has passed. Both queues are in the order of their deadlines."""
        now = self._loop.time()
        if now > self._check_at + _MIN_CHECK_INTERVAL and not self._check_was_late:
            # This event loop was blocked, not the engine: first read the replies that came meanwhile.
            self._check_was_late = True
            self._check_again_at(now + _MIN_CHECK_INTERVAL)
            return
        self._check_was_late = False
        if self._unanswered and self._unanswered[0].deadline <= now:
            if now - self._last_reply_at >= self._timeout:
                # The engine hangs, or the network drops packets. Everything that was sent is lost. Later calls are
                # not sent over this connection; they wait for one that answers.
                self._drop_connection(f"no reply within {self._timeout} s")
            for call in self._unanswered:  # the engine is slow, but alive: its replies will still be read in order
                if call.deadline > now:
                    break
                self._fail_overdue(call)
        while self._unsent and self._unsent[0].deadline <= now:
            self._fail(self._unsent.popleft(), StorageUnavailable(self._reason))
        deadlines = [calls[0].deadline for calls in (self._unanswered, self._unsent) if calls]
        self._check_is_due = bool(deadlines)
        if deadlines:
            self._check_again_at(max(min(deadlines), now + _MIN_CHECK_INTERVAL))

    def _check_again_at(self, moment: float) -> None:
        self._check_at = moment
        self._loop.call_at(moment, self._check_deadlines)

    def _fail_overdue(self, call: _Call) -> None:
        reason = f"no reply within {self._timeout} s"
        self._fail(call, StorageUnavailable(reason) if call.idempotent else OutcomeUnknown(reason))

    def _drop_connection(self, reason: str) -> None:
        """Close the connection, and decide about the calls that were sent over it: none will get a reply."""
        self._reason = reason
        if self._writer is None:
            return
        if self._reconnect_task is not None:
            log.warning("redis_lost", reason=reason, unanswered=len(self._unanswered))
        self._writer.transport.abort()
        self._writer = None
        now = self._lost_at = self._loop.time()
        for call in reversed(self._unanswered):
            if not call.idempotent:
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
            try:
                async with self._dialer.connect() as (reader, writer):
                    log.info("redis_connected")
                    backoff = _FIRST_BACKOFF
                    await self._read_replies(reader, writer)
            except asyncio.CancelledError:
                self._drop_connection("the service is shutting down")
                raise
            except (OSError, _ProtocolError) as error:
                if backoff == _FIRST_BACKOFF and self._writer is None:
                    log.warning("redis_unreachable", reason=str(error))
                self._drop_connection(str(error))
            except Exception as error:
                # A fault of Holdfast or of redis-py. Connecting must go on all the same.
                log.exception("redis_connection_failed")
                self._drop_connection(repr(error))
            # With jitter, so that many workers do not all reconnect in the same moment.
            await asyncio.sleep(backoff * random.uniform(0.5, 1.0))  # noqa: S311
            backoff = min(backoff * 2, _MAX_BACKOFF)

    async def _read_replies(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Hand the replies of one connection to their calls until the connection ends."""
        self._writer = writer
        replies = hiredis.Reader(
            protocolError=_ProtocolError,
            replyError=ErrorReply,
            encoding="utf-8",
            errors="replace",
            notEnoughData=_INCOMPLETE,
        )
        self._lost_at = None
        self._last_reply_at = self._loop.time()
        self._flush()
        while data := await reader.read(_READ_SIZE):
            self._last_reply_at = self._loop.time()
            replies.feed(data)
            while (reply := replies.gets()) is not _INCOMPLETE:
                if not self._unanswered:
                    raise _ProtocolError("a reply to no command")
                future = self._unanswered.popleft().future
                if future.done():
                    continue  # its caller was cancelled
                if isinstance(reply, Exception):
                    future.set_exception(reply)
                else:
                    future.set_result(reply)
        if self._writer is not None:  # otherwise Holdfast closed it, and has said why
            raise ConnectionError("Redis closed the connection")

"""One connection to Redis, shared by all requests of a worker.

Commands that are sent in the same round of the event loop are written together: in one write, or in one write per
32 commands. The replies come back in the same order, as text, and each completes the future of its command.
redis-py's asyncio client cannot share a connection between tasks (https://github.com/redis/redis-py/issues/3767).

A command ends in exactly one of these ways:

- its reply, or `ErrorReply`;
- `Overloaded`: too many commands were waiting, so it was not sent;
- `StorageUnavailable`: it was not sent within the timeout or before the shutdown, or Redis has been away for longer
  than the timeout, or the command is safe to repeat and got no reply;
- `OutcomeUnknown`: it was sent, and the connection broke or the timeout passed.

A command that was not yet sent when the connection breaks is sent over the next connection. A command that was sent
is never sent again, unless the caller says that it is safe to repeat.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from time import perf_counter
from types import TracebackType
from typing import Any, Final, Self

from service.domain.errors.storage import OutcomeUnknown, Overloaded, StorageUnavailable, UnsupportedRedis
from service.logger import Logger
from service.metrics.counters import MAX_NOTED, Metrics
from service.metrics.families import CONNECTED, LOST
from service.storage.addresses import Address
from service.storage.admission import AdmissionLimit
from service.storage.dial import Dialer, Verify
from service.storage.pending_command import PendingCommand
from service.storage.protocol import INCOMPLETE, PushNotification, pack, reply_reader
from service.storage.replication import Replication
from service.storage.sender import ErrorReply
from service.storage.tracked_products import TrackedProducts

log = Logger()

_READ_SIZE: Final = 256 * 1024
"""Bytes that one read returns at most: as many as asyncio takes from a socket at a time."""

_BATCH: Final = 32
"""When this number of commands is waiting, they are written immediately, so that Redis can begin.

16 gave the same speed.
"""

_FIRST_BACKOFF_SECONDS: Final = 0.01
_MAX_BACKOFF_SECONDS: Final = 1.0
"""Pauses between attempts to connect: short at first, because Redis may only have restarted; then longer."""

_FOLLOW_SECONDS: Final = 1.0
"""Pause between two questions to sentinels whether the primary is still the same."""

_MIN_CHECK_INTERVAL_SECONDS: Final = 0.05
"""Pause between two checks of the timeouts, so that many commands share one. So a timeout can be noticed 50 ms late."""


class _ProtocolError(Exception):
    """Redis sent bytes that are not a reply, or a reply although no command was waiting."""


class MultiplexedConnection:
    """A shared connection. `async with` opens it; it reopens when it breaks, and closes at the end."""

    def __init__(
        self,
        url: str,
        *,
        timeout: float,
        max_in_flight: int,
        verify: Verify | None = None,
        metrics: Metrics | None = None,
        replication: Replication | None = None,
        node: Address | None = None,
        takes_over: Callable[[PendingCommand, ErrorReply], bool] | None = None,
        on_lost: Callable[[], None] | None = None,
        new_tracked: Callable[[], TrackedProducts[Any]] = TrackedProducts,
        facts: Mapping[str, int] | None = None,
    ) -> None:
        """Prepare a connection. Raise UnsupportedRedis for a wrong URL.

        `url`: of a Redis, or of sentinels. `timeout`: the seconds for connecting, and for each command.
        `verify` checks the Redis at the other end of each new connection, before any command is sent over it. While it
        raises UnsupportedRedis, all commands fail with that. `metrics` counts connections and replies. `replication`
        holds back the replies to changes until replicas have them; None: no reply is held back. `new_tracked` returns
        what is known of products over a new connection: nothing.
        `facts`: what each line of the log says about this connection.

        For a cluster: `node`: the one to connect to. `takes_over` gets each command that Redis refused, and returns
        whether it sends it elsewhere. `on_lost` is called when the connection breaks.
        """
        self._facts = facts or {}
        self._takes_over = takes_over
        self._on_lost = on_lost
        self._metrics = metrics or Metrics()
        self._verify = verify
        self._replication = replication
        self._unsupported: UnsupportedRedis | None = None
        self._must_reconnect = False
        self._dialer = Dialer(url, timeout=timeout, node=node)
        self._timeout = timeout
        self._max_in_flight = max_in_flight
        self._admission = AdmissionLimit(max_in_flight)
        self._new_tracked = new_tracked
        self.tracked = new_tracked()
        self._unsent: deque[PendingCommand] = deque()
        self._unanswered: deque[PendingCommand] = deque()
        self._writer: asyncio.StreamWriter | None = None
        self._lost_at: float | None = None
        self._last_reply_at = 0.0
        self._reason = "not connected yet"
        self._flush_is_due = False
        self._check_is_due = False
        self._check_at = 0.0
        self._check_was_late = False
        self._reconnect_task: asyncio.Task[None] | None = None
        self._follow_task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self.start()
        return self

    def start(self) -> None:
        """Begin to connect."""
        self._loop = asyncio.get_running_loop()
        self._lost_at = self._loop.time()
        self._reconnect_task = asyncio.create_task(self._keep_connected(), name="redis-connection")
        if self._dialer.asks_sentinels:
            self._follow_task = asyncio.create_task(self._follow_primary(), name="redis-primary")

    async def __aexit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the connection. Commands that were sent have an unknown outcome, and the others fail."""
        tasks = [task for task in (self._follow_task, self._reconnect_task) if task is not None]
        self._follow_task = self._reconnect_task = None
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        while self._unsent:
            self._fail(self._unsent.popleft(), StorageUnavailable("the service is shutting down"))

    def send(self, *command: bytes | str | int, safe_to_repeat: bool = False, route: Any = None) -> asyncio.Future[Any]:
        """Send a command, together with the others of this round of the event loop. The future gets its reply.

        `safe_to_repeat`: if the command is executed twice, that does no harm. `route`: of its slot in a cluster. Raise
        Overloaded.
        """
        if len(self._unsent) + len(self._unanswered) >= self._max_in_flight:
            raise Overloaded(f"{self._max_in_flight} commands wait for Redis already")
        now = self._loop.time()
        future = self._loop.create_future()
        pending = PendingCommand(pack(command), safe_to_repeat, now + self._timeout, future, route)
        if self._unsupported is not None:
            self._fail(pending, type(self._unsupported)(self._unsupported.reason))
            return future
        if self._lost_at is not None and now - self._lost_at > self._timeout:
            # Redis has not been reachable for longer than any command may wait: fail immediately.
            self._fail(pending, StorageUnavailable(self._reason))
            return future
        self._unsent.append(pending)
        if len(self._unsent) >= _BATCH:
            self._flush()
        elif not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self._flush_rest)
        if not self._check_is_due:
            self._check_is_due = True
            self._check_again_at(pending.times_out_at)
        return future

    def send_again(self, commands: Sequence[PendingCommand]) -> None:
        """Send commands that another node has not executed. They go before all others, because they are older."""
        self._unsent.extendleft(reversed(commands))
        if self._unsupported is not None:
            self._fail_unsent(self._unsupported)
            return
        if not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self._flush_rest)
        if not self._check_is_due and self._unsent:
            self._check_is_due = True
            self._check_again_at(self._unsent[0].times_out_at)

    def take_unsent(self, route: Any) -> list[PendingCommand]:
        """Remove the commands of a route that were not sent yet, and return them."""
        taken = [pending for pending in self._unsent if pending.route is route]
        if taken:
            self._unsent = deque(pending for pending in self._unsent if pending.route is not route)
        return taken

    def mark_with(self, shop: str) -> None:
        """Mark the batches that replicas must have in the keys of this shop, if there is no other shop yet."""
        if self._replication is not None and not self._replication.shop:
            self._replication.shop = shop

    def has_room(self) -> bool:
        """Return whether Redis answers so fast that new work will not wait for long."""
        return len(self._unsent) + len(self._unanswered) < self._admission.limit

    @property
    def in_flight(self) -> int:
        """The number of commands that wait for a reply."""
        return len(self._unsent) + len(self._unanswered)

    def reconnect(self) -> None:
        """Open a new connection when the commands that were sent are answered. The name of the host is resolved again.

        After a planned failover, the old primary keeps its connections, but takes no writes any more.
        """
        self._must_reconnect = True
        if not self._unanswered and self._writer is not None:
            self._writer.transport.abort()

    def _flush_rest(self) -> None:
        self._flush_is_due = False
        self._flush()

    def _flush(self) -> None:
        if self._writer is None or self._must_reconnect or self._writer.transport.is_closing() or not self._unsent:
            return  # commands that are not sent now are sent over the next connection
        if self._replication is not None and self._replication.is_waiting:
            return
        # Cancelled commands are not sent: nobody waits for their replies.
        sent = [pending for pending in self._unsent if not pending.future.done()]
        self._unsent.clear()
        if self._replication is not None:
            self._replication.cover(sent, pack)
        self._unanswered.extend(sent)
        self._writer.write(b"".join([pending.packed for pending in sent]))

    def _check_timeouts(self) -> None:
        """End the commands whose timeout has passed.

        Both queues begin with the oldest command; but in a cluster, commands that were sent again may stand anywhere.
        """
        now = self._loop.time()
        if now > self._check_at + _MIN_CHECK_INTERVAL_SECONDS and not self._check_was_late:
            # This event loop was blocked, not Redis: first read the replies that came meanwhile.
            self._check_was_late = True
            self._check_again_at(now + _MIN_CHECK_INTERVAL_SECONDS)
            return
        self._check_was_late = False
        if self._takes_over is not None:
            self._end_timed_out(now)
        if self._unanswered and self._unanswered[0].times_out_at <= now:
            if now - self._last_reply_at >= self._timeout:
                # Redis hangs, or the network drops packets. No reply to what was sent will be read any more, and later
                # commands wait for a new connection.
                self._drop_connection(f"no reply within {self._timeout} s")
            for pending in self._unanswered:  # Redis is slow, but alive: its replies will still be read in order
                if pending.times_out_at > now:
                    break
                self._fail_timed_out(pending)
        while self._unsent and self._unsent[0].times_out_at <= now:
            self._fail(self._unsent.popleft(), StorageUnavailable(self._reason))
        if self._takes_over is None:
            moments = [queue[0].times_out_at for queue in (self._unanswered, self._unsent) if queue]
        else:
            moments = [pending.times_out_at for queue in (self._unanswered, self._unsent) for pending in queue]
            moments = [moment for moment in moments if moment > now]
        self._check_is_due = bool(moments)
        if moments:
            self._check_again_at(max(min(moments), now + _MIN_CHECK_INTERVAL_SECONDS))

    def _end_timed_out(self, now: float) -> None:
        """End all commands whose timeout has passed. A reply to one that was sent is still read in its turn."""
        for pending in self._unanswered:
            if pending.times_out_at <= now and now - self._last_reply_at < self._timeout:
                self._fail_timed_out(pending)
        for pending in self._unsent:
            if pending.times_out_at <= now:
                self._fail(pending, StorageUnavailable(self._reason))

    def _check_again_at(self, moment: float) -> None:
        self._check_at = moment
        self._loop.call_at(moment, self._check_timeouts)

    def _fail_timed_out(self, pending: PendingCommand) -> None:
        reason = f"no reply within {self._timeout} s"
        self._fail(pending, StorageUnavailable(reason) if pending.safe_to_repeat else OutcomeUnknown(reason))

    def _drop_connection(self, reason: str) -> None:
        """Close the connection, and decide about the commands that were sent over it: none will get a reply."""
        self._reason = reason
        if self._writer is None:
            return
        if self._reconnect_task is not None:
            log.warning("redis_lost", reason=reason, unanswered=len(self._unanswered), **self._facts)
            self._metrics.count(LOST)
        self._writer.transport.abort()
        self._writer = None
        now = self._lost_at = self._loop.time()
        for pending in reversed(self._unanswered):
            if not pending.safe_to_repeat:
                self._fail(pending, OutcomeUnknown(reason))
            elif pending.times_out_at <= now:
                self._fail(pending, StorageUnavailable(reason))
            else:
                self._unsent.appendleft(pending)
        self._unanswered.clear()

    def _fail(self, pending: PendingCommand, error: Exception) -> None:
        if not pending.future.done():
            pending.future.set_exception(error)

    def _fail_unsent(self, error: UnsupportedRedis) -> None:
        while self._unsent:
            self._fail(self._unsent.popleft(), type(error)(error.reason))

    async def _keep_connected(self) -> None:
        backoff = _FIRST_BACKOFF_SECONDS
        while True:
            try:
                async with self._dialer.connect(self._verify) as (reader, writer):
                    self._unsupported = None
                    log.info("redis_connected", **self._facts)
                    self._metrics.count(CONNECTED)
                    backoff = _FIRST_BACKOFF_SECONDS
                    await self._read_replies(reader, writer)
            except asyncio.CancelledError:
                self._drop_connection("the service is shutting down")
                raise
            except UnsupportedRedis as error:
                self._unsupported = error
                self._fail_unsent(error)
            except (OSError, _ProtocolError) as error:
                self._unsupported = None
                if backoff == _FIRST_BACKOFF_SECONDS and self._writer is None:
                    log.warning("redis_unreachable", reason=str(error), **self._facts)
                self._drop_connection(str(error))
            except Exception as error:
                # A bug in Holdfast. Try to connect again anyway.
                log.exception("redis_connection_failed")
                self._drop_connection(repr(error))
            if self._on_lost is not None:
                self._on_lost()
            # With jitter, so that the workers do not all reconnect in the same moment.
            await asyncio.sleep(backoff * random.uniform(0.5, 1.0))  # noqa: S311
            backoff = min(backoff * 2, _MAX_BACKOFF_SECONDS)

    async def _follow_primary(self) -> None:
        """Leave a Redis that is not the primary any more, although it still takes commands: it may be cut off."""
        while True:
            await asyncio.sleep(_FOLLOW_SECONDS)
            with suppress(OSError):
                if self._writer is not None and await self._dialer.has_moved():
                    log.warning("redis_primary_moved", **self._facts)
                    self.reconnect()

    async def _read_replies(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Give each reply of one connection to its command, until the connection ends."""
        self._writer = writer
        self._must_reconnect = False
        replies = reply_reader(_ProtocolError)
        self._lost_at = None
        self._last_reply_at = self._loop.time()
        if self._replication is not None:
            self._replication.is_waiting = False
        metrics = self._metrics
        round_trips = metrics.round_trips
        admission = self._admission = AdmissionLimit(self._max_in_flight)
        tracked = self.tracked = self._new_tracked()
        self._flush()
        while data := await reader.read(_READ_SIZE):
            if self._writer is not writer:
                return  # Holdfast closed it, and has said why: no command waits for these replies any more
            self._last_reply_at = self._loop.time()
            arrived_at = perf_counter()
            replies.feed(data)
            waited = len(self._unanswered)
            while (reply := replies.gets()) is not INCOMPLETE:
                if type(reply) is PushNotification:  # no reply: a product has changed
                    tracked.forget(reply[1])
                    continue
                if not self._unanswered:
                    raise _ProtocolError("Redis sent a reply although no command was waiting")
                pending = self._unanswered.popleft()
                round_trips.append(arrived_at - pending.began_at)
                future = pending.future
                if future.done():
                    continue  # its caller was cancelled
                if isinstance(reply, ErrorReply):
                    if self._takes_over is not None and self._takes_over(pending, reply):
                        continue
                    future.set_exception(reply)
                    if reply.code == "READONLY":
                        self._must_reconnect = True
                else:
                    future.set_result(reply)
            waiting = len(self._unanswered)
            if waiting < waited:
                took = round_trips[-1]
                admission.note(waited - waiting, waiting + len(self._unsent), took, arrived_at)
            if len(round_trips) >= MAX_NOTED:
                metrics.add_up()
            if self._replication is not None:
                self._flush()  # what has waited for the reply to WAIT
            if self._must_reconnect and not self._unanswered:
                raise ConnectionError("this Redis is not the primary any more")
        if self._writer is not None:  # otherwise Holdfast closed it, and has said why
            raise ConnectionError("Redis closed the connection")

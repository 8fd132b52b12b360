"""Holds back the replies to changes until enough replicas have the changes (HOLDFAST_WAIT_REPLICAS).

Behind each batch of commands with a change, the same connection sends two more commands: one that writes
(lua/mark_batch.lua), and WAIT, which replies how many replicas have everything up to there. If they are too few, the
outcome of the changes of this batch is unknown: Redis has executed them, but a failover may lose them.

A read is not held back, so it may show a change that a failover then loses.
"""

from collections.abc import Callable
from time import monotonic
from typing import Any, Final

from service.domain.errors.storage import OutcomeUnknown, StorageError
from service.logger import Logger
from service.storage import keys
from service.storage.pending_command import NobodyWaits, PendingCommand, ReplyTarget
from service.storage.scripts import load_scripts
from service.storage.sender import ErrorReply

log = Logger()

_WAIT_SHARE: Final = 0.25
"""Part of the timeout of a command for which WAIT may last.

A command may wait for two: for that of the batch before its own, and for its own.
"""

_HOPELESS_WAIT_MS: Final = 20
"""Timeout of WAIT after a WAIT that failed: Redis executes nothing else on its connection meanwhile."""

_MOVING: Final = frozenset({"MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN"})
"""Codes of the errors of a node of a cluster that has not, or not yet, the slot of a key."""

_RETRY_SECONDS: Final = 1.0
"""After this time, one WAIT lasts long again. Replicas may be further away than the short time."""


class Replication:
    """Whether enough replicas have what a connection has written.

    `is_waiting`: a WAIT has been sent, and has no reply yet. What is sent meanwhile would only wait in Redis; if it
    waits here, it becomes one batch, and it is certain that it was not executed.
    """

    def __init__(self, replicas: int, shop: str = "", *, timeout: float) -> None:
        """`replicas`: the number that must have a change. `timeout`: of a command, in seconds.

        `shop`: into whose keys the mark is written; without it, it is the shop of the route of each command.
        """
        self.replicas = replicas
        self.is_waiting = False
        self._mark: Final = ("EVAL", load_scripts()["mark_batch"].source, 1)
        self.shop = shop
        self._wait_ms = max(1, int(timeout * _WAIT_SHARE * 1000))
        self._retry_at: float | None = None
        """When a WAIT may last long again. None: the last WAIT did not fail."""

    def cover(self, sent: list[PendingCommand], pack: Callable[[tuple[Any, ...]], bytes]) -> None:
        """If there is a change in a batch, append the two commands, and hold back the replies to its changes."""
        batch = _Batch(self)
        is_asking = False  # what follows ASKING belongs to a slot that is on its way here: the mark may not be written
        for pending in sent:
            if not pending.safe_to_repeat:
                pending.future = batch.hold(pending.future)
                if pending.route is not None and not (is_asking and batch.shop):
                    batch.shop = pending.route.shop
            is_asking = isinstance(pending.future, NobodyWaits)
        if not batch.held:
            return
        self.is_waiting = True
        times_out_at = sent[-1].times_out_at
        mark = (*self._mark, keys.meta(self.shop or batch.shop))
        sent.append(PendingCommand(pack(mark), False, times_out_at, _Mark(batch)))
        sent.append(PendingCommand(pack(("WAIT", self.replicas, self._next_wait_ms())), False, times_out_at, batch))

    def _next_wait_ms(self) -> int:
        if self._retry_at is None:
            return self._wait_ms
        if monotonic() < self._retry_at:
            return min(_HOPELESS_WAIT_MS, self._wait_ms)
        self._retry_at = monotonic() + _RETRY_SECONDS
        return self._wait_ms

    def note_enough(self) -> None:
        """Note that enough replicas had a batch in time."""
        if self._retry_at is not None:
            log.info("replicas_suffice", needed=self.replicas)
            self._retry_at = None

    def note_too_few(self, reason: str) -> None:
        """Note that too few replicas had a batch in time."""
        if self._retry_at is None:
            log.error(
                "too_few_replicas",
                reason=reason,
                then="changes get 503 outcome-unknown until enough replicas confirm again",
            )
            self._retry_at = monotonic() + _RETRY_SECONDS


def caller_of(target: ReplyTarget) -> ReplyTarget:
    """Return what waits for a reply that was to be held back. Redis has refused the command, so there is no change."""
    return target.future if isinstance(target, _HeldReply) else target


class _HeldReply:
    """Keeps the reply to a change. An error is not kept back: it says that nothing was done, or that nobody knows."""

    __slots__ = ("future", "has_reply", "reply")

    def __init__(self, future: ReplyTarget) -> None:
        self.future = future
        self.has_reply = False
        self.reply: Any = None

    def done(self) -> bool:
        return self.future.done()

    def set_result(self, result: Any, /) -> None:
        self.reply, self.has_reply = result, True

    def set_exception(self, exception: Exception, /) -> None:
        self.future.set_exception(exception)


class _Batch:
    """The held replies of one batch. It gets the reply to WAIT."""

    __slots__ = ("_is_marked", "_mark_error", "_replication", "held", "shop")

    def __init__(self, replication: Replication) -> None:
        self.shop = ""
        self.held: list[_HeldReply] = []
        self._is_marked = False
        self._mark_error = ""
        self._replication = replication

    def hold(self, future: ReplyTarget) -> _HeldReply:
        held = _HeldReply(future)
        self.held.append(held)
        return held

    def mark(self) -> None:
        self._is_marked = True

    def note_mark_error(self, code: str) -> None:
        self._mark_error = code

    def done(self) -> bool:
        return False  # also after the timeout: only the reply says that the connection executes other commands again

    def set_result(self, result: Any, /) -> None:
        """Release the replies, if so many replicas are enough."""
        replication = self._replication
        replication.is_waiting = False
        if self._mark_error in _MOVING:  # the slot is on its way to or from this node: no reason for an alarm
            self._release_unknown("the shop is moving to another node")
        elif not self._is_marked:
            self._fail("Redis did not write the mark that WAIT needs")
        elif result < replication.replicas:
            self._fail(f"{result} of {replication.replicas} replicas have the change")
        else:
            replication.note_enough()
            for held in self.held:
                if held.has_reply and not held.done():
                    held.future.set_result(held.reply)

    def set_exception(self, exception: Exception, /) -> None:
        """Redis refused WAIT, or the timeout passed, or the connection broke."""
        if isinstance(exception, ErrorReply):
            self._replication.is_waiting = False
            self._fail(f"WAIT failed: {exception}")
        else:
            self._release_unknown(exception.reason if isinstance(exception, StorageError) else str(exception))

    def _fail(self, reason: str) -> None:
        self._replication.note_too_few(reason)
        self._release_unknown(reason)

    def _release_unknown(self, reason: str) -> None:
        for held in self.held:
            if held.has_reply and not held.done():
                held.future.set_exception(OutcomeUnknown(reason))


class _Mark:
    """Gets the reply to the command that writes."""

    __slots__ = ("_batch",)

    def __init__(self, batch: _Batch) -> None:
        self._batch = batch

    def done(self) -> bool:
        return False

    def set_result(self, result: Any, /) -> None:
        self._batch.mark()

    def set_exception(self, exception: Exception, /) -> None:
        """Leave the batch without its mark."""
        if isinstance(exception, ErrorReply):
            self._batch.note_mark_error(exception.code)

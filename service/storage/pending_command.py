"""A command that waits for its reply."""

from time import perf_counter
from typing import Any, Protocol


class ReplyTarget(Protocol):
    """Gets the reply of a command, or an error: the future of its caller, or something that holds the reply back."""

    def done(self) -> bool:
        """Return whether nobody waits for the reply any more."""
        ...

    def set_result(self, result: Any, /) -> None: ...

    def set_exception(self, exception: Exception, /) -> None: ...


class NobodyWaits:
    """Gets a reply that does not matter."""

    def done(self) -> bool:
        """Return False: the command is to be sent."""
        return False

    def set_result(self, result: Any, /) -> None: ...

    def set_exception(self, exception: Exception, /) -> None: ...


class PendingCommand:
    """A command that waits for its reply.

    `times_out_at` in event-loop time, of which uvloop knows only whole milliseconds; `began_at` by time.perf_counter().
    `route`: in a cluster, where its slot is now.
    """

    __slots__ = ("began_at", "future", "packed", "route", "safe_to_repeat", "times_out_at")

    def __init__(
        self, packed: bytes, safe_to_repeat: bool, times_out_at: float, future: ReplyTarget, route: Any = None
    ) -> None:
        self.route = route
        self.began_at = perf_counter()
        self.packed = packed
        self.safe_to_repeat = safe_to_repeat
        self.times_out_at = times_out_at
        self.future = future

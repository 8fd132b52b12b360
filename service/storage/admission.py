"""Decides how many commands may wait for Redis: as many as Redis can answer in time, by how fast it answered before.

A queue that empties, or becomes shorter, is a burst, and may be long for a moment. A queue that does neither only makes
every order slow: then it is kept short, and further work is refused while its client still waits. The idea is that of
CoDel (https://www.rfc-editor.org/rfc/rfc8289): what counts is how long there was a queue, not how long the queue is.
"""

from typing import Final

STANDING_WAIT: Final = 0.05
"""Seconds that a command may wait behind others in a queue that stands.

In addition, it may take twice as long as without a queue: it may have to wait until Redis has synced its file, and then
until it has synced it again.
"""

BURST_WAIT: Final = 0.5
"""Seconds that a command may wait behind others in a queue that becomes shorter."""

STANDING_AFTER: Final = 0.1
"""Seconds without a short queue after which a queue stands, unless it becomes shorter: CoDel's interval.

A pause of Redis, to sync its file for example, is mostly shorter.
"""

_SHRINKS: Final = 0.25
"""A queue counts as becoming shorter if it lost at least this many commands for each that Redis answered."""

MIN_LIMIT: Final = 16
"""This many commands may always wait: with fewer, Redis would sync its file for each order, not for groups of them."""

_BUSY: Final = 8
"""Length of the queue from which on the speed of Redis is measured: with fewer, it has pauses."""

_MEMORY: Final = 0.2
"""Seconds after which a measurement counts a third of what it did."""


class AdmissionLimit:
    """`limit`: the number of commands that may wait for Redis before new work is refused."""

    def __init__(self, max_in_flight: int) -> None:
        """Begin without a measurement. `max_in_flight`: the highest limit."""
        self.limit = self._max = max_in_flight
        self._busy_seconds = 0.0
        self._replies = 0.0
        self._was_busy = False
        self._noted_at = 0.0
        self._was_busy_at = 0.0
        self._is_standing = False
        # Since the queue was short, or since the last look at whether it becomes shorter.
        self._marked_at = 0.0
        self._marked_waiting = 0
        self._answered = 0
        self._unhindered = 0.0  # seconds of a command without a queue

    def note(self, replies: int, waiting: int, took: float, now: float) -> None:
        """Learn from replies that came together.

        `waiting`: commands that wait now. `took`: seconds from the last of the commands to its reply. `now`: seconds of
        any clock.
        """
        if self._was_busy:
            passed = now - self._noted_at
            kept = max(0.0, 1 - passed / _MEMORY)
            self._busy_seconds = self._busy_seconds * kept + passed
            self._replies = self._replies * kept + replies
            self._was_busy_at = now
        elif now - self._was_busy_at > _MEMORY:
            self._busy_seconds = self._replies = 0.0
        self._noted_at = now
        self._was_busy = waiting >= _BUSY
        if not self._was_busy:
            self._unhindered += (took - self._unhindered) / 8
        if not self._was_busy or not self._busy_seconds:
            self._mark(waiting, now)
            self._is_standing = False
            self.limit = self._max
            return
        per_second = self._replies / self._busy_seconds
        in_time = per_second * (STANDING_WAIT + 2 * self._unhindered)
        self._answered += replies
        if waiting <= in_time / 4:
            self._mark(waiting, now)
            self._is_standing = False
        elif now - self._marked_at > STANDING_AFTER:
            if self._marked_waiting - waiting < _SHRINKS * self._answered:
                self._is_standing = True  # until it is short: it also shrinks because further work is refused
            self._mark(waiting, now)
        allowed = in_time if self._is_standing else per_second * BURST_WAIT
        self.limit = min(self._max, max(MIN_LIMIT, int(allowed)))

    def _mark(self, waiting: int, now: float) -> None:
        self._marked_at, self._marked_waiting, self._answered = now, waiting, 0

"""The backlog of overdue holds: while it is too old, fewer new pending orders are taken than old ones are released."""

from typing import Final

from service.domain.errors.storage import Overloaded

MAX_LATE_MS: Final = 1000
"""If the sweeper finds holds that are overdue for longer, new pending orders are limited."""

ADMITTED_PER_RELEASED: Final = 0.5
"""New pending orders that are admitted for each hold that is released, so that the backlog shrinks."""


class HoldsBacklog:
    """What the sweeper of this process found, and how many pending orders may be placed until its next batch.

    Old stock goes first: without this limit, pending orders that come in faster than a machine can place and release
    them would keep the stock of earlier ones for ever.
    """

    def __init__(self) -> None:
        self._is_late = False
        self._admitted = 0.0

    def report(self, *, late_ms: int, released: int) -> None:
        """Take the result of a batch: how late its oldest hold was, or 0 if no overdue hold is left.

        `released`: how many holds this process released.
        """
        self._is_late = late_ms > MAX_LATE_MS
        self._admitted = released * ADMITTED_PER_RELEASED

    def admit(self) -> None:
        """Count a new pending order. Raise Overloaded if it must wait for old holds."""
        if not self._is_late:
            return
        if self._admitted < 1:
            raise Overloaded("expired holds are released too late: their stock comes first")
        self._admitted -= 1

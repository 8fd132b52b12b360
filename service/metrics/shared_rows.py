"""Memory that all workers share: one row of numbers per worker."""

import fcntl
import mmap
import os
import tempfile
from multiprocessing.reduction import DupFd
from typing import Any, Final

CELL_BYTES: Final = 8
ROW_CELLS: Final = 2048
"""Numbers of one worker, 16 KiB: about twice as many as there are."""

Cells = Any
"""A memoryview of numbers. mypy knows only memoryviews of integers."""


class SharedRows:
    """The rows of all workers, in a file without a name that vanishes with the last process that has it open."""

    def __init__(self, rows: int) -> None:
        """Make rows of zeros."""
        self._rows = rows
        with tempfile.TemporaryFile(prefix="holdfast-metrics-") as file:
            file.truncate(rows * ROW_CELLS * CELL_BYTES)
            self._fd = os.dup(file.fileno())

    def __reduce__(self) -> Any:
        """Let multiprocessing pass the open file to a worker that it starts."""
        return _open_rows, (self._rows, DupFd(self._fd))

    def claim(self) -> tuple[Cells, Cells]:
        """Return the row of this process, and the numbers of all rows.

        A worker that replaces another one gets its row and continues its counters: the lock of a row ends with the
        process that has it.
        """
        cells = memoryview(mmap.mmap(self._fd, self._rows * ROW_CELLS * CELL_BYTES)).cast("d")
        for row in range(self._rows):
            try:
                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, row)
            except OSError:
                continue
            return cells[row * ROW_CELLS : (row + 1) * ROW_CELLS], cells
        raise RuntimeError(f"there are more than {self._rows} workers")


def _open_rows(rows: int, file: Any) -> SharedRows:
    shared = SharedRows.__new__(SharedRows)
    shared._rows, shared._fd = rows, file.detach()
    return shared


def private_row() -> Cells:
    """Return a row of zeros for a service with one worker."""
    return memoryview(bytearray(ROW_CELLS * CELL_BYTES)).cast("d")

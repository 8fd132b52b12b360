"""Memory that all workers share: one row of numbers per worker."""

import fcntl
import mmap
import os
import sys
from typing import Any, Final

CELL_BYTES: Final = 8
ROW_CELLS: Final = 2048
"""Numbers of one worker, 16 KiB: about twice as many as there are."""

Cells = Any
"""A memoryview of numbers. mypy knows only memoryviews of integers."""


class SharedRows:
    """The rows of all workers, in a file without a name that vanishes with the last process that has it open."""

    def __init__(self, workers: int) -> None:
        """Make rows of zeros: one more than workers, because a new worker may start before the old one has ended."""
        self.workers = workers
        self._rows = workers + 1
        self._fd = _nameless_file()
        os.ftruncate(self._fd, self._rows * ROW_CELLS * CELL_BYTES)

    def __reduce__(self) -> Any:
        """Let multiprocessing pass the open file to a worker that it starts."""
        from multiprocessing.reduction import DupFd  # imported late, as tempfile: commands count, too

        return _open_rows, (self.workers, DupFd(self._fd))

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


def _open_rows(workers: int, file: Any) -> SharedRows:
    shared = SharedRows.__new__(SharedRows)
    shared.workers, shared._rows, shared._fd = workers, workers + 1, file.detach()
    return shared


def _nameless_file() -> int:
    """Return the descriptor of a new file without a name: in memory, or on macOS in the temporary directory.

    On a disk, the kernel would write the file back every few seconds, and the next count could wait for that. It also
    needs no directory that may be written.
    """
    if sys.platform != "linux":
        import tempfile

        with tempfile.TemporaryFile(prefix="holdfast-metrics-") as file:
            return os.dup(file.fileno())
    return os.memfd_create("holdfast-metrics")


def private_row() -> Cells:
    """Return a row of zeros for a service with one worker."""
    return memoryview(bytearray(ROW_CELLS * CELL_BYTES)).cast("d")

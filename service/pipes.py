"""Says which files are pipes with a name: whoever opens one waits until another program writes into it."""

import stat
from pathlib import Path
from typing import Final

_DESCRIPTORS: Final = (Path("/dev/fd"), Path("/proc/self/fd"))


def is_named_pipe(path: Path) -> bool:
    """Return whether a path is a pipe with a name, as `mkfifo` makes it. Raise OSError if there is no such file.

    /dev/stdin and what a shell makes of `<(command)` are no such pipes: their writer has been started already.
    """
    return stat.S_ISFIFO(path.stat().st_mode) and path.parent not in _DESCRIPTORS and path != Path("/dev/stdin")

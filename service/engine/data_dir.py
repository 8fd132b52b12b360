"""The data directory of the embedded engine: the process that uses it, and the path of the engine's socket."""

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final
from urllib.parse import quote

MAX_SHUTDOWN_SECONDS: Final = 30.0
"""An engine that takes longer to stop is killed.

Killing it loses no change that it has confirmed: they are on disk or with the operating system. The exception, for
`everysec` and a slow disk, is in docs/operations.md.
"""

_MAX_SOCKET_PATH_BYTES: Final = 100
"""The kernel accepts 107 on Linux, 103 on macOS."""


class EngineError(Exception):
    """The engine cannot be started. The message is for the operator."""


def running_engine(data_dir: Path) -> str | None:
    """Return the URL of the engine that runs on a directory, None if there is no such engine."""
    try:
        with (data_dir / "lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        pid, _, url = (data_dir / "lock").read_text().strip().partition("\n")
        return url if url and _is_alive(pid) else None  # without a URL, the engine has just begun to start
    return None


def engine_url(socket_path: Path) -> str:
    return f"unix://{quote(str(socket_path))}"


@contextmanager
def lock_data_dir(data_dir: Path) -> Iterator[IO[str]]:
    """Lock the directory, and yield the lock file, which contains the pid of this process. Raise EngineError.

    The lock lasts until the last process that has inherited the open file closes it.
    """
    try:
        file = (data_dir / "lock").open("a+")
    except OSError as error:
        raise EngineError(
            f"cannot write to the data directory {data_dir}: {error.strerror}. Change HOLDFAST_DATA_DIR"
        ) from None
    with file:
        deadline = time.monotonic() + MAX_SHUTDOWN_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                file.seek(0)
                owner = file.readline().strip()
                # If the owner has ended, its engine is still writing its last data: wait for that.
                if _is_alive(owner) or time.monotonic() > deadline:
                    raise EngineError(
                        f"{data_dir} is in use by the Holdfast process {owner}: stop that process, "
                        "or choose another directory with HOLDFAST_DATA_DIR"
                    ) from None
                time.sleep(0.05)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield file


def _is_alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:  # a process of another user
        return True
    return True


@contextmanager
def choose_socket_path(data_dir: Path) -> Iterator[Path]:
    """Yield a path for the engine's socket: in the data directory or, if that is too long, in a temporary directory."""
    path = data_dir / "engine.sock"
    if len(os.fsencode(path)) <= _MAX_SOCKET_PATH_BYTES:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="holdfast-") as folder:
        yield Path(folder) / "engine.sock"

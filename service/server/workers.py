"""The worker processes of `holdfast serve`, on uvicorn's supervisor.

These parts of uvicorn are used here, although its documentation does not promise them; a test checks that they are
there (tests/server/test_uvicorn_contract.py):

- `uvicorn.config.STARTUP_FAILURE`
- `uvicorn.supervisors.multiprocess.Process`: `start`, `join`, `process`, `pid`, `exitcode`
- `uvicorn.supervisors.Multiprocess`: `__init__`, `init_processes`, `terminate_all`, `keep_subprocess_alive` and
  `handle_hup`, which are overridden; `run`; `config`, `sockets`, `processes`, `should_exit`
"""

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from socket import socket

import structlog
import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process

from service.server.start_up import STOP_SIGNALS

log = structlog.get_logger()


def run_workers(
    config: uvicorn.Config,
    listener: socket,
    is_stopping: Callable[[], bool],
    stops: Callable[[signal.Signals], bool],
) -> None:
    """Start the workers, replace those that end, and stop them all on SIGINT, SIGTERM or SIGHUP.

    `stops`: whether a signal that arrives now stops the service.
    """
    # Start Python's resource tracker now. Otherwise the first worker would start it, and it would unblock the signals
    # that are blocked for the workers.
    resource_tracker.ensure_running()
    hangup = signal.getsignal(signal.SIGHUP)
    workers = _Workers(config, [listener], stops)  # from here on, uvicorn's signal handlers are installed
    if hangup is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if not is_stopping():
        workers.run()


class _Workers(Multiprocess):
    """uvicorn's workers, started with blocked signals: Ctrl-C must not kill a worker that is still importing."""

    def __init__(self, config: uvicorn.Config, sockets: list[socket], stops: Callable[[signal.Signals], bool]) -> None:
        super().__init__(config, sockets)
        self._stops = stops

    def handle_hup(self) -> None:
        """Stop, as one worker does. uvicorn would replace all workers."""
        if not self._stops(signal.SIGHUP):
            return
        log.info("Received SIGHUP, exiting.")
        self.should_exit.set()

    def init_processes(self) -> None:
        with stop_signals_blocked():
            super().init_processes()

    def terminate_all(self) -> None:
        for listener in self.sockets:
            # Close this process's copy. Otherwise new connections would wait in its queue until the process ends.
            listener.close()
        super().terminate_all()

    def keep_subprocess_alive(self) -> None:
        """Replace workers that have ended.

        uvicorn's own method also asks each worker whether it hangs, and waits for the answer while workers start or
        end. During that time, the service could not stop.
        """
        if self.should_exit.is_set():
            return
        for index, worker in enumerate(self.processes):
            if worker.process.is_alive():
                continue
            worker.join()
            if worker.exitcode == STARTUP_FAILURE:  # another worker would fail in the same way
                self.should_exit.set()
                return
            log.error("worker_ended", pid=worker.pid, code=worker.exitcode, then="a new worker is started")
            with stop_signals_blocked():
                self.processes[index] = Process(self.config, self.sockets)
                self.processes[index].start()


@contextmanager
def stop_signals_blocked() -> Iterator[None]:
    """Block the signals that stop the service: they wait. A process that is started meanwhile inherits this."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


def prepare_worker() -> None:
    """End this worker when its parent ends, and unblock the signals.

    Call it after uvicorn has installed its signal handlers.
    """
    _end_with_parent()  # otherwise workers would continue to serve after the parent is killed
    # The whole process group receives SIGHUP when a terminal is closed. The parent then sends SIGTERM.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


def _end_with_parent() -> None:
    """Make the kernel send SIGTERM to this worker when its parent ends for any reason. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
        parent = multiprocessing.parent_process()
        if parent is not None and parent.pid != os.getppid():
            os._exit(1)  # the parent ended before this took effect

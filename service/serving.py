"""`holdfast serve`: the engine, uvicorn and its workers, started and stopped in order."""

import asyncio
import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing import resource_tracker
from typing import NoReturn

import structlog
import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process

from service.app import create_app
from service.domain.errors.storage import StorageError, UnsupportedRedis
from service.engine import EngineError, run_engine
from service.logs import configure_logging
from service.server.gc_tuning import tune_gc
from service.server.http_protocol import HttpProtocol
from service.settings import Settings
from service.storage.opening import open_store

log = structlog.get_logger()


def serve(settings: Settings) -> None:
    """Serves until SIGINT or SIGTERM, then lets the requests under way finish, then stops the engine."""
    # uvicorn puts these back when it is done and raises the signal again. The default of SIGTERM would
    # end us on the spot, and leave the engine to the kernel.
    for signum in _STOP_SIGNALS:
        signal.signal(signum, _exit)
    with ExitStack() as stack:
        if settings.redis_url is None:
            try:
                url = stack.enter_context(run_engine(settings.data_dir, settings.durability))
            except EngineError as error:
                fail(str(error))
            stack.callback(_ignore_signals)  # before the engine is stopped: that must not be interrupted
            settings = settings.model_copy(update={"redis_url": url})
            log.info("embedded_engine", data_dir=str(settings.data_dir.resolve()), url=url)
        try:
            with _signals_blocked():  # for as long as Redis may take: in an event loop, _exit would leave a traceback
                asyncio.run(_check(settings))
        except UnsupportedRedis as error:
            fail(error.reason)
        except StorageError as error:
            log.warning("redis_not_ready", reason=error.reason, then="requests get 503 until it is")
        _run_uvicorn(settings)


def _run_uvicorn(settings: Settings) -> None:
    config = uvicorn.Config(
        partial(_worker_app, settings),
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        loop="uvloop",
        http=HttpProtocol,
        ws="none",
        proxy_headers=False,  # who the client is, and by what scheme, plays no part here
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=settings.shutdown_timeout,
    )
    try:
        listener = config.bind_socket()
    except SystemExit:
        fail(f"cannot listen on {settings.host}:{settings.port}: it is in use, or not ours to take")
    if settings.workers == 1:
        uvicorn.Server(config).run([listener])
        return
    resource_tracker.ensure_running()  # it would be started with the workers, and unblock what is blocked for them
    _Workers(config, [listener]).run()


class _Workers(Multiprocess):
    """uvicorn's workers, which inherit blocked signals: one that is still importing does not die of a Ctrl-C."""

    def init_processes(self) -> None:
        with _signals_blocked():
            super().init_processes()

    def terminate_all(self) -> None:
        for listener in self.sockets:
            listener.close()  # our own: else new connections would wait in its queue until we end
        super().terminate_all()

    def keep_subprocess_alive(self) -> None:
        """Replaces workers that have ended.

        uvicorn also asks each whether it hangs, and waits for an answer while workers start or die: a stop
        would wait with it.
        """
        if self.should_exit.is_set():
            return
        for index, worker in enumerate(self.processes):
            if worker.process.is_alive():
                continue
            worker.join()
            if worker.exitcode == STARTUP_FAILURE:  # another one would fail in the same way
                self.should_exit.set()
                return
            log.error("worker_ended", pid=worker.pid, code=worker.exitcode, then="it is replaced")
            with _signals_blocked():
                self.processes[index] = Process(self.config, self.sockets)
                self.processes[index].start()


_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def _signals_blocked() -> Iterator[None]:
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)


def _end_with_parent() -> None:
    """Has the kernel send SIGTERM to this worker when its parent ends, however it ends. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
        parent = multiprocessing.parent_process()
        if parent is not None and parent.pid != os.getppid():
            os._exit(1)  # it ended before this took effect


def _worker_app(settings: Settings) -> object:
    configure_logging(settings.log_level)
    if settings.workers > 1:
        _end_with_parent()  # else workers go on serving when the parent is killed
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)  # uvicorn handles them by now
    app = create_app(settings)
    tune_gc()
    return app


async def _check(settings: Settings) -> None:
    async with open_store(settings) as store:
        await store.check()


def _exit(signum: int, frame: object) -> NoReturn:
    sys.exit(0)


def _ignore_signals() -> None:
    for signum in _STOP_SIGNALS:
        signal.signal(signum, signal.SIG_IGN)


def fail(reason: str, code: int = 1) -> NoReturn:
    """Ends the program with a line for the operator."""
    print(f"holdfast: {reason}", file=sys.stderr)
    sys.exit(code)

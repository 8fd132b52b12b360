"""`holdfast serve`: start the engine, then uvicorn, and stop them in the opposite order."""

import asyncio
import signal
import sys
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import NoReturn

import structlog
import uvicorn

from service.app import create_app
from service.domain.errors.storage import ReplicaRedis, StorageError, UnsupportedRedis
from service.engine.data_dir import EngineError
from service.engine.launcher import run_engine
from service.logs import configure_logging
from service.server.gc_tuning import tune_gc
from service.server.http_protocol import HttpProtocol
from service.server.http_server import Timeouts, raise_descriptor_limit
from service.server.workers import STOP_SIGNALS, prepare_worker, run_workers, stop_signals_blocked
from service.settings import Settings
from service.storage.opening import open_store

log = structlog.get_logger()


class CannotStart(Exception):
    """The service cannot start. `reason` is for the operator."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def serve(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM, let the running requests finish, then stop the engine. Raise CannotStart."""
    # uvicorn restores these handlers when it ends, and raises the signal again. With the default handler, SIGTERM
    # would end this process immediately, and only the kernel would stop the engine.
    for signum in STOP_SIGNALS:
        signal.signal(signum, _exit)
    raise_descriptor_limit()
    with ExitStack() as stack:
        if settings.redis_url is None:
            try:
                url = stack.enter_context(run_engine(settings.data_dir, settings.durability))
            except EngineError as error:
                raise CannotStart(str(error)) from None
            stack.callback(_ignore_signals)  # before the engine stops: nothing must interrupt that
            settings = replace(settings, redis_url=url)
            log.info("embedded_engine", data_dir=str(settings.data_dir.resolve()), url=url)
        try:
            # Block SIGINT and SIGTERM during this check, which may take HOLDFAST_REDIS_TIMEOUT: inside an event loop,
            # _exit() would print a traceback.
            with stop_signals_blocked():
                asyncio.run(_check_redis(settings))
        except UnsupportedRedis as error:
            raise CannotStart(error.reason) from None
        except StorageError as error:
            log.warning("redis_not_ready", reason=error.reason, then="requests get 503 until Redis is ready")
        _run_uvicorn(settings)


def _run_uvicorn(settings: Settings) -> None:
    config = uvicorn.Config(
        partial(_worker_app, settings),
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        loop="uvloop",
        http=HttpProtocol(  # type: ignore[arg-type]  # a function that returns a protocol is enough
            Timeouts(
                head=settings.head_timeout,
                body=settings.body_timeout,
                keep_alive=settings.keep_alive_timeout,
                write=settings.write_timeout,
            ),
            settings.max_connections,
        ),
        ws="none",
        proxy_headers=False,  # Holdfast uses neither the client's address nor the scheme
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=settings.shutdown_timeout,
    )
    try:
        listener = config.bind_socket()
    except SystemExit:
        raise CannotStart(
            f"cannot listen on {settings.host}:{settings.port}: "
            "the address is in use, does not belong to this machine, or needs more permissions. "
            "Change HOLDFAST_HOST or HOLDFAST_PORT"
        ) from None
    if settings.workers == 1:
        uvicorn.Server(config).run([listener])
    else:
        run_workers(config, listener)


def _worker_app(settings: Settings) -> object:
    """Return the application for one worker, in the worker's own process."""
    configure_logging(settings.log_level)
    if settings.workers > 1:
        prepare_worker()
    app = create_app(settings)
    tune_gc()
    return app


async def _check_redis(settings: Settings) -> None:
    """Raise StorageError if Redis cannot be used now. A replica gets HOLDFAST_REDIS_TIMEOUT to become a primary."""
    async with open_store(settings) as store:
        deadline = asyncio.get_running_loop().time() + settings.redis_timeout
        while True:
            try:
                await store.check()
                return
            except ReplicaRedis:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(0.1)


def _exit(signum: int, frame: object) -> NoReturn:
    sys.exit(0)  # not an exception of Holdfast: a second signal at any place must not print a traceback


def _ignore_signals() -> None:
    for signum in STOP_SIGNALS:
        signal.signal(signum, signal.SIG_IGN)

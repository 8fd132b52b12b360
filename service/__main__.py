"""The `holdfast` command."""

import asyncio
import signal
import sys
from contextlib import ExitStack
from functools import partial
from typing import NoReturn

import structlog
import uvicorn
from pydantic import BaseModel, ValidationError
from pydantic_settings import CliApp, CliSubCommand, SettingsConfigDict, get_subcommand
from uvicorn.supervisors import Multiprocess

from service.app import create_app, make_store
from service.engine import EngineError, end_with_parent, run_engine
from service.errors import StorageError, Unfit
from service.settings import Settings
from service.telemetry import configure_logging
from service.wire import Wire

log = structlog.get_logger()


class Serve(BaseModel):
    """Serve the API, on an embedded engine if no --redis-url is given."""


class Holdfast(Settings):
    """An order API that never oversells.

    Each option can be given as an environment variable, too: --redis-url is HOLDFAST_REDIS_URL.
    """

    model_config = SettingsConfigDict(
        cli_prog_name="holdfast", cli_kebab_case=True, cli_implicit_flags=True, cli_hide_none_type=True
    )

    serve: CliSubCommand[Serve]

    def cli_cmd(self) -> None:
        configure_logging(self.log_level)
        match get_subcommand(self):
            case Serve():
                serve(self)


def main() -> None:
    """Entry point. Exits with 0 after an orderly stop, 1 when it cannot start, 2 when it is called wrongly."""
    try:
        CliApp.run(Holdfast)
    except ValidationError as error:
        for fault in error.errors():
            name = "_".join(str(part) for part in fault["loc"])
            print(f"holdfast: HOLDFAST_{name.upper()}: {fault['msg']}", file=sys.stderr)
        sys.exit(2)


def serve(settings: Settings) -> None:
    """Serves until SIGINT or SIGTERM, then lets the requests under way finish, then stops the engine."""
    # uvicorn puts these back when it is done and raises the signal again. The default of SIGTERM would
    # end us on the spot, and leave the engine to the kernel.
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, _exit)
    with ExitStack() as stack:
        if settings.redis_url is None:
            try:
                url = stack.enter_context(run_engine(settings.data_dir, settings.durability))
            except EngineError as error:
                _fail(str(error))
            stack.callback(_ignore_signals)  # before the engine is stopped: that must not be interrupted
            settings = settings.model_copy(update={"redis_url": url})
            log.info("embedded_engine", data_dir=str(settings.data_dir.resolve()), url=url)
        try:
            asyncio.run(_check(settings))
        except Unfit as error:
            _fail(error.reason)
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
        http="httptools",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=settings.shutdown_timeout,
    )
    if settings.workers == 1:
        uvicorn.Server(config).run()
    else:
        Multiprocess(config, [config.bind_socket()]).run()


def _worker_app(settings: Settings) -> object:
    configure_logging(settings.log_level)
    if settings.workers > 1:
        end_with_parent()  # else workers go on serving when the parent is killed
    return create_app(settings)


async def _check(settings: Settings) -> None:
    assert settings.redis_url is not None
    async with Wire(settings.redis_url, timeout=settings.redis_timeout, max_in_flight=10) as wire:
        await make_store(settings, wire).check()


def _exit(signum: int, frame: object) -> NoReturn:
    sys.exit(0)


def _ignore_signals() -> None:
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)


def _fail(reason: str) -> NoReturn:
    print(f"holdfast: {reason}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    main()

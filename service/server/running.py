"""Runs the server: uvicorn in this process, or as the supervisor of several workers."""

from functools import partial
from importlib.metadata import version
from socket import socket

import structlog
import uvicorn

from service.logs import configure_logging
from service.metrics.shared_rows import SharedRows
from service.server.gc_tuning import tune_gc
from service.server.http_protocol import HttpProtocol
from service.server.http_server import Timeouts
from service.server.start_up import CannotStart, StopRequest
from service.server.workers import prepare_worker, run_workers
from service.settings import Settings

log = structlog.get_logger()


def import_app() -> None:
    """Import what a worker imports when it starts: the application, and what uvicorn imports late."""
    import uvloop  # noqa: F401

    import service.app  # noqa: F401


def run_server(settings: Settings, stop: StopRequest) -> None:
    """Serve until a signal arrives, and let the running requests finish. Raise CannotStart."""
    shared = SharedRows(settings.workers) if settings.workers > 1 else None
    config = uvicorn.Config(
        partial(_worker_app, settings, shared),
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        root_path=settings.root_path,
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
    except (SystemExit, UnicodeError):  # UnicodeError: the host cannot be a name
        raise CannotStart(
            f"cannot listen on {settings.host}:{settings.port}: "
            "the address is in use, does not belong to this machine, or needs more permissions. "
            "Change HOLDFAST_HOST or HOLDFAST_PORT"
        ) from None
    _log_addresses(settings, listener)
    if settings.workers == 1:
        stop.run(uvicorn.Server(config), listener)
    else:
        run_workers(config, listener, stop.is_requested, stop.stops)


def _log_addresses(settings: Settings, listener: socket) -> None:
    """Tell the operator where the service will be in a moment."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)  # noqa: S104
    host = f"[{host}]" if ":" in host and not host.startswith("[") else host
    root = f"http://{host}:{listener.getsockname()[1]}{settings.root_path}"
    log.info("listening", url=root, docs=f"{root}/docs", board=f"{root}/board")


def _worker_app(settings: Settings, shared: SharedRows | None) -> object:
    """Return the application for one worker, in the worker's own process."""
    configure_logging(settings.log_level, settings.log_format, in_background=True)
    if settings.workers > 1:
        prepare_worker()
    traces = None
    if settings.otlp_endpoint is not None:
        from service.tracing import start_tracing

        traces = start_tracing(settings.otlp_endpoint, settings.shop, version("holdfast"))
    from service.app import create_app, new_metrics

    app = create_app(settings, new_metrics(shared), traces)
    tune_gc()
    return app

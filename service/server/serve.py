"""`holdfast serve`: start the engine, then uvicorn, and stop them in the opposite order."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from ipaddress import ip_address
from socket import socket

import structlog
import uvicorn

from service.api.api_keys import ApiKeys
from service.app import api_keys, create_app, new_metrics
from service.domain.errors.storage import ReplicaRedis, StorageError, UnsupportedRedis
from service.engine.data_dir import NO_REPLICAS, EngineError, EngineStopped
from service.engine.launcher import run_engines
from service.logs import configure_logging
from service.metrics.shared_rows import SharedRows
from service.server.gc_tuning import tune_gc
from service.server.http_protocol import HttpProtocol
from service.server.http_server import Timeouts, raise_descriptor_limit
from service.server.workers import STOP_SIGNALS, has_terminal, prepare_worker, run_workers
from service.settings import Settings, ignored_variables
from service.storage.opening import open_stores
from service.storage.partitioned import AnyStore
from service.tracing import missing_packages

log = structlog.get_logger()


class CannotStart(Exception):
    """The service cannot start. `reason` is for the operator."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class StopRequest:
    """Remembers that SIGINT, SIGTERM or SIGHUP has arrived.

    The handler of a signal raises nothing: CPython drops an exception that is raised while it compiles a module, and
    then the signal would be lost.
    """

    def __init__(self, *, rereads_keys: bool) -> None:
        self._requested = False
        self._server: uvicorn.Server | None = None
        self._rereads_keys = rereads_keys
        self._had_terminal = has_terminal()

    def install(self) -> None:
        for signum in STOP_SIGNALS:
            if signum != signal.SIGHUP or signal.getsignal(signum) is not signal.SIG_IGN:  # nohup ignores SIGHUP
                signal.signal(signum, self._handle)

    def is_requested(self) -> bool:
        return self._requested

    def stops(self, signum: int) -> bool:
        """Return whether this signal, which arrives now, stops the service. See STOP_SIGNALS."""
        return signum != signal.SIGHUP or not self._rereads_keys or (self._had_terminal and not has_terminal())

    def run(self, server: uvicorn.Server, listener: socket) -> None:
        """Run a server, unless a signal has arrived. Stop it on a signal that arrives before it handles signals."""
        self._server = server
        if not self._requested:
            server.run([listener])

    def _handle(self, signum: int, frame: object) -> None:
        if not self.stops(signum):
            return
        self._requested = True
        if self._server is not None:
            self._server.should_exit = True


def serve(settings: Settings) -> None:
    """Serve until SIGINT, SIGTERM or SIGHUP, let the running requests finish, then stop the engine. Raise CannotStart.

    uvicorn restores the signal handlers when it ends, and raises the signal again. With the default handler, SIGTERM
    would end this process immediately, and only the kernel would stop the engine.
    """
    stop = StopRequest(rereads_keys=settings.api_keys_file is not None)
    stop.install()
    for sentence in ignored_variables():
        log.warning("ignored_variable", reason=sentence)
    raise_descriptor_limit()
    keys = _check_access(settings)
    if settings.otlp_endpoint is not None and missing_packages():
        raise CannotStart("HOLDFAST_OTLP_ENDPOINT needs more packages: pip install 'holdfast[otel]'")
    with ExitStack() as stack:
        if settings.redis_url is None:
            if settings.wait_replicas:
                raise CannotStart(NO_REPLICAS)
            try:
                url = stack.enter_context(
                    run_engines(
                        settings.data_dir,
                        settings.partitions,
                        settings.durability,
                        stop.is_requested,
                        settings.engine_allocator,
                    )
                )
            except EngineError as error:
                raise CannotStart(str(error)) from None
            except EngineStopped:
                return
            stack.callback(_ignore_signals)  # before the engine stops: nothing must interrupt that
            settings = replace(settings, redis_url=url)
            number = {"engines": settings.partitions} if settings.partitions > 1 else {}
            log.info("embedded_engine", data_dir=str(settings.data_dir.resolve()), url=url, **number)
        try:
            asyncio.run(_check_redis(settings, stop))
        except UnsupportedRedis as error:
            raise CannotStart(error.reason) from None
        except StorageError as error:
            log.warning("redis_not_ready", reason=error.reason, then="requests get 503 until Redis is ready")
        if not stop.is_requested():
            _log_access(settings, keys)
            _run_uvicorn(settings, stop)


def _check_access(settings: Settings) -> ApiKeys | None:
    """Return the API keys. Raise CannotStart if there are none, although others reach the address."""
    try:
        keys = api_keys(settings)
    except OSError as error:
        raise CannotStart(f"HOLDFAST_API_KEYS_FILE: cannot read {settings.api_keys_file}: {error.strerror}") from None
    except ValueError as error:
        raise CannotStart(f"the API keys are not valid: {error}") from None
    if keys is None and not settings.open and not _is_loopback(settings.host):
        raise CannotStart(
            f"no API keys are set, and the service would listen on {settings.host}: every program that can connect "
            "could change the shop. Make a key with `holdfast key new NAME --scopes all --file FILE`, and set "
            "HOLDFAST_API_KEYS_FILE=FILE. Or set HOLDFAST_OPEN=true, if a proxy or a firewall decides which programs "
            "may connect"
        )
    return keys


def _log_access(settings: Settings, keys: ApiKeys | None) -> None:
    """Tell the operator who may call the service."""
    if keys is not None and not list(keys):
        log.warning("api_keys", names=[], then="no key is accepted")
    elif keys is not None:
        log.info("api_keys", names=sorted({each.key.name for each in keys}))
    elif _is_loopback(settings.host):
        log.info("no_api_keys", reason="every program on this machine may call the service")
    else:
        log.warning("no_api_keys", reason="HOLDFAST_OPEN: every program that can connect may call the service")


def _is_loopback(host: str) -> bool:
    """Return whether only programs on this machine reach a server that listens on this host."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _run_uvicorn(settings: Settings, stop: StopRequest) -> None:
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
    app = create_app(settings, new_metrics(shared), traces)
    tune_gc()
    return app


async def _check_redis(settings: Settings, stop: StopRequest) -> None:
    """Raise StorageError if Redis cannot be used now. Return early if a signal arrives meanwhile.

    A replica gets HOLDFAST_REDIS_TIMEOUT to become a primary.
    """
    async with open_stores(settings, settings.all_shops) as stores:
        seconds = settings.redis_timeout
        check = asyncio.create_task(
            _wait_for_primaries(stores, seconds)
            if stores
            else _wait_for_primary(partial(stores.check_redis, settings.shop), seconds)
        )
        while not check.done() and not stop.is_requested():
            await asyncio.wait({check}, timeout=0.1)
        if check.done():
            check.result()
        else:
            check.cancel()
            await asyncio.wait({check})


async def _wait_for_primaries(stores: Mapping[str, AnyStore], seconds: float) -> None:
    """Check all shops. Raise UnsupportedRedis if one of them must not be used, even if another is out of reach."""
    checks = [_wait_for_primary(store.check, seconds) for store in stores.values()]
    results = await asyncio.gather(*checks, return_exceptions=True)
    errors = [result for result in results if result is not None]
    for error in sorted(errors, key=lambda error: not isinstance(error, UnsupportedRedis)):
        raise error


async def _wait_for_primary(check: Callable[[], Awaitable[None]], seconds: float) -> None:
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        try:
            await check()
            return
        except ReplicaRedis:
            if asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(0.1)


def _ignore_signals() -> None:
    for signum in STOP_SIGNALS:
        signal.signal(signum, signal.SIG_IGN)

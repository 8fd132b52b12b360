"""`holdfast serve`: start the engine, then the server, and stop them in the opposite order.

This module imports little, so that the engine starts early. The modules of the server are imported while it loads.
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from ipaddress import ip_address

import structlog

from service.api.api_keys import ApiKeys, api_keys
from service.domain.errors.storage import ReplicaRedis, StorageError, UnsupportedRedis
from service.engine.data_dir import NO_REPLICAS, EngineError, EngineStopped
from service.engine.launcher import run_engines
from service.server.http_server import raise_descriptor_limit
from service.server.start_up import STOP_SIGNALS, CannotStart, StopRequest
from service.settings import Settings, ignored_variables
from service.storage.opening import open_stores
from service.storage.partitioned import AnyStore
from service.tracing import missing_packages

log = structlog.get_logger()


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
                        meanwhile=partial(_import_server, settings),
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
            from service.server.running import run_server

            _log_access(settings, keys)
            run_server(settings, stop)


def _import_server(settings: Settings) -> None:
    """Import what serves requests. With several workers, each of them imports most of it itself, at the same time."""
    from service.server import running

    if settings.workers == 1:
        running.import_app()


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

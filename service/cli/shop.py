"""Runs a command on a Store: finds Redis, opens a connection, and reports why that is not possible."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from service.cli.terminal import FAILED, fail, run_and_handle_errors
from service.settings import Settings, ignored_variables

if TYPE_CHECKING:
    from service.storage.store import Store


def run_on_shop(
    settings: Settings,
    work: Callable[["Store"], Awaitable[int]],
    *,
    creates_data: bool = False,
    failure_code: int = FAILED,
) -> int:
    """Run work that needs a Store and prints its result, and return its exit code.

    `creates_data`: the work also makes sense if there is no data directory yet.
    `failure_code`: the exit code if Redis cannot be reached or must not be used.
    """
    from service.domain.errors.storage import StorageError
    from service.engine.data_dir import EngineError
    from service.logs import configure_logging
    from service.storage.opening import open_store

    configure_logging("error")  # a command prints on the terminal what its log would say

    for sentence in ignored_variables():
        print(f"holdfast: {sentence}", file=sys.stderr)

    async def run(settings: Settings) -> int:
        # The limit protects HTTP requests from long waits. A command sends large batches and has time.
        async with open_store(replace(settings, max_in_flight=100_000)) as store:
            return await work(store)

    def on_engine() -> int:
        try:
            with _engine_url(settings, creates_data) as url:
                return asyncio.run(run(replace(settings, redis_url=url)))
        except EngineError as error:
            return fail(str(error), failure_code)
        except StorageError as error:
            return fail(error.reason, failure_code)

    return run_and_handle_errors(on_engine)


@contextmanager
def _engine_url(settings: Settings, creates_data: bool) -> Iterator[str]:
    """Yield the URL of the Redis in the settings, of the running service's engine, or of a temporary engine."""
    from service.engine.data_dir import EngineError, running_engine
    from service.engine.launcher import run_engine

    if settings.redis_url is not None:
        yield settings.redis_url
    elif not creates_data and not settings.data_dir.exists():
        raise EngineError(
            f"the data directory {settings.data_dir} does not exist: set HOLDFAST_DATA_DIR or HOLDFAST_REDIS_URL"
        )
    elif url := running_engine(settings.data_dir):
        yield url
    else:
        with run_engine(settings.data_dir, settings.durability) as url:
            yield url

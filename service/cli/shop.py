"""Runs a command on a Store: finds Redis, opens a connection, and reports why that is not possible."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from service.cli.terminal import fail, run_and_handle_errors
from service.settings import Settings, ignored_variables

if TYPE_CHECKING:
    from service.storage.partitioned import AnyStore


def run_on_shop(
    settings: Settings,
    work: Callable[["AnyStore"], Awaitable[int]],
    *,
    creates_data: bool = False,
    upgrades: bool = False,
    failed: Callable[[str], int] = fail,
) -> int:
    """Run work that needs a Store and prints its result, and return its exit code.

    `creates_data`: the work writes, so it also makes sense if there is no data directory or no shop yet.
    `upgrades`: the work may use data of an older schema version.
    `failed`: reports a reason why the work could not be done, and returns the exit code.
    """
    import asyncio  # imported late, as all below: `holdfast audit --help` does without
    import gc

    from service.domain.errors.storage import StorageError
    from service.engine.data_dir import EngineError
    from service.logger import log_only_errors
    from service.storage.opening import open_store
    from service.storage.sender import ErrorReply

    log_only_errors()
    for sentence in ignored_variables():
        fail(sentence)
    if not settings.serves(settings.shop):
        names = ", ".join(settings.shops or ())
        return failed(f"{settings.shop} is not one of HOLDFAST_SHOPS ({names}): name one of them with --shop")

    async def run(settings: Settings) -> int:
        # The limit protects HTTP requests from long waits. A command sends large batches and has time.
        unlimited = replace(settings, max_in_flight=100_000)
        async with open_store(unlimited, creates_shop=creates_data, upgrades=upgrades) as store:
            return await work(store)

    def on_engine() -> int:
        try:
            with engine_url(settings, creates_data) as url:
                # Rows and products are no reference cycles, but with the default threshold of 700 objects the collector
                # looks at those of each batch several times.
                gc.freeze()
                gc.set_threshold(50_000, 10, 10)
                return asyncio.run(run(replace(settings, redis_url=url)))
        except EngineError as error:
            return failed(str(error))
        except StorageError as error:
            return failed(error.reason)
        except ErrorReply as error:
            return failed(f"Redis refused a command: {error}")

    return run_and_handle_errors(on_engine, failed)


async def explain_missing_shop(store: "AnyStore", shop: str) -> str | None:
    """Return a sentence if there is no such shop: its name may be misspelt. Return None if there is one."""
    inspection = store.partitions[0].inspection
    if await inspection.shop_exists():
        return None
    found = await inspection.shops_and_partitions()
    others = [name for name in found if ":" not in name]
    if others:
        names = f"the shops in it are {', '.join(others[:10])}"
    elif found:
        whole, _, number = found[0].partition(":")
        names = f"it has partition {number} of the shop {whole}: set HOLDFAST_PARTITIONS"
    else:
        names = "there is no other shop in it either"
    return f"there is no shop {shop!r} in this Redis (HOLDFAST_SHOP); {names}"


async def count_keys(store: "AnyStore") -> int:
    """Return about how many keys there are, for a progress bar: all keys of each Redis, of other shops, too."""
    return sum([await partition.inspection.count_keys() for partition in store.partitions])


async def estimate_orders(store: "AnyStore") -> int | None:
    """Return about how many orders there are, for a progress bar. None: a counter of ids is damaged."""
    from service.storage.sender import ErrorReply

    total = 0
    try:
        for partition in store.partitions:
            unused = await partition.archive.count() + await partition.skipped.count()
            total += max(await partition.orders.last_id() // len(store.partitions) - unused, 0)
    except (ErrorReply, ValueError):
        return None
    return total


@contextmanager
def engine_url(settings: Settings, creates_data: bool) -> Iterator[str]:
    """Yield the URL of the Redis in the settings, of the running service's engine, or of a temporary engine.

    With partitions, it has a `{partition}`, or is that of a cluster.
    """
    from service.engine.data_dir import NO_REPLICAS, EngineError, running_engine
    from service.engine.data_files import missing_data, partitions_problem
    from service.engine.launcher import run_engines

    if settings.redis_url is not None:
        yield settings.redis_url
        return
    if settings.wait_replicas:
        raise EngineError(NO_REPLICAS)
    if problem := partitions_problem(settings.data_dir, settings.partitions):
        raise EngineError(problem)
    if url := running_engine(settings.data_dir):
        yield url
    else:
        if not creates_data and (what := missing_data(settings.data_dir)):
            raise EngineError(f"{what}: set HOLDFAST_DATA_DIR or HOLDFAST_REDIS_URL")
        with run_engines(
            settings.data_dir, settings.partitions, settings.durability, allocator=settings.engine_allocator
        ) as url:
            yield url


def _choose(ctx: click.Context, param: click.Parameter, shop: str | None) -> None:
    if shop is not None:
        ctx.obj["shop"] = shop


shop_option = click.option(
    "--shop", metavar="NAME", expose_value=False, callback=_choose, help="The shop. Default: HOLDFAST_SHOP."
)
"""The option of a command about one shop. `holdfast --shop NAME COMMAND` means the same."""

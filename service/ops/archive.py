"""Moves orders that ended long ago from Redis to a file, while the service runs: `holdfast archive`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from service.domain.times import Milliseconds, format_timestamp
from service.ops.archive_file import ArchiveFile, UnusableFile, archive_line, created_at
from service.ops.order_rows import BATCH, IdSet, read_rows
from service.storage.archive import MOMENT_FIELDS, EndedOrder, ended_at
from service.storage.partitioned import AnyStore

ORDERS_PER_SCRIPT: Final = 100
"""Redis needs one to two milliseconds for them, and executes nothing else meanwhile."""

DAY_MS: Final = 24 * 60 * 60 * 1000


@dataclass
class ArchiveReport:
    """What an archive did.

    `archived`: orders that are in the file, and not in Redis any more.
    `young`: orders that ended before the date, but whose last change is not old enough.
    `changed`: orders that changed while they were archived. They stay, and are not in the file.
    `damaged`: orders that cannot be read, or whose products or indexes are damaged. They stay.
    `events`: entries that were removed from the event stream.
    """

    archived: int = 0
    young: int = 0
    changed: int = 0
    damaged: int = 0
    events: int = 0


async def archive(
    store: AnyStore,
    shop: str,
    file: ArchiveFile,
    before: Milliseconds,
    keep_ms: int,
    progress: Callable[[int], object] = lambda count: None,
) -> ArchiveReport:
    """Archive the orders that changed for the last time before `before`, and at least `keep_ms` ago.

    Call `progress` with the number of orders of each batch that was read. Raise UnusableFile before anything is
    written if the file is no archive of these orders.
    """
    report = ArchiveReport()
    live = IdSet()
    async for order_id in store.orders.scan_ids():
        live.add(order_id)
    file.read_back(live)
    await _check_same_orders(store, file)
    limit = Milliseconds(max(min(before, await store.archive.now() - keep_ms), 0))
    batch: list[int] = []
    for order_id in live:
        batch.append(order_id)
        if len(batch) == BATCH:
            await _archive_batch(store, shop, file, batch, before, limit, keep_ms, report)
            progress(len(batch))
            batch = []
    await _archive_batch(store, shop, file, batch, before, limit, keep_ms, report)
    progress(len(batch))
    file.drop_unfinished()
    report.events = await store.events.trim(limit)
    return report


async def _check_same_orders(store: AnyStore, file: ArchiveFile) -> None:
    """Raise UnusableFile if orders in the file have the ids of other orders in Redis."""
    order_ids = list(file.unfinished)
    for start in range(0, len(order_ids), BATCH):
        step = order_ids[start : start + BATCH]
        for order_id, found in zip(step, await store.archive.read(step), strict=True):
            if found is not None and created_at(file.unfinished[order_id]) != format_timestamp(found.order.created_at):
                raise UnusableFile(
                    f"{file.path} has another order {order_id} than Redis: it is the archive of other data"
                )


async def _archive_batch(
    store: AnyStore,
    shop: str,
    file: ArchiveFile,
    order_ids: Sequence[int],
    before: Milliseconds,
    limit: Milliseconds,
    keep_ms: int,
    report: ArchiveReport,
) -> None:
    wanted = []
    for order_id, row in zip(order_ids, await read_rows(store, order_ids, MOMENT_FIELDS), strict=True):
        try:
            moment = ended_at(row)
        except ValueError:
            report.damaged += 1
            continue
        if moment is not None and moment < limit:
            wanted.append(order_id)
        elif moment is not None and moment < before:
            report.young += 1
    if not wanted:
        return
    orders = await store.archive.read(wanted)
    found = [order for order in orders if order is not None]
    report.damaged += len(orders) - len(found)
    file.write([(order.order.id, archive_line(shop, order)) for order in found])
    for start in range(0, len(found), ORDERS_PER_SCRIPT):
        step = found[start : start + ORDERS_PER_SCRIPT]
        _count(step, await store.archive.remove(step, keep_ms), file, report)


def _count(orders: Sequence[EndedOrder], words: Sequence[str], file: ArchiveFile, report: ArchiveReport) -> None:
    for order, word in zip(orders, words, strict=True):
        match word:
            case "removed" | "absent":  # absent: the reply to an earlier script was lost
                file.finish(order.order.id)
                report.archived += 1
            case "changed" | "early":
                report.changed += 1
            case _:
                report.damaged += 1

"""`holdfast archive`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from service.cli.shop import estimate_orders, explain_missing_shop, run_on_shop, shop_option
from service.cli.terminal import FAILED, OK, counted, fail, progress_bar
from service.cli.times import check_time
from service.domain.times import Milliseconds
from service.settings import read_settings

if TYPE_CHECKING:
    from service.ops.archive import ArchiveReport
    from service.storage.partitioned import AnyStore


@click.command("archive")
@shop_option
@click.option(
    "--before", metavar="TIME", required=True, callback=check_time, help="Only orders that changed last before this."
)
@click.option("--to", "file", metavar="FILE", required=True, type=click.Path(path_type=Path), help="JSON lines.")
@click.option(
    "--keep-days",
    type=click.IntRange(1, 36_500),
    default=30,
    show_default=True,
    help="Orders, and their Idempotency-Keys, stay at least so many days after the last change.",
)
@click.pass_obj
def command(options: dict[str, str], before: Milliseconds, file: Path, keep_days: int) -> int:
    """Move orders that ended long ago from Redis to a file.

    Completed, cancelled and expired orders are added to FILE, one JSON object per line, and then removed from Redis
    with their Idempotency-Keys. The stock numbers stay as they are, and the audit still proves them. Then events are
    removed if they are from before TIME and more than --keep-days old. TIME is a date (2026-11-26: its first moment in
    UTC), or a date and time (2026-11-26T09:30:00Z).

    The service may run meanwhile. If the command is stopped, repeat it with the same FILE: nothing is lost, and nothing
    is in the file twice. Never run it twice at the same time for one shop: with the same file, the second command
    refuses to start; with different files, nothing stops it. Exit code 1: it failed, or some orders are damaged and
    stay.
    """
    settings = read_settings(options)

    async def work(store: "AnyStore") -> int:
        from service.ops.archive import DAY_MS, archive
        from service.ops.archive_file import ArchiveFile, UnusableFile

        if reason := await explain_missing_shop(store, settings.shop):
            return fail(reason)
        try:
            with (
                ArchiveFile(file, settings.shop) as archive_file,
                progress_bar(await estimate_orders(store), " orders") as bar,
            ):
                report = await archive(store, settings.shop, archive_file, before, keep_days * DAY_MS, bar.update)
        except UnusableFile as error:
            return fail(str(error))
        return _print(report, file, keep_days)

    return run_on_shop(settings, work)


def _print(report: "ArchiveReport", file: Path, keep_days: int) -> int:
    print(f"{counted(report.archived, 'order')} archived in {file}. {counted(report.events, 'event')} removed.")
    sys.stdout.flush()
    if report.young:
        print(f"{counted(report.young, 'order')} stayed: the last change is less than {keep_days} days ago.")
    if report.changed:
        print(f"{counted(report.changed, 'order')} stayed: changed meanwhile.")
    if report.damaged:
        orders = counted(report.damaged, "order")
        return fail(f"not archived, because damaged: {orders} (`holdfast audit` names them)", FAILED)
    return OK

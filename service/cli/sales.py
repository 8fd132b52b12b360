"""`holdfast sales`."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from service.cli.shop import estimate_orders, explain_missing_shop, run_on_shop, shop_option
from service.cli.terminal import FAILED, OK, counted, drop_output, fail, printable, progress_bar
from service.cli.times import check_time
from service.domain.times import Milliseconds
from service.settings import read_settings

if TYPE_CHECKING:
    from service.ops.sales import Grouping, SalesReport
    from service.ops.sales_formats import SalesFormat
    from service.storage.partitioned import AnyStore


@click.command("sales")
@shop_option
@click.option("--by", type=click.Choice(["product", "day", "hour"]), help="One row for each. Default: all in one row.")
@click.option("--from", "start", metavar="TIME", callback=check_time, help="Only sales at this time or later.")
@click.option("--until", "end", metavar="TIME", callback=check_time, help="Only sales before this time.")
@click.option(
    "--format",
    "sales_format",
    type=click.Choice(["table", "csv", "json"]),
    default="table",
    help="A table (default), CSV, or a JSON array.",
)
@click.option(
    "--archive",
    "files",
    metavar="FILE",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Also the orders in a file of `holdfast archive`. May be given several times.",
)
@click.pass_obj
def command(
    options: dict[str, str],
    by: "Grouping | None",
    start: Milliseconds | None,
    end: Milliseconds | None,
    sales_format: "SalesFormat",
    files: tuple[Path, ...],
) -> int:
    """Print what was sold: orders, units, revenue, and what came back of them.

    Only completed orders count, at the time of their completion. Returned units and their refunds count at the time of
    the sale, not of the return, and refunds are not taken off the revenue. Days and hours are those of UTC. TIME is a
    date (2026-11-26: its first moment in UTC), or a date and time (2026-11-26T09:30:00Z, or with another zone +01:00).

    The service may run meanwhile: an order that changes while it is read counts as it was before or after the change.
    Exit code 1: it failed, or some orders are damaged and are not in the sums.
    """
    settings = read_settings(options)
    if start is not None and end is not None and end <= start:
        raise click.UsageError("--until must be later than --from.")

    async def work(store: "AnyStore") -> int:
        from service.ops.archive_file import UnusableFile, read_archive
        from service.ops.sales import add_up_sales

        if reason := await explain_missing_shop(store, settings.shop):
            return fail(reason)
        with progress_bar(await estimate_orders(store), " orders") as bar:
            archived = (order for file in files for order in read_archive(file, settings.shop))
            try:
                report = await add_up_sales(store, by or "total", start, end, bar.update, archived)
            except UnusableFile as error:
                return fail(str(error))
        _print(report, sales_format)
        if (missing := await store.archive.count() - report.archived) > 0:
            fail(f"not in the sums: {counted(missing, 'archived order')} (--archive FILE adds them)")
        return _report_damage(report)

    return run_on_shop(settings, work)


def _print(report: "SalesReport", sales_format: "SalesFormat") -> None:
    from service.ops.sales_formats import LINE_END, csv_lines, json_lines, table_lines

    lines: Iterator[str] = {"table": table_lines, "csv": csv_lines, "json": json_lines}[sales_format](report)
    try:
        for line in lines:
            print(printable(line), end=LINE_END[sales_format])
        sys.stdout.flush()
    except BrokenPipeError:  # `holdfast sales | head -1`: damaged orders are still reported
        drop_output()


def _report_damage(report: "SalesReport") -> int:
    """Print how many damaged orders and products the audit would name, and return the exit code."""
    code = OK
    if report.unreadable:
        orders = counted(report.unreadable, "order")
        code = fail(f"not in the sums, because damaged: {orders} (`holdfast audit` names them)", FAILED)
    if report.nameless:
        products = counted(report.nameless, "product")
        code = fail(f"without a name, because damaged: {products} (`holdfast audit` names them)", FAILED)
    return code

"""`holdfast import`."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING

import click

from service.cli.shop import run_on_shop, shop_option
from service.cli.terminal import FAILED, OK, counted, drop_output, fail, progress_bar, run_and_handle_errors
from service.settings import Settings, ignored_variables, read_settings

if TYPE_CHECKING:
    from service.ops.catalogue_rows import ImportRow
    from service.ops.import_products import ImportTarget
    from service.ops.import_report import ImportReport
    from service.storage.partitioned import AnyStore


def _check_delimiter(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    sign = {"tab": "\t", "\\t": "\t"}.get(value, value) if value is not None else None
    if sign is not None and (
        len(sign) != 1 or sign.isalnum() or sign in '".-+ ' or not (sign.isprintable() or sign == "\t")
    ):
        raise click.BadParameter(f"{value!r} is not one character such as ; or , and not the word tab")
    return sign


def _check_encoding(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    try:
        TextIOWrapper(BytesIO(), value)
    except (LookupError, ValueError):
        raise click.BadParameter(f"{value!r} is not a text encoding, such as utf-8, utf-16 or cp1252") from None
    return value


@click.command("import")
@shop_option
@click.argument("file", type=click.Path())
@click.option("--update", is_flag=True, help="Change products that exist already and differ. Their stock stays.")
@click.option("--dry-run", is_flag=True, help="Report what an import would do, and write nothing.")
@click.option("--format", "file_format", type=click.Choice(["jsonl", "csv"]), help="Instead of the end of the name.")
@click.option("--delimiter", metavar="SIGN", callback=_check_delimiter, help="Between cells: , or ; or tab.")
@click.option("--decimal", type=click.Choice([".", ","]), help="The sign before the decimals of a price.")
@click.option("--encoding", metavar="NAME", callback=_check_encoding, help="For example cp1252. Default: UTF-8.")
@click.option("--ignore-unknown", is_flag=True, help="Skip columns that are no fields of a product.")
@click.pass_obj
def command(
    options: dict[str, str],
    file: str,
    update: bool,
    dry_run: bool,
    file_format: str | None,
    delimiter: str | None,
    decimal: str | None,
    encoding: str | None,
    ignore_unknown: bool,
) -> int:
    """Add the products of a .jsonl or .csv file.

    One product per row: id, name, description, price, stock. Bad rows are reported, good rows are added. A product
    that already exists stays as it is, and a row that differs from it is reported. FILE can be - for standard input.
    What a .csv file needs is found in the file, if no option says it.
    """
    from service.ops.catalogue_files import find_format, read_rows
    from service.ops.catalogue_input import ReadOptions
    from service.ops.catalogue_rows import UnreadableFile

    settings = read_settings(options)
    reading = ReadOptions(file_format, delimiter, decimal, encoding, ignore_unknown)  # type: ignore[arg-type]
    if find_format(file, reading) == "jsonl" and (only_csv := reading.only_csv()):
        raise click.UsageError(f"{' and '.join(only_csv)}: only for a .csv file. JSON lines are always UTF-8.")
    try:
        rows = read_rows(file, reading)
    except UnreadableFile as error:
        return fail(str(error))
    return _import(settings, file, rows, update=update, dry_run=dry_run)


def _import(settings: Settings, file: str, rows: Iterator["ImportRow"], *, update: bool, dry_run: bool) -> int:
    from service.ops.catalogue_files import STDIN

    size = Path(file).stat().st_size if file != STDIN and Path(file).is_file() else None

    async def work(store: "AnyStore | None") -> int:
        from service.ops.import_products import DryRun, Shop, import_products

        target: ImportTarget = DryRun(store) if dry_run or store is None else Shop(store)
        with progress_bar(size, "B") as bar:
            report = await import_products(target, rows, bar.update, update=update)
        _print(report, file, dry_run=dry_run)
        return OK if report.passed else FAILED

    if dry_run and _is_new(settings):
        for sentence in ignored_variables():
            fail(sentence)
        return run_and_handle_errors(lambda: asyncio.run(work(None)))
    return run_on_shop(settings, work, creates_data=not dry_run)


def _is_new(settings: Settings) -> bool:
    """Return whether an import would begin a data directory. A dry run must not begin it."""
    from service.engine.data_dir import running_engine
    from service.engine.data_files import missing_data

    if settings.redis_url is not None or running_engine(settings.data_dir):
        return False
    is_other = settings.data_dir.exists() and not settings.data_dir.is_dir()
    return not is_other and missing_data(settings.data_dir) is not None


def _print(report: "ImportReport", file: str, *, dry_run: bool) -> None:
    from service.ops.catalogue_files import shown_name

    with suppress(BrokenPipeError):
        for line in report.lines(shown_name(file)):
            print(line, file=sys.stderr)
    if report.stopped:
        fail(report.stopped)
    would = "would be " if dry_run else ""
    end = " Nothing was written." if dry_run else ""
    try:
        print(
            f"{report.added:,} {would}added, {report.changed:,} {would}changed, {report.present:,} already existed, "
            f"{report.different:,} different, {counted(report.bad, 'bad row')}.{end}"
        )
    except BrokenPipeError:  # `2>&1 | head -1`: the exit code is still that of the import
        drop_output()

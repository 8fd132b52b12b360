"""`holdfast import`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from service.cli.shop import run_on_shop
from service.cli.terminal import FAILED, OK, counted, drop_output, fail, progress_bar
from service.settings import read_settings

if TYPE_CHECKING:
    from service.storage.store import Store


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.pass_obj
def command(options: dict[str, str], file: Path) -> int:
    """Add the products of a .jsonl or .csv file.

    One product per row: id, name, description, price, stock. Bad rows are reported, good rows are added. A product
    that already exists stays as it is.
    """
    size = file.stat().st_size if file.is_file() else None

    async def work(store: "Store") -> int:
        from service.ops.catalogue_files import UnreadableFile
        from service.ops.import_products import import_products

        try:
            with progress_bar(size, "B") as bar:
                report = await import_products(store, file, bar.update)
        except UnreadableFile as error:
            return fail(str(error))
        try:
            for line_number, reason in report.bad:
                print(f"{file}:{line_number}: {reason}", file=sys.stderr)
            print(f"{report.added:,} added, {report.present:,} already existed, {counted(len(report.bad), 'bad row')}.")
        except BrokenPipeError:  # `2>&1 | head -1`: the exit code is still that of the import
            drop_output()
        return FAILED if report.bad else OK

    return run_on_shop(read_settings(options), work, creates_data=True)

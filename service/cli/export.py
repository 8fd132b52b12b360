"""`holdfast export`."""

from typing import TYPE_CHECKING, Literal

import click

from service.cli.shop import estimate_orders, explain_missing_shop, run_on_shop, shop_option
from service.cli.terminal import FAILED, OK, counted, fail, printable, progress_bar
from service.settings import read_settings

if TYPE_CHECKING:
    from service.storage.partitioned import AnyStore


@click.command("export")
@shop_option
@click.argument("what", type=click.Choice(["products", "orders"]), metavar="WHAT")
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["jsonl", "csv"]),
    default="jsonl",
    help="JSON lines (default), or CSV.",
)
@click.pass_obj
def command(options: dict[str, str], what: Literal["products", "orders"], file_format: Literal["jsonl", "csv"]) -> int:
    """Print all products on sale, or all pending and completed orders.

    WHAT is `products` or `orders`. Each line of the output is a JSON object. Orders are sorted by id, highest first.
    In CSV, each line of an order has one of its products. Exit code 1: it failed, or some products or orders are
    damaged and are left out.
    """

    settings = read_settings(options)

    async def work(store: "AnyStore") -> int:
        from service.ops.export import LINE_END, csv_header, export

        if reason := await explain_missing_shop(store, settings.shop):
            return fail(reason)
        total = await (
            store.partitions[0].inspection.count_products() if what == "products" else estimate_orders(store)
        )
        damaged: list[None] = []
        with progress_bar(total, f" {what}") as bar:
            if file_format == "csv":
                print(csv_header(what), end=LINE_END[file_format])
            async for text in export(store, what, file_format, lambda: damaged.append(None)):
                print(printable(text), end=LINE_END[file_format])
                bar.update()
        if damaged:
            number = counted(len(damaged), what.removesuffix("s"))
            return fail(f"not exported, because damaged: {number} (`holdfast audit` names them)", FAILED)
        return OK

    return run_on_shop(settings, work)

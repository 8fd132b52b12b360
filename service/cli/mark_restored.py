"""`holdfast mark-restored`."""

from typing import TYPE_CHECKING

import click

from service.cli.restore import AFTER, AFTER_EVENT, print_mark
from service.cli.shop import explain_missing_shop, run_on_shop, shop_option
from service.cli.terminal import OK, fail
from service.settings import read_settings

if TYPE_CHECKING:
    from service.storage.partitioned import AnyStore


@click.command("mark-restored")
@shop_option
@AFTER
@AFTER_EVENT
@click.pass_obj
def command(options: dict[str, str], after_order: int, after_event: str) -> int:
    """Finish a restore of your own Redis.

    Run it before the services start again. It does what `holdfast restore` does for the embedded engine: orders,
    products and events get ids far above all that may have been given away after the backup, and the event
    `shop_restored` is written. To do it twice does no harm.
    """
    settings = read_settings(options)

    async def work(store: "AnyStore") -> int:
        from service.storage.keys import partition

        if reason := await explain_missing_shop(store, settings.shop):
            return fail(reason)
        for number, part in enumerate(store.partitions):
            name = settings.shop if part.partition is None else partition(settings.shop, number)
            print_mark(name, await part.restored.mark(after_order, after_event), len(store.partitions))
        return OK

    return run_on_shop(settings, work)

"""`holdfast upgrade`."""

from typing import TYPE_CHECKING

import click

from service.cli.shop import explain_missing_shop, run_on_shop, shop_option
from service.cli.terminal import OK, counted, fail, progress_bar
from service.settings import read_settings

if TYPE_CHECKING:
    from service.storage.partitioned import AnyStore


@click.command("upgrade")
@shop_option
@click.pass_obj
def command(options: dict[str, str]) -> int:
    """Bring the data of an older version to the form that this version needs.

    First stop all services of the shop, and make a backup. Without need, nothing is changed. If the command is stopped,
    repeat it: it continues where it was, and until then no service uses the data. Afterwards, older versions refuse
    them.
    """
    from service.engine.data_dir import running_engine

    settings = read_settings(options)
    if settings.redis_url is None and running_engine(settings.data_dir):
        return fail(f"{settings.data_dir} is in use: stop the service first")

    async def work(store: "AnyStore") -> int:
        from service.ops.upgrade import upgrade_whole_shop
        from service.storage.requirements import SCHEMA_VERSION

        if reason := await explain_missing_shop(store, settings.shop):
            return fail(reason)
        with progress_bar(await store.events.count(), " events") as bar:
            report = await upgrade_whole_shop(store, bar.update)
        if report is None:
            print(f"Nothing to do: the data have layout {SCHEMA_VERSION}.")
        else:
            moments = counted(report.moments, "moment")
            began = f" from layout {report.before}" if report.before < SCHEMA_VERSION else ""
            print(f"Upgraded{began} to layout {SCHEMA_VERSION}: {moments} added to orders.")
        return OK

    return run_on_shop(settings, work, upgrades=True)

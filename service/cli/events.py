"""`holdfast events`."""

import re
import sys
from typing import TYPE_CHECKING

import click

from service.cli.shop import explain_missing_shop, run_on_shop, shop_option
from service.cli.terminal import OK, counted, fail, printable
from service.domain.event import START, cursor_positions
from service.settings import read_settings

if TYPE_CHECKING:
    from service.storage.partitioned import AnyStore


def _check_id(ctx: click.Context, parameter: click.Parameter, text: str) -> str:
    if not re.fullmatch(r"[0-9]{1,18}(-[0-9]{1,18})?(_[0-9]{1,18}-[0-9]{1,18})*", text):
        raise click.BadParameter(f"{text!r} is not the id of an event, such as 1795344730463-0.")
    return text


@click.command("events")
@shop_option
@click.option("--after", metavar="ID", default="0-0", callback=_check_id, help="Begin after the event with this id.")
@click.option("--follow", is_flag=True, help="Continue with new events as they are written, until Ctrl-C.")
@click.pass_obj
def command(options: dict[str, str], after: str, follow: bool) -> int:
    """Print the event stream as JSON lines."""
    settings = read_settings(options)
    # Must be shorter than the timeout of a Redis command: otherwise the connection would be dropped.
    wait_ms = int(min(settings.redis_timeout / 2, 1) * 1000)

    async def work(store: "AnyStore") -> int:
        # --follow also waits for the first event of a new shop.
        if not follow and (reason := await explain_missing_shop(store, settings.shop)):
            return fail(reason)
        last_id, positions = after, cursor_positions(after)
        if positions != START and len(positions) != len(store.partitions):
            streams = counted(len(store.partitions), "stream")
            return fail(f"{after} is not the cursor of an event of this shop, which has {streams}")
        if positions != START and not await store.events.has_all_after(after):
            print(
                f"holdfast: some events after {after} may no longer be in the stream, see HOLDFAST_EVENTS_MAX",
                file=sys.stderr,
            )
        while True:
            events = await store.events.read(last_id)
            if not events and not follow:
                return OK
            for event in events or await store.events.wait(last_id, wait_ms):
                print(printable(event.json()), flush=follow)
                last_id = event.cursor

    return run_on_shop(settings, work)

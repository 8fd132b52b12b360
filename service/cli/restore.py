"""`holdfast restore`."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from service.cli.backup import OWN_REDIS, WITH_FINDINGS
from service.cli.terminal import OK, counted, fail, printable, progress_bar, run_and_handle_errors
from service.domain.limits import MAX_ID
from service.settings import Settings, ignored_variables, read_settings

if TYPE_CHECKING:
    from service.storage.restored import Marked


def check_event_id(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Return the id of an event as the stream has it."""
    milliseconds, _, sequence = value.partition("-")
    if not all(part.isascii() and part.isdigit() and len(part) <= 15 for part in (milliseconds, sequence or "0")):
        raise click.BadParameter("must be the id of an event, such as 1795656050324-0.")
    return f"{milliseconds}-{sequence or 0}"


AFTER = click.option(
    "--after", "after_order", metavar="ID", type=click.IntRange(0, MAX_ID), default=0, help="A known order id."
)
AFTER_EVENT = click.option(
    "--after-event", metavar="ID", default="0-0", callback=check_event_id, help="A known id of an event."
)


@click.command("restore")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--move-aside", is_flag=True, help="Move data that are there to a directory beside them.")
@AFTER
@AFTER_EVENT
@click.pass_obj
def command(options: dict[str, str], folder: Path, move_aside: bool, after_order: int, after_event: str) -> int:
    """Put a backup in the place of the data of the embedded engine.

    The service must be stopped. Orders, products and events get ids far above all that may have been given away after
    the backup, and the event `shop_restored` says so to those who read events. If a log or a consumer has a still
    higher id, name it with --after or --after-event. Nothing is deleted, and if the command is stopped, the data are
    those from before or the restored ones: repeat it. Exit code 0: restored; 1: not restored; 3: restored, but the
    audit has findings, which are printed.
    """
    settings = read_settings(options)
    if settings.redis_url is not None:
        return fail(f"`holdfast restore` {OWN_REDIS}")
    if settings.partitions > 1:
        return fail(
            "`holdfast restore` is for a shop without partitions: "
            "stop the service, put a copy of the data directory in its place, and run `holdfast mark-restored`"
        )
    for sentence in ignored_variables():
        fail(sentence)
    return run_and_handle_errors(
        lambda: _run(settings, folder, move_aside=move_aside, after_order=after_order, after_event=after_event)
    )


def _run(settings: Settings, folder: Path, *, move_aside: bool, after_order: int, after_event: str) -> int:
    from service.domain.errors.storage import StorageError
    from service.engine.data_dir import EngineError
    from service.logger import log_only_errors
    from service.ops.audit_report import AuditInconclusive
    from service.ops.backup_folder import UnusableBackup
    from service.ops.restore import restore
    from service.storage.sender import ErrorReply

    log_only_errors()
    patient = replace(settings, max_in_flight=100_000, redis_timeout=60.0)
    try:
        report = asyncio.run(
            restore(
                patient, folder, progress_bar, move_aside=move_aside, after_order=after_order, after_event=after_event
            )
        )
    except (UnusableBackup, EngineError) as error:
        return fail(str(error))
    except OSError as error:  # the disk is full, or there is no permission
        return fail(f"not restored, the data are as before: {error}")
    except StorageError as error:
        return fail(f"not restored: {error.reason}")
    except (AuditInconclusive, ErrorReply) as error:
        return fail(f"not restored: {error}")
    for name, mark in report.marks.items():
        print_mark(name, mark)
    if report.moved is not None:
        print(f"The data from before are in {report.moved}.")
    print(f"Restored into {settings.data_dir}: the data as of {report.manifest.created_at}.")
    for shop_findings in report.findings.values():
        for finding in shop_findings:
            print(printable(finding))
    if findings := sum(len(found) for found in report.findings.values()):
        return fail(f"{counted(findings, 'finding')} of the audit", WITH_FINDINGS)
    print("Stock numbers and orders agree.")
    return OK


def print_mark(shop: str, mark: "Marked", id_step: int = 1) -> None:
    """Print where the ids continue. `id_step`: from one order id of a partition to the next."""
    next_id = mark.last_skipped + id_step
    print(f"{shop}: the next order id is {next_id}. The event {mark.event_id} says that this is a restore.")

"""`holdfast backup`."""

import asyncio
from dataclasses import replace
from pathlib import Path

import click

from service.cli.shop import engine_url
from service.cli.terminal import OK, counted, fail, progress_bar, run_and_handle_errors
from service.settings import Settings, ignored_variables, read_settings

WITH_FINDINGS = 3
"""Exit code of a backup or a restore that is complete, but whose data are damaged."""

ONE_ENGINE = (
    "copies one engine, and a shop with partitions has several, with units on their way between them: "
    "stop the service, and copy the data directory"
)
"""Snapshots of several engines are of different moments: units would be in two of them, or in none."""

OWN_REDIS = 'is for the embedded engine. docs/operations.md, "Backup", says how to do it with your own Redis'


@click.command("backup")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.pass_obj
def command(options: dict[str, str], folder: Path) -> int:
    """Copy all data of the embedded engine into a new directory, and verify the copy.

    DIR must not exist yet, or be empty; the directory that it is in must exist.

    The service may run meanwhile: every order that was confirmed before the command started is in the backup. The
    engine writes the copy itself, and the audit checks it on an engine of its own. Exit code 0: the backup is complete
    and verified; 1: there is no backup; 3: it is complete, but the audit has findings, which are in the running shop,
    too.
    """
    settings = read_settings(options)
    if settings.redis_url is not None:
        return fail(f"`holdfast backup` {OWN_REDIS}")
    if settings.partitions > 1:
        return fail(f"`holdfast backup` {ONE_ENGINE}")
    for sentence in ignored_variables():
        fail(sentence)
    return run_and_handle_errors(lambda: _run(settings, folder))


def _run(settings: Settings, folder: Path) -> int:
    from service.domain.errors.storage import StorageError
    from service.engine.data_dir import EngineError
    from service.logger import log_only_errors
    from service.ops.audit_report import AuditInconclusive
    from service.ops.backup import back_up, new_folder
    from service.ops.backup_folder import UnusableBackup
    from service.storage.sender import ErrorReply

    log_only_errors()
    patient = replace(settings, max_in_flight=100_000, redis_timeout=60.0, data_dir=settings.data_dir.resolve())
    try:
        with new_folder(folder.absolute()) as partial, engine_url(patient, creates_data=False) as url:
            manifest = asyncio.run(back_up(patient, url, partial, progress_bar))
    except (UnusableBackup, EngineError) as error:
        return fail(str(error))
    except OSError as error:  # the disk is full, or there is no permission
        return fail(f"no backup was made: {error}")
    except StorageError as error:
        return fail(f"the copy cannot be verified: {error.reason}")
    except (AuditInconclusive, ErrorReply) as error:
        return fail(f"the copy cannot be verified: {error}")
    for name, counts in manifest.shops.items():
        orders = f"{counted(counts.orders, 'order')}, {counts.pending:,} of them pending"
        print(f"{name}: {counted(counts.products, 'product')}, {orders}.")
    print(f"Backup in {folder}: the data as of {manifest.created_at}.")
    if findings := sum(counts.findings for counts in manifest.shops.values()):
        return fail(f"{counted(findings, 'finding')} of the audit: `holdfast audit` names them", WITH_FINDINGS)
    print("Verified: stock numbers and orders agree.")
    return OK

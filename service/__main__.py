"""The `holdfast` command."""

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

import structlog
from pydantic import BaseModel, Field, ValidationError
from pydantic_settings import CliApp, CliPositionalArg, CliSubCommand, SettingsConfigDict, get_subcommand
from tqdm import tqdm

from service.domain.errors.storage import StorageError, UnsupportedRedis
from service.engine import EngineError, run_engine, running_engine
from service.logs import configure_logging
from service.ops.audit import AuditInconclusive, audit
from service.ops.catalogue_files import NotImportableError
from service.ops.export import export
from service.ops.import_products import import_products
from service.serving import fail, serve
from service.settings import Settings
from service.storage.opening import open_store
from service.storage.store import Store

log = structlog.get_logger()


class Serve(BaseModel):
    """Serve the API, on an embedded engine if no --redis-url is given."""


class Audit(BaseModel):
    """Prove that the books balance, while the service runs or not. Exits with 1 if they do not, 3 if it cannot tell."""

    json_: bool = Field(False, alias="json", description="print the report as JSON")


class Events(BaseModel):
    """Print the event stream as JSON lines."""

    after: str = Field("0-0", pattern=r"^[0-9]{1,18}(-[0-9]{1,18})?$", description="begin after the event of this id")
    follow: bool = Field(False, description="go on with new events as they come")


class Import(BaseModel):
    """Add the products of a .jsonl or .csv file. Bad rows are reported, good rows are added."""

    file: CliPositionalArg[Path] = Field(description="one product a row: id, name, description, price, stock")


class Export(BaseModel):
    """Print all products on sale, or all orders, as JSON lines."""

    what: CliPositionalArg[Literal["products", "orders"]]


class Holdfast(Settings):
    """An order API that never oversells.

    Each option can be given as an environment variable, too: --redis-url is HOLDFAST_REDIS_URL.
    """

    model_config = SettingsConfigDict(
        cli_prog_name="holdfast", cli_kebab_case=True, cli_implicit_flags=True, cli_hide_none_type=True
    )

    serve_: CliSubCommand[Serve] = Field(alias="serve")
    audit_: CliSubCommand[Audit] = Field(alias="audit")
    events_: CliSubCommand[Events] = Field(alias="events")
    import_: CliSubCommand[Import] = Field(alias="import")
    export_: CliSubCommand[Export] = Field(alias="export")

    def cli_cmd(self) -> None:
        command = get_subcommand(self)
        match command:
            case Serve():
                configure_logging(self.log_level)
                serve(self)
            case Audit() | Events() | Import() | Export():
                configure_logging("error")  # the answer is on the terminal already
                sys.exit(_run_command(self, command))


def main() -> None:
    """Entry point. Exits with 0 after an orderly end, 1 when it failed, 2 when it was called wrongly."""
    try:
        CliApp.run(Holdfast, cli_args=sys.argv[1:] or ["--help"])
    except ValidationError as error:
        for fault in error.errors():
            name = str(fault["loc"][-1])
            where = f"HOLDFAST_{name.upper()}" if name in Settings.model_fields else name
            print(f"holdfast: {where}: {fault['msg']}", file=sys.stderr)
        sys.exit(2)


def _run_command(settings: Settings, command: Audit | Events | Import | Export) -> int:
    with ExitStack() as stack:
        try:
            if settings.redis_url is None and not isinstance(command, Import) and not settings.data_dir.exists():
                raise EngineError(f"there is no data in {settings.data_dir}: see HOLDFAST_DATA_DIR, HOLDFAST_REDIS_URL")
            url = settings.redis_url or stack.enter_context(_local_engine(settings))
            code = asyncio.run(_with_store(settings.model_copy(update={"redis_url": url}), command))
            sys.stdout.flush()  # here, where an error is caught, rather than at exit
            return code
        except (EngineError, NotImportableError) as error:
            fail(str(error), _CANNOT_TELL if isinstance(command, Audit) else 1)
        except (StorageError, UnsupportedRedis) as error:
            fail(error.reason, _CANNOT_TELL if isinstance(command, Audit) else 1)
        except BrokenPipeError:  # `holdfast events | head`
            _drop_output()
            return 0
        except OSError as error:  # of the file that the answer goes to
            _drop_output()
            fail(str(error))
        except KeyboardInterrupt:
            return 130


def _drop_output() -> None:
    """What is left of it in a buffer would fail again at exit."""
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


@contextmanager
def _local_engine(settings: Settings) -> Iterator[str]:
    """The engine of the service that runs on the data directory, or one of our own."""
    if url := running_engine(settings.data_dir):
        yield url
        return
    with run_engine(settings.data_dir, settings.durability) as url:
        yield url


async def _with_store(settings: Settings, command: Audit | Events | Import | Export) -> int:
    # The bound keeps requests from waiting in vain. A command has none, and sends whole batches.
    async with open_store(settings.model_copy(update={"max_in_flight": 100_000})) as store:
        match command:
            case Audit():
                return await _audit(store, settings, command)
            case Events():
                return await _events(store, settings, command)
            case Import():
                return await _import(store, command)
            case Export():
                return await _export(store, command)


async def _audit(store: Store, settings: Settings, command: Audit) -> int:
    try:
        total = await store.inspection.count_keys()
    except (StorageError, UnsupportedRedis) as error:
        return _cannot_tell(error, command)
    with tqdm(total=total, unit=" keys", unit_scale=True, disable=None, leave=False) as bar:
        try:
            report = await audit(store, settings.shop, bar.update)
        except (AuditInconclusive, StorageError, UnsupportedRedis) as error:
            return _cannot_tell(error, command)
    if command.json_:
        print(json.dumps(report.as_dict()))
        return 0 if report.balanced else 1
    print(f"{report.products:,} products, {report.orders:,} orders, {report.pending:,} of them pending.")
    for finding in report.findings:
        print(f"{finding.key} {finding.what}")
    if report.balanced:
        print("The books balance.")
        return 0
    print("One thing is off." if len(report.findings) == 1 else f"{len(report.findings):,} things are off.")
    return 1


_CANNOT_TELL = 3
"""Exit code of an audit: neither 'they balance' nor 'they do not'."""


def _cannot_tell(error: AuditInconclusive | StorageError | UnsupportedRedis, command: Audit) -> int:
    reason = str(error) if isinstance(error, AuditInconclusive) else error.reason
    if command.json_:
        print(json.dumps({"balanced": None, "reason": reason}))
    print(f"holdfast: cannot tell: {reason}", file=sys.stderr)
    return _CANNOT_TELL


async def _events(store: Store, settings: Settings, command: Events) -> int:
    after = command.after
    if not await store.events.has_since(after) and after != "0-0":
        print(f"holdfast: some events after {after} are gone already, see HOLDFAST_EVENTS_MAX", file=sys.stderr)
    # Shorter than the wire's own patience, which would take the silence for a broken connection.
    patience = int(min(settings.redis_timeout / 2, 1) * 1000)
    while True:
        events = await store.events.read(after)
        if not events and command.follow:
            events = await store.events.wait(after, patience)
        elif not events:
            return 0
        for event in events:
            print(event.json(), flush=command.follow)
            after = event.id


async def _import(store: Store, command: Import) -> int:
    size = command.file.stat().st_size if command.file.is_file() else None
    with tqdm(total=size, unit="B", unit_scale=True, disable=None, leave=False) as bar:
        report = await import_products(store, command.file, bar.update)
    for line_number, fault in report.bad:
        print(f"{command.file}:{line_number}: {fault}", file=sys.stderr)
    print(f"{report.added:,} added, {report.present:,} were there already, {len(report.bad):,} bad rows.")
    return 1 if report.bad else 0


async def _export(store: Store, command: Export) -> int:
    total = await (store.inspection.count_products() if command.what == "products" else store.orders.last_id())
    with tqdm(total=total, unit=f" {command.what}", unit_scale=True, disable=None, leave=False) as bar:
        async for line in export(store, command.what):
            print(line)
            bar.update()
    return 0


if __name__ == "__main__":
    # Under the name that workers can import: they are handed functions of this module.
    from service.__main__ import main as run

    run()

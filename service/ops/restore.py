"""Puts a backup in the place of the data of an embedded engine: `holdfast restore`.

All work is done on a copy beside the data. One rename makes the copy the new data: then each process that locks
the directory first puts them into their place. So a restore that is killed has done all or nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from service.engine.data_dir import EngineError, lock_data_dir, running_engine
from service.engine.data_files import commit_restore, finish_restore, has_data, prepare_restore
from service.engine.launcher import run_engine
from service.engine.snapshot import make_data
from service.ops.backup import NewBar, audit_shop, shops_of, upgrade_shop
from service.ops.backup_folder import SNAPSHOT, Manifest, UnusableBackup, check_snapshot, read_manifest
from service.settings import Settings
from service.storage.opening import open_store
from service.storage.restored import Marked


@dataclass(frozen=True)
class RestoreReport:
    """What a restore did. `findings`: what the audit found in each shop. `moved`: where the data from before are."""

    manifest: Manifest
    marks: Mapping[str, Marked]
    findings: Mapping[str, list[str]]
    moved: Path | None


def check_backup(settings: Settings, folder: Path, new_bar: NewBar) -> Manifest:
    """Return what a backup is. Raise UnusableBackup if it is damaged, or has no such shop."""
    manifest = read_manifest(folder)
    if not any(settings.serves(shop) for shop in manifest.shops):
        names = ", ".join(list(manifest.shops)[:10])
        wanted = ", ".join(settings.shops or settings.all_shops)
        raise UnusableBackup(f"{folder} has no shop {wanted!r} (HOLDFAST_SHOP); the shops in it are {names}")
    with new_bar(manifest.size, " bytes") as bar:
        check_snapshot(folder, manifest, bar.update)
    return manifest


def prepare_data_dir(data_dir: Path) -> None:
    """Make the data directory, if there is none. Raise EngineError if an engine runs there, or it cannot be made."""
    if running_engine(data_dir):
        raise EngineError(f"{data_dir} is in use: stop the service first")
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise EngineError(
            f"cannot make the data directory {data_dir}: {error.strerror}. Change HOLDFAST_DATA_DIR"
        ) from None


async def restore(
    settings: Settings,
    folder: Path,
    new_bar: NewBar,
    *,
    move_aside: bool = False,
    after_order: int = 0,
    after_event: str = "0-0",
) -> RestoreReport:
    """Restore a backup, and mark its shops as restored: RestoredShop.mark() says what the last two arguments are.

    `move_aside`: data that are there are moved into another directory. Otherwise they are a reason to refuse.

    Raise UnusableBackup, EngineError, OSError, StorageError, AuditInconclusive: then the data are as before.
    """
    manifest = check_backup(settings, folder, new_bar)
    prepare_data_dir(settings.data_dir)
    data_dir = settings.data_dir.resolve()
    with lock_data_dir(data_dir, lambda: False):
        if has_data(data_dir) and not move_aside:
            raise UnusableBackup(
                f"{data_dir} has data already: with --move-aside they are moved to another directory in it, or choose "
                "another one with HOLDFAST_DATA_DIR"
            )
        copy = prepare_restore(data_dir)
        try:
            make_data(folder / SNAPSHOT, copy)
            marks, findings = {}, {}
            with run_engine(copy, settings.durability) as url:
                on_copy = replace(settings, redis_url=url, wait_replicas=0)
                for name in await shops_of(on_copy):
                    async with open_store(replace(on_copy, shop=name), creates_shop=False, upgrades=True) as shop:
                        [store] = shop.partitions  # one engine has no shop with partitions
                        await upgrade_shop(store, new_bar)
                        marks[name] = await store.restored.mark(after_order, after_event)
                        report = await audit_shop(store, name, new_bar)
                        findings[name] = [f"{finding.key} {finding.what}" for finding in report.findings]
            commit_restore(data_dir)
        except BaseException:
            prepare_restore(data_dir)  # removes the copy, which may be large
            raise
        return RestoreReport(manifest, marks, findings, finish_restore(data_dir))

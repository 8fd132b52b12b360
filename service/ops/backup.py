"""Makes a backup of an embedded engine, and verifies it on a copy: `holdfast backup`."""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from service.domain.times import Milliseconds, format_timestamp
from service.engine.data_files import sync
from service.engine.launcher import run_engine
from service.engine.snapshot import make_data, take_snapshot
from service.ops.audit import audit
from service.ops.audit_report import Report, ShopIsEmpty
from service.ops.backup_folder import SNAPSHOT, Manifest, ShopCounts, UnusableBackup, hash_file
from service.ops.upgrade import upgrade
from service.settings import Settings
from service.storage.opening import open_store
from service.storage.store import Store

NewBar = Callable[[int | None, str], AbstractContextManager[Any]]
"""Makes a progress bar, from the expected number and the unit."""


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a directory beside `folder`, and give it the name `folder` at the end: then all of it is on the disk.

    Raise UnusableBackup if there is something in `folder`, if it is in no directory, or if another command is making
    this backup.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UnusableBackup(f"{folder} exists already: choose a new directory for each backup")
    if not folder.parent.exists():
        # Not created: the name may be misspelt, or the disk for backups is not mounted.
        raise UnusableBackup(f"there is no directory {folder.parent}: create it, or choose another one")
    partial = folder.with_name(f"{folder.name}.partial")
    try:
        partial.mkdir(mode=0o700, exist_ok=True)
        fd = os.open(partial, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise UnusableBackup(f"cannot write {partial}: {error.strerror}. Choose another directory") from None
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UnusableBackup(f"another command is writing {partial}: wait for its end") from None
        except OSError:
            pass  # a network file system that cannot lock
        _remove_leftovers(partial)
        try:
            yield partial
            sync(partial)
            partial.rename(folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        sync(folder.parent)
    finally:
        os.close(fd)


def _remove_leftovers(partial: Path) -> None:
    """Remove what a stopped backup has left. Raise UnusableBackup if it is something else."""
    names = {path.name for path in partial.iterdir()}
    if others := names - {SNAPSHOT, "backup.json", "check"}:
        raise UnusableBackup(f"{partial} has files that are not of a backup, such as {min(others)}: move them away")
    for name in names:
        path = partial / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()


async def back_up(settings: Settings, url: str, folder: Path, new_bar: NewBar) -> Manifest:
    """Write a backup of the engine at `url` into an empty directory, and return its manifest.

    Raise EngineError, OSError, AuditInconclusive, StorageError, and UnusableBackup if the engine has no such shop.
    """
    file = folder / SNAPSHOT
    with new_bar(None, " keys") as bar:
        snapshot = take_snapshot(url, settings.data_dir, file, bar.update)
    size = file.stat().st_size
    with new_bar(size, " bytes") as bar:
        sha256 = hash_file(file, bar.update)
    copy = folder / "check"
    make_data(file, copy, for_a_moment=True)
    try:
        with run_engine(copy, "none") as copy_url:
            shops = await _verify(replace(settings, redis_url=copy_url, durability="none"), new_bar)
    finally:
        shutil.rmtree(copy, ignore_errors=True)
    if not any(settings.serves(shop) for shop in shops):
        others = f"the shops in it are {', '.join(list(shops)[:10])}" if shops else "there is no other shop either"
        wanted = ", ".join(settings.shops or settings.all_shops)
        raise UnusableBackup(f"there is no shop {wanted!r} in {settings.data_dir} (HOLDFAST_SHOP); {others}")
    created_at = format_timestamp(Milliseconds(snapshot.time_ms))
    manifest = Manifest(version("holdfast"), snapshot.engine, created_at, shops, size, sha256)
    manifest.write(folder)
    return manifest


async def _verify(settings: Settings, new_bar: NewBar) -> dict[str, ShopCounts]:
    """Audit all shops of a copy. Data of an older schema version are upgraded before, as a restore does it."""
    shops = {}
    for name in await shops_of(settings):
        async with open_store(replace(settings, shop=name), creates_shop=False, upgrades=True) as shop:
            [store] = shop.partitions  # one engine has no shop with partitions
            layout = await store.layout.version()
            await upgrade_shop(store, new_bar)
            report = await audit_shop(store, name, new_bar)
            counts = (report.products, report.orders, report.pending, report.archived, len(report.findings))
            shops[name] = ShopCounts(layout or 0, *counts)
    return shops


async def shops_of(settings: Settings) -> list[str]:
    """Return the names of all shops of an engine."""
    async with open_store(settings, creates_shop=False, upgrades=True) as store:
        return await store.partitions[0].inspection.shops()


async def upgrade_shop(store: Store, new_bar: NewBar) -> None:
    """Upgrade a shop, if it needs that."""
    with new_bar(await store.events.count(), " events") as bar:
        await upgrade(store, bar.update)


async def audit_shop(store: Store, shop: str, new_bar: NewBar) -> Report:
    """Audit a shop, which may be empty."""
    with new_bar(await store.inspection.count_keys(), " keys") as bar:
        try:
            return await audit(store, shop, bar.update)
        except ShopIsEmpty:
            return Report()

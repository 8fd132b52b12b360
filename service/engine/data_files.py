"""The data in a data directory: of one engine or of the engine of each partition, and how a restore replaces them."""

import os
import shutil
from itertools import count
from pathlib import Path
from typing import Final

_BRING_BACK: Final = "Bring the data back: see docs/scale.md#if-the-data-of-a-partition-are-lost"

FILES_DIR: Final = "appendonlydir"
"""The directory in the data directory where the engine keeps all data."""


PARTITIONS_DIR: Final = "partitions"
"""The directory in the data directory with a data directory for the engine of each partition: `0`, `1`, `2`, ...

A shop without partitions does not have it.
"""


_RESTORING: Final = "restoring"
_RESTORED: Final = "restored"
"""Directories in the data directory. A restore works in the first one. Under the second name, it is the data."""


_NEW_PARTITIONS: Final = "partitions.new"
"""Where the directories of the partitions are made, before all of them together get their place with one rename."""


def missing_data(data_dir: Path) -> str | None:
    """Return why there are no data in a directory, None if there are some."""
    if not data_dir.exists():
        return f"the data directory {data_dir} does not exist"
    if not data_dir.is_dir():
        return f"{data_dir} is not a directory"
    if not has_data(data_dir):
        return f"the directory {data_dir} has no data of Holdfast"
    return None


def has_data(data_dir: Path) -> bool:
    """Return whether a directory has data of an engine. Those of a restore that was killed at its very end count."""
    folders = (data_dir, *(partition_dir(data_dir, number) for number in _partitions(data_dir)))
    return any(map(_has_files, folders))


def _has_files(data_dir: Path) -> bool:
    places = (data_dir / FILES_DIR, data_dir / _RESTORED / FILES_DIR)
    return any(place.is_dir() and any(place.iterdir()) for place in places)


def partition_dir(data_dir: Path, partition: int) -> Path:
    """Return the data directory of the engine of a partition."""
    return data_dir / PARTITIONS_DIR / str(partition)


def make_partition_dirs(data_dir: Path, partitions: int) -> None:
    """Make the data directories of all partitions: all or none of them, so that their number is always known.

    If they exist, nothing is done. The data directory must be locked. Raise OSError.
    """
    if _partitions(data_dir):
        return
    new = data_dir / _NEW_PARTITIONS
    if new.exists():
        shutil.rmtree(new)
    new.mkdir(mode=0o700)
    for number in range(partitions):
        folder = new / str(number)
        folder.mkdir(mode=0o700)
        (folder / FILES_DIR).mkdir(mode=0o700)
        sync(folder)
    sync(new)
    new.rename(data_dir / PARTITIONS_DIR)
    sync(data_dir)


def partitions_problem(data_dir: Path, partitions: int) -> str | None:
    """Return why the data of a directory cannot be used with this number of partitions, None if they can.

    A directory without data can be used with any number.
    """
    found = _partitions(data_dir)
    for number in range(max(*found, 1) + 1 if found else 0):  # a single partition is not all of a shop
        if not (files_dir := partition_dir(data_dir, number) / FILES_DIR).is_dir():
            return f"{files_dir} is missing: a shop needs the data of all its partitions. {_BRING_BACK}"
    if found and _has_files(data_dir):
        places = f"{FILES_DIR} and in {PARTITIONS_DIR}"
        return f"the directory {data_dir} has data of two kinds, in {places}: move one of them away"
    made_with = len(found) or (1 if _has_files(data_dir) else partitions)
    if made_with == partitions:
        return None
    if found and made_with < partitions:  # the last ones may have been lost
        return (
            f"the directory {data_dir} has the data of {made_with} partitions, but HOLDFAST_PARTITIONS is "
            f"{partitions}. If the shop has {partitions}, {partition_dir(data_dir, made_with)} is missing. "
            f"{_BRING_BACK}. If the shop was made with {made_with}, set HOLDFAST_PARTITIONS to {made_with}"
        )
    content = f"{made_with} partitions" if found else "a shop without partitions"
    return (
        f"the directory {data_dir} has the data of {content}, which cannot be divided anew: "
        f"set HOLDFAST_PARTITIONS to {made_with}, or choose another directory with HOLDFAST_DATA_DIR"
    )


def _partitions(data_dir: Path) -> list[int]:
    """Return the numbers of the partitions in a directory."""
    place = data_dir / PARTITIONS_DIR
    return [int(path.name) for path in place.iterdir() if path.name.isdecimal()] if place.is_dir() else []


def prepare_restore(data_dir: Path) -> Path:
    """Return the path for the data that a restore makes: a directory that does not exist. Raise OSError.

    A stopped restore may have left something there: it is removed.
    """
    path = data_dir / _RESTORING
    if path.exists():
        shutil.rmtree(path)
    return path


def commit_restore(data_dir: Path) -> None:
    """Sync all that a restore has made to the disk. Then decide, with one rename, that it is the data. Raise OSError.

    No engine may run on it any more.
    """
    files_dir = data_dir / _RESTORING / FILES_DIR
    for path in (*files_dir.iterdir(), files_dir, files_dir.parent):
        sync(path)
    (data_dir / _RESTORING).rename(data_dir / _RESTORED)
    sync(data_dir)


def finish_restore(data_dir: Path) -> Path | None:
    """Put what a restore has made into its place, if that has not been done. The directory must be locked.

    Return where the data from before are now, None if there were none. Nothing is deleted. Raise OSError.
    """
    restored, files_dir, moved = data_dir / _RESTORED, data_dir / FILES_DIR, None
    if (restored / FILES_DIR).exists():
        if files_dir.exists() and any(files_dir.iterdir()):
            moved = _free_path(data_dir)
            moved.mkdir(mode=0o700)
            files_dir.rename(moved / FILES_DIR)
        (restored / FILES_DIR).rename(files_dir)
        sync(data_dir)
    if restored.exists():
        shutil.rmtree(restored)
    return moved


def _free_path(data_dir: Path) -> Path:
    """Return a path for the data before a restore: `before-restore-1`, `before-restore-2`, ..."""
    return next(path for number in count(1) if not (path := data_dir / f"before-restore-{number}").exists())


def sync(path: Path) -> None:
    """Sync a file, or the list of files of a directory, to the disk. Raise OSError."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

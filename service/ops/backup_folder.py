"""The directory of a backup: a snapshot of the engine, and a manifest that says what it is."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from service.engine.data_files import sync
from service.storage.requirements import SCHEMA_VERSION

SNAPSHOT: Final = "data.rdb"
MANIFEST: Final = "backup.json"

_FORMAT: Final = 1
"""Of the manifest. A program that does not know it refuses the backup."""

_CHUNK_BYTES: Final = 1024 * 1024


class UnusableBackup(Exception):
    """A directory is no usable backup, or no backup can be made there. The message is for the operator."""


@dataclass(frozen=True)
class ShopCounts:
    """What the audit found in a shop of the backup. `layout`: its schema version at the time of the backup."""

    layout: int
    products: int
    orders: int
    pending: int
    archived: int
    findings: int


@dataclass(frozen=True)
class Manifest:
    """What a backup is. `created_at`: by the clock of the engine, as text. `engine`: the server that wrote it."""

    holdfast: str
    engine: str
    created_at: str
    shops: Mapping[str, ShopCounts]
    size: int
    sha256: str

    def write(self, folder: Path) -> None:
        """Write the manifest into the directory of the backup, and sync it to the disk. Raise OSError."""
        document = {
            "format": _FORMAT,
            "holdfast": self.holdfast,
            "engine": self.engine,
            "created_at": self.created_at,
            "files": {SNAPSHOT: {"size": self.size, "sha256": self.sha256}},
            "shops": {name: asdict(counts) for name, counts in self.shops.items()},
        }
        (folder / MANIFEST).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        sync(folder / MANIFEST)


def read_manifest(folder: Path) -> Manifest:
    """Return what a backup is. Raise UnusableBackup."""
    try:
        text = (folder / MANIFEST).read_text(encoding="utf-8")
    except OSError as error:
        raise UnusableBackup(f"{folder} is no backup of Holdfast: {MANIFEST}: {error.strerror}") from None
    except UnicodeError:
        raise UnusableBackup(f"{folder / MANIFEST} is damaged: use another backup") from None
    try:
        document: Any = json.loads(text)
        if document["format"] != _FORMAT:
            raise UnusableBackup(
                f"{folder} has format {document['format']!r}: it was made by a newer Holdfast, use that"
            )
        shops = {name: ShopCounts(**counts) for name, counts in document["shops"].items()}
        layouts = [int(counts.layout) for counts in shops.values()]
        file = document["files"][SNAPSHOT]
        holdfast, engine, created_at = [str(document[name]) for name in ("holdfast", "engine", "created_at")]
        manifest = Manifest(holdfast, engine, created_at, shops, int(file["size"]), str(file["sha256"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UnusableBackup(f"{folder / MANIFEST} is damaged: use another backup") from None
    if max(layouts, default=0) > SCHEMA_VERSION:
        raise UnusableBackup(
            f"{folder} has data of layout {max(layouts)}, but this Holdfast knows only {SCHEMA_VERSION}: "
            f"use Holdfast {manifest.holdfast} or later"
        )
    return manifest


def check_snapshot(folder: Path, manifest: Manifest, progress: Callable[[int], object]) -> None:
    """Raise UnusableBackup if the snapshot is not the one that was written. Call `progress` with numbers of bytes."""
    file = folder / SNAPSHOT
    try:
        size, digest = file.stat().st_size, ""
        if size == manifest.size:
            digest = hash_file(file, progress)
    except OSError as error:
        raise UnusableBackup(f"cannot read {file}: {error.strerror}") from None
    if size != manifest.size:
        raise UnusableBackup(f"{file} is damaged: it has {size} bytes instead of {manifest.size}. Use another backup")
    if digest != manifest.sha256:
        raise UnusableBackup(f"{file} is damaged: its SHA-256 is not that of {MANIFEST}. Use another backup")


def hash_file(file: Path, progress: Callable[[int], object]) -> str:
    """Return the SHA-256 of a file. Call `progress` with the number of bytes of each part. Raise OSError."""
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while chunk := opened.read(_CHUNK_BYTES):
            digest.update(chunk)
            progress(len(chunk))
    return digest.hexdigest()

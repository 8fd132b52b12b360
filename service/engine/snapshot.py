"""Lets a running engine write a snapshot of all its data into a file (RDB), and makes data of such a file.

The engine forks: its child writes the file, and the engine goes on serving requests.
"""

import shutil
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from service.engine.commands import Commands
from service.engine.data_dir import EngineError, socket_path
from service.engine.data_files import FILES_DIR, sync

_REPLY_SECONDS: Final = 60.0
"""A slow disk may stop the engine for a while."""

_POLL_SECONDS: Final = 0.05


class Snapshot(NamedTuple):
    """When a snapshot was begun, by the clock of the engine, in ms since 1970; and which engine wrote it."""

    time_ms: int
    engine: str


def take_snapshot(url: str, data_dir: Path, file: Path, progress: Callable[[int], object]) -> Snapshot:
    """Write all data of an engine into a file that does not exist, and sync it to the disk. Raise EngineError, OSError.

    All changes that were confirmed before the call are in the file. Call `progress` with numbers of keys.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_REPLY_SECONDS)
        try:
            connection.connect(str(socket_path(url)))
            with connection.makefile("rb") as replies:
                commands = Commands(connection, replies)
                snapshot = _save(commands, progress)
                # A later snapshot overwrites what a killed command has left there.
                written = data_dir / commands.send("CONFIG GET dbfilename").split("\n")[1]
        except (OSError, EOFError) as error:
            raise EngineError(f"the engine on {data_dir} does not answer: {error}. Repeat the command") from None
    try:
        written.rename(file)
    except FileNotFoundError:
        raise EngineError(f"{written} is gone: another backup has taken it. Repeat the command") from None
    except OSError:  # another file system
        try:
            shutil.copyfile(written, file)
        finally:
            written.unlink(missing_ok=True)
    sync(file)
    return snapshot


def make_data(snapshot: Path, data_dir: Path, *, for_a_moment: bool = False) -> None:
    """Make the data of an engine from a snapshot, which stays as it is. The directory must not exist. Raise OSError.

    `for_a_moment`: the snapshot is not copied, if the file system allows it. An engine does not change this file.
    """
    files_dir = data_dir / FILES_DIR
    files_dir.mkdir(mode=0o700, parents=True)
    base = files_dir / "appendonly.aof.1.base.rdb"
    if for_a_moment:
        with suppress(OSError):
            base.hardlink_to(snapshot)
    if not base.exists():
        shutil.copyfile(snapshot, base)
    (files_dir / "appendonly.aof.manifest").write_text(f"file {base.name} seq 1 type b\n")


def _save(commands: Commands, progress: Callable[[int], object]) -> Snapshot:
    """Let the engine write the file, and wait until it is done."""
    facts = commands.facts("server")
    engine = f"Valkey {facts['valkey_version']}" if "valkey_version" in facts else f"Redis {facts['redis_version']}"
    seconds, microseconds = commands.send("TIME").split("\n")
    while True:
        try:
            commands.send("BGSAVE")
            break
        except EngineError as error:
            # The engine has one child at a time, and is just writing its append-only file anew.
            if "SCHEDULE" not in str(error):
                raise
        time.sleep(_POLL_SECONDS)
    saved = 0
    while (facts := commands.facts("persistence")).get("rdb_bgsave_in_progress") == "1":
        keys = int(facts.get("current_save_keys_processed", "0"))
        progress(keys - saved)
        saved = keys
        time.sleep(_POLL_SECONDS)
    if facts.get("rdb_last_bgsave_status") != "ok":
        raise EngineError(
            "the engine could not write a snapshot: is the disk of the data directory full? See engine.log"
        )
    return Snapshot(int(seconds) * 1000 + int(microseconds) // 1000, engine)

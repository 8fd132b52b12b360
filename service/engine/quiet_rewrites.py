"""Rewrites the append-only file of the engine at a quiet moment, so that this need not be done while many order.

The engine rewrites the file by itself when it is twice as large as after the last time. While it does so, an order
takes it up to one and a half times the CPU time, because it must copy each part of the memory that it changes, and a
few orders wait for the fork. The file of a busy shop grows by 64 MB in seconds. So the engine waits until it has
BUSY_MB; before, a quiet moment is awaited. A short file is loaded faster when the engine starts.
"""

import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from service.engine.commands import Commands
from service.engine.data_dir import EngineError

BUSY_MB: Final = 256
"""At a busy time, the engine itself rewrites a file that is at least so large. It loads that in a few seconds."""

QUIET_BYTES: Final = 64 * 2**20
"""At a quiet moment, a file that is at least so large is rewritten: this is the default of Valkey for all times."""

QUIET_COMMANDS: Final = 1000
"""A moment is quiet if the engine executes fewer commands per second. An order of two lines is about nine."""

_LOOK_SECONDS: Final = 2.0
_REPLY_SECONDS: Final = 0.2
"""So long, at most, does a busy engine delay the look at its files."""


class QuietRewrites:
    """Looks at an engine now and then, and lets it rewrite its file."""

    def __init__(self, socket_path: Path) -> None:
        self._socket_path = socket_path
        self._look_at = 0.0

    def look(self) -> None:
        """Begin a rewrite, if it is time for the next look, the moment is quiet, and the file is long."""
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + _LOOK_SECONDS
        # An engine that does not answer, or refuses, is looked at again later.
        with suppress(OSError, EOFError, EngineError), socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_REPLY_SECONDS)
            connection.connect(str(self._socket_path))
            with connection.makefile("rb") as replies:
                commands = Commands(connection, replies)
                if is_due(commands.facts("stats", "persistence")):
                    commands.send("BGREWRITEAOF")


def is_due(facts: dict[str, str]) -> bool:
    """Return whether the moment is quiet, and the file is long enough, by what INFO says."""
    names = ("aof_rewrite_in_progress", "aof_rewrite_scheduled", "rdb_bgsave_in_progress", "instantaneous_ops_per_sec")
    rewrites, scheduled, saves, commands = (int(facts.get(name, "0")) for name in names)
    size, size_before = (int(facts.get(name, "0")) for name in ("aof_current_size", "aof_base_size"))
    is_quiet = commands < QUIET_COMMANDS and not (rewrites or scheduled or saves)
    return is_quiet and size >= max(QUIET_BYTES, 2 * size_before)

"""Finds out whether the files of a running engine are still where it opened them.

An engine does not notice when its files are removed or moved: it goes on writing into files without a name, and
confirms orders that no later start can find.
"""

from pathlib import Path
from typing import Final

from service.engine.data_dir import engine_listens
from service.engine.data_files import FILES_DIR

_MANIFEST: Final = "appendonly.aof.manifest"
"""The engine's list of its data files. The engine replaces it by a rename, so it always exists."""


_MAX_CHECKS_WITHOUT_SOCKET: Final = 25
"""About 5 seconds. An engine makes its socket in its first milliseconds, before it loads its data."""


class EngineFiles:
    """The files of one engine. Make it while the engine runs and its files are in place."""

    def __init__(self, data_dir: Path, socket_path: Path) -> None:
        self._socket_path = socket_path
        self._socket = _identity(socket_path)
        self._directories = {path: _identity(path) for path in (data_dir, data_dir / FILES_DIR)}
        self._files_dir = data_dir / FILES_DIR
        self._checks_without_socket = 0
        self._missing_before: list[Path] = []

    def missing_data(self) -> Path | None:
        """Return a directory or file that is gone or was replaced by another one, None if all data are in place."""
        for path, identity in self._directories.items():
            if identity is None or _identity(path) != identity:
                return path
        missing = self._missing_files()
        # When the engine rewrites its files, a list that was read just before may name a file that was removed since.
        missing_twice = [path for path in missing if path in self._missing_before]
        self._missing_before = missing
        return missing_twice[0] if missing_twice else None

    def _missing_files(self) -> list[Path]:
        try:
            lines = (self._files_dir / _MANIFEST).read_text().splitlines()
        except OSError:
            return [self._files_dir / _MANIFEST]
        # A line is `file NAME seq 1 type i`. Files of type h are old, and the engine removes them.
        names = [words[1] for words in map(str.split, lines) if len(words) >= 6 and words[5] != "h"]
        return [self._files_dir / name for name in names if not (self._files_dir / name).exists()]

    def socket_is_lost(self) -> bool:
        """Return whether the engine's socket is gone or was replaced by another file."""
        if self._socket is None:
            if engine_listens(self._socket_path):
                self._socket = _identity(self._socket_path)
            self._checks_without_socket += 1
            return self._socket is None and self._checks_without_socket > _MAX_CHECKS_WITHOUT_SOCKET
        return _identity(self._socket_path) != self._socket

    def forget_socket(self) -> None:
        """Expect a new socket, because the engine is started again."""
        self._socket = None
        self._checks_without_socket = 0


def _identity(path: Path) -> tuple[int, int] | None:
    """Return the device and the inode of a file, None if there is no such file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino

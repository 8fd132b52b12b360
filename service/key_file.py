"""The file of API keys: read it, and add a key to it."""

import os
import stat
from pathlib import Path
from typing import Final

from service.domain.api_key import ApiKey, parse_keys

_MAX_BYTES: Final = 1024 * 1024
"""About 5,000 keys. A longer file is no file of keys."""


def read_key_file(file: Path) -> str:
    """Return the text of a file of keys. Raise OSError, and ValueError if it cannot be such a file.

    A device or a pipe is refused: reading it might never end.
    """
    if not stat.S_ISREG(file.stat().st_mode):
        raise ValueError("it is not a regular file")
    with file.open("rb") as opened:
        content = opened.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise ValueError(f"it has more than {_MAX_BYTES:,} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise ValueError("it is not a text in UTF-8") from None


def add_key(file: Path, key: ApiKey) -> None:
    """Add a key at the end of a file. A new file can only be read by its owner. Raise OSError, and ValueError.

    A service that reads the file meanwhile sees the whole line or nothing of it, because it is written at once.
    """
    text = read_key_file(file) if file.exists() else ""
    parse_keys(text)  # do not hide a mistake in another line
    line = f"{key.line()}\n" if text.endswith("\n") or not text else f"\n{key.line()}\n"
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Files of API keys: add a key, read all."""

import os
from pathlib import Path

from service.domain.api_key import ApiKey, parse_keys


def add_key(file: Path, key: ApiKey) -> None:
    """Add a key at the end of a file, which only its owner may read if it is new. Raise OSError, ValueError.

    A service that reads the file meanwhile sees the whole line or nothing of it, because it is written at once.
    """
    text = file.read_text("utf-8") if file.exists() else ""
    parse_keys(text)  # do not hide a mistake in another line
    line = f"{key.line()}\n" if text.endswith("\n") or not text else f"\n{key.line()}\n"
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_keys(file: Path) -> tuple[ApiKey, ...]:
    """Return the keys of a file. Raise OSError, ValueError."""
    return parse_keys(file.read_text("utf-8"))

"""How to read a catalogue file, and its bytes: counted, and with the first of them at hand."""

from dataclasses import dataclass
from io import BufferedReader, RawIOBase
from typing import Any, Final, Literal

from service.ops.csv_numbers import DecimalSign

CatalogueFormat = Literal["jsonl", "csv"]

_HEAD_BYTES: Final = 1024
"""Enough to see the byte order mark and the first character."""


@dataclass(frozen=True)
class ReadOptions:
    """What the operator says about a file. None: it is found in the file.

    `ignore_unknown`: columns that are no fields of a product are skipped.
    """

    format: CatalogueFormat | None = None
    delimiter: str | None = None
    decimal: DecimalSign | None = None
    encoding: str | None = None
    ignore_unknown: bool = False

    def only_csv(self) -> list[str]:
        """Return the options that were given and mean something in a .csv file only."""
        return [f"--{name}" for name in ("delimiter", "decimal", "encoding") if getattr(self, name) is not None]


DEFAULTS: Final = ReadOptions()


class CatalogueInput(RawIOBase):
    """A file that is read from its beginning. `head`: its first bytes.

    It need not be seekable: standard input and named pipes are read like files.
    """

    def __init__(self, file: BufferedReader) -> None:
        super().__init__()
        self._file = file
        self.head = file.read(_HEAD_BYTES)
        self._rest = self.head
        self._count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._rest[: len(buffer)] or self._file.read1(len(buffer))
        self._rest = self._rest[len(data) :]
        buffer[: len(data)] = data
        self._count += len(data)
        return len(data)

    def take_count(self) -> int:
        """Return how many bytes were read since the last call."""
        count, self._count = self._count, 0
        return count

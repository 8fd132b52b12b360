"""The file of `holdfast archive`: one JSON object per archived order, written so that a killed run can be repeated.

An order is written and synced before it is removed from Redis. So after a crash, an order may be in the file and in
Redis, but it is never in neither. The next run with the same file finds these orders, and does not write them again.
"""

import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from json.encoder import encode_basestring as quoted  # what JSONEncoder(ensure_ascii=False) does to text
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from service.domain.times import Milliseconds, format_timestamp
from service.ops.order_rows import IdSet
from service.pipes import is_named_pipe
from service.storage.archive import EndedOrder
from service.storage.records import ORDER_FIELDS

_SHOWN: Final = frozenset({"id", *ORDER_FIELDS, "written_off", "returned_at", "idempotency_key", "return_keys"})
"""The fields of an order's hash that have a member of their own in a line."""

_ID: Final = re.compile(rb'\{"shop":"(?:[^"\\]|\\.)*","id":([1-9][0-9]{0,15}),.*\}\n')


class UnusableFile(Exception):
    """The file is no archive of this shop, or cannot be used now. Nothing was written."""


def archive_line(shop: str, ended: EndedOrder) -> str:
    """Return an order as a line of the file: what the API shows, and what else is known of it."""
    fields = ended.fields
    more = []
    if lost := ended.written_off:
        units = [f'{{"product_id":{product_id},"quantity":{number}}}' for product_id, number in lost.items()]
        more.append(f'"written_off":[{",".join(units)}]')
    if "returned_at" in fields:
        more.append(f'"returned_at":"{format_timestamp(Milliseconds(int(fields["returned_at"])))}"')
    if "idempotency_key" in fields:
        more.append(f'"idempotency_key":{quoted(fields["idempotency_key"])}')
    if "return_keys" in fields:
        more.append(f'"return_keys":[{",".join(map(quoted, fields["return_keys"].split(chr(10))))}]')
    more += [f"{quoted(name)}:{quoted(value)}" for name, value in fields.items() if name not in _SHOWN]
    return f'{{"shop":{quoted(shop)},{",".join([ended.order.json()[1:-1], *more])}}}\n'


class ArchiveFile:
    """An archive that is open for writing. Only one process has it open.

    `unfinished`: the last line of each order that is in the file and, as far as is known, in Redis.
    """

    def __init__(self, path: Path, shop: str) -> None:
        """Open the file, or create it. Raise UnusableFile, and OSError."""
        self.path = path
        self.unfinished: dict[int, str] = {}
        self._newest_line: dict[int, str] = {}
        """The newest line of each order that is in the file twice. All other lines of this order are removed."""
        self._start = f'{{"shop":{quoted(shop)},"id":'.encode()
        if path.exists() and not path.is_file():
            raise UnusableFile(f"{path} is not a file")
        if str(path) == "-":
            raise UnusableFile("the archive must be a file: the orders are removed when they are synced to the disk")
        is_new = not path.exists()
        # Only the owner may read a new file: it has customers.
        self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600), "a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise UnusableFile(f"another process is writing {path}") from None
        if is_new:
            _sync_folder(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._file.close()

    def read_back(self, live: IdSet) -> None:
        """Find the orders of an earlier run that are still in Redis, in `live`. Cut off an unfinished last line.

        Raise UnusableFile if the file is no archive of this shop.
        """
        end = 0
        self._file.seek(0)
        for number, line in enumerate(self._file, 1):
            match = _ID.fullmatch(line)
            if not line.endswith(b"\n") and (number > 1 or line[: len(self._start)] == self._start[: len(line)]):
                break  # the process was killed while it wrote this line, so its order is still in Redis
            if match is None:
                raise UnusableFile(f"line {number} of {self.path} is no line of an archive")
            if not line.startswith(self._start):
                raise UnusableFile(f"line {number} of {self.path} is of another shop: use one file for each shop")
            end += len(line)
            order_id = int(match[1])
            if order_id in live:
                if order_id in self.unfinished:
                    self._newest_line[order_id] = line.decode()
                self.unfinished[order_id] = line.decode()
        self._file.truncate(end)

    def write(self, lines: Iterable[tuple[int, str]]) -> None:
        """Write the lines of orders, and sync them to the disk. A line that is there already is not written again."""
        for order_id, line in lines:
            known = self.unfinished.get(order_id)
            if known == line:
                continue
            if known is not None:
                self._newest_line[order_id] = line
            self.unfinished[order_id] = line
            self._file.write(line.encode())
        self._file.flush()
        os.fsync(self._file.fileno())

    def finish(self, order_id: int) -> None:
        """Note that an order is in the file, and not in Redis any more."""
        self.unfinished.pop(order_id, None)

    def drop_unfinished(self) -> None:
        """Remove the lines of orders that stay in Redis: they have changed after they were written, for example.

        The new file takes the place of the old one in one step.
        """
        if not (self.unfinished or self._newest_line):
            return
        temporary = self.path.with_name(f"{self.path.name}.new")
        kept: set[int] = set()
        with temporary.open("wb") as new:
            self._file.seek(0)
            for line in self._file:
                match = _ID.fullmatch(line)
                assert match is not None
                order_id = int(match[1])
                if order_id in self.unfinished or order_id in kept:
                    continue
                if order_id in self._newest_line:
                    if line.decode() != self._newest_line[order_id]:
                        continue
                    kept.add(order_id)
                new.write(line)
            new.flush()
            os.fsync(new.fileno())
        shutil.copymode(self.path, temporary)
        temporary.replace(self.path)
        _sync_folder(self.path)


def _sync_folder(path: Path) -> None:
    """Sync the folder of a file to the disk: otherwise a power cut may undo its creation."""
    folder = os.open(path.absolute().parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_archive(path: Path, shop: str) -> Iterator[dict[str, Any]]:
    """Yield the orders of an archive, amounts as text. Raise UnusableFile if a line is none of this shop, and OSError.

    An unfinished last line is left out: its order is in Redis.
    """
    if is_named_pipe(path):
        raise UnusableFile(f"{path} is a named pipe, and perhaps nobody writes into it")
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                order = json.loads(line, parse_float=str)
                if order["shop"] != shop:
                    raise UnusableFile(f"line {number} of {path} is of another shop")
                yield order
            except (KeyError, TypeError, ValueError):
                if not line.endswith(b"\n"):
                    return
                raise UnusableFile(f"line {number} of {path} is no line of an archive") from None


def created_at(line: str) -> str:
    """Return the moment when the order of a line was placed."""
    return str(json.loads(line)["created_at"])

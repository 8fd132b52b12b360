"""Reads product catalogues, .jsonl or .csv, row by row. A bad row does not stop the rows after it."""

import csv
from codecs import BOM_UTF8
from collections.abc import Iterator
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from service.domain.decoding import read_json, validate
from service.domain.errors.request import FieldError, InvalidRequest, MalformedJson
from service.domain.requests import NewProduct

MAX_LINE: Final = 1_000_000
"""Bytes or characters of the longest line: a file without line ends must not fill the memory."""


class UnreadableFile(Exception):
    """The file cannot be read at all."""


class ImportRow(NamedTuple):
    """One row: a product, or what is wrong with the row. Neither for an empty line. `size` in bytes."""

    line_number: int
    content: NewProduct | str | None
    size: int


def read_rows(path: Path) -> Iterator[ImportRow]:
    """Yield the rows of a file. The sizes add up to the size of the file. Raise UnreadableFile."""
    read = {".jsonl": _jsonl_rows, ".ndjson": _jsonl_rows, ".csv": _csv_rows}.get(path.suffix.lower())
    if read is None:
        raise UnreadableFile(f"{path}: the name must end in .jsonl or .csv")
    try:
        with path.open("rb") as file:
            yield from read(file)
    except _TooLong as error:
        raise UnreadableFile(f"{path}:{error.line_number}: the line is longer than {MAX_LINE:,} characters") from None
    except _RepeatedColumn:
        raise UnreadableFile(f"{path}: two columns have the same name in the header") from None
    except OSError as error:
        raise UnreadableFile(f"{path}: {error.strerror}") from error


class _TooLong(Exception):
    """A line is longer than MAX_LINE."""

    def __init__(self, line_number: int) -> None:
        super().__init__(line_number)
        self.line_number = line_number


class _RepeatedColumn(Exception):
    """Two columns of a .csv file have the same name."""


def _jsonl_rows(file: BinaryIO) -> Iterator[ImportRow]:
    for line_number, line in enumerate(iter(lambda: file.readline(MAX_LINE + 1), b""), 1):
        if len(line) > MAX_LINE:
            raise _TooLong(line_number)
        text = line.removeprefix(BOM_UTF8).strip() if line_number == 1 else line.strip()
        try:
            yield ImportRow(line_number, _product(read_json(text)) if text else None, len(line))
        except (MalformedJson, InvalidRequest) as error:
            yield ImportRow(line_number, _explain(error), len(line))


def _csv_rows(file: BinaryIO) -> Iterator[ImportRow]:
    size, names = 0, None

    def lines(text: TextIOWrapper) -> Iterator[str]:
        nonlocal size
        for line_number, line in enumerate(iter(lambda: text.readline(MAX_LINE + 1), ""), 1):
            if len(line) > MAX_LINE:
                raise _TooLong(line_number)
            size += len(line.encode(errors="surrogateescape"))
            yield line.removeprefix("\ufeff") if line_number == 1 else line

    # Bytes that are not UTF-8 become lone surrogates. Validation refuses these, so only their own row is bad.
    with TextIOWrapper(file, "utf-8", errors="surrogateescape", newline="") as text:
        reader = csv.reader(lines(text), strict=True)
        while True:
            # A row has several lines if a cell in quotes contains line ends. It is named by the first of them.
            content: NewProduct | str | None = None
            line_number, size = reader.line_num + 1, 0
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:  # only this row is bad: the reader continues after it
                content = _explain_csv(error, line_number, reader.line_num)
            else:
                if names is not None:
                    content = _csv_content(names, cells)
                elif cells:
                    names = cells
                    if len(set(names)) < len(names):
                        raise _RepeatedColumn
            yield ImportRow(line_number, content, size)


def _explain_csv(error: csv.Error, first_line: int, last_line: int) -> str:
    """Return what is wrong with a row that has these lines."""
    if "unexpected end of data" in str(error):
        return f"A quote begins in this row and nothing ends it: nothing is read up to line {last_line}, the last"
    if last_line > first_line:
        return f"This is not CSV: {error}. The row ends in line {last_line}: is a quote missing?"
    return f"This is not CSV: {error}"


def _csv_content(names: list[str], cells: list[str]) -> NewProduct | str | None:
    if not cells:
        return None
    if len(cells) > len(names):
        return "The row has more cells than the header."
    given = zip(names, cells, strict=False)
    try:
        return _product({name: _cell(name, cell) for name, cell in given if _is_given(name, cell)})
    except InvalidRequest as error:
        return _explain(error)


def _is_given(name: str, cell: str) -> bool:
    """Return whether a row has this field. An empty cell leaves out an optional field."""
    return cell != "" or name not in _OPTIONAL_FIELDS


_OPTIONAL_FIELDS: Final = {name for name, field in NewProduct.model_fields.items() if not field.is_required()}


def _cell(name: str, text: str) -> object:
    """Return a cell as a JSON value. Text in a column of numbers stays text, so that validation refuses it."""
    if name in ("id", "price", "stock"):
        with suppress(MalformedJson, UnicodeEncodeError):
            return read_json(text.encode())
    return text


def _product(document: object) -> NewProduct:
    product = validate(NewProduct, document, source="row")
    if product.id is None:
        detail = "Field is required: without it, a second run would add the product again"
        raise InvalidRequest("The row is not valid.", [FieldError("#/id", detail)])
    return product


def _explain(error: MalformedJson | InvalidRequest) -> str:
    if isinstance(error, InvalidRequest):
        return "; ".join(f"{field_error.pointer}: {field_error.detail}" for field_error in error.field_errors)
    return error.explanation

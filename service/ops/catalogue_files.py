"""Reads product catalogues, .jsonl or .csv, row by row. A bad row does not stop the rows after it."""

import csv
from codecs import BOM_UTF8
from collections.abc import Iterator
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Final, NamedTuple

from service.domain.decoding import read_json, validate
from service.domain.errors.request import FieldError, InvalidRequest, MalformedJson
from service.domain.requests import NewProduct


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
        yield from read(path)
    except (OSError, csv.Error) as error:
        raise UnreadableFile(f"{path}: {error}") from error


def _jsonl_rows(path: Path) -> Iterator[ImportRow]:
    with path.open("rb") as file:
        for line_number, line in enumerate(file, 1):
            text = line.removeprefix(BOM_UTF8).strip() if line_number == 1 else line.strip()
            try:
                yield ImportRow(line_number, _product(read_json(text)) if text else None, len(line))
            except (MalformedJson, InvalidRequest) as error:
                yield ImportRow(line_number, _explain(error), len(line))


def _csv_rows(path: Path) -> Iterator[ImportRow]:
    # Bytes that are not UTF-8 become lone surrogates. Validation refuses these, so only their own row is bad.
    with path.open("rb") as file, TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="") as text:
        reader = csv.DictReader(text, strict=True)
        names = reader.fieldnames or []
        if len(set(names)) < len(names):
            raise UnreadableFile(f"{path}: two columns have the same name in the header")
        read = 0
        while True:
            content: NewProduct | str
            try:
                cells = next(reader)
                if None in cells:  # DictReader puts cells without a name there
                    content = "The row has more cells than the header."
                else:
                    content = _product(
                        {name: _cell(name, cell) for name, cell in cells.items() if _is_given(name, cell)}
                    )
            except StopIteration:
                return
            except csv.Error as error:  # only this row is bad: the reader continues after it
                content = f"This is not CSV: {error}"
            except InvalidRequest as error:
                content = _explain(error)
            size, read = file.tell() - read, file.tell()
            # DictReader.line_num is not advanced when a row fails, the line_num of its reader is.
            yield ImportRow(reader.reader.line_num, content, size)


def _is_given(name: str, cell: str | None) -> bool:
    """Return whether a row has this field. An empty cell leaves out an optional field; a short row has None cells."""
    return cell is not None and (cell != "" or name not in _OPTIONAL_FIELDS)


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

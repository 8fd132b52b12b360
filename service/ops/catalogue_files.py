"""Opens catalogue files, .jsonl or .csv, and reads their rows. A bad row does not stop the rows after it."""

from codecs import BOM_UTF8
from collections.abc import Iterator
from io import BufferedReader
from itertools import chain
from pathlib import Path
from typing import Final

from service.domain.decoding import read_json
from service.domain.errors.request import MalformedJson
from service.domain.requests import NewProduct
from service.ops.catalogue_input import DEFAULTS, CatalogueFormat, CatalogueInput, ReadOptions
from service.ops.catalogue_rows import MAX_LINE, BadRow, ImportRow, UnreadableFile, read_product
from service.ops.csv_files import csv_rows

STDIN: Final = "-"
"""The file name that stands for standard input."""

_SUFFIXES: Final[dict[str, CatalogueFormat]] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv"}


def find_format(file: str, options: ReadOptions) -> CatalogueFormat | None:
    """Return the format that the options or the file name say. None: they do not say it."""
    if file == STDIN and options.format is None and options.only_csv():
        return "csv"
    return options.format or _SUFFIXES.get(Path(file).suffix.lower())


def shown_name(file: str) -> str:
    """Return the name of a file for messages."""
    return "standard input" if file == STDIN else file


def read_rows(file: str, options: ReadOptions = DEFAULTS) -> Iterator[ImportRow]:
    """Yield the rows of a file. The sizes add up to the size of the file. Raise UnreadableFile.

    The first row is read at once: a file that cannot be read at all, or whose header does not fit, is known before
    anything is written.
    """
    rows = _read(file, options)
    return chain([first] if (first := next(rows, None)) else [], rows)


def _read(file: str, options: ReadOptions) -> Iterator[ImportRow]:
    name = shown_name(file)
    file_format = find_format(file, options)
    if file_format is None and file != STDIN:
        raise UnreadableFile(f"{name}: the name must end in .jsonl or .csv, or --format must say what it is")
    try:
        with open(0 if file == STDIN else file, "rb", closefd=file != STDIN) as opened:
            source = CatalogueInput(opened)
            if (file_format or _format_of(source.head)) == "jsonl":
                yield from _jsonl_rows(source, options)
            else:
                yield from csv_rows(source, options)
    except UnreadableFile as error:
        place = name if error.line_number is None else f"{name}:{error.line_number}"
        raise UnreadableFile(f"{place}: {error}", error.line_number) from None
    except OSError as error:
        raise UnreadableFile(f"{name}: {error.strerror}") from error


def _format_of(head: bytes) -> CatalogueFormat:
    """Return the format of standard input. A line of JSON lines begins with `{`."""
    return "jsonl" if head.removeprefix(BOM_UTF8).lstrip().startswith(b"{") else "csv"


def _jsonl_rows(source: CatalogueInput, options: ReadOptions) -> Iterator[ImportRow]:
    file = BufferedReader(source)
    for line_number, line in enumerate(iter(lambda: file.readline(MAX_LINE + 1), b""), 1):
        if len(line) > MAX_LINE:
            raise UnreadableFile(f"the line is longer than {MAX_LINE:,} characters", line_number)
        text = line.removeprefix(BOM_UTF8).strip() if line_number == 1 else line.strip()
        yield ImportRow(line_number, _read_line(text, options) if text else None, len(line))


def _read_line(text: bytes, options: ReadOptions) -> NewProduct | BadRow:
    try:
        document = read_json(text, any_width=options.ignore_unknown)
    except MalformedJson as error:
        return BadRow(error.explanation, error.explanation.partition(":")[0])
    if options.ignore_unknown and isinstance(document, dict):
        document = {name: value for name, value in document.items() if name in NewProduct.model_fields}
    return read_product(document)

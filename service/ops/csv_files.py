"""Reads the rows of a .csv file, in any encoding and with any delimiter. A bad row does not stop the rows after it."""

import csv
from codecs import BOM_UTF16_BE, BOM_UTF16_LE, register_error
from collections.abc import Iterator
from io import BufferedReader, TextIOWrapper
from itertools import chain
from typing import Final

from service.domain.requests import NewProduct
from service.ops.catalogue_input import CatalogueInput, ReadOptions
from service.ops.catalogue_rows import MAX_LINE, BadRow, ImportRow, UnreadableFile, read_product
from service.ops.csv_header import (
    OPTIONAL,
    Header,
    declared_delimiter,
    explain_header,
    find_delimiter,
    is_undecodable,
    read_header,
)
from service.ops.csv_numbers import NUMBERS, explain_number, read_number

_UNDECODABLE: Final = "holdfast.undecodable"
"""How bytes are read that the encoding does not have: as a lone surrogate, so that only their own row is bad.

`surrogateescape` does that for one byte at a time, so not for UTF-16.
"""


def _replace(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "\udcff", error.end


register_error(_UNDECODABLE, _replace)


def csv_rows(file: CatalogueInput, options: ReadOptions) -> Iterator[ImportRow]:
    """Yield the rows, beginning with the header. Raise UnreadableFile, also if the header does not fit."""
    encoding = options.encoding or ("utf-16" if file.head.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8")
    with TextIOWrapper(BufferedReader(file), encoding, errors=_UNDECODABLE, newline="") as text:
        lines = _lines(text, encoding)
        before, delimiter, first = _find_header(lines, options.delimiter)
        if first is None:
            yield ImportRow(before, None, file.take_count())
            return
        reader = csv.reader(chain([first], lines), delimiter=delimiter, strict=True)
        header = _read_header(reader, before, delimiter, options)
        yield ImportRow(before + 1, None, file.take_count())
        rows = _Rows(header, delimiter, encoding, options)
        while True:
            # A row has several lines if a cell in quotes contains line ends. It is named by the first of them.
            content: NewProduct | BadRow | None = None
            line_number = before + reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:  # only this row is bad: the reader continues after it
                content = _explain_csv(error, line_number, before + reader.line_num)
            else:
                content = rows.read(cells)
            yield ImportRow(line_number, content, file.take_count())


def _lines(text: TextIOWrapper, encoding: str) -> Iterator[str]:
    line_number = 1
    try:
        while line := text.readline(MAX_LINE + 1):
            if len(line) > MAX_LINE:
                raise UnreadableFile(f"the line is longer than {MAX_LINE:,} characters", line_number)
            yield line.removeprefix("\ufeff") if line_number == 1 else line
            line_number += 1
    except UnicodeError as error:  # of a codec that cannot mark what it does not read
        raise UnreadableFile(f"cannot be read with --encoding {encoding}: {error}", line_number) from None


def _find_header(lines: Iterator[str], given: str | None) -> tuple[int, str, str | None]:
    """Return the number of lines before the header, the delimiter, and the header. None: there is no header.

    Excel's `sep=;` and empty lines may stand before the header. A delimiter that is given wins.
    """
    number, declared = 0, None
    for number, line in enumerate(lines):
        if number == 0 and (declared := declared_delimiter(line)):
            continue
        if line.strip(f",;\t \r\n{given or ''}"):
            return number, given or declared or find_delimiter(line), line
    return number + 1, ",", None


def _read_header(reader: Iterator[list[str]], before: int, delimiter: str, options: ReadOptions) -> Header:
    try:
        cells = next(reader)
    except csv.Error as error:
        raise UnreadableFile(f"the header is not CSV: {error}", before + 1) from None
    header = read_header(cells, ignore_unknown=options.ignore_unknown)
    if header is None:
        raise UnreadableFile(explain_header(cells, delimiter, ignore_unknown=options.ignore_unknown), before + 1)
    return header


def _explain_csv(error: csv.Error, first_line: int, last_line: int) -> BadRow:
    """Return what is wrong with a row that has these lines."""
    if "unexpected end of data" in str(error):
        kind = "A quote begins in this row and nothing ends it"
        return BadRow(f"{kind}: nothing is read up to line {last_line}, the last", kind)
    kind = f"This is not CSV: {error}"
    if last_line > first_line:
        return BadRow(f"{kind}. The row ends in line {last_line}: is a quote missing?", kind)
    return BadRow(kind, kind)


_TOO_FEW_CELLS: Final = "The row has fewer cells than the header. Empty cells at its end must be there, too."


class _Rows:
    """Turns the cells of a row into a product. It knows the columns of the file, and how its numbers are written."""

    def __init__(self, header: Header, delimiter: str, encoding: str, options: ReadOptions) -> None:
        self._header = header
        self._delimiter = delimiter
        self._options = options
        shown = "tab" if delimiter == "\t" else delimiter
        self._too_many_cells = (
            f"The row has more cells than the header. A cell that contains a {shown} must be in double quotes."
        )
        advice = (
            "try --encoding cp1252" if encoding == "utf-8" and options.encoding is None else "try another --encoding"
        )
        self._undecodable = f"Input should be {encoding.upper()}: {advice}"

    def read(self, cells: list[str]) -> NewProduct | BadRow | None:
        if not any(cell.strip() for cell in cells):
            return None
        columns = self._header.fields
        # Also empty cells are too many: in `1,Mug,,19,99,10,` the price would be 19, if the last column is optional.
        if len(cells) > self._header.width or (
            any(cell.strip() for cell in cells[len(columns) :]) and not self._options.ignore_unknown
        ):
            return BadRow(self._too_many_cells, self._too_many_cells)
        if self._may_be_shifted(cells):
            return BadRow(_TOO_FEW_CELLS, _TOO_FEW_CELLS)
        given = {name: cell for name, cell in zip(columns, cells, strict=False) if name is not None}
        values = {name: self._value(name, cell) for name, cell in given.items()}
        for name in columns[len(cells) :]:
            if name in OPTIONAL:  # Excel leaves out empty cells at the end of some rows
                values[name] = None
        return read_product(values, given, lambda name: self._explain(name, values.get(name)))

    def _may_be_shifted(self, cells: list[str]) -> bool:
        """Return whether a decimal comma could have made two cells of a price, and the row is short enough for both.

        In `1,Mug,,19,99,10` the last cell would be in an optional column.
        """
        columns = self._header.fields
        optional = [place for place, name in enumerate(columns) if name in OPTIONAL]
        return self._delimiter == "," and bool(optional) and optional[0] < len(cells) <= optional[-1]

    def _value(self, name: str, cell: str) -> object:
        """Return a cell as a JSON value. An empty cell of an optional column is null: there is no such rule."""
        if name in ("id", *OPTIONAL) and not cell.strip():
            return None
        return read_number(cell, self._options.decimal) if name in NUMBERS else cell

    def _explain(self, name: str, value: object) -> str | None:
        if not isinstance(value, str):
            return None
        if is_undecodable(value):
            return self._undecodable
        return explain_number(name, value, self._options.decimal) if name in NUMBERS else None

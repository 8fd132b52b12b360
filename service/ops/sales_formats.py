"""Shows what was sold, as a table, CSV or JSON. Pure functions."""

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import fields
from json.encoder import encode_basestring as quoted  # what JSONEncoder(ensure_ascii=False) does to text
from typing import Final, Literal
from unicodedata import category, east_asian_width

from service.domain.money import Cents, format_cents
from service.ops.sales import Grouping, SalesReport, Sums

SalesFormat = Literal["table", "csv", "json"]

LINE_END: Final[Mapping[SalesFormat, str]] = {"table": "\n", "csv": "\r\n", "json": "\n"}
"""What ends a line of each format. For CSV, RFC 4180 wants both characters."""

_NUMBERS: Final = tuple(item.name for item in fields(Sums))

_AMOUNTS: Final = ("revenue", "refunded")
"""The sums that are amounts of money."""

_TEXTS: Final = ("period", "name")
"""The columns that are not numbers."""

_MAX_SHOWN_NAME: Final = 40
"""Characters of the name of a product in a table. With the longest name, 200, the numbers would be out of sight."""


def columns(by: Grouping) -> tuple[str, ...]:
    """Return the names of the columns."""
    return (*(("product_id", "name") if by == "product" else ("period",)), *_NUMBERS)


def csv_lines(report: SalesReport) -> Iterator[str]:
    """Yield the names of the columns and the rows, as RFC 4180 wants them, without line ends."""
    for cells in (columns(report.by), *((*labels.values(), *_exact(sums)) for labels, sums in report.rows())):
        text = io.StringIO()
        csv.writer(text, lineterminator="").writerow(cells)
        yield text.getvalue()


def json_lines(report: SalesReport) -> Iterator[str]:
    """Yield an array with one row per line. Amounts are exact decimals, as in the API."""
    rows = []
    for labels, sums in report.rows():
        values = (*[_json_value(value) for value in labels.values()], *_exact(sums))
        members = [f'"{name}":{value}' for name, value in zip(columns(report.by), values, strict=True)]
        rows.append(f"{{{','.join(members)}}}")
    if not rows:
        yield "[]"
        return
    yield "["
    yield from [f"{row}," for row in rows[:-1]]
    yield rows[-1]
    yield "]"


def table_lines(report: SalesReport) -> Iterator[str]:
    """Yield the lines of a table for people, with the sums of all sales at its end. Without sales, yield a sentence."""
    if not report.total.orders:
        yield "There were no sales."
        return
    names = columns(report.by)
    rows = [names, *((*map(_shown, labels.values()), *_readable(sums)) for labels, sums in report.rows())]
    if report.by != "total":
        rows.append(("total", *([""] if report.by == "product" else []), *_readable(report.total)))
    widths = [max(map(_width, cells)) for cells in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(map(_aligned, names, row, widths))


def _exact(sums: Sums) -> list[str]:
    """Return the numbers as programs read them."""
    return [
        format_cents(Cents(getattr(sums, name))) if name in _AMOUNTS else str(getattr(sums, name)) for name in _NUMBERS
    ]


def _readable(sums: Sums) -> list[str]:
    """Return the numbers as people read them: 1,234.50."""
    parts = [number.partition(".") for number in _exact(sums)]
    return [f"{int(whole):,}{point}{decimals}" for whole, point, decimals in parts]


def _json_value(value: int | str | None) -> str:
    return "null" if value is None else quoted(value) if isinstance(value, str) else str(value)


def _shown(label: int | str | None) -> str:
    """Return a text as a table shows it: on one line, without control characters, and not too long."""
    text = "".join(
        [char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in str("" if label is None else label)]
    )
    return text if len(text) <= _MAX_SHOWN_NAME else f"{text[: _MAX_SHOWN_NAME - 1]}…"


def _width(text: str) -> int:
    """Return how many columns of a terminal a text takes: Chinese characters take two, accents of their own none."""
    return sum(0 if category(char) in ("Mn", "Me") else 2 if east_asian_width(char) in "WF" else 1 for char in text)


def _aligned(column: str, cell: str, width: int) -> str:
    gap = " " * (width - _width(cell))
    return cell + gap if column in _TEXTS else gap + cell

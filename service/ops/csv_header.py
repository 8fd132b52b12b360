"""Finds the delimiter and the columns in the header of a .csv file, or explains why the header does not fit."""

import csv
import re
from collections import Counter
from typing import Final, NamedTuple

from service.domain.requests import NewProduct
from service.ops.product_fields import shorten

_DELIMITERS: Final = (",", ";", "\t")

_MAX_NAMES: Final = 30
"""Names of columns in a message: more would hide the rest of it."""

REQUIRED: Final = tuple(name for name, field in NewProduct.model_fields.items() if field.is_required() or name == "id")
"""The id is optional in the API only: without it, a second import would add the products again."""

OPTIONAL: Final = tuple(name for name in NewProduct.model_fields if name not in REQUIRED)


def declared_delimiter(line: str) -> str | None:
    """Return the delimiter of a line such as `sep=;`, which Excel reads and writes before the header."""
    match = re.fullmatch(r'"?sep=([^"\w\s]|\t)"?[\r\n]*', line, re.IGNORECASE)
    return match[1] if match else None


def find_delimiter(line: str) -> str:
    """Return the delimiter that finds most fields of a product in the header. If several do: most columns."""
    return max(_DELIMITERS, key=lambda delimiter: _count_fields(line, delimiter))


def _count_fields(line: str, delimiter: str) -> tuple[int, int]:
    try:
        cells = next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:  # a very long cell
        return 0, 0
    return len(set(map(_field, cells)) & NewProduct.model_fields.keys()), len(cells)


def _field(cell: str) -> str:
    """Return the field that a cell of the header names: upper case and spaces do not matter."""
    return cell.strip().casefold()


class Header(NamedTuple):
    """A header that fits. `fields`: of each column with a name; None: it is skipped. `width`: the cells it has."""

    fields: list[str | None]
    width: int


def read_header(cells: list[str], *, ignore_unknown: bool) -> Header | None:
    """Return the header, or None if it does not fit."""
    names = _without_empty_end(cells)
    known = [name for name in names if name in NewProduct.model_fields]
    if set(REQUIRED) - set(known) or len(set(known)) < len(known) or (len(known) < len(names) and not ignore_unknown):
        return None
    return Header([name if name in NewProduct.model_fields else None for name in names], len(cells))


def _without_empty_end(cells: list[str]) -> list[str]:
    """Return the fields that a header names. Empty cells at its end are no columns: Excel writes some."""
    names = list(map(_field, cells))
    while names and not names[-1]:
        names.pop()
    return names


def explain_header(cells: list[str], delimiter: str, *, ignore_unknown: bool) -> str:
    """Return one message about a header that does not fit: what was read, what is expected, and what may help."""
    names = _without_empty_end(cells)
    counts = Counter(names)
    missing = [name for name in REQUIRED if name not in counts]
    repeated = [name for name in NewProduct.model_fields if counts[name] > 1]
    unknown = [cell for cell, name in zip(cells, names, strict=False) if name not in NewProduct.model_fields]
    optional = f"; optional: {', '.join(OPTIONAL)}" if OPTIONAL else ""
    parts = [
        f"the header does not fit. Columns read: {_listed(cells[: len(names)])} (delimiter: {_shown(delimiter)}). "
        f"Expected: {', '.join(REQUIRED)}{optional}."
    ]
    parts += [f"Missing: {', '.join(missing)}."] if missing else []
    parts += [f"Repeated: {', '.join(repeated)}."] if repeated else []
    parts += [f"Unknown: {_listed(unknown)}."] if unknown and not ignore_unknown else []
    parts += [_advice(cells, missing=bool(missing), repeated=bool(repeated), unknown=bool(unknown))]
    return " ".join(filter(None, parts))


def _advice(cells: list[str], *, missing: bool, repeated: bool, unknown: bool) -> str:
    text = "".join(cells)
    if "\0" in text:
        return "Is this UTF-16? Try --encoding utf-16."
    if any(map(is_undecodable, cells)):
        return "Some of it cannot be decoded: try --encoding cp1252."
    if len(cells) == 1:
        return "Only one column was found: give the right --delimiter."
    if len(set(map(_field, cells)) & NewProduct.model_fields.keys()) == 0:
        return "The first line must have the names of the columns."
    if unknown and not missing and not repeated:
        return "--ignore-unknown skips unknown columns."
    return ""


def is_undecodable(text: str) -> bool:
    """Return whether a text contains lone surrogates, which stand for bytes that could not be decoded."""
    return not text.isascii() and re.search("[\ud800-\udfff]", text) is not None


def _listed(cells: list[str]) -> str:
    shown = [shorten(cell.strip()) or "(no name)" for cell in cells[:_MAX_NAMES]]
    more = [f"and {len(cells) - _MAX_NAMES:,} more"] if len(cells) > _MAX_NAMES else []
    return ", ".join(shown + more)


def _shown(delimiter: str) -> str:
    return "tab" if delimiter == "\t" else f'"{delimiter}"'

"""One row of a catalogue file: a product, or what is wrong with the row. Messages quote the values that are wrong."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from json.encoder import encode_basestring as quoted  # what JSONEncoder(ensure_ascii=False) does to text
from typing import Final, NamedTuple

from service.domain.decoding import validate
from service.domain.errors.request import FieldError, InvalidRequest
from service.domain.requests import NewProduct
from service.ops.product_fields import shorten

MAX_LINE: Final = 1_000_000
"""Bytes or characters of the longest line: a file without line ends must not fill the memory."""

_TEXTS: Final = ("name", "description")
"""Fields whose value is not quoted in a message. It is long, and the message says what is wrong without it."""


class UnreadableFile(Exception):
    """The file cannot be read, or not any further. `line_number`: the line where that is so, if it is one line."""

    def __init__(self, reason: str, line_number: int | None = None) -> None:
        super().__init__(reason)
        self.line_number = line_number


class BadRow(NamedTuple):
    """What is wrong with a row. Rows that are wrong in the same way have the same `kind`."""

    message: str
    kind: str


class ImportRow(NamedTuple):
    """One row: a product, or what is wrong with the row. Neither for an empty line.

    `size`: the bytes that were read from the file since the row before.
    """

    line_number: int
    content: NewProduct | BadRow | None
    size: int


Explain = Callable[[str], str | None]
"""Returns what is wrong with the value of a field, or None if the validation says it well enough."""


def read_product(
    document: object, given: Mapping[str, object] | None = None, explain: Explain = lambda name: None
) -> NewProduct | BadRow:
    """Return a row as a product, or everything that is wrong with it.

    `given`: the values as they are in the file, for messages; None: those of the document.
    """
    try:
        product = validate(NewProduct, document, source="row")
        if product.id is None:
            detail = "Field is required: without it, a second run would add the product again"
            raise InvalidRequest("The row is not valid.", [FieldError("#/id", detail)])
    except InvalidRequest as error:
        if given is None:
            given = document if isinstance(document, Mapping) else {}
        return _bad_row(error.field_errors, given, explain)
    return product


def _bad_row(errors: list[FieldError], given: Mapping[str, object], explain: Explain) -> BadRow:
    kinds, messages = [], []
    for error in errors:
        name = error.pointer.removeprefix("#/")
        kind = f"{shorten(error.pointer)}: {explain(name) or error.detail}"
        shown = _shown_value(given.get(name)) if "Input should" in kind and name not in _TEXTS else None
        kinds.append(kind)
        messages.append(kind if shown is None else f"{kind}, not {shown}")
    return BadRow("; ".join(messages), "; ".join(kinds))


def _shown_value(value: object) -> str | None:
    """Return a value as JSON, shortened. None: it is an array or an object, or it is not there."""
    match value:
        case str():
            return quoted(shorten(value))
        case bool():
            return str(value).lower()
        case int() | Decimal():
            return shorten(str(value))
        case _:
            return None

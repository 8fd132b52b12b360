"""The types of the fields of requests: the limits of each, and how it is checked."""

import re
from decimal import Decimal
from typing import Annotated, Final
from unicodedata import category

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, ValidationInfo, WithJsonSchema
from pydantic_core import PydanticCustomError

from service.domain.event import EVENT_FIELDS, SUMMARY
from service.domain.limits import (
    MAX_DESCRIPTION,
    MAX_HOLD_SECONDS,
    MAX_ID,
    MAX_NAME,
    MAX_PAGE,
    MAX_PRICE,
    MAX_QUANTITY,
    MAX_REASON,
    MAX_REFERENCE,
    MAX_STOCK,
    MAX_TOTAL,
)
from service.domain.money import Cents, format_cents
from service.domain.times import Milliseconds, parse_timestamp

_CENT: Final = Decimal("0.01")


def _to_cents(limit: int) -> BeforeValidator:
    """Return a validator from a JSON number to cents.

    It accepts a number such as 19.99, from 0 to `limit` cents. More than two decimals are refused, not rounded.
    """
    max_amount = Decimal(format_cents(Cents(limit)))

    def to_cents(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int | Decimal):
            raise PydanticCustomError("amount_type", "Input should be a number, such as 19.99")
        if not 0 <= value <= max_amount:
            raise PydanticCustomError(
                "amount_range", "Input should be between 0 and {limit}", {"limit": str(max_amount)}
            )
        amount = Decimal(value)
        if amount != amount.quantize(_CENT):
            raise PydanticCustomError("amount_decimals", "Input should have at most two decimals")
        return int(amount * 100)

    return BeforeValidator(to_cents)


def _amount_schema(limit: int) -> WithJsonSchema:
    """Return the JSON schema of an amount of money: cents inside of Holdfast, a number with two decimals outside."""
    return WithJsonSchema(
        {"type": "number", "minimum": 0, "maximum": float(format_cents(Cents(limit))), "multipleOf": 0.01}
    )


_TIME_SCHEMA: Final = WithJsonSchema({"type": "string", "format": "date-time"})

_VISIBLE_TEXT: Final = {"pattern": r"\S"}
"""JSON schema of a text that is not blank: a pattern cannot say which characters are visible."""

_INVISIBLE_CATEGORIES: Final = {"Cf", "Mn", "Me"}
"""Format characters, such as the zero-width space, and marks that are drawn on the character before them.

https://www.unicode.org/reports/tr44/#General_Category_Values
"""

_BLANK_LETTERS: Final = {*"\u115f\u1160\u2800\u3164\uffa0"}
"""Letters and symbols that are drawn as nothing: the fillers of Hangul, and the empty Braille pattern."""


def _is_invisible(character: str) -> bool:
    return character.isspace() or category(character) in _INVISIBLE_CATEGORIES or character in _BLANK_LETTERS


def _not_blank(text: str) -> str:
    if all(map(_is_invisible, text)):
        raise PydanticCustomError("blank", "Input should not be blank")
    return text


def _printable(text: str) -> str:
    if not text.isprintable():
        raise PydanticCustomError("printable", "Input should have printable characters only")
    return text


def _to_milliseconds(value: object) -> Milliseconds:
    if not isinstance(value, str):
        raise PydanticCustomError("time_type", "Input should be a date and time, such as 2026-11-27T09:00:00Z")
    try:
        return parse_timestamp(value)
    except ValueError:
        raise PydanticCustomError(
            "time", "Input should be a date and time of RFC 3339, such as 2026-11-27T09:00:00+01:00"
        ) from None


def _after_on_sale_from(until: int | None, info: ValidationInfo) -> int | None:
    start = info.data.get("on_sale_from")
    if until is not None and start is not None and until <= start:
        raise PydanticCustomError("empty_window", "Input should be after on_sale_from")
    return until


def _parse_digits(value: str) -> int:
    """Return the number of a query parameter, which is text. int() alone would also take `1_0`, ` 7` and `-0`."""
    if not re.fullmatch("[0-9]{1,16}", value):
        raise PydanticCustomError("digits", "Input should be a whole number of up to 16 decimal digits")
    return int(value)


def _parse_boolean(value: str) -> bool:
    if value not in ("true", "false"):
        raise PydanticCustomError("true_or_false", "Input should be true or false")
    return value == "true"


Id = Annotated[int, Field(ge=1, le=MAX_ID)]
Name = Annotated[
    str, Field(min_length=1, max_length=MAX_NAME, json_schema_extra=_VISIBLE_TEXT), AfterValidator(_not_blank)
]
Description = Annotated[str, Field(max_length=MAX_DESCRIPTION)]
Price = Annotated[Cents, _to_cents(MAX_PRICE), _amount_schema(MAX_PRICE)]
Total = Annotated[Cents, _to_cents(MAX_TOTAL), _amount_schema(MAX_TOTAL)]
Stock = Annotated[int, Field(ge=0, le=MAX_STOCK)]
Reason = Annotated[
    str, Field(min_length=1, max_length=MAX_REASON, json_schema_extra=_VISIBLE_TEXT), AfterValidator(_not_blank)
]
Reference = Annotated[
    str,
    Field(min_length=1, max_length=MAX_REFERENCE, json_schema_extra=_VISIBLE_TEXT),
    AfterValidator(_printable),
    AfterValidator(_not_blank),
]
"""The reference or the customer of an order: a text that means something to the shop only."""
CustomerLimit = Annotated[int, Field(ge=1, le=MAX_STOCK)]
Moment = Annotated[int, BeforeValidator(_to_milliseconds), _TIME_SCHEMA]
SaleEnd = Annotated[Moment | None, AfterValidator(_after_on_sale_from)]
HoldSeconds = Annotated[int, Field(ge=1, le=MAX_HOLD_SECONDS)]
PageLimit = Annotated[int, BeforeValidator(_parse_digits), Field(ge=1, le=MAX_PAGE)]
Cursor = Annotated[int, BeforeValidator(_parse_digits), Field(ge=0, le=MAX_ID)]
"""The id that a page begins after or ends before."""
Flag = Annotated[bool, BeforeValidator(_parse_boolean)]
Quantity = Annotated[int, Field(ge=1, le=MAX_QUANTITY)]


LISTENABLE_EVENTS: Final = frozenset({*EVENT_FIELDS, SUMMARY})
_EVENT_TYPE: Final = f"({'|'.join(sorted(LISTENABLE_EVENTS))})"


def _to_types(value: object) -> frozenset[str]:
    names = frozenset(str(value).split(","))
    if unknown := sorted(names - LISTENABLE_EVENTS):
        raise PydanticCustomError(
            "event_type",
            "Unknown type {unknown}: the types are {types}",
            {"unknown": unknown[0][:40] or "''", "types": ", ".join(sorted(LISTENABLE_EVENTS))},
        )
    return names


EventTypes = Annotated[
    frozenset[str],
    PlainValidator(_to_types),
    WithJsonSchema(
        {"type": "string", "pattern": f"^{_EVENT_TYPE}(,{_EVENT_TYPE})*$", "example": "order_placed,order_completed"}
    ),
]
EventId = Annotated[str, Field(pattern="^[0-9]{1,15}(-[0-9]{1,15})?(_[0-9]{1,15}(-[0-9]{1,15})?){0,63}$")]
"""The id of an event: milliseconds, and a number within them."""

"""Reads the numbers in a .csv file: decimal point or decimal comma. A number that could mean two things is refused."""

import re
from contextlib import suppress
from typing import Final, Literal

from service.domain.decoding import read_json
from service.domain.errors.request import MalformedJson

DecimalSign = Literal[".", ","]

NUMBERS: Final = ("id", "price", "stock", "limit_per_customer")
"""The columns of numbers. The cells of all other columns are text."""

_COMMA_IS_DECIMAL: Final = re.compile(r"-?\d+,\d{1,2}", re.ASCII)
"""A comma before one or two digits at the end: no country separates thousands like that."""

_GROUPED: Final = re.compile(r"-?[1-9]\d{0,2}([.,' \u00a0\u2019\u202f]\d{3})+([.,]\d*)?", re.ASCII)
"""A number that has thousands separators, or could have some: `1,234` may mean 1234 or 1.234, and so may `1.234`."""

_ONE_GROUP: Final = re.compile(r"-?\d+[.,]\d{3}", re.ASCII)

_NAMES: Final = {".": "point", ",": "comma"}


def read_number(text: str, decimal: DecimalSign | None) -> object:
    """Return the cell of a column of numbers as a JSON value, so that validation judges it.

    A cell that is not a number, or could mean two numbers, stays text: validation refuses it. `decimal`: the decimal
    sign of the file; None: a point, or a comma where it cannot be anything else.
    """
    number = text.strip()
    if decimal == "," or (decimal is None and _COMMA_IS_DECIMAL.fullmatch(number)):
        if "." in number:
            return text
        number = number.replace(",", ".")
    elif decimal is None and _GROUPED.fullmatch(number):
        return text
    with suppress(MalformedJson, UnicodeEncodeError):
        return read_json(number.encode())
    return text


def explain_number(name: str, text: str, decimal: DecimalSign | None) -> str | None:
    """Return why a cell was not read as a number, if its separators are the reason."""
    number = text.strip()
    if decimal is None and _ONE_GROUP.fullmatch(number):
        decimals = "at most two decimals and no thousands separators" if name == "price" else "no thousands separators"
        sign = "," if "," in number else "."
        return f"Input should have {decimals} (if the {_NAMES[sign]} begins decimals, give --decimal {sign})"
    if _GROUPED.fullmatch(number):
        return "Input should have no thousands separators"
    if decimal is not None and re.fullmatch(r"-?\d+[.,]\d*", number, re.ASCII):
        return f"Input should have a decimal {_NAMES[decimal]}, as --decimal says"
    return None

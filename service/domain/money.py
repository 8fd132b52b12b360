"""Money: whole cents in Python, a decimal with two digits in JSON and in Redis. Never a float."""

import re
from functools import lru_cache
from typing import NewType

Cents = NewType("Cents", int)

_AMOUNT = re.compile(r"\d+(?:\.\d{1,2})?", re.ASCII)
_USUAL_AMOUNT = re.compile(r"(?:0|[1-9]\d*)\.\d\d", re.ASCII)
"""An amount as Holdfast writes it. Its text is the same in JSON."""


@lru_cache(maxsize=10_000)
def format_cents(cents: Cents) -> str:
    """Return an amount as the decimal that JSON and Redis show: 1999 cents are `19.99`."""
    return f"{cents // 100}.{cents % 100:02d}"


def amount_json(text: str) -> str:
    """Return the JSON of an amount that is stored in Redis. Raise ValueError if the text is not an amount."""
    return text if _USUAL_AMOUNT.fullmatch(text) else format_cents(parse_cents(text))


@lru_cache(maxsize=10_000)  # most amounts are prices, and the same prices are read very often
def parse_cents(text: str) -> Cents:
    """Return the cents of an amount as it is stored in Redis, `19.99`. Raise ValueError if it is not an amount."""
    if not _AMOUNT.fullmatch(text):
        raise ValueError(f"unreadable amount: {text[:40]!r}")
    whole, _, fraction = text.partition(".")
    return Cents(int(whole) * 100 + int(fraction.ljust(2, "0")))

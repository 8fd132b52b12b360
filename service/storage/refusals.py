"""Turns the reply of a script into a refusal.

The classes in domain/errors/refusals.py say what their replies look like, so a new class needs no code here.
"""

from collections.abc import Sequence
from typing import Any

from service.domain.errors.refusals import ORDER_REFUSALS, STOCK_REFUSALS, OrderPlacementRefusal, StockChangeRefusal
from service.domain.money import parse_cents
from service.domain.requests import NewOrder, StockChange

_ORDER_REFUSALS = {refusal_class.reply_word: refusal_class for refusal_class in ORDER_REFUSALS}
_STOCK_REFUSALS = {refusal_class.reply_word: refusal_class for refusal_class in STOCK_REFUSALS}


def read_order_refusal(new: NewOrder, reply: Sequence[str], *, replayed: bool) -> OrderPlacementRefusal:
    """Return the refusal that lua/place_order.lua replied with, now or to the first request with this key."""
    refusal_class: type[OrderPlacementRefusal] | None = _ORDER_REFUSALS.get(reply[0])
    if refusal_class is None:
        raise unknown_reply("place_order", reply)
    start = 1 + refusal_class.value_count
    positions: dict[int | None, int] = {}
    for position, line in enumerate(new.products):
        positions.setdefault(line.product_id, position)
    lines = []
    for text in reply[start:]:
        numbers = [_parse_number(number) for number in text.split()]
        lines.append(refusal_class.line_type(positions[numbers[0]], *numbers))
    values: list[Any] = [_parse_number(value) for value in reply[1:start]]
    return refusal_class(replayed, lines, *values)


def read_stock_refusal(
    product_id: int, change: StockChange, reply: Sequence[str], *, replayed: bool
) -> StockChangeRefusal:
    """Return the refusal that lua/move_stock.lua replied with, now or to the first request with this key."""
    refusal_class = _STOCK_REFUSALS.get(reply[0])
    if refusal_class is None:
        raise unknown_reply("move_stock", reply)
    return refusal_class(replayed, product_id, change.change, *[int(value) for value in reply[1:]])


def _parse_number(text: str) -> int | None:
    """Return a whole number, an amount in cents, or None for the available units of an unknown product."""
    if text == "unknown":
        return None
    return parse_cents(text) if "." in text else int(text)


def unknown_reply(script: str, reply: Sequence[str]) -> AssertionError:
    """Return the error for a reply that the caller of the script does not know: a bug in one of the two."""
    return AssertionError(f"{script}.lua replied {list(reply)!r}, which its caller does not know")

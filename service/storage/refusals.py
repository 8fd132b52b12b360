"""Turns the reply of a script into a refusal.

The classes in domain/errors/refusals.py say what their replies look like, so a new class needs no code here.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from service.domain.errors.refusals import (
    ORDER_REFUSALS,
    STOCK_REFUSALS,
    IdempotencyKeyReused,
    OrderPlacementRefusal,
    Refusal,
    RememberedRefusal,
    StockChangeRefusal,
)
from service.domain.money import parse_cents
from service.domain.requests import NewOrder, NewOrderLine, StockChange

RefusalT = TypeVar("RefusalT", bound=RememberedRefusal)


def read_order_refusal(new: NewOrder, reply: Sequence[str]) -> Refusal:
    """Return the refusal that lua/place_order.lua replied with."""

    def build(refusal_class: type[OrderPlacementRefusal], values: Sequence[str], replayed: bool) -> Refusal:
        count = refusal_class.value_count
        lines = _read_lines(refusal_class.line_type, values[count:], new.products)
        head: list[Any] = [_parse_number(value) for value in values[:count]]
        return refusal_class(replayed, lines, *head)

    return _read_refusal(ORDER_REFUSALS, "place_order", reply, build)


def read_stock_refusal(product_id: int, change: StockChange, reply: Sequence[str]) -> Refusal:
    """Return the refusal that lua/move_stock.lua replied with."""

    def build(refusal_class: type[StockChangeRefusal], values: Sequence[str], replayed: bool) -> Refusal:
        return refusal_class(replayed, product_id, change.change, *[int(value) for value in values])

    return _read_refusal(STOCK_REFUSALS, "move_stock", reply, build)


def _read_refusal(
    classes: Iterable[type[RefusalT]],
    script: str,
    reply: Sequence[str],
    build: Callable[[type[RefusalT], Sequence[str], bool], Refusal],
) -> Refusal:
    """Return a refusal of now, or the one that the Idempotency-Key remembers: `refused`, and that reply as one text."""
    if reply[0] == "reused":
        return IdempotencyKeyReused()
    replayed = reply[0] == "refused"
    word, *values = reply[1].split("\n") if replayed else reply
    for refusal_class in classes:
        if refusal_class.reply_word == word:
            return build(refusal_class, values, replayed)
    raise unknown_reply(script, reply)


def _read_lines(line_type: Callable[..., Any], texts: Sequence[str], requested: Sequence[NewOrderLine]) -> list[Any]:
    """Return one `line_type` per text, such as `7 5 2`, with the position of the product in the request."""
    positions: dict[int | None, int] = {}
    for position, line in enumerate(requested):
        positions.setdefault(line.product_id, position)
    lines = []
    for text in texts:
        numbers = [_parse_number(number) for number in text.split()]
        lines.append(line_type(positions[numbers[0]], *numbers))
    return lines


def _parse_number(text: str) -> int | None:
    """Return a whole number, an amount in cents, or None for the available units of an unknown product."""
    if text == "unknown":
        return None
    return parse_cents(text) if "." in text else int(text)


def unknown_reply(script: str, reply: Sequence[str]) -> AssertionError:
    """Return the error for a reply that the caller of the script does not know: a bug in one of the two."""
    return AssertionError(f"{script}.lua replied {list(reply)!r}, which its caller does not know")

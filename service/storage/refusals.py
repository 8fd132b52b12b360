"""From the reply of a script that refuses to a refusal. No code per kind: the classes say what they look like."""

from collections.abc import Sequence
from typing import Any

from service.domain.errors.refusals import ORDER_REFUSALS, STOCK_REFUSALS, OrderRefused, StockRefused
from service.domain.money import parse_cents
from service.domain.requests import NewOrder, StockMove

_ORDER_KINDS: dict[str, type[OrderRefused]] = {kind.reply_word: kind for kind in ORDER_REFUSALS}
_STOCK_KINDS: dict[str, type[StockRefused]] = {kind.reply_word: kind for kind in STOCK_REFUSALS}


def read_order_refusal(new: NewOrder, reply: Sequence[str], *, replayed: bool) -> OrderRefused:
    """Return the refusal that lua/place_order.lua replied with, or that an Idempotency-Key remembers of it."""
    kind = _ORDER_KINDS.get(reply[0])
    if kind is None:
        raise unknown_reply("place_order", reply)
    start = 1 + kind.values_before_lines
    positions: dict[int | None, int] = {}
    for position, line in enumerate(new.products):
        positions.setdefault(line.product_id, position)
    lines = []
    for text in reply[start:]:
        numbers = [_parse_number(number) for number in text.split()]
        lines.append(kind.Line(positions[numbers[0]], *numbers))
    values: list[Any] = [_parse_number(value) for value in reply[1:start]]
    return kind(replayed, lines, *values)


def read_stock_refusal(product_id: int, move: StockMove, reply: Sequence[str], *, replayed: bool) -> StockRefused:
    """Return the refusal that lua/move_stock.lua replied with, or that an Idempotency-Key remembers of it."""
    kind = _STOCK_KINDS.get(reply[0])
    if kind is None:
        raise unknown_reply("move_stock", reply)
    return kind(replayed, product_id, move.change, *[int(value) for value in reply[1:]])


def _parse_number(text: str) -> int | None:
    """Return a whole number, an amount in cents, or None for the available units of an unknown product."""
    if text == "unknown":
        return None
    return parse_cents(text) if "." in text else int(text)


def unknown_reply(script: str, reply: Sequence[str]) -> AssertionError:
    """Return the error for a reply that Python does not know: the script and its caller do not fit."""
    return AssertionError(f"{script}.lua replied {list(reply)!r}, which its caller does not know")

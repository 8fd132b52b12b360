"""Turns the reply of a script into a refusal.

The classes in domain/errors/order_refusals.py and stock_refusals.py say what their replies look like, so a new class in
these two files needs no code here.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeVar

from service.domain.errors.obstacles import Obstacle, parse_obstacle
from service.domain.errors.order_refusals import ORDER_REFUSALS
from service.domain.errors.refusals import IdempotencyKeyReused, Refusal
from service.domain.errors.remembered_refusals import RememberedRefusal
from service.domain.errors.return_refusals import (
    RETURN_REFUSALS,
    ExcessLine,
    FullLine,
    ReturnExceedsOrder,
    ReturnExceedsStockLimit,
)
from service.domain.errors.stock_refusals import STOCK_REFUSALS
from service.domain.money import Cents, parse_cents

if TYPE_CHECKING:
    from service.domain.requests import NewOrder, NewOrderLine, NewReturn, StockChange, StockCount

RefusalT = TypeVar("RefusalT", bound=RememberedRefusal)


def read_order_refusal(new: "NewOrder", reply: Sequence[str]) -> Refusal:
    """Return the refusal that lua/place_order.lua replied with."""
    if reply[0] == "reused":
        return IdempotencyKeyReused()
    refusal_class, values, replayed = _read_reply(_ORDER_REFUSALS, "place_order", reply)
    head, rows = _read_head(refusal_class, values)
    if replayed:
        rows = _expand_lines(refusal_class.line_type, rows, new.quantities())
    return refusal_class(replayed, _read_lines(refusal_class.line_type, rows, new.products), **head)


def read_stock_refusal(product_id: int, change: "StockChange | StockCount", reply: Sequence[str]) -> Refusal:
    """Return the refusal that lua/move_stock.lua replied with."""
    if reply[0] == "reused":
        return IdempotencyKeyReused()
    refusal_class, values, replayed = _read_reply(_STOCK_REFUSALS, "move_stock", reply)
    numbers, _ = _read_head(refusal_class, values)
    return refusal_class(replayed, product_id, change, **numbers)


def read_return_refusal(order_id: int, new: "NewReturn", reply: Sequence[str]) -> Refusal:
    """Return the refusal that lua/return_order.lua replied with."""
    if reply[0] == "reused":
        return IdempotencyKeyReused()
    refusal_class, values, replayed = _read_reply(_RETURN_REFUSALS, "return_order", reply)
    if issubclass(refusal_class, ReturnExceedsOrder):
        return refusal_class(replayed, order_id, _read_excess(new, values))
    if issubclass(refusal_class, ReturnExceedsStockLimit):
        positions = _positions(new.products)
        return refusal_class(replayed, order_id, [FullLine(positions[int(id_)], int(id_)) for id_ in values])
    return refusal_class(replayed, order_id)


def _read_excess(new: "NewReturn", values: Sequence[str]) -> list[ExcessLine]:
    """Return the lines of a return that are too much. `values`: one per product, by id; empty: not too much."""
    quantities = new.quantities()
    positions = _positions(new.products)
    return [
        ExcessLine(positions[product_id], product_id, quantities[product_id], int(value))
        for product_id, value in zip(sorted(quantities), values, strict=True)
        if value
    ]


def _read_reply(
    classes: Mapping[str, type[RefusalT]], script: str, reply: Sequence[str]
) -> tuple[type[RefusalT], Sequence[str], bool]:
    """Return the class of a refusal, the texts after its reply word, and whether an Idempotency-Key repeats it.

    The reply for a repeated refusal is `refused` and one text: what the key remembers.
    """
    replayed = reply[0] == "refused"
    word, *values = reply[1].split("\n") if replayed else reply
    refusal_class = classes.get(word)
    if refusal_class is None:
        raise unknown_reply(script, reply)
    return refusal_class, values, replayed


def _read_head(refusal_class: type[Refusal], values: Sequence[str]) -> tuple[dict[str, Any], Sequence[str]]:
    """Return the values that belong to the whole refusal, by the name of their field, and the texts after them."""
    parsers = _VALUE_PARSERS[refusal_class]
    if not parsers:
        return {}, values
    head = {name: parse(value) for (name, parse), value in zip(parsers.items(), values, strict=False)}
    return head, values[len(parsers) :]


def remembered_text(reply: Sequence[str], product_ids: Iterable[int]) -> str:
    """Return what an Idempotency-Key remembers of a refusal of an order, as lua/place_order.lua writes it.

    `reply`: as the script replies with it. `_expand_lines` turns the text into a reply again.
    """
    if len(reply) == 1:
        return reply[0]
    head = 2 if reply[0] == "price_changed" else 1
    values = {int(line.split(" ", 1)[0]): line.rsplit(" ", 1)[1] for line in reply[head:]}
    runs: list[tuple[str, int]] = []
    for product_id in sorted(product_ids):
        value = values.get(product_id, "")
        value = "u" if value == "unknown" else value
        if runs and runs[-1][0] == value:
            runs[-1] = (value, runs[-1][1] + 1)
        else:
            runs.append((value, 1))
    return "\n".join([*reply[:head], *[value if count == 1 else f"{value}*{count}" for value, count in runs]])


def _expand_lines(line_type: Callable[..., Any], rows: Sequence[str], quantities: Mapping[int, int]) -> Sequence[str]:
    """Return the texts of the lines as the script replied with them, from what an Idempotency-Key remembers.

    It remembers only what the repeated request does not say: one value per product, sorted by product id. `u*3`: three
    times `u`, an unknown product. An empty value: the line was not refused.
    """
    if not rows or " " in rows[0]:
        return rows  # the whole texts, as Holdfast remembered them until November 2026
    values: list[str] = []
    for row in rows:
        value, _, count = row.partition("*")
        values += ["unknown" if value == "u" else value] * int(count or 1)
    value_of = dict(zip(sorted(quantities), values, strict=True))
    has_quantity = "requested" in _LINE_PARSERS[line_type]
    return [
        f"{product_id} {quantity} {value_of[product_id]}" if has_quantity else f"{product_id} {value_of[product_id]}"
        for product_id, quantity in quantities.items()
        if value_of[product_id]
    ]


def _read_lines(line_type: Callable[..., Any], texts: Iterable[str], requested: "Sequence[NewOrderLine]") -> list[Any]:
    """Return one `line_type` per text, such as `7 5 2`, with the position of the product in the request."""
    positions = _positions(requested)
    return [_read_line(line_type, positions[int(text.partition(" ")[0])], text) for text in texts]


@lru_cache(maxsize=5_000)  # 3 to 4 MB; in a flash sale, nearly all refusals are about the same few products
def _read_line(line_type: Callable[..., Any], position: int, text: str) -> Any:
    parsers = _LINE_PARSERS[line_type].values()
    return line_type(position, *[parse(word) for parse, word in zip(parsers, text.split(), strict=True)])


def _positions(requested: "Sequence[NewOrderLine]") -> dict[int, int]:
    """Return the position of the first line with each product."""
    positions: dict[int, int] = {}
    for position, line in enumerate(requested):
        positions.setdefault(line.product_id, position)
    return positions


_ORDER_REFUSALS: Final = {refusal_class.reply_word: refusal_class for refusal_class in ORDER_REFUSALS}
_STOCK_REFUSALS: Final = {refusal_class.reply_word: refusal_class for refusal_class in STOCK_REFUSALS}
_RETURN_REFUSALS: Final = {refusal_class.reply_word: refusal_class for refusal_class in RETURN_REFUSALS}

_PARSERS: Final[dict[Any, Callable[[str], Any]]] = {int: int, Obstacle: parse_obstacle, Cents: parse_cents}
"""How the text of a field is read, by the type of the field."""


def _field_parsers(kind: Any, *, after: str) -> dict[str, Callable[[str], Any]]:
    """Return how the text of each field of a class is read, for the fields that are declared after `after`."""
    types = {field.name: field.type for field in fields(kind)}
    names = list(types)
    return {name: _PARSERS[types[name]] for name in names[names.index(after) + 1 :]}


_VALUE_PARSERS: Final[dict[Any, dict[str, Callable[[str], Any]]]] = {
    **{refusal_class: _field_parsers(refusal_class, after="lines") for refusal_class in ORDER_REFUSALS},
    **{refusal_class: _field_parsers(refusal_class, after="request") for refusal_class in STOCK_REFUSALS},
}
"""For each refusal class: how each value of its reply is read, by the name of the field that it becomes."""

_LINE_PARSERS: Final[dict[Any, dict[str, Callable[[str], Any]]]] = {
    refusal_class.line_type: _field_parsers(refusal_class.line_type, after="position")
    for refusal_class in ORDER_REFUSALS
}
"""For each type of line: how each word of its text is read, by the name of the field that it becomes."""


def unknown_reply(script: str, reply: Sequence[str]) -> AssertionError:
    """Return the error for a reply that the caller of the script does not know: a bug in one of the two."""
    return AssertionError(f"{script}.lua replied {list(reply)!r}, which its caller does not know")

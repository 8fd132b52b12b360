"""From the text that Redis holds and scripts reply with to values and errors, and back. Pure functions."""

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

from service.errors import (
    CurrentPrice,
    InsufficientStock,
    OrderRefused,
    PriceChanged,
    ProductNotFound,
    Refused,
    ShortLine,
    StockTooHigh,
    StockTooLow,
    TotalTooLarge,
    UnknownProducts,
)
from service.models import NewOrder, OrderLine, StockMove, money

_LINE = re.compile(r"(\d+): (\d+) x (\d+(?:\.\d{1,2})?)", re.ASCII)
_AMOUNT = re.compile(r"\d+(?:\.\d{1,2})?", re.ASCII)


class Event(NamedTuple):
    """An entry of the event stream, as Redis has it."""

    id: str
    fields: dict[str, str]

    def json(self) -> str:
        """The entry as one JSON object, with numbers and lines for what is text in Redis."""
        return (
            f'{{"id":"{self.id}",'
            + ",".join(f"{json.dumps(name)}:{_json_value(name, value)}" for name, value in self.fields.items())
            + "}"
        )


def _json_value(name: str, text: str) -> str:
    if name == "products":
        return f"[{','.join(line.json() for line in parse_lines(text))}]"
    if name in ("price", "total_price"):
        return money(parse_cents(text))
    if name in ("order", "product", "change", "stock"):
        return str(int(text))
    return json.dumps(text, ensure_ascii=False)


def order_fingerprint(new: NewOrder, quantities: Mapping[int, int]) -> str:
    """The meaning of a request, not its bytes: the order of its lines and how they are split do not matter."""
    lines = ",".join(f"{product_id}x{quantity}" for product_id, quantity in sorted(quantities.items()))
    hold = new.hold_seconds if new.status == "pending" else 0
    return _digest(f"order {lines} {hold} {new.total_price}")


def move_fingerprint(product_id: int, move: StockMove) -> str:
    """The meaning of a stock move."""
    return _digest(f"stock {product_id} {move.change} {move.reason}")


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=16).hexdigest()


def refused_move(product_id: int, move: StockMove, reply: list[str], replayed: bool) -> Refused:
    match reply:
        case ["absent"]:
            return ProductNotFound(str(product_id))
        case ["short", stock]:
            return StockTooLow(replayed, product_id, move.change, int(stock))
        case ["full", stock, held]:
            return StockTooHigh(replayed, product_id, move.change, int(stock), int(held))
    raise unknown_reply("move_stock", reply)


def refused_order(new: NewOrder, reply: list[str], replayed: bool) -> OrderRefused:
    match reply:
        case ["unknown", *lines]:
            return UnknownProducts(replayed, [_short_line(new, line) for line in lines])
        case ["short", *lines]:
            return InsufficientStock(replayed, [_short_line(new, line) for line in lines])
        case ["price_changed", total, *lines]:
            pairs = [line.split() for line in lines]
            prices = [CurrentPrice(int(product_id), parse_cents(price)) for product_id, price in pairs]
            return PriceChanged(replayed, parse_cents(total), prices)
        case ["too_large"]:
            return TotalTooLarge(replayed)
    raise unknown_reply("place_order", reply)


def _short_line(new: NewOrder, text: str) -> ShortLine:
    product_id, requested, available = text.split()
    index = next(i for i, line in enumerate(new.products) if line.product_id == int(product_id))
    return ShortLine(index, int(product_id), int(requested), None if available == "unknown" else int(available))


def parse_event(entry: tuple[str, list[str]]) -> Event:
    event_id, parts = entry
    return Event(event_id, dict(zip(parts[::2], parts[1::2], strict=True)))


def event_position(event_id: str) -> tuple[int, int]:
    """An event id as something that compares in the order of the stream."""
    milliseconds, _, sequence = event_id.partition("-")
    return int(milliseconds), int(sequence or 0)


def parse_lines(text: str) -> tuple[OrderLine, ...]:
    """The `products` field of an order: a line a product, `7: 2 x 19.99`."""
    matches = [_LINE.fullmatch(line) for line in text.split("\n")]
    if not all(matches):
        raise ValueError(f"unreadable lines of an order: {text[:100]!r}")
    return tuple(OrderLine(int(match[1]), int(match[2]), parse_cents(match[3])) for match in matches if match)


@lru_cache(maxsize=10_000)  # most amounts are prices, and come again and again
def parse_cents(text: str) -> int:
    """An amount as Redis holds it, `19.99`, in cents."""
    if not _AMOUNT.fullmatch(text):
        raise ValueError(f"unreadable amount: {text[:40]!r}")
    whole, _, fraction = text.partition(".")
    return int(whole) * 100 + int(fraction.ljust(2, "0"))


def unknown_reply(script: str, reply: Sequence[str]) -> AssertionError:
    return AssertionError(f"{script}.lua replied {list(reply)!r}, which store.py does not know")

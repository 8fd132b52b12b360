"""The messages of the live board: the numbers of all products, and every half second what has happened since."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Final

from service.domain.event import Event
from service.domain.money import Cents, format_cents, parse_cents
from service.domain.order import OrderLine, parse_lines
from service.domain.times import format_timestamp
from service.storage.board import NextHolds, ProductNumbers
from service.storage.partitioned import AnyStore

INTERVAL_SECONDS: Final = 0.5

MAX_PRODUCTS: Final = 20_000
"""Products of a board. More would be 2 MB for each client that connects."""

_BATCH: Final = 250
"""Products that are read at a time: Redis needs half a millisecond for them, and so does the worker."""

_MAX_CHANGED: Final = 1000
"""Changed products that are read per interval. The others follow in the next intervals."""

_SHOWN_HOLDS: Final = 12

_RESULTS: Final = {
    "order_completed": "completed",
    "order_cancelled": "cancelled",
    "order_expired": "expired",
    "order_returned": "returned",
}


class SalesSummary:
    """What has happened in the shop since the last message. It is computed once for all listeners of a worker."""

    def __init__(self, store: AnyStore, read_refusals: Callable[[], Mapping[str, int]]) -> None:
        """`read_refusals`: returns how many orders were refused since the start of the service, by problem."""
        self._store = store
        self._read_refusals = read_refusals
        self._rows: dict[int, ProductNumbers] | None = None
        self._loading: asyncio.Task[dict[int, ProductNumbers]] | None = None
        self.forget()

    def forget(self) -> None:
        """Nobody listens, or the data are others: begin anew for the next listener."""
        self._rows = None
        self._counts: Counter[str] = Counter()
        self._units = 0
        self._cents = 0
        self._changed: dict[int, None] = {}
        self._refused: Mapping[str, int] | None = None
        self._sent_at: float | None = None

    def note(self, events: Iterable[Event]) -> None:
        """Count events, and remember which products they have changed."""
        for event in events:
            try:
                self._note(event)
            except (KeyError, ValueError):  # another program has written it
                continue

    def _note(self, event: Event) -> None:
        kind, fields = event.fields["event"], event.fields
        if "product" in fields:
            self._changed[int(fields["product"])] = None
        if "products" not in fields:
            return
        lines = parse_lines(fields["products"])
        self._changed |= dict.fromkeys(line.product_id for line in lines)
        if kind == "order_placed":
            is_sale = fields["status"] == "completed"
            self._counts["placed" if is_sale else "pending"] += 1
            if is_sale:
                self._add(lines, parse_cents(fields["total_price"]))
        elif kind in _RESULTS:
            self._counts[_RESULTS[kind]] += 1
            if kind == "order_completed":
                self._add(lines, Cents(sum(line.quantity * line.price for line in lines)))

    def _add(self, lines: Iterable[OrderLine], cents: Cents) -> None:
        self._units += sum(line.quantity for line in lines)
        self._cents += cents

    async def snapshot(self) -> AsyncIterator[bytes]:
        """Yield the numbers of all products, in several messages. Raise what the Store raises."""
        if self._rows is None:
            if self._loading is None:
                self._loading = asyncio.create_task(self._load())
            try:
                rows = await asyncio.shield(self._loading)
            finally:
                self._loading = None
            if self._rows is None:
                self._rows = rows
        rows_now = list(self._rows.values())
        left_out = max(0, await self._store.board.count_products() - len(rows_now))
        for at in range(0, max(1, len(rows_now)), 1000):
            yield _message("products", {"first": at == 0, "left_out": left_out}, _rows(rows_now[at : at + 1000]))
            await asyncio.sleep(0)

    async def _load(self) -> dict[int, ProductNumbers]:
        found: dict[int, ProductNumbers] = {}
        after = 0
        while len(found) < MAX_PRODUCTS and (ids := await self._store.board.product_ids(after, _BATCH)):
            found |= {row.id: row for row in await self._store.board.products(ids) if row is not None}
            after = ids[-1]
        return found

    async def tick(self) -> bytes | None:
        """Return the messages of this interval, or None if it is not over yet. Raise what the Store raises."""
        now = asyncio.get_running_loop().time()
        if self._sent_at is not None and now - self._sent_at < INTERVAL_SECONDS:
            return None
        changes = await self._read_changed()
        holds = await self._store.board.next_holds(_SHOWN_HOLDS)
        refused = dict(self._read_refusals())
        before = refused if self._refused is None else self._refused
        seconds = 0.0 if self._sent_at is None else now - self._sent_at
        message = self._summary(seconds, holds, {name: refused[name] - before.get(name, 0) for name in refused})
        self._counts.clear()
        self._units, self._cents = 0, 0
        self._refused, self._sent_at = refused, now
        return changes + message

    async def _read_changed(self) -> bytes:
        """Return a message with the products that have changed. Their numbers are read, and never added up."""
        if self._rows is None:
            return b""
        ids = list(self._changed)[:_MAX_CHANGED]
        rows: list[ProductNumbers | None] = []
        for at in range(0, len(ids), _BATCH):
            rows += await self._store.board.products(ids[at : at + _BATCH])
        changed, withdrawn = [], []
        for product_id, row in zip(ids, rows, strict=True):
            del self._changed[product_id]
            if row is None:
                if self._rows.pop(product_id, None) is not None:
                    withdrawn.append(product_id)
            elif self._rows.get(product_id) != row and (product_id in self._rows or len(self._rows) < MAX_PRODUCTS):
                self._rows[product_id] = row
                changed.append(row)
        if not changed and not withdrawn:
            return b""
        return _message("products", {"first": False, "withdrawn": withdrawn}, _rows(changed))

    def _summary(self, seconds: float, holds: NextHolds, refused: Mapping[str, int]) -> bytes:
        numbers = {
            "seconds": round(seconds, 3),
            "orders": {name: self._counts[name] for name in ("placed", "pending", *_RESULTS.values())},
            "units": self._units,
            "refused": {name: count for name, count in refused.items() if count > 0},
            "holds": {
                "count": holds.total,
                "next": [
                    {"order": order_id, "expires_at": format_timestamp(deadline)} for order_id, deadline in holds.next
                ],
            },
        }
        # As a text: json.dumps() would need a float.
        return _message("summary", numbers, f'"revenue":{format_cents(Cents(self._cents))}')


def _rows(products: Iterable[ProductNumbers]) -> str:
    rows = [
        f"[{row.id},{json.dumps(row.name)},{format_cents(row.price)},{row.stock},{row.held},{row.sold}]"
        for row in products
    ]
    return f'"products":[{",".join(rows)}]'


def _message(kind: str, members: Mapping[str, object], further: str) -> bytes:
    """Return a message without an id: a client that connects again gets the whole state again."""
    return f"event: {kind}\ndata: {json.dumps(members)[:-1]},{further}}}\n\n".encode()

"""Proves that the books balance: `received = stock + held + sold`, and held and sold are what the orders say.

The service may run meanwhile. No two keys are compared that were read at different moments:

- A product's own numbers, and an order with its indexes, come from one script each.
- Orders are read over some time, and some change meanwhile. But each change writes an event in the
  same script. So the orders that have events since the beginning count as their events say, the others
  as they were read: that is the state as of one event, the last before the products are read. Each
  batch of products comes with the event it was read at, and the events up to there are added before
  it is compared.

Where the stream was cut meanwhile so that events are missing, the audit says that it cannot tell.
"""

import re
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import asdict, dataclass, field

from service.domain.event import Event, event_position
from service.domain.limits import MAX_ID
from service.domain.money import format_cents, parse_cents
from service.domain.order import OrderLine, parse_lines
from service.storage import keys
from service.storage.store import Store

_BATCH = 500

_CHUNK = 65_536

_STATUSES = ("unread", "pending", "completed", "cancelled", "expired", "unreadable")
_AFTER_EVENT = {"order_completed": "completed", "order_cancelled": "cancelled", "order_expired": "expired"}


class CannotTellError(Exception):
    """The audit came to no end. Nothing is known to be off."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is off: the key, and what is wrong with it."""

    key: str
    what: str


@dataclass
class Report:
    """What was read, and what is off."""

    products: int = 0
    orders: int = 0
    pending: int = 0
    events_followed: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def balanced(self) -> bool:
        return not self.findings

    def as_dict(self) -> dict[str, object]:
        return {"balanced": self.balanced, **asdict(self)}


async def audit(store: Store, shop: str, progress: Callable[[int], object] = lambda done: None) -> Report:
    """Reads everything in bounded batches. `progress` hears of how many keys were read. Raises CannotTellError."""
    return await _Audit(store, shop, progress).run()


class _Audit:
    def __init__(self, store: Store, shop: str, progress: Callable[[int], object]) -> None:
        self.store = store
        self.shop = shop
        self.progress = progress
        self.report = Report()
        self.held: defaultdict[int, int] = defaultdict(int)
        self.sold: defaultdict[int, int] = defaultdict(int)
        self.read_as: defaultdict[int, bytearray] = defaultdict(lambda: bytearray(_CHUNK))
        """The status each order was read in, a byte an order: its index in _STATUSES. By chunks of ids."""
        self.findings: dict[Finding, None] = {}
        """In order, and each once: SCAN may show a key twice."""
        self.product_ids: set[int] = set()
        self.position = "0-0"
        """The event up to which `held` and `sold` are what the orders say."""

    async def run(self) -> Report:
        types = {
            keys.products(self.shop): ("zset", "a sorted set"),
            keys.holds(self.shop): ("zset", "a sorted set"),
            keys.pending(self.shop): ("zset", "a sorted set"),
            keys.events(self.shop): ("stream", "a stream"),
            keys.order_ids(self.shop): ("string", "a number"),
        }
        for name, (right, text) in types.items():
            kind = await self.store.inspection.key_type(name)
            if kind not in (right, "none"):
                self.off(name, f"is a {kind}, not {text}")
        if not self.findings:
            await self.read_all()
        self.report.findings = list(self.findings)
        return self.report

    async def read_all(self) -> None:
        start = self.position = await self.store.events.last_id()
        await self.read_orders()
        await self.read_indexes()
        await self.follow_changes()
        await self.read_products()
        newest = await self.store.events.last_id()
        if event_position(newest) < event_position(self.position) or not await self.store.events.has_since(start):
            raise CannotTellError(
                "more changed during the audit than the event stream holds: "
                "raise HOLDFAST_EVENTS_MAX, or audit at a quieter time"
            )

    def off(self, key: str, what: str) -> None:
        self.findings[Finding(key, what)] = None

    async def read_orders(self) -> None:
        """Reads all orders and adds up their lines. Remembers which products there are."""
        product_prefix, order_prefix = keys.prefix(self.shop) + "product:", keys.prefix(self.shop) + "order:"
        last_id = await self.last_order_id()
        async for names in self.store.inspection.scan_keys():
            self.product_ids.update(self.ids_in(names, product_prefix))
            order_ids = dict.fromkeys(self.ids_in(names, order_prefix))
            if order_ids and max(order_ids) > last_id:
                last_id = await self.last_order_id()
            for order_id in [order_id for order_id in order_ids if order_id > last_id]:
                key = keys.order(self.shop, order_id)
                self.off(key, f"was never handed out: {keys.order_ids(self.shop)} is {last_id}")
                del order_ids[order_id]
            for batch in _batches([order_id for order_id in order_ids if self.status_read(order_id) == "unread"]):
                _, rows = await self.store.inspection.audit_orders(batch)
                for order_id, row in zip(batch, rows, strict=True):
                    status = self.count_order(order_id, row)
                    self.read_as[order_id // _CHUNK][order_id % _CHUNK] = _STATUSES.index(status)
                self.progress(len(batch))

    async def last_order_id(self) -> int:
        try:
            return await self.store.orders.last_id()
        except ValueError as error:
            self.off(keys.order_ids(self.shop), f"is no number: {error}")
            return MAX_ID

    def status_read(self, order_id: int) -> str:
        return _STATUSES[self.read_as[order_id // _CHUNK][order_id % _CHUNK]]

    def ids_in(self, names: list[str], prefix: str) -> Iterator[int]:
        for name in names:
            if name.startswith(prefix):
                if _ID.fullmatch(name.removeprefix(prefix)):
                    yield int(name.removeprefix(prefix))
                else:
                    self.off(name, "does not end in an id")

    def count_order(self, order_id: int, row: list[str | None]) -> str:
        """Adds an order's lines up, and gives its status."""
        key = keys.order(self.shop, order_id)
        self.report.orders += 1
        if len(row) == 1:
            self.off(key, f"cannot be read: {row[0]}")
            return "unreadable"
        own_id, status, total, products, created_at, expires_at, hold, pending = row
        if own_id != str(order_id):
            self.off(key, f"has id {own_id}")
        lines: tuple[OrderLine, ...] = ()
        try:
            lines = parse_lines(products or "")
            cents = parse_cents(total or "")
        except ValueError as error:
            self.off(key, str(error))
        else:
            right = sum(line.price * line.quantity for line in lines)
            if right != cents:
                self.off(key, f"has total_price {total}, its lines come to {format_cents(right)}")
        self.check_number(key, "created_at", created_at)
        if status not in _COUNTED:
            self.off(key, f"has status {status}")
            return "unreadable"
        self.add(status, lines, 1)
        if status == "pending":
            self.report.pending += 1
            if self.check_number(key, "expires_at", expires_at) and hold is not None and not _same(hold, expires_at):
                self.off(key, f"expires at {expires_at}, but {keys.holds(self.shop)} has {hold}")
            if hold is None:
                self.off(key, f"is pending, but not in {keys.holds(self.shop)}: it would never expire")
            if not _same(pending, order_id):
                self.off(key, f"is pending, but {keys.pending(self.shop)} has {pending or 'nothing'} for it")
        else:
            for index, score in ((keys.holds(self.shop), hold), (keys.pending(self.shop), pending)):
                if score is not None:
                    self.off(key, f"is {status}, but in {index}")
        return status

    async def read_indexes(self) -> None:
        """Looks for entries without an order. What is wrong between the two was found with the order."""
        for index in (keys.holds(self.shop), keys.pending(self.shop)):
            async for members in self.store.inspection.scan_index(index):
                for member in members:
                    if not _ID.fullmatch(member):
                        self.off(index, f"has {member!r}, which is no id")
                order_ids = [int(member) for member in members if _ID.fullmatch(member)]
                for batch in _batches(order_ids):
                    _, rows = await self.store.inspection.audit_orders(batch)
                    for order_id, row in zip(batch, rows, strict=True):
                        if len(row) > 1 and not any(row[:6]):
                            self.off(index, f"has {order_id}, but there is no such order")
        async for members in self.store.inspection.scan_index(keys.products(self.shop)):
            for member in members:
                if _ID.fullmatch(member):
                    self.product_ids.add(int(member))
                else:
                    self.off(keys.products(self.shop), f"has {member!r}, which is no id")

    async def follow_changes(self) -> None:
        """Puts the orders that changed since the beginning into the state after the last of their changes."""
        ends: dict[int, tuple[str, tuple[OrderLine, ...]]] = {}
        async for event in self.events_until(await self.store.events.last_id()):
            if (change := _order_change(event)) is not None:
                order_id, status, lines = change
                ends[order_id] = status, lines
        for order_id, (status, lines) in ends.items():
            self.add(self.status_read(order_id), lines, -1)
            self.add(status, lines, 1)

    async def read_products(self) -> None:
        """Reads the products that there are, and those that orders or the index say there are."""
        for batch in _batches(sorted({*self.product_ids, *self.held, *self.sold})):
            moment, rows = await self.store.inspection.audit_products(batch)
            async for event in self.events_until(moment):
                if (change := _order_change(event)) is not None:
                    _, status, lines = change
                    if event.fields["event"] != "order_placed":
                        self.add("pending", lines, -1)
                    self.add(status, lines, 1)
            for product_id, row in zip(batch, rows, strict=True):
                self.check_product(product_id, row)
            self.progress(len(batch))

    def check_product(self, product_id: int, row: list[str | None]) -> None:
        key, index = keys.product(self.shop, product_id), keys.products(self.shop)
        self.report.products += 1
        if len(row) == 1:
            self.off(key, f"cannot be read: {row[0]}")
            return
        own_id, price, stock, held, sold, received, withdrawn, score = row
        if not any(row[:7]):
            self.report.products -= 1
            if score is not None:
                self.off(index, f"has {product_id}, but there is no such product")
            elif self.held[product_id] or self.sold[product_id]:
                counts = f"orders hold {self.held[product_id]} of it, and {self.sold[product_id]} are sold"
                self.off(key, f"no such product, but {counts}")
            return
        if own_id != str(product_id):
            self.off(key, f"has id {own_id}")
        try:
            parse_cents(price or "")
        except ValueError as error:
            self.off(key, str(error))
        if withdrawn not in ("0", "1"):
            self.off(key, f"has withdrawn {withdrawn}")
        elif withdrawn == "0" and not _same(score, product_id):
            self.off(key, f"is on sale, but {index} has {score or 'nothing'} for it")
        elif withdrawn == "1" and score is not None:
            self.off(key, f"is withdrawn, but in {index}")
        fields = {"stock": stock, "held": held, "sold": sold, "received": received}
        checked = [self.check_number(key, name, value) for name, value in fields.items()]
        if not all(checked):
            return
        numbers = {name: int(value or 0) for name, value in fields.items()}
        if numbers["received"] != numbers["stock"] + numbers["held"] + numbers["sold"]:
            self.off(key, f"received {received}, but stock {stock} + held {held} + sold {sold} are not that")
        for name, expected in (("held", self.held[product_id]), ("sold", self.sold[product_id])):
            if numbers[name] != expected:
                self.off(key, f"has {name} {numbers[name]}, the orders say {expected}")

    def check_number(self, key: str, name: str, value: str | None) -> bool:
        """Whether a field is a whole number and not negative."""
        if value is not None and _NUMBER.fullmatch(value):
            return True
        self.off(key, f"has {name} {value}")
        return False

    def add(self, status: str, lines: tuple[OrderLine, ...], sign: int) -> None:
        column = {"pending": self.held, "completed": self.sold}.get(status)
        if column is not None:
            for line in lines:
                column[line.product_id] += sign * line.quantity

    async def events_until(self, end: str) -> AsyncIterator[Event]:
        """The events from `position` to `end`, where `position` is then."""
        while event_position(self.position) < event_position(end):
            events = await self.store.events.read(self.position, end)
            if not events:
                break
            for event in events:
                self.report.events_followed += 1
                yield event
            self.position = events[-1].id


def _order_change(event: Event) -> tuple[int, str, tuple[OrderLine, ...]] | None:
    """Which order an event changed, to which status, and its lines. None if it changed none, or is not ours."""
    fields = event.fields
    kind = fields.get("event", "")
    status = fields.get("status", "") if kind == "order_placed" else _AFTER_EVENT.get(kind)
    try:
        return None if status is None else (int(fields["order"]), status, parse_lines(fields["products"]))
    except (KeyError, ValueError):
        return None


def _same(score: str | None, number: int | str | None) -> bool:
    """Whether a score, which is a double, is exactly this number."""
    return score is not None and number is not None and float(score) == float(number)


def _batches(ids: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(ids), _BATCH):
        yield ids[start : start + _BATCH]


_COUNTED = ("pending", "completed", "cancelled", "expired")
_ID = re.compile("[1-9][0-9]{0,15}")
_NUMBER = re.compile("[0-9]{1,18}")

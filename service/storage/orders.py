"""Orders: place, read and list."""

from collections.abc import AsyncIterator, Iterable, Sequence
from itertools import chain
from secrets import token_hex
from typing import Final, NamedTuple

import structlog

from service.domain.errors.refusals import OrderCancelled, OrderExpired, OrderNotFound
from service.domain.errors.storage import Overloaded, StorageUnavailable, UnsupportedRedis
from service.domain.limits import MAX_ID
from service.domain.money import parse_cents
from service.domain.order import Order, OrderLine, OrderStatus
from service.domain.requests import NewOrder, OrdersQuery
from service.domain.times import Milliseconds
from service.storage import keys
from service.storage.backlog import HoldsBacklog
from service.storage.client import MAX_SCAN_STEP, SCAN_LIMIT, RedisClient
from service.storage.idempotency import REFUSAL_MS, SHORT_REFUSAL_MS, order_fingerprint, read_for_replay
from service.storage.inspection import Inspection
from service.storage.order_ids import OrderIds
from service.storage.records import ORDER_FIELDS, HashValues, read_orders
from service.storage.refusals import read_order_refusal
from service.storage.sender import ErrorReply

log = structlog.get_logger()

_ORDER_KIND: Final = "order:"
_STATUS: Final = ORDER_FIELDS.index("status")
_LISTED: Final = frozenset({OrderStatus.PENDING, OrderStatus.COMPLETED})


class PlacedOrder(NamedTuple):
    """An order. `replayed`: an earlier request with the same Idempotency-Key placed it."""

    order: Order
    replayed: bool


class Orders:
    """The orders of a shop. Each method also raises what RedisClient raises."""

    def __init__(self, client: RedisClient, backlog: HoldsBacklog) -> None:
        self._client = client
        self._backlog = backlog
        self._order_ids = OrderIds(self._reserve_ids)
        self._data_id: str | None = None
        """Of the data from which the ids are reserved. None: no ids are reserved, or they are not valid any more."""
        self._counter_is_wrong = False
        client.after_check.append(self.check_ids)

    async def place(self, new: NewOrder, idempotency_key: str | None = None) -> PlacedOrder:
        """Take the stock of all lines and write the order, or do nothing.

        Raise an OrderPlacementRefusal of ORDER_REFUSALS, or IdempotencyKeyReused.

        If an earlier request with this Idempotency-Key placed an order, return that order, or raise OrderCancelled or
        OrderExpired. If it was refused, raise the same refusal.
        """
        if new.status == "pending":
            self._backlog.admit()
        client = self._client
        shop = client.shop
        quantities = new.quantities()
        other_keys = (
            keys.events(shop),
            keys.holds(shop),
            keys.pending(shop),
            *[keys.product(shop, product_id) for product_id in quantities],
            *((keys.refusals(shop), keys.idempotency(shop, idempotency_key)) if idempotency_key else ()),
        )
        while True:
            order_id = await self._order_ids.take()
            try:
                reply = await client.run(
                    "place_order",
                    (keys.order(shop, order_id), *other_keys),
                    place_order_args(
                        order_id=order_id,
                        hold_ms="" if new.status == "completed" else new.hold_seconds * 1000,
                        expected_cents="" if new.total_price is None else new.total_price,
                        idempotency_key=idempotency_key or "",
                        fingerprint=order_fingerprint(new, quantities) if idempotency_key else "",
                        refusal_ms=REFUSAL_MS,
                        short_refusal_ms=SHORT_REFUSAL_MS,
                        refusals_max=client.refusals_max,
                        events_max=client.events_max,
                        now_ms=client.clock_argument(),
                        ids_and_quantities=chain.from_iterable(quantities.items()),
                    ),
                )
            except (StorageUnavailable, Overloaded, UnsupportedRedis):
                self._order_ids.give_back(order_id)
                raise
            # After any other error the script may have run, or may still run late: the id is not used again.
            match reply:
                case ["placed", total, created_at, expires_at, *prices]:
                    lines = tuple(
                        [
                            OrderLine(product_id, quantity, parse_cents(price))
                            for (product_id, quantity), price in zip(quantities.items(), prices, strict=True)
                        ]
                    )
                    order = Order(
                        order_id,
                        lines,
                        parse_cents(total),
                        new.status,
                        Milliseconds(int(created_at)),
                        Milliseconds(int(expires_at)) if expires_at else None,
                    )
                    return PlacedOrder(order, replayed=False)
                case ["exists"]:
                    if not self._order_ids.is_dropped(order_id):
                        self._drop_ids(f"there is an order {order_id} already")
                    continue
            self._order_ids.give_back(order_id)
            match reply:
                case ["replayed", first_id]:
                    return PlacedOrder(await read_for_replay(self.get(int(first_id))), replayed=True)
                case _:
                    raise read_order_refusal(new, reply)

    async def get(self, order_id: int) -> Order:
        """Return a pending or completed order. Raise OrderNotFound, OrderCancelled and OrderExpired."""
        order = await self.get_in_any_status(order_id)
        if order.expires_at is not None and order.expires_at <= await self._client.now():
            # The order may have been completed in time, after the first look at it and before the look at the clock.
            order = await self.get_in_any_status(order_id)
            if order.expires_at is not None:
                raise OrderExpired(order_id)  # the sweeper has not reached this order yet
        if order.status == OrderStatus.CANCELLED:
            raise OrderCancelled(order_id)
        if order.status == OrderStatus.EXPIRED:
            raise OrderExpired(order_id)
        return order

    async def list(self, query: OrdersQuery) -> tuple[list[Order], int | None]:
        """Return one page, highest id first, and the `before` of the next page, or None at the end."""
        now = await self._client.now()
        before = MAX_ID if query.before is None else query.before
        found: list[Order] = []
        scanned, step = 0, query.limit + 1
        while len(found) <= query.limit and scanned < SCAN_LIMIT and before > 1:
            order_ids, before = await self._ids_before(before, step, query.status)
            found += await self._read_listed(order_ids, query.status, now)
            scanned, step = scanned + step, min(2 * step, MAX_SCAN_STEP)
        if len(found) > query.limit:
            return found[: query.limit], found[query.limit - 1].id
        return found, before if before > 1 else None

    async def read_listed(self, order_ids: Sequence[int]) -> Sequence[Order]:
        """Return those of these orders that are pending or completed."""
        return await self._read_listed(order_ids, None, await self._client.now())

    async def _read_listed(self, order_ids: Sequence[int], status: str | None, now: Milliseconds) -> Sequence[Order]:
        wanted = _LISTED if status is None else (status,)
        rows = zip(order_ids, await self._read_rows(order_ids), strict=True)
        # Only these rows are parsed: most orders of a page may be cancelled.
        listed = [(order_id, row) for order_id, row in rows if row[_STATUS] in wanted]
        orders = read_orders([order_id for order_id, _ in listed], [row for _, row in listed])
        return [order for order in orders if order is not None and (order.expires_at is None or order.expires_at > now)]

    async def scan_ids(self) -> AsyncIterator[int]:
        """Yield the ids of all orders in any status, in no order. An id may come twice. The counter is not used."""
        prefix = keys.prefix(self._client.shop) + _ORDER_KIND
        async for names in Inspection(self._client).scan_keys(_ORDER_KIND):
            for name in names:
                text = name.removeprefix(prefix)
                if text.isascii() and text.isdigit() and 1 <= int(text) <= MAX_ID:
                    yield int(text)

    async def get_in_any_status(self, order_id: int) -> Order:
        """Return an order in any status. Raise OrderNotFound."""
        [order] = read_orders([order_id], await self._read_rows([order_id]))
        if order is None:
            raise OrderNotFound(str(order_id))
        return order

    async def last_id(self) -> int:
        """Return the last id that a worker reserved, or 0 if there is none. Lower if the counter was set back."""
        return int(await self._client.send("GET", keys.order_ids(self._client.shop), safe_to_repeat=True) or 0)

    async def _read_rows(self, order_ids: Sequence[int]) -> Sequence[HashValues]:
        shop = self._client.shop
        return await self._client.read_hashes([keys.order(shop, order_id) for order_id in order_ids], ORDER_FIELDS)

    async def check_ids(self) -> None:
        """Reserve other ids if the reserved ids do not belong to the data that Redis has now.

        That is so after FLUSHALL (the data have another random id), and after a backup was restored (the counter is
        lower than before). Called after each check of Redis.
        """
        highest, data_id = self._order_ids.highest, self._data_id
        if not highest:
            return  # nothing is reserved
        if data_id is not None:
            shop = self._client.shop
            found_id = await self._client.send("HGET", keys.meta(shop), "data_id", safe_to_repeat=True)
            try:
                counter = await self.last_id()
            except (ValueError, ErrorReply):
                counter = 0  # this is not a reason to refuse all requests: the next reservation fails, and says why
            if (found_id == data_id and highest <= counter) or self._data_id != data_id:
                return
            self._drop_ids(
                f"{keys.order_ids(shop)} is {counter}, but id {highest} was reserved"
                if found_id == data_id
                else "Redis has other data than those from which the ids were reserved"
            )
        self._order_ids.start_refill()  # also without a new order: GET /orders lists orders up to the counter

    def _drop_ids(self, reason: str) -> None:
        log.warning("order_ids_dropped", reason=reason, then="ids above the highest order are reserved")
        self._order_ids.drop()
        self._data_id = None
        self._counter_is_wrong = True

    async def _reserve_ids(self, count: int) -> int:
        """Reserve `count` order ids that no other worker gets, and return the first."""
        counter = keys.order_ids(self._client.shop)
        while True:
            data_id = await self._read_data_id() if self._data_id is None else self._data_id
            try:
                if self._counter_is_wrong:
                    await self._correct_counter(counter, count)
                last = int(await self._client.send("INCRBY", counter, count, safe_to_repeat=True))
            except (ErrorReply, ValueError) as error:
                raise StorageUnavailable(f"{counter} cannot be counted up: {error}") from error
            # Not above the ids of this worker: the data were replaced, and no check of Redis has noticed it yet.
            if not self._order_ids.highest + count <= last <= MAX_ID:
                self._counter_is_wrong = True
            if not self._counter_is_wrong:
                self._data_id = data_id
                return last - count + 1

    async def _correct_counter(self, counter: str, count: int) -> None:
        """Move the counter to the highest id of all orders and of this worker."""
        highest = self._order_ids.highest
        async for order_id in self.scan_ids():
            highest = max(highest, order_id)
        if highest + count > MAX_ID:
            raise StorageUnavailable(f"no order ids are left: {highest} is in use, and {MAX_ID} is the highest")
        self._counter_is_wrong = not await self._client.move_counter(counter, highest)

    async def _read_data_id(self) -> str:
        """Return the random id of the data. Write it if there is none."""
        meta = keys.meta(self._client.shop)
        await self._client.send("HSETNX", meta, "data_id", token_hex(8), safe_to_repeat=True)
        return str(await self._client.send("HGET", meta, "data_id", safe_to_repeat=True))

    async def _ids_before(self, before: int, count: int, status: str | None) -> tuple[Sequence[int], int]:
        """Return about `count` ids below `before`, highest first, and the `before` of the next step.

        That `before` is 1 if there are no more ids.
        """
        if status == OrderStatus.PENDING:
            index = keys.pending(self._client.shop)
            ids = await self._client.send(
                "ZREVRANGEBYSCORE", index, f"({before}", "-inf", "LIMIT", 0, count, safe_to_repeat=True
            )
            return [int(order_id) for order_id in ids], int(ids[-1]) if len(ids) == count else 1
        # Without an index: nearly every id up to the counter has an order, so reading all ids wastes little.
        # The counter may have been set back a moment ago, but not the ids of this worker.
        first = min(before - 1, max(await self.last_id(), self._order_ids.highest))
        end = max(first - count, 0)
        return range(first, end, -1), end + 1


def place_order_args(
    *,
    order_id: int,
    hold_ms: int | str,
    expected_cents: int | str,
    idempotency_key: str,
    fingerprint: str,
    refusal_ms: int,
    short_refusal_ms: int,
    refusals_max: int,
    events_max: int,
    now_ms: int | str,
    ids_and_quantities: Iterable[int],
) -> tuple[str | int, ...]:
    """Return ARGV of lua/place_order.lua. At the end, product id and quantity of each order line."""
    return (
        order_id,
        hold_ms,
        expected_cents,
        idempotency_key,
        fingerprint,
        refusal_ms,
        short_refusal_ms,
        refusals_max,
        events_max,
        now_ms,
        *ids_and_quantities,
    )

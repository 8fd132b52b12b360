"""Orders: place, read and list."""

import asyncio
from collections.abc import Awaitable, Container, Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Final, NamedTuple

from service.domain.errors.refusals import OrderArchived, OrderCancelled, OrderExpired, OrderNotFound, Refusal
from service.domain.errors.remembered_refusals import RememberedRefusal
from service.domain.errors.storage import Overloaded, StorageError, StorageUnavailable, UnsupportedRedis
from service.domain.limits import MAX_ID
from service.domain.money import parse_cents
from service.domain.order import ListedOrder, Order, OrderLine, OrderStatus
from service.domain.times import Milliseconds
from service.metrics.counters import Metrics
from service.storage import keys
from service.storage.archive import Archive
from service.storage.backlog import HoldsBacklog
from service.storage.client import MAX_SCAN_STEP, SCAN_LIMIT, RedisClient
from service.storage.id_ranges import IdRanges
from service.storage.idempotency import REFUSAL_MS, SHORT_REFUSAL_MS, order_fingerprint, read_for_replay
from service.storage.order_counter import OrderCounter
from service.storage.partition import Partition
from service.storage.recent_orders import RecentOrders, read_known
from service.storage.records import ORDER_FIELDS, HashValues, read_listed_orders, read_orders
from service.storage.refusals import read_order_refusal

if TYPE_CHECKING:
    from service.domain.requests import NewOrder, OrdersQuery

_LINES: Final = ORDER_FIELDS.index("products")
_STATUS: Final = ORDER_FIELDS.index("status")
_EXPIRES_AT: Final = ORDER_FIELDS.index("expires_at")
_REFERENCE: Final = ORDER_FIELDS.index("reference")
_CUSTOMER: Final = ORDER_FIELDS.index("customer")
_LISTED: Final = frozenset({OrderStatus.PENDING, OrderStatus.COMPLETED})


class PlacedOrder(NamedTuple):
    """An order. `replayed`: an earlier request with the same Idempotency-Key placed it."""

    order: Order
    replayed: bool


class Orders:
    """The orders of a shop. Each method also raises what RedisClient raises."""

    def __init__(
        self,
        client: RedisClient,
        backlog: HoldsBacklog,
        archive: Archive,
        skipped: IdRanges,
        recent: RecentOrders,
        partition: Partition | None = None,
    ) -> None:
        """`recent`: of this worker. `partition`: of a shop with several; None: the shop has no partitions."""
        self._client = client
        self._partition = partition
        self._refusal_ms = REFUSAL_MS if partition is None else 0  # what one partition replies is not the last word
        self._backlog = backlog
        self._archive = archive
        self._skipped = skipped
        self._recent = recent
        self._counter = OrderCounter(client, archive, skipped, partition)
        self.last_id = self._counter.last_id
        self.scan_ids = self._counter.scan_ids
        self.highest_used_id = self._counter.highest_used_id

    async def place(
        self, new: "NewOrder", idempotency_key: str | None = None, by: str = "", deadline: float | None = None
    ) -> PlacedOrder:
        """Take the stock of all lines and write the order, or do nothing.

        `by`: the name of the API key of the request. Each has Idempotency-Keys of its own.
        `deadline`: until when a partition may try it again, in event-loop time; None: as long as a command may take.

        Raise an OrderPlacementRefusal of ORDER_REFUSALS, or IdempotencyKeyReused.

        If an earlier request with this Idempotency-Key placed an order, return that order, or raise OrderCancelled,
        OrderExpired or OrderArchived. If it was refused, raise the same refusal.
        """
        self._client.admit()
        if new.status == "pending":
            self._backlog.admit()
        client, order_ids = self._client, self._counter.ids
        metrics = client.metrics
        shop, customer, reference = client.shop, new.customer, new.reference
        quantities = new.quantities()
        tries = None if self._partition is None else self._partition.begin(deadline)
        outcome_key, fingerprint = None, ""
        if idempotency_key:
            outcome_key = keys.idempotency(shop, idempotency_key, customer, by)
            fingerprint = order_fingerprint(new, quantities)
            known_id = self._recent.id_of(outcome_key)
            if known_id is not None and (order := await read_known(client, outcome_key, fingerprint, known_id)):
                metrics.count_order("replayed")
                return PlacedOrder(order, replayed=True)
        other_keys = [keys.events(shop), *[keys.product(shop, product_id) for product_id in quantities]]
        options: list[str | int] = []
        if new.status == "pending":
            other_keys += (keys.holds(shop), keys.pending(shop))
            options += ("hold_ms", new.hold_seconds * 1000)
        if customer is not None:
            other_keys += (keys.customer(shop, customer), keys.customer_orders(shop, customer))
            options += ("customer", customer)
        if reference is not None:
            other_keys.append(keys.reference_orders(shop, reference))
            options += ("reference", reference)
        if new.total_price is not None:
            options += ("expected_cents", new.total_price)
        if by:
            options += ("by", by)
        if (now_ms := client.clock_argument()) != "":
            options += ("now_ms", now_ms)
        if idempotency_key and outcome_key:
            other_keys += (keys.refusals(shop), outcome_key)
            options += ("idempotency_key", idempotency_key, "fingerprint", fingerprint)
            options += ("refusal_limits", f"{self._refusal_ms} {SHORT_REFUSAL_MS} {client.refusals_max}")
        order_id = 0
        while True:
            order_id = order_id or order_ids.take_reserved() or await order_ids.take()
            try:
                reply = await client.run(
                    "place_order",
                    (keys.order(shop, order_id), *other_keys),
                    place_order_args(
                        order_id=order_id,
                        events_max=client.events_max,
                        options=options,
                        ids_and_quantities=chain.from_iterable(quantities.items()),
                    ),
                )
            except (StorageUnavailable, Overloaded, UnsupportedRedis):
                order_ids.give_back(order_id)
                raise
            # After any other error the script may have run, or may still run late: the id is not used again.
            match reply:
                case ["placed", total, created_at, expires_at, *prices]:
                    assert len(prices) == len(quantities)
                    lines = tuple(map(OrderLine, quantities, quantities.values(), map(parse_cents, prices)))
                    order = Order(
                        order_id,
                        lines,
                        parse_cents(total),
                        new.status,
                        Milliseconds(int(created_at)),
                        Milliseconds(int(expires_at)) if expires_at else None,
                        None,  # completed_at
                        reference,
                        customer,
                    )
                    metrics.count_order(
                        "placed" if new.status == "completed" else "pending",
                        sum(quantities.values()),
                        order.total_price,
                    )
                    if outcome_key is not None and new.status == "completed":
                        self._recent.note(outcome_key, order_id)
                    return PlacedOrder(order, replayed=False)
                case ["exists"]:
                    self._counter.report_taken(order_id)
                    order_id = 0
                    continue
            if self._partition is not None and tries is not None:
                try:
                    reply = await self._partition.settle_order(reply, quantities, tries, outcome_key, fingerprint)
                except StorageError:
                    order_ids.give_back(order_id)
                    raise
                if reply is None:
                    continue
            order_ids.give_back(order_id)
            match reply:
                case ["replayed", first_id]:
                    metrics.count_order("replayed")
                    order = await read_for_replay(self.get(int(first_id)))
                    if outcome_key is not None and new.status == "completed":
                        self._recent.note(outcome_key, order.id)
                    return PlacedOrder(order, replayed=True)
                case _:
                    # Not in a variable: an error and the frame that raises it would form a reference cycle.
                    raise _counted(read_order_refusal(new, reply), metrics)

    async def get(self, order_id: int) -> Order:
        """Return a pending or completed order. Raise OrderNotFound, OrderArchived, OrderCancelled and OrderExpired."""
        order = await self.get_in_any_status(order_id)
        if order.status == OrderStatus.PENDING and _is_overdue(
            order.status, order.expires_at, await self._client.now()
        ):
            # The order may have been completed in time, after the first look at it and before the look at the clock.
            order = await self.get_in_any_status(order_id)
            if order.status == OrderStatus.PENDING:  # the sweeper has not reached this order yet
                order = order._replace(status=OrderStatus.EXPIRED.value)
        if order.status == OrderStatus.CANCELLED:
            raise OrderCancelled(order)
        if order.status == OrderStatus.EXPIRED:
            raise OrderExpired(order)
        return order

    async def list(self, query: "OrdersQuery") -> tuple[list[ListedOrder], int | None]:
        """Return one page, highest id first, and the `before` of the next page, or None at the end."""
        self._client.admit()
        wanted = _LISTED if query.status is None else (query.status,)
        before = MAX_ID if query.before is None else query.before
        found: list[ListedOrder] = []
        scanned, step = 0, query.limit + 1
        while len(found) <= query.limit and scanned < SCAN_LIMIT and before > 1:
            order_ids, before = await self._ids_before(before, step, query)
            listed = await self._read_listed(order_ids, wanted)
            # Only the rows that fit are parsed: most orders of a page may be cancelled.
            fitting = [(order_id, row) for order_id, row in listed if _fits(row, query)]
            found += read_listed_orders(*zip(*fitting, strict=True)) if fitting else ()
            if not listed and before > 1:
                # Ranges of ids without an order: not read one by one.
                first = await self._archive.range_below(before) or await self._skipped.range_below(before)
                before = first or before
            scanned, step = scanned + step, min(2 * step, MAX_SCAN_STEP)
        if len(found) > query.limit:
            return found[: query.limit], found[query.limit - 1].id
        return found, before if before > 1 else None

    async def read_listed(self, order_ids: Sequence[int]) -> Sequence[Order]:
        """Return those of these orders that are pending or completed."""
        listed = await self._read_listed(order_ids, _LISTED)
        orders = read_orders([order_id for order_id, _ in listed], [row for _, row in listed])
        return [order for order in orders if order is not None]

    async def _read_listed(self, order_ids: Sequence[int], wanted: Container[str]) -> Sequence[tuple[int, HashValues]]:
        """Return id and row of each order that has a wanted status, and whose hold is not overdue.

        Leave out orders without lines: they are damaged. The API never shows them, and the audit reports them.
        """
        # Both commands are sent together, and the time is read first. Otherwise, an order that is completed between
        # them, shortly before its hold ends, would look overdue.
        await self._client.check_if_due()
        now, rows = await asyncio.gather(self._client.now(), self._read_rows(order_ids))
        return [
            (order_id, row)
            for order_id, row in zip(order_ids, rows, strict=True)
            if row[_STATUS] in wanted
            and row[_LINES] is not None
            and not _is_overdue(row[_STATUS], row[_EXPIRES_AT], now)
        ]

    async def get_in_any_status(self, order_id: int) -> Order:
        """Return an order in any status. Raise OrderNotFound and OrderArchived."""
        [order] = read_orders([order_id], await self._read_rows([order_id]))
        if order is None:
            raise await self.absence(order_id)
        return order

    async def absence(self, order_id: int) -> OrderNotFound | OrderArchived:
        """Return why there is no order with this id in Redis."""
        return OrderArchived(order_id) if await self._archive.has(order_id) else OrderNotFound(str(order_id))

    def read_fields(self, order_ids: Sequence[int], fields: Sequence[str]) -> Awaitable[Sequence[HashValues]]:
        """Return these fields of each order in any status. Raise ErrorReply if one of the keys is not a hash."""
        shop = self._client.shop
        return self._client.read_hashes([keys.order(shop, order_id) for order_id in order_ids], fields)

    def _read_rows(self, order_ids: Sequence[int]) -> Awaitable[Sequence[HashValues]]:
        return self.read_fields(order_ids, ORDER_FIELDS)

    async def _ids_before(self, before: int, count: int, query: "OrdersQuery") -> tuple[Sequence[int], int]:
        """Return about `count` ids below `before`, highest first, and the `before` of the next step.

        That `before` is 1 if there are no more ids.
        """
        shop = self._client.shop
        if query.reference is not None:
            index = keys.reference_orders(shop, query.reference)
        elif query.customer is not None:
            index = keys.customer_orders(shop, query.customer)
        elif query.status == "pending":
            index = keys.pending(shop)
        else:
            # Without an index: nearly every id up to the counter has an order, so reading all ids wastes little.
            last_id = before - 1
            highest = self._counter.ids.highest
            if last_id > highest:
                # The counter in Redis may have been set back a moment ago. The ids of this worker are never set back.
                last_id = min(last_id, max(highest, await self.last_id()))
            ids = self._counter.ids_up_to(last_id, count)
            return ids, ids[-1] if len(ids) == count else 1
        ids = await self._client.send(
            "ZREVRANGEBYSCORE", index, f"({before}", "-inf", "LIMIT", 0, count, safe_to_repeat=True
        )
        return [int(order_id) for order_id in ids], int(ids[-1]) if len(ids) == count else 1


def _counted(refusal: Refusal, metrics: Metrics) -> Refusal:
    """Count a refusal, and return it."""
    if isinstance(refusal, RememberedRefusal) and refusal.replayed:
        metrics.count_order("replayed")
    else:
        metrics.count_refusal(refusal.problem.name)
    return refusal


def _is_overdue(status: str, expires_at: str | int | None, now: Milliseconds) -> bool:
    """Return whether an order is pending, and its hold has ended."""
    return status == OrderStatus.PENDING and expires_at is not None and int(expires_at) <= now


def _fits(row: HashValues, query: "OrdersQuery") -> bool:
    """Return whether an order has the customer and the reference that the query asks for."""
    return query.customer in (None, row[_CUSTOMER]) and query.reference in (None, row[_REFERENCE])


def place_order_args(
    *, order_id: int, events_max: int, options: Sequence[str | int], ids_and_quantities: Iterable[int]
) -> tuple[str | int, ...]:
    """Return ARGV of lua/place_order.lua.

    `options`: name and value of each. At the end, product id and quantity of each order line.
    """
    return (order_id, events_max, len(options), *options, *ids_and_quantities)

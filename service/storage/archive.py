"""Removes orders that are in a file already, and knows which orders were removed: `holdfast archive`."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, TypeVar

from service.domain.order import Order, OrderStatus, parse_units
from service.domain.times import Milliseconds
from service.storage import keys
from service.storage.client import RedisClient
from service.storage.id_ranges import IdRanges
from service.storage.records import ORDER_FIELDS, read_orders
from service.storage.refusals import unknown_reply
from service.storage.replies import read_map
from service.storage.sender import ErrorReply

T = TypeVar("T", int, str)

MAX_KEYS_PER_SCRIPT: Final = 500
"""Orders with more Redis keys are divided among several scripts."""

ENDED: Final = frozenset({OrderStatus.COMPLETED, OrderStatus.CANCELLED, OrderStatus.EXPIRED})
"""The statuses that an order never leaves. Only such orders are archived."""

MOMENT_FIELDS: Final = ("status", "created_at", "completed_at", "expires_at", "returned_at")
"""The fields that say when an order changed for the last time. `ended_at` reads them in this sequence."""


class EndedOrder(NamedTuple):
    """An order that can be archived: all fields of its hash, and what they mean."""

    order: Order
    fields: dict[str, str]

    @property
    def written_off(self) -> dict[int, int]:
        """The units of each product that came back and were not put into stock."""
        text = self.fields.get("written_off")
        return parse_units(text) if text else {}

    def idempotency_keys(self) -> list[tuple[str, str]]:
        """Return the keys of the request that placed the order, and of those that returned units.

        The second text is the name of the API key of each request, or empty.
        """
        placed = (self.fields.get("idempotency_key", ""), self.fields.get("by", ""))
        rows = [row.partition(" ") for row in self.fields.get("return_keys", "").split("\n")]
        return [pair for pair in dict.fromkeys([placed, *[(key, by) for key, _, by in rows]]) if pair[0]]


def ended_at(row: Sequence[str | None]) -> Milliseconds | None:
    """Return when an order with MOMENT_FIELDS changed for the last time. None: it has not ended, or does not exist.

    The moment of a cancellation is not stored: then it is the end of the hold, which is later. Raise ValueError if a
    field is damaged.
    """
    status, *moments = row
    if status not in ENDED:
        if status is None or status == OrderStatus.PENDING:
            return None
        raise ValueError(f"unknown status: {status!r}")
    return Milliseconds(max([int(moment) for moment in moments if moment is not None]))


class Archive(IdRanges):
    """The archived orders of a shop, whose ids are ranges. Each method also raises what RedisClient raises."""

    def __init__(self, client: RedisClient) -> None:
        super().__init__(client, keys.archived(client.shop))
        self.now = client.now

    async def read(self, order_ids: Sequence[int]) -> list[EndedOrder | None]:
        """Return all fields of these orders. None: the order does not exist, or is damaged."""
        client = self._client
        replies = await asyncio.gather(
            *[client.send("HGETALL", keys.order(client.shop, order_id), safe_to_repeat=True) for order_id in order_ids]
        )
        return [_read(order_id, reply) for order_id, reply in zip(order_ids, replies, strict=True)]

    async def remove(self, orders: Sequence[EndedOrder], keep_ms: int) -> list[str]:
        """Remove orders, sorted by id. Return a word of lua/archive_orders.lua for each, or what is wrong with it.

        Those whose last change is less than `keep_ms` ago stay, and those that are not as in `orders` any more.
        """
        try:
            return await self._remove_together(orders, keep_ms)
        except ErrorReply as error:
            if len(orders) == 1:
                return [repr(error)]
        # One of them is damaged: remove each for itself.
        return [word for order in orders for word in await self.remove([order], keep_ms)]

    async def _remove_together(self, orders: Sequence[EndedOrder], keep_ms: int) -> list[str]:
        client = self._client
        shop = client.shop
        names = [keys.events(shop), self._key]
        products = _positions((line.product_id for order in orders for line in order.order.lines), len(names) + 1)
        names += [keys.product(shop, product_id) for product_id in products]
        first_customer = len(names) + 1
        # Each customer has two keys.
        customers = _positions((order.order.customer for order in orders), first_customer, 2)
        for customer in customers:
            names += (keys.customer(shop, customer), keys.customer_orders(shop, customer))
        first_reference = len(names) + 1
        references = _positions((order.order.reference for order in orders), first_reference)
        names += [keys.reference_orders(shop, reference) for reference in references]
        first_order = len(names) + 1
        names += [keys.order(shop, order.order.id) for order in orders]
        for order in orders:
            names += [keys.idempotency(shop, key, order.order.customer, by) for key, by in order.idempotency_keys()]
        if len(names) > MAX_KEYS_PER_SCRIPT and len(orders) > 1:
            middle = len(orders) // 2
            return [word for part in (orders[:middle], orders[middle:]) for word in await self.remove(part, keep_ms)]
        args: list[str | int] = []
        for order in orders:
            lines = _sold_lines(order)
            args += (
                order.order.id,
                customers.get(order.order.customer or "", 0),
                references.get(order.order.reference or "", 0),
                len(order.idempotency_keys()),
                len(order.fields),
                len(lines),
            )
            for pair in order.fields.items():
                args += pair
            for product_id, sold, lost in lines:
                args += (products[product_id], product_id, sold, lost)
        reply = await client.run(
            "archive_orders",
            names,
            archive_orders_args(
                events_max=client.events_max,
                keep_ms=keep_ms,
                now_ms=client.clock_argument(),
                first_customer=first_customer,
                first_reference=first_reference,
                first_order=first_order,
                id_step=client.id_step,
                orders=args,
            ),
        )
        match reply:
            case ["removed", *words]:
                return words
            case _:
                raise unknown_reply("archive_orders", reply)


def _read(order_id: int, reply: Sequence[str]) -> EndedOrder | None:
    """Return the order of a hash. None: there is no such order, or it is damaged."""
    fields = read_map(reply)
    try:
        [order] = read_orders([order_id], [[fields.get(name) for name in ORDER_FIELDS]])
        if order is None or fields["id"] != str(order_id):
            return None
        ended = EndedOrder(order, fields)
        _sold_lines(ended)
    except (KeyError, TypeError, ValueError):
        return None
    return ended


def _sold_lines(ended: EndedOrder) -> list[tuple[int, int, int]]:
    """Return product id, sold units and units that were written off of each line. Raise ValueError if it is damaged."""
    if ended.order.status != OrderStatus.COMPLETED:
        return []
    lost = ended.written_off
    lines = [
        (line.product_id, line.quantity - (line.returned or 0), lost.pop(line.product_id, 0))
        for line in ended.order.lines
    ]
    if lost or any(sold < 0 for _, sold, _ in lines):
        raise ValueError("more came back than was bought")
    return lines


def _positions(values: Iterable[T | None], first: int, keys_of_each: int = 1) -> dict[T, int]:
    """Return the position in KEYS of each value, beginning with `first`. None has no position."""
    unique = dict.fromkeys(value for value in values if value is not None)
    return {value: first + number * keys_of_each for number, value in enumerate(unique)}


def archive_orders_args(
    *,
    events_max: int,
    keep_ms: int,
    now_ms: int | str,
    first_customer: int,
    first_reference: int,
    first_order: int,
    id_step: int,
    orders: Sequence[int | str],
) -> tuple[str | int, ...]:
    """Return ARGV of lua/archive_orders.lua."""
    return (events_max, keep_ms, now_ms, first_customer, first_reference, first_order, id_step, *orders)

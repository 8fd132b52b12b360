"""Finds overdue holds and releases what they hold."""

import asyncio
import math
import random
from collections.abc import Sequence
from typing import Final, NamedTuple

from service.domain.errors.refusals import OrderNotFound
from service.domain.order import parse_lines
from service.logger import Logger
from service.metrics.families import SWEEPER_LAG, SWEEPS
from service.storage import keys
from service.storage.backlog import HoldsBacklog
from service.storage.client import RedisClient
from service.storage.refusals import unknown_reply
from service.storage.sender import ErrorReply

log = Logger()

ORDERS_PER_SCRIPT: Final = 100
"""Orders that one script expires: it takes Redis about half a millisecond."""

MAX_KEYS_PER_SCRIPT: Final = 500
"""Orders with more products are divided among several scripts."""

MAX_SPREAD: Final = 8
"""Batches from the oldest overdue hold on, among which workers choose that have disturbed each other."""

RETRY_SECONDS: Final = 60
"""After this time, holds that could not be released are tried again. Meanwhile younger ones are released."""


class DueHolds(NamedTuple):
    """Overdue holds, the oldest first."""

    now: int
    overdue: int
    """The number of all overdue holds."""
    skipped: int
    """The number of overdue holds before the first of these."""
    next_deadline: int | None
    """The first deadline that has not passed, in ms since 1970."""
    holds: list[tuple[str, int]]
    """Order ids and deadlines in ms since 1970."""


class ExpiredHolds:
    """The holds of a shop whose deadline has passed. Each method also raises what RedisClient raises."""

    def __init__(self, client: RedisClient, backlog: HoldsBacklog) -> None:
        self._client = client
        self._backlog = backlog
        self._skip = 0
        """The number of the oldest holds, which could not be released."""
        self._skip_since = 0
        self._overtaken: list[str] = []
        """The orders of the last batch that another worker had expired a moment before."""

    async def expire_due(self, limit: int) -> float:
        """Release what overdue orders hold, the oldest first, `limit` orders at most.

        Return 0 if more are overdue. Otherwise return the seconds until the next deadline, or infinity if there is
        none. A hold that cannot be released is logged, and left out for RETRY_SECONDS.
        """
        metrics = self._client.metrics
        metrics.count(SWEEPS)
        due = await self._find_due(limit)
        order_ids = [order_id for order_id, _ in due.holds]
        batches = [order_ids[at : at + ORDERS_PER_SCRIPT] for at in range(0, len(order_ids), ORDERS_PER_SCRIPT)]
        results: list[str] = []
        for words in await asyncio.gather(*map(self._expire_batch, batches), return_exceptions=True):
            if isinstance(words, BaseException):
                raise words
            results += words
        released, overtaken, failures = [], [], []
        for (order_id, deadline), result in zip(due.holds, results, strict=True):
            if result == "released":
                released.append(deadline)
            elif result == "expired" and order_id not in self._overtaken:
                overtaken.append(order_id)
            else:
                failures.append((order_id, result))
        self._overtaken = overtaken
        is_end = due.skipped + len(due.holds) >= due.overdue
        if failures:
            first_order, reason = failures[0]
            log.error("holds_not_released", count=len(failures), first_order=first_order, reason=reason)
            if self._skip == 0:
                self._skip_since = due.now
            if due.skipped == self._skip:
                self._skip += len(failures)
        lag = 0 if is_end else (due.now - min(released, default=due.now)) / 1000
        metrics.set_part(SWEEPER_LAG, self._client.shop, lag, combine=max)
        if is_end:
            self._backlog.report(late_ms=0, released=len(released))
        elif released:
            self._backlog.report(late_ms=due.now - min(released), released=len(released))
        if due.now - self._skip_since >= RETRY_SECONDS * 1000 or self._skip > due.overdue:
            self._skip = 0
        if due.skipped > self._skip or not is_end:
            return 0.0
        return math.inf if due.next_deadline is None else (due.next_deadline - due.now) / 1000

    async def _find_due(self, limit: int) -> DueHolds:
        client = self._client
        # Several workers would release the same holds, the oldest, each time. A worker to which that has just happened
        # leaves out a few batches, if there are so many.
        spread = random.randrange(1, MAX_SPREAD) if len(self._overtaken) > limit / 2 else 0  # noqa: S311
        reply = await client.run(
            "find_due_holds",
            (keys.holds(client.shop),),
            find_due_holds_args(now_ms=client.clock_argument(), skip=self._skip, spread=spread, limit=limit),
            safe_to_repeat=True,
        )
        match reply:
            case ["due", now, overdue, skipped, next_deadline, *rows]:
                pairs = zip(rows[::2], rows[1::2], strict=True)
                return DueHolds(
                    now=int(now),
                    overdue=overdue,
                    skipped=skipped,
                    next_deadline=int(float(next_deadline)) if next_deadline else None,
                    holds=[(order_id, int(float(deadline))) for order_id, deadline in pairs],
                )
            case _:
                raise unknown_reply("find_due_holds", reply)

    async def _expire_batch(self, order_ids: Sequence[str]) -> list[str]:
        """Release orders together. Return a word of lua/expire_orders.lua for each, or what is wrong with it."""
        try:
            return await self._expire_together(order_ids)
        except (ErrorReply, ValueError, OrderNotFound) as error:
            if len(order_ids) == 1:
                return [repr(error)]
        # One of them is damaged: release each for itself.
        return [word for order_id in order_ids for word in await self._expire_batch([order_id])]

    async def _expire_together(self, order_ids: Sequence[str]) -> list[str]:
        """Release orders with one script. Return its words. Raise an error if one of the orders is damaged.

        Only the fields that are needed are read, so that an order with other damaged fields can still be released.
        """
        client = self._client
        shop = client.shop
        ids = [_parse_id(order_id) for order_id in order_ids]
        order_keys = [keys.order(shop, order_id) for order_id in ids]
        rows = await client.read_hashes(order_keys, ("products", "customer"))
        fixed_keys = (keys.events(shop), keys.holds(shop), keys.pending(shop))
        parsed = []
        products: dict[int, int] = {}
        for order_id, [text, customer] in zip(ids, rows, strict=True):
            if text is None:
                raise OrderNotFound(str(order_id))
            parsed.append((order_id, parse_lines(text), customer))
            for line in parsed[-1][1]:
                products.setdefault(line.product_id, len(fixed_keys) + len(products) + 1)
        first_customer = len(fixed_keys) + len(products) + 1
        customers: dict[str, int] = {}
        orders: list[int] = []
        for order_id, lines, customer in parsed:
            position = 0 if customer is None else customers.setdefault(customer, first_customer + len(customers))
            orders += (order_id, position, len(lines))
            for line in lines:
                orders += (products[line.product_id], line.quantity)
        if len(products) + len(customers) + len(ids) > MAX_KEYS_PER_SCRIPT and len(ids) > 1:
            middle = len(ids) // 2
            return [
                word for part in (order_ids[:middle], order_ids[middle:]) for word in await self._expire_batch(part)
            ]
        reply = await client.run(
            "expire_orders",
            (
                *fixed_keys,
                *[keys.product(shop, product_id) for product_id in products],
                *[keys.customer(shop, customer) for customer in customers],
                *order_keys,
            ),
            expire_orders_args(
                events_max=client.events_max,
                now_ms=client.clock_argument(),
                first_customer=first_customer,
                first_order=first_customer + len(customers),
                orders=orders,
            ),
        )
        match reply:
            case ["ended", *words]:
                for word, (_, lines, _) in zip(words, parsed, strict=True):
                    if word == "released":
                        client.metrics.count_order("expired", sum([line.quantity for line in lines]))
                return words
            case _:
                raise unknown_reply("expire_orders", reply)


def _parse_id(text: str) -> int:
    """Return the order id in an entry of the index. Raise ValueError for any other text."""
    order_id = int(text)
    if str(order_id) != text:
        raise ValueError(f"not the id of an order: {text!r}")
    return order_id


def find_due_holds_args(*, now_ms: int | str, skip: int, spread: int, limit: int) -> tuple[str | int, ...]:
    """Return ARGV of lua/find_due_holds.lua."""
    return (now_ms, skip, spread, limit)


def expire_orders_args(
    *, events_max: int, now_ms: int | str, first_customer: int, first_order: int, orders: Sequence[int]
) -> tuple[str | int, ...]:
    """Return ARGV of lua/expire_orders.lua."""
    return (events_max, now_ms, first_customer, first_order, *orders)

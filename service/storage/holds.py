"""The holds of pending orders, and the three ways in which a hold ends: complete, cancel, expire."""

import asyncio
import math
import random
from collections.abc import Sequence

import structlog

from service.domain.errors.refusals import OrderCancelled, OrderCompleted, OrderExpired, OrderNotFound
from service.domain.order import Order, OrderLine, OrderStatus, parse_lines
from service.storage import keys
from service.storage.client import RedisClient
from service.storage.orders import Orders
from service.storage.refusals import unknown_reply

log = structlog.get_logger()


class Holds:
    """The holds of a shop's pending orders. Each method also raises what RedisClient raises."""

    def __init__(self, client: RedisClient, orders: Orders) -> None:
        self._client = client
        self._orders = orders

    async def complete(self, order_id: int) -> Order:
        """Sell what a pending order holds. A completed order is returned unchanged.

        Raise OrderNotFound, OrderCancelled and OrderExpired.
        """
        client = self._client
        order = await self._orders.get_in_any_status(order_id)
        reply = await client.run(
            "complete_order",
            _transition_keys(client.shop, order_id, order.lines),
            complete_order_args(
                order_id=order_id,
                events_max=client.events_max,
                now_ms=client.clock_argument(),
                quantities=[line.quantity for line in order.lines],
            ),
        )
        match reply:
            case ["completed"]:
                return order._replace(status=OrderStatus.COMPLETED.value, expires_at=None)
            case ["cancelled"]:
                raise OrderCancelled(order_id)
            case ["expired"]:
                raise OrderExpired(order_id)
            case _:
                raise unknown_reply("complete_order", reply)

    async def cancel(self, order_id: int) -> None:
        """Release what a pending order holds. For a cancelled order, do nothing.

        Raise OrderNotFound, OrderCompleted and OrderExpired.
        """
        order = await self._orders.get_in_any_status(order_id)
        reply = await self._release(order_id, order.lines, "cancel")
        match reply:
            case ["released", "cancelled"] | ["cancelled"]:
                return
            case ["completed"]:
                raise OrderCompleted(order_id)
            case ["released", "expired"] | ["expired"]:
                raise OrderExpired(order_id)
            case _:
                raise unknown_reply("release_order", reply)

    async def expire_due(self, limit: int) -> float:
        """Release what overdue orders hold, `limit` orders at most.

        Return 0 if an order was released, because more may be due. Otherwise return the seconds until the next deadline
        in the future, or infinity if there is none.
        """
        client = self._client
        index = keys.holds(client.shop)
        now = await client.now()
        due = await client.send("ZCOUNT", index, "-inf", now, safe_to_repeat=True)
        # At a random place, so that several workers do not release the same orders of a backlog.
        offset = random.randint(0, max(0, due - limit))  # noqa: S311
        due_ids = await client.send("ZRANGEBYSCORE", index, "-inf", now, "LIMIT", offset, limit, safe_to_repeat=True)
        results = await asyncio.gather(*(self._expire(int(due_id)) for due_id in due_ids), return_exceptions=True)
        # If one order cannot be released, the others must still be released, and the sweeper must pause before it
        # tries that order again.
        failures = [
            (int(due_id), repr(result))
            for due_id, result in zip(due_ids, results, strict=True)
            if result not in ("released", "expired")  # expired: by another worker, a moment before
        ]
        if failures:
            first_order, reason = failures[0]
            log.error("holds_not_released", count=len(failures), first_order=first_order, reason=reason)
        if "released" in results:
            return 0.0
        following = await client.send(
            "ZRANGEBYSCORE", index, f"({now}", "+inf", "WITHSCORES", "LIMIT", 0, 1, safe_to_repeat=True
        )
        if not following:
            return math.inf
        _, deadline = following
        return (float(deadline) - now) / 1000

    async def _expire(self, order_id: int) -> str:
        """Release an order and return the first word of the reply.

        Only the field `products` is read, so that an order with other damaged fields can still be released.
        """
        [[products]] = await self._client.read_hashes([keys.order(self._client.shop, order_id)], ("products",))
        if products is None:
            raise OrderNotFound(str(order_id))
        reply = await self._release(order_id, parse_lines(products), "expire")
        return reply[0]

    async def _release(self, order_id: int, lines: Sequence[OrderLine], action: str) -> list[str]:
        client = self._client
        reply: list[str] = await client.run(
            "release_order",
            _transition_keys(client.shop, order_id, lines),
            release_order_args(
                order_id=order_id,
                action=action,
                events_max=client.events_max,
                now_ms=client.clock_argument(),
                quantities=[line.quantity for line in lines],
            ),
        )
        return reply


def _transition_keys(shop: str, order_id: int, lines: Sequence[OrderLine]) -> tuple[str, ...]:
    """Return KEYS of the scripts that end a hold. The lines of an order never change."""
    return (
        keys.order(shop, order_id),
        keys.events(shop),
        keys.holds(shop),
        keys.pending(shop),
        *[keys.product(shop, line.product_id) for line in lines],
    )


def complete_order_args(
    *, order_id: int, events_max: int, now_ms: int | str, quantities: Sequence[int]
) -> tuple[str | int, ...]:
    """Return ARGV of lua/complete_order.lua."""
    return (order_id, events_max, now_ms, *quantities)


def release_order_args(
    *, order_id: int, action: str, events_max: int, now_ms: int | str, quantities: Sequence[int]
) -> tuple[str | int, ...]:
    """Return ARGV of lua/release_order.lua."""
    return (order_id, action, events_max, now_ms, *quantities)

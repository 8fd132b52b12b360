"""The holds of pending orders: complete, cancel, extend. storage/expired_holds.py releases those that are overdue."""

from collections.abc import Iterable
from itertools import chain
from typing import TYPE_CHECKING

from service.domain.errors.refusals import OrderCancelled, OrderCompleted, OrderExpired
from service.domain.limits import MAX_HOLD_SECONDS
from service.domain.order import Order, OrderStatus
from service.domain.times import Milliseconds
from service.storage import keys
from service.storage.client import RedisClient
from service.storage.orders import Orders
from service.storage.refusals import unknown_reply

if TYPE_CHECKING:
    from service.domain.requests import HoldExtension


class Holds:
    """The holds of a shop's pending orders. Each method also raises what RedisClient raises.

    `by`: the name of the API key of the request, for the event.
    """

    def __init__(self, client: RedisClient, orders: Orders) -> None:
        self._client = client
        self._orders = orders

    async def complete(self, order_id: int, by: str = "") -> Order:
        """Sell what a pending order holds. A completed order is returned unchanged.

        Raise OrderNotFound, OrderArchived, OrderCancelled and OrderExpired.
        """
        order, reply = await self._end("complete_order", order_id, by)
        match reply:
            case ["completed" | "completed_before" as word, completed_at]:
                if word == "completed":
                    self._client.metrics.count_order("completed", order.units(), order.total_price)
                return order._replace(
                    status=OrderStatus.COMPLETED.value,
                    expires_at=None,
                    completed_at=Milliseconds(int(completed_at)) if completed_at else None,
                )
            case ["absent"]:  # archived after it was read
                raise await self._orders.absence(order_id)
            case ["expired"]:
                raise await self._expire(order)
            case [word]:
                raise _ended(order, word, "complete_order")
            case _:
                raise unknown_reply("complete_order", reply)

    async def cancel(self, order_id: int, by: str = "") -> None:
        """Release what a pending order holds. For a cancelled order, do nothing.

        Raise OrderNotFound, OrderArchived, OrderCompleted and OrderExpired.
        """
        order, reply = await self._end("cancel_order", order_id, by)
        match reply:
            case ["cancelled"]:
                return
            case ["released", word]:
                self._client.metrics.count_order(word, order.units())
                if word != "cancelled":
                    raise _ended(order, word, "cancel_order")
            case ["completed"]:
                raise OrderCompleted(order_id)
            case ["absent"]:  # archived after it was read
                raise await self._orders.absence(order_id)
            case [word]:
                raise _ended(order, word, "cancel_order")
            case _:
                raise unknown_reply("cancel_order", reply)

    async def extend(self, order_id: int, extension: "HoldExtension", by: str = "") -> Order:
        """Let the hold of a pending order end `hold_seconds` from now, and a day after its creation at the latest.

        Raise OrderNotFound, OrderArchived, OrderCompleted, OrderCancelled and OrderExpired.
        """
        client = self._client
        order = await self._orders.get_in_any_status(order_id)
        reply = await client.run(
            "extend_hold",
            (keys.order(client.shop, order_id), keys.events(client.shop), keys.holds(client.shop)),
            extend_hold_args(
                order_id=order_id,
                hold_ms=extension.hold_seconds * 1000,
                max_hold_ms=MAX_HOLD_SECONDS * 1000,
                events_max=client.events_max,
                by=by,
                now_ms=client.clock_argument(),
            ),
        )
        match reply:
            case ["extended", expires_at]:
                return order._replace(expires_at=Milliseconds(int(expires_at)))
            case ["completed"]:
                raise OrderCompleted(order_id)
            case ["absent"]:  # archived after it was read
                raise await self._orders.absence(order_id)
            case ["expired"]:
                raise await self._expire(order)
            case [word]:
                raise _ended(order, word, "extend_hold")
            case _:
                raise unknown_reply("extend_hold", reply)

    async def _expire(self, order: Order) -> Exception:
        """Release what an overdue order holds, if the sweeper has not done it yet, and return the refusal.

        Otherwise the order would be pending again if the clock of Redis were set back.
        """
        if order.status == OrderStatus.PENDING:
            _, reply = await self._end("cancel_order", order.id, "")
            if reply[0] == "released":
                self._client.metrics.count_order(reply[1], order.units())
        return OrderExpired(order._replace(status=OrderStatus.EXPIRED.value))

    async def _end(self, script: str, order_id: int, by: str) -> tuple[Order, list[str]]:
        """Return an order, and the reply of a script that ends its hold. Raise OrderNotFound and OrderArchived."""
        client = self._client
        order = await self._orders.get_in_any_status(order_id)
        shop = client.shop
        gives_back = script == "cancel_order" and order.customer is not None
        reply = await client.run(
            script,
            (
                keys.order(shop, order_id),
                keys.events(shop),
                keys.holds(shop),
                keys.pending(shop),
                *[keys.product(shop, line.product_id) for line in order.lines],
                *((keys.customer(shop, order.customer or ""),) if gives_back else ()),
            ),
            end_hold_args(
                order_id=order_id,
                events_max=client.events_max,
                by=by,
                now_ms=client.clock_argument(),
                ids_and_quantities=chain.from_iterable((line.product_id, line.quantity) for line in order.lines),
            ),
        )
        return order, reply


def _ended(order: Order, word: str, script: str) -> Exception:
    """Return the refusal for an order whose hold has ended: `cancelled` or `expired`."""
    match word:
        case "cancelled":
            return OrderCancelled(order._replace(status=word))
        case "expired":
            return OrderExpired(order._replace(status=word))
        case _:
            return unknown_reply(script, [word])


def end_hold_args(
    *, order_id: int, events_max: int, by: str, now_ms: int | str, ids_and_quantities: Iterable[int]
) -> tuple[str | int, ...]:
    """Return ARGV of lua/complete_order.lua and lua/cancel_order.lua."""
    return (order_id, events_max, by, now_ms, *ids_and_quantities)


def extend_hold_args(
    *, order_id: int, hold_ms: int, max_hold_ms: int, events_max: int, by: str, now_ms: int | str
) -> tuple[str | int, ...]:
    """Return ARGV of lua/extend_hold.lua."""
    return (order_id, hold_ms, max_hold_ms, events_max, by, now_ms)

"""Returns: units of completed orders that come back."""

from collections.abc import Iterable
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from service.domain.errors.refusals import OrderCancelled, OrderExpired
from service.domain.limits import MAX_STOCK
from service.domain.money import Cents, format_cents, parse_cents
from service.domain.order import Order, OrderStatus, parse_units, with_returned
from service.storage import keys
from service.storage.client import RedisClient
from service.storage.idempotency import REFUSAL_MS, SHORT_REFUSAL_MS, read_for_replay, return_fingerprint
from service.storage.orders import Orders
from service.storage.refusals import read_return_refusal

if TYPE_CHECKING:
    from service.domain.requests import NewReturn


class ReturnedOrder(NamedTuple):
    """An order after a return. `replayed`: an earlier request with the same Idempotency-Key made the return."""

    order: Order
    replayed: bool


class Returns:
    """The returns of a shop. Each method also raises what RedisClient raises."""

    def __init__(self, client: RedisClient, orders: Orders) -> None:
        self._client = client
        self._orders = orders

    async def make(
        self, order_id: int, new: "NewReturn", idempotency_key: str | None = None, by: str = ""
    ) -> ReturnedOrder:
        """Take back units of a completed order: all that the request names, or none.

        `by`: the name of the API key of the request. Each has Idempotency-Keys of its own.

        Raise OrderNotFound, OrderArchived, OrderCancelled, OrderExpired, a ReturnRefusal of RETURN_REFUSALS, or
        IdempotencyKeyReused.

        If an earlier request with this Idempotency-Key made the return, change nothing and return the order. If it was
        refused, raise the same refusal.
        """
        client = self._client
        shop = client.shop
        order = await self._orders.get_in_any_status(order_id)
        bought = {line.product_id: line for line in order.lines}
        quantities = sorted(new.quantities().items())
        lines = [
            (product_id, quantity, bought[product_id].quantity, format_cents(bought[product_id].price))
            if product_id in bought
            else (product_id, quantity, 0, "0.00")
            for product_id, quantity in quantities
        ]
        names = [keys.order(shop, order_id), keys.events(shop)]
        names += [keys.product(shop, product_id) for product_id, _ in quantities]
        if order.customer is not None:
            names.append(keys.customer(shop, order.customer))
        if idempotency_key:
            names += (keys.refusals(shop), keys.idempotency(shop, idempotency_key, order.customer, by))
        reply = await client.run(
            "return_order",
            names,
            return_order_args(
                order_id=order_id,
                restock=int(new.restock),
                reason=new.reason or "",
                max_stock=MAX_STOCK,
                idempotency_key=idempotency_key or "",
                fingerprint=return_fingerprint(order_id, new) if idempotency_key else "",
                refusal_ms=REFUSAL_MS,
                short_refusal_ms=SHORT_REFUSAL_MS,
                refusals_max=client.refusals_max,
                events_max=client.events_max,
                by=by,
                now_ms=client.clock_argument(),
                lines=chain.from_iterable(lines),
            ),
        )
        match reply:
            case ["returned", returned, refunded]:
                if order.status != OrderStatus.COMPLETED:  # it was completed after it was read
                    order = await read_for_replay(self._orders.get(order_id))
                client.metrics.count_order("returned", *_units_and_refund(order, quantities))
                lines_now = with_returned(order.lines, parse_units(returned))
                return ReturnedOrder(order._replace(lines=lines_now, refunded=parse_cents(refunded)), replayed=False)
            case ["replayed", _]:
                return ReturnedOrder(await read_for_replay(self._orders.get(order_id)), replayed=True)
            case ["cancelled"]:
                raise OrderCancelled(order._replace(status="cancelled"))
            case ["expired"]:
                raise OrderExpired(order._replace(status="expired"))
            case ["absent"]:
                raise await self._orders.absence(order_id)
            case _:
                raise read_return_refusal(order_id, new, reply)


def _units_and_refund(order: Order, quantities: Iterable[tuple[int, int]]) -> tuple[int, Cents]:
    """Return the units of a return, and their price in cents."""
    prices = {line.product_id: line.price for line in order.lines}
    units = sum(quantity for _, quantity in quantities)
    return units, Cents(sum(prices[product_id] * quantity for product_id, quantity in quantities))


def return_order_args(
    *,
    order_id: int,
    restock: int,
    reason: str,
    max_stock: int,
    idempotency_key: str,
    fingerprint: str,
    refusal_ms: int,
    short_refusal_ms: int,
    refusals_max: int,
    events_max: int,
    by: str,
    now_ms: int | str,
    lines: Iterable[int | str],
) -> tuple[str | int, ...]:
    """Return ARGV of lua/return_order.lua. At the end, four texts or numbers of each line."""
    return (
        order_id,
        restock,
        reason,
        max_stock,
        idempotency_key,
        fingerprint,
        refusal_ms,
        short_refusal_ms,
        refusals_max,
        events_max,
        by,
        now_ms,
        *lines,
    )

"""A shop for the tests of the audit: the keys of its products and orders, and how the audit reads it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from service.domain.requests import NewOrder, NewProduct, NewReturn, StockChange
from service.ops.audit import audit
from service.ops.audit_report import Report
from service.storage.sender import CommandSender
from service.storage.store import Store
from tests.support.clock import Clock
from tests.support.shop import SHOP, make_store, new_mug, new_order

RedisCommand = tuple[str | int, ...]

NOON = 1_700_000_000_000
"""When the tests begin, in ms since 1970."""

INDEX, HOLDS, PENDING = f"{{{SHOP}}}:products", f"{{{SHOP}}}:holds", f"{{{SHOP}}}:pending"
EVENTS, COUNTER = f"{{{SHOP}}}:events", f"{{{SHOP}}}:ids:orders"


def product_key(product_id: int) -> str:
    return f"{{{SHOP}}}:product:{product_id}"


def order_key(order_id: int) -> str:
    return f"{{{SHOP}}}:order:{order_id}"


MUG, POT, CUP, SPOON = (product_key(product_id) for product_id in (1, 2, 3, 4))
"""The products that `fill` adds. The cup is withdrawn."""

COMPLETED, PENDING_ORDER, CANCELLED, EXPIRED, OF_WITHDRAWN = (order_key(order_id) for order_id in (1, 2, 3, 4, 5))
"""The orders that `fill` places. The last order is completed, and its product is withdrawn."""


class AuditedShop(NamedTuple):
    """A shop, its Redis, and the clock of its Store."""

    redis: CommandSender
    clock: Clock
    store: Store

    async def audit(self, progress: Callable[[int], object] = lambda count: None) -> Report:
        return await audit(self.store, SHOP, progress)

    async def place(self, *lines: tuple[int, int], hold: int | None = None, **names: str) -> int:
        """Place `order(*lines, hold=hold, **names)`. Return the order's id."""
        return (await self.store.orders.place(order(*lines, hold=hold, **names))).order.id


def order(*lines: tuple[int, int], hold: int | None = None, **names: str) -> NewOrder:
    """Return a completed order of `(product id, quantity)` lines, or a pending order with a hold of `hold` seconds.

    `names`: its customer and its reference.
    """
    if hold is None:
        return new_order(*lines, **names)
    return new_order(*lines, status="pending", hold_seconds=hold, **names)


def product(product_id: int | None = None, price: int = 1999, stock: int = 10) -> NewProduct:
    """Return a product as the Store takes it. The price is in cents."""
    return new_mug(id=product_id, price=price / 100, stock=stock)


def stock_change(change: int) -> StockChange:
    return StockChange(change=change, reason="counted")


def new_return(*lines: tuple[int, int], restock: bool = True) -> NewReturn:
    """Return a return of `(product id, quantity)` lines."""
    products = [{"product_id": product_id, "quantity": quantity} for product_id, quantity in lines]
    return NewReturn.model_validate({"products": products, "restock": restock})


def open_shop(redis: CommandSender, **options: Any) -> AuditedShop:
    """Return an empty shop. Its clock stands at NOON."""
    clock = Clock(NOON)
    return AuditedShop(redis, clock, make_store(redis, clock=clock, **options))


async def fill(shop: AuditedShop) -> AuditedShop:
    """Add four products, withdraw one of them, and place an order in each status. Return the shop."""
    for new in (product(1), product(2, price=500), product(3, price=7, stock=3), product(4, price=0, stock=0)):
        await shop.store.products.add(new)
    assert await shop.place((1, 2), (2, 1)) == 1
    assert await shop.place((1, 3), (3, 1), hold=900) == 2
    assert await shop.place((2, 2), hold=900) == 3
    await shop.store.holds.cancel(3)
    assert await shop.place((2, 1), hold=1) == 4
    shop.clock.forward(1)
    await shop.store.expired_holds.expire_due(10)
    assert await shop.place((3, 1)) == 5
    await shop.store.products.withdraw(3)
    await shop.store.stock.change(1, stock_change(5))
    return shop


def assert_no_findings(report: Report) -> None:
    """Assert that the audit has no findings."""
    assert report.findings == []
    assert report.balanced


class SmallPages:
    """A CommandSender whose scans return small pages, and which calls `before` with the number of each command.

    An audit through it sends many commands, so a test can change the shop between any two of them.
    """

    def __init__(
        self, redis: CommandSender, before: Callable[[int], Awaitable[object]] | None = None, page: int = 20
    ) -> None:
        self.redis = redis
        self.before = before
        self.page = page
        self.sent = 0

    def send(self, *command: bytes | str | int, safe_to_repeat: bool = False) -> Awaitable[Any]:
        return asyncio.ensure_future(self._send(*command))

    async def _send(self, *command: bytes | str | int) -> Any:
        self.sent += 1
        if self.before is not None:
            await self.before(self.sent)
        if command[0] in ("SCAN", "ZSCAN", "XRANGE"):
            command = tuple(self.page if part == 1000 else part for part in command)
        return await self.redis.send(*command)

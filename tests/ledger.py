"""An account of the whole shop, read from Redis field by field: no verb of the Store has a hand in it."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from service import keys
from service.replies import parse_lines
from service.store import Link, Store
from tests.conftest import SHOP

PATIENCE = 10.0
"""Seconds. Only a test that fails waits this long."""


class Clock:
    """A Store's clock that only a test moves. In ms since 1970."""

    def __init__(self) -> None:
        self.now = 1_800_000_000_000

    def __call__(self) -> int:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += round(seconds * 1000)


class Account(NamedTuple):
    """The units of one product."""

    stock: int
    held: int
    sold: int
    received: int


class Ledger(NamedTuple):
    """Each product's account, and each order's status."""

    products: dict[int, Account]
    orders: dict[int, str]

    def statuses(self) -> Counter[str]:
        return Counter(self.orders.values())


async def balanced_ledger(link: Link) -> Ledger:
    """The ledger, once it is certain that nothing was lost, made up or counted twice."""
    rows = await _hashes(link, keys.product(SHOP, 0)[:-1], Account._fields)
    products = {product_id: Account(*map(int, row)) for product_id, row in rows.items()}
    orders = await _hashes(link, keys.order(SHOP, 0)[:-1], ("status", "products", "expires_at"))
    units: dict[str, Counter[int]] = {status: Counter() for status in ("pending", "completed", "cancelled", "expired")}
    for status, lines, expires_at in orders.values():
        assert not (status == "completed" and expires_at), "a completed order has no deadline"
        for line in parse_lines(lines):
            units[status][line.product_id] += line.quantity
    for product_id, account in products.items():
        assert account.received == account.stock + account.held + account.sold, (product_id, account)
        assert account.held == units["pending"][product_id], (product_id, account)
        assert account.sold == units["completed"][product_id], (product_id, account)
        assert min(account) >= 0, (product_id, account)
    deadlines = {order_id: int(row[2]) for order_id, row in orders.items() if row[0] == "pending"}
    assert await _scores(link, keys.holds(SHOP)) == deadlines
    assert await _scores(link, keys.pending(SHOP)) == {order_id: order_id for order_id in deadlines}
    return Ledger(products, {order_id: row[0] for order_id, row in orders.items()})


async def release_all_due(store: Store, batch: int = 100) -> float:
    """Sweeps until nothing is due, and gives the seconds until something is."""
    for _ in range(1000):
        if (due_in := await store.expire_orders(batch)) > 0:
            return due_in
    raise AssertionError("a thousand rounds, and there is still something due")


async def eventually(happened: Callable[[], Awaitable[object]], what: str) -> None:
    """Asks until it has happened."""
    give_up = time.monotonic() + PATIENCE
    while not await happened():
        assert time.monotonic() < give_up, f"waited {PATIENCE} s in vain for {what}"
        await asyncio.sleep(0.01)


async def _hashes(link: Link, prefix: str, fields: tuple[str, ...]) -> dict[int, list[str]]:
    """Fields of all hashes whose name begins with `prefix`, by the id it ends in. What is absent is empty."""
    names = [name.decode() for name in await link.send("KEYS", f"{prefix}*")]
    rows: list[list[Any]] = await asyncio.gather(*(link.send("HMGET", name, *fields) for name in names))
    return {
        int(name.removeprefix(prefix)): [(value or b"").decode() for value in row]
        for name, row in zip(names, rows, strict=True)
    }


async def _scores(link: Link, name: str) -> dict[int, int]:
    reply = await link.send("ZRANGE", name, 0, -1, "WITHSCORES")
    return {int(member): int(float(score)) for member, score in zip(reply[::2], reply[1::2], strict=True)}

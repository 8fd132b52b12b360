"""Pending orders of a shop whose holds end, damaged data among them, and a sender that counts or fails."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from service.storage import keys
from service.storage.sender import CommandSender
from service.storage.store import Store
from tests.support.shop import SHOP, new_order


class ObservedSender:
    """A CommandSender that counts the commands. A command for which `error_for` returns an error fails."""

    def __init__(
        self, sender: CommandSender, error_for: Callable[[str], Exception | None] = lambda command: None
    ) -> None:
        self.sender = sender
        self.error_for = error_for
        self.sent: Counter[str] = Counter()

    def send(self, *command: bytes | str | int, safe_to_repeat: bool = False) -> Awaitable[Any]:
        name = str(command[0])
        self.sent[name] += 1
        if error := self.error_for(name):
            failed = asyncio.get_running_loop().create_future()
            failed.set_exception(error)
            return failed
        return self.sender.send(*command, safe_to_repeat=safe_to_repeat)


async def place_pending(store: Store, product_id: int, quantity: int = 1, seconds: int = 900) -> int:
    """Place a pending order and return its id."""
    new = new_order((product_id, quantity), status="pending", hold_seconds=seconds)
    return (await store.orders.place(new)).order.id


async def place_many_pending(store: Store, product_id: int, count: int) -> list[int]:
    return await asyncio.gather(*(place_pending(store, product_id) for _ in range(count)))


async def status_of(redis: CommandSender, order_id: int) -> str:
    [status] = await redis.send("HMGET", keys.order(SHOP, order_id), "status")
    return str(status)


async def count_holds(redis: CommandSender) -> int:
    return int(await redis.send("ZCARD", keys.holds(SHOP)))


DAMAGES = {
    "unreadable lines": ("HSET", "{order}", "products", "two mugs"),
    "no lines": ("HDEL", "{order}", "products"),
    "an unreadable total": ("HSET", "{order}", "total_price", "much"),
    "no deadline": ("HDEL", "{order}", "expires_at"),
    "a deadline that is not a number": ("HSET", "{order}", "expires_at", "soon"),
    "no status": ("HDEL", "{order}", "status"),
    "an unknown status": ("HSET", "{order}", "status", "lost"),
    "an order key of another type": ("SET", "{order}", "x"),
    "no order": ("DEL", "{order}"),
    "a completed order": ("HSET", "{order}", "status", "completed"),
    "a deadline later than that of the hold": ("HSET", "{order}", "expires_at", "9999999999999"),
    "no product": ("DEL", "{product}"),
    "a product without its held units": ("HDEL", "{product}", "held"),
    "a product whose stock is not a number": ("HSET", "{product}", "stock", "many"),
}


async def damage_data(redis: CommandSender, damage: str, order_id: int, product_id: int) -> None:
    """Damage an order or its product, as DAMAGES says."""
    names = {"{order}": keys.order(SHOP, order_id), "{product}": keys.product(SHOP, product_id)}
    await redis.send(*(names.get(part, part) for part in DAMAGES[damage]))

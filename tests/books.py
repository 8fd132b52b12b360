"""The books of a shop, read from Redis field by field: no verb of the Store has a hand in it."""

import asyncio
import re
from collections import Counter
from typing import Any, NamedTuple

from service import keys
from service.store import Link
from tests.conftest import SHOP

PRODUCT_FIELDS = {"id", "name", "description", "price", "stock", "held", "sold", "received", "withdrawn"}
_AMOUNT = re.compile(r"(\d+)\.(\d\d)", re.ASCII)
_LINE = re.compile(r"(\d+): (\d+) x (\d+\.\d\d)", re.ASCII)


class Account(NamedTuple):
    """The units of one product."""

    stock: int
    held: int
    sold: int
    received: int


class Books(NamedTuple):
    """All products and orders, by id, as `redis-cli HGETALL` shows them."""

    products: dict[int, dict[str, str]]
    orders: dict[int, dict[str, str]]

    @property
    def accounts(self) -> dict[int, Account]:
        return {
            product_id: Account(*(whole(product[name]) for name in Account._fields))
            for product_id, product in self.products.items()
        }

    @property
    def status_of(self) -> dict[int, str]:
        return {order_id: order["status"] for order_id, order in self.orders.items()}

    def statuses(self) -> Counter[str]:
        """How many orders there are of each status."""
        return Counter(self.status_of.values())


async def assert_books_balance(link: Link, shop: str = SHOP) -> Books:
    """The conservation law over all products, and against all orders. Gives the books for further questions."""
    books = Books(
        await _hashes(link, keys.product(shop, 0)[:-1]),
        await _hashes(link, keys.order(shop, 0)[:-1]),
    )
    by_status = {status: Counter[int]() for status in ("completed", "pending", "cancelled", "expired")}
    for order_id, order in books.orders.items():
        lines = order_lines(order["products"])
        assert order["id"] == str(order_id)
        assert (order["status"] == "completed") == ("expires_at" not in order), "only a completed one has no deadline"
        assert cents(order["total_price"]) == sum(quantity * price for _, quantity, price in lines), order
        by_status[order["status"]].update({product_id: quantity for product_id, quantity, _ in lines})
        if "idempotency_key" in order:
            known = await hash_at(link, keys.idempotency(shop, order["idempotency_key"]))
            assert known["order"] == str(order_id)
    for product_id, product in books.products.items():
        assert product.keys() == PRODUCT_FIELDS
        assert product["id"] == str(product_id)
    for product_id, account in books.accounts.items():
        assert account.received == account.stock + account.held + account.sold, (product_id, account)
        assert account.held == by_status["pending"][product_id], (product_id, account)
        assert account.sold == by_status["completed"][product_id], (product_id, account)
    on_sale = {product_id for product_id, product in books.products.items() if product["withdrawn"] == "0"}
    assert await scores_at(link, keys.products(shop)) == {str(product_id): product_id for product_id in on_sale}
    pending = [order for order in books.orders.values() if order["status"] == "pending"]
    assert await scores_at(link, keys.holds(shop)) == {order["id"]: int(order["expires_at"]) for order in pending}
    assert await scores_at(link, keys.pending(shop)) == {order["id"]: int(order["id"]) for order in pending}
    return books


def retell(events: list[dict[str, str]]) -> dict[int, Account]:
    """Every product's account, from nothing but the events since the first."""
    stock, held, sold, received = (Counter[int]() for _ in range(4))
    moves = {
        ("order_placed", "pending"): (stock, held),
        ("order_placed", "completed"): (stock, sold),
        ("order_completed", None): (held, sold),
        ("order_cancelled", None): (held, stock),
        ("order_expired", None): (held, stock),
    }
    for event in events:
        match event:
            case {"event": "product_added", "product": product, "stock": amount}:
                stock[int(product)] = received[int(product)] = int(amount)
            case {"event": "stock_moved", "product": product, "change": change, "stock": balance}:
                stock[int(product)] += int(change)
                received[int(product)] += int(change)
                assert stock[int(product)] == whole(balance), event
            case {"event": kind, "order": _, "products": products}:
                source, target = moves[kind, event.get("status")]
                for product_id, quantity, _ in order_lines(products):
                    source[product_id] -= quantity
                    target[product_id] += quantity
            case _:
                assert event["event"] in ("product_changed", "product_withdrawn"), event
    return {
        product_id: Account(stock[product_id], held[product_id], sold[product_id], received[product_id])
        for product_id in received
    }


async def dump(link: Link) -> dict[str, object]:
    """Everything there is in Redis: each key's type and value, and whether it will expire."""
    names = sorted(await link.send("KEYS", "*"))
    return dict(zip(names, await asyncio.gather(*(_value(link, name) for name in names)), strict=True))


async def hash_at(link: Link, name: str) -> dict[str, str]:
    """A hash; an absent one is empty."""
    return _fields(await link.send("HGETALL", name))


async def scores_at(link: Link, name: str) -> dict[str, int]:
    """A sorted set's members and scores; an absent one is empty."""
    reply = await link.send("ZRANGE", name, 0, -1, "WITHSCORES")
    return {member: int(float(score)) for member, score in zip(reply[::2], reply[1::2], strict=True)}


async def events_at(link: Link, name: str) -> list[dict[str, str]]:
    """A stream's entries, oldest first, without their ids."""
    return [entry for _, entry in await _stream(link, name)]


def order_lines(products: str) -> list[tuple[int, int, int]]:
    """The readable lines of an order, as product id, quantity and price in cents."""
    matches = [_LINE.fullmatch(line) for line in products.split("\n")]
    assert all(matches), products
    return [(int(match[1]), int(match[2]), cents(match[3])) for match in matches if match]


def cents(amount: str) -> int:
    match = _AMOUNT.fullmatch(amount)
    assert match, f"not an amount: {amount!r}"
    return int(match[1]) * 100 + int(match[2])


def whole(number: str) -> int:
    """A number in plain digits: no `1e+15`, no `5.0`, no sign."""
    assert re.fullmatch("0|[1-9][0-9]*", number), f"not a plain whole number: {number!r}"
    return int(number)


async def _hashes(link: Link, prefix: str) -> dict[int, dict[str, str]]:
    names = await link.send("KEYS", f"{prefix}*")
    hashes = await asyncio.gather(*(hash_at(link, name) for name in names))
    return {int(name.removeprefix(prefix)): fields for name, fields in zip(names, hashes, strict=True)}


async def _value(link: Link, name: str) -> object:
    kind = await link.send("TYPE", name)
    value: object
    match kind:
        case "hash":
            value = await hash_at(link, name)
        case "zset":
            value = await scores_at(link, name)
        case "stream":
            value = await _stream(link, name)
        case _:
            value = await link.send("GET", name)
    return kind, value, await link.send("PTTL", name) > 0


async def _stream(link: Link, name: str) -> list[tuple[str, dict[str, str]]]:
    return [(entry_id, _fields(fields)) for entry_id, fields in await link.send("XRANGE", name, "-", "+")]


def _fields(reply: Any) -> dict[str, str]:
    return dict(zip(reply[::2], reply[1::2], strict=True))

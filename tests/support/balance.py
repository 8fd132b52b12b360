"""Checks that a shop is balanced: the units of each product against the orders, read from Redis without the Store."""

import asyncio
import re
from collections import Counter
from typing import NamedTuple

from service.domain.event import EVENT_FIELDS
from service.storage import keys
from service.storage.sender import CommandSender
from tests.support.orders import HASH_FIELDS
from tests.support.redis_content import hash_at, scores_at
from tests.support.shop import SHOP

_AMOUNT = re.compile(r"(\d+)\.(\d\d)", re.ASCII)
_LINE = re.compile(r"(\d+): (\d+) x (\d+\.\d\d)", re.ASCII)


class Units(NamedTuple):
    """The units of one product. Every unit that was ever received is in stock, held or sold."""

    stock: int
    held: int
    sold: int
    received: int


class ShopContents(NamedTuple):
    """All products and orders, by id, as `redis-cli HGETALL` shows them."""

    products: dict[int, dict[str, str]]
    orders: dict[int, dict[str, str]]

    @property
    def units(self) -> dict[int, Units]:
        return {
            product_id: Units(*(parse_whole(product[name]) for name in Units._fields))
            for product_id, product in self.products.items()
        }

    @property
    def status_of(self) -> dict[int, str]:
        return {order_id: order["status"] for order_id, order in self.orders.items()}

    def statuses(self) -> Counter[str]:
        """Return how many orders there are of each status."""
        return Counter(self.status_of.values())


async def assert_balanced(sender: CommandSender, shop: str = SHOP) -> ShopContents:
    """Assert that each product's units add up and agree with all orders. Return all products and orders."""
    contents = ShopContents(
        await _hashes(sender, keys.product(shop, 0)[:-1]),
        await _hashes(sender, keys.order(shop, 0)[:-1]),
    )
    by_status = {status: Counter[int]() for status in ("completed", "pending", "cancelled", "expired")}
    written_off = Counter[int]()
    for order_id, order in contents.orders.items():
        lines = order_lines(order["products"])
        assert order["id"] == str(order_id)
        # A new field must be added to HASH_FIELDS, and checked here if it says something about units or indexes.
        assert order.keys() <= HASH_FIELDS, f"unknown fields of an order: {sorted(order.keys() - HASH_FIELDS)}"
        assert order.keys() >= {"id", "status", "total_price", "products", "created_at"}
        assert (order["status"] == "completed") == ("expires_at" not in order), "only a completed order has no deadline"
        assert cents(order["total_price"]) == sum(quantity * price for _, quantity, price in lines), order
        assert order["status"] == "completed" or not order.keys() & {"completed_at", "returned", "written_off"}, order
        by_status[order["status"]].update({product_id: quantity for product_id, quantity, _ in lines})
        came_back, lost = units_of_text(order.get("returned")), units_of_text(order.get("written_off"))
        by_status["completed"].subtract(came_back)
        written_off.update(lost)
        assert ("returned" in order) == ("refunded" in order)
        assert cents(order.get("refunded", "0.00")) == sum(came_back[id_] * price for id_, _, price in lines), order
        bought = {product_id: quantity for product_id, quantity, _ in lines}
        assert all(lost[id_] <= number <= bought[id_] for id_, number in came_back.items()), order
        if "idempotency_key" in order:
            known = await hash_at(sender, keys.idempotency(shop, order["idempotency_key"], order.get("customer")))
            assert known["order"] == str(order_id)
    for product_id, product in contents.products.items():
        # A product may have other fields, too: the tests about products check them.
        assert product.keys() >= {"id", "name", "description", "price", "withdrawn", *Units._fields}
        assert product["id"] == str(product_id)
    for product_id, units in contents.units.items():
        assert units.received == units.stock + units.held + units.sold, (product_id, units)
        assert units.held == by_status["pending"][product_id], (product_id, units)
        product = contents.products[product_id]
        before = [parse_whole(product.get(name, "0")) for name in ("archived", "archived_written_off")]
        assert units.sold == by_status["completed"][product_id] + before[0], (product_id, units)
        assert parse_whole(product.get("written_off", "0")) == written_off[product_id] + before[1]
    on_sale = {product_id for product_id, product in contents.products.items() if product["withdrawn"] == "0"}
    assert await scores_at(sender, keys.products(shop)) == {str(product_id): product_id for product_id in on_sale}
    pending = [order for order in contents.orders.values() if order["status"] == "pending"]
    assert await scores_at(sender, keys.holds(shop)) == {order["id"]: int(order["expires_at"]) for order in pending}
    assert await scores_at(sender, keys.pending(shop)) == {order["id"]: int(order["id"]) for order in pending}
    await _assert_customers(sender, shop, contents.orders)
    return contents


async def _assert_customers(sender: CommandSender, shop: str, orders: dict[int, dict[str, str]]) -> None:
    """Assert that the counts of customers, and the indexes of customers and references, agree with all orders."""
    counts: dict[str, Counter[str]] = {}
    indexes: dict[str, dict[str, int]] = {}
    for order_id, order in orders.items():
        if (reference := order.get("reference")) is not None:
            indexes.setdefault(keys.reference_orders(shop, reference), {})[str(order_id)] = order_id
        if (customer := order.get("customer")) is None:
            continue
        indexes.setdefault(keys.customer_orders(shop, customer), {})[str(order_id)] = order_id
        units = counts.setdefault(customer, Counter())
        if order["status"] in ("pending", "completed"):
            units.update({str(product_id): quantity for product_id, quantity, _ in order_lines(order["products"])})
            units.subtract({str(id_): number for id_, number in units_of_text(order.get("returned")).items()})
    prefix = keys.customer(shop, "")
    names = await _names(sender, prefix)
    found = {name.removeprefix(prefix): await hash_at(sender, name) for name in names}
    for customer, fields in found.items():  # units of archived orders are counted, too
        for name in [name for name in fields if name.startswith("archived:")]:
            archived = {name.removeprefix("archived:"): parse_whole(fields.pop(name))}
            counts.setdefault(customer, Counter()).update(archived)
    assert found == {
        customer: {product_id: str(number) for product_id, number in units.items() if number}
        for customer, units in counts.items()
        if +units
    }
    listed = await _names(sender, keys.customer_orders(shop, "")) + await _names(
        sender, keys.reference_orders(shop, "")
    )
    assert {name: await scores_at(sender, name) for name in listed} == indexes


def units_of_text(text: str | None) -> Counter[int]:
    """Return the units in the field `returned` or `written_off` of an order."""
    rows = [row.split(": ") for row in (text or "").split("\n") if row]
    return Counter({int(product_id): parse_whole(number) for product_id, number in rows})


async def units_of(sender: CommandSender, product_id: int) -> Units:
    """Assert that the shop is balanced. Return the units of one product."""
    return (await assert_balanced(sender)).units[product_id]


def units_from_events(events: list[dict[str, str]]) -> dict[int, Units]:
    """Return every product's units, computed from all events since the first.

    Fail if an event has an unknown type or an unknown field: it might say something about units.
    """
    stock, held, sold, received, lost = (Counter[int]() for _ in range(5))
    counters_of = {
        ("order_placed", "pending"): (stock, held),
        ("order_placed", "completed"): (stock, sold),
        ("order_completed", None): (held, sold),
        ("order_cancelled", None): (held, stock),
        ("order_expired", None): (held, stock),
    }
    for event in events:
        event_type = event["event"]
        assert event_type in EVENT_FIELDS, f"unknown event: {event}"
        known = EVENT_FIELDS[event_type]
        assert event.keys() <= {"event", *known.required, *known.optional}, f"unknown fields of an event: {event}"
        match event:
            case {"event": "product_added", "product": product, "stock": amount}:
                stock[int(product)] = received[int(product)] = int(amount)
            case {"event": "stock_moved", "product": product, "change": difference, "stock": stock_after}:
                stock[int(product)] += int(difference)
                received[int(product)] += int(difference)
                assert stock[int(product)] == parse_whole(stock_after), event
            case {"event": "product_changed" | "product_withdrawn" | "order_extended"}:
                pass
            case {"event": "orders_archived" | "shop_restored"}:
                pass
            case {"event": "order_returned", "products": products, "restock": restock}:
                for product_id, quantity, _ in order_lines(products):
                    sold[product_id] -= quantity
                    target = stock if restock == "1" else lost
                    target[product_id] += quantity
                    received[product_id] -= quantity if restock == "0" else 0
            case {"order": _, "products": products}:
                change = event_type, event.get("status")
                assert change in counters_of, f"not known how this event moves units: {event}"
                source, target = counters_of[change]
                for product_id, quantity, _ in order_lines(products):
                    source[product_id] -= quantity
                    target[product_id] += quantity
            case _:
                raise AssertionError(f"not known how this event moves units: {event}")
    return {
        product_id: Units(stock[product_id], held[product_id], sold[product_id], received[product_id])
        for product_id in received
    }


def order_lines(products: str) -> list[tuple[int, int, int]]:
    """Return the readable lines of an order as product id, quantity and price in cents."""
    matches = [_LINE.fullmatch(line) for line in products.split("\n")]
    assert all(matches), products
    return [(int(match[1]), int(match[2]), cents(match[3])) for match in matches if match]


def cents(amount: str) -> int:
    """Return an amount such as `19.99` in cents."""
    match = _AMOUNT.fullmatch(amount)
    assert match, f"not an amount: {amount!r}"
    return int(match[1]) * 100 + int(match[2])


def parse_whole(number: str) -> int:
    """Return the number in a text of plain digits. Refuse `1e+15`, `5.0` and signs."""
    assert re.fullmatch("0|[1-9][0-9]*", number), f"not a plain whole number: {number!r}"
    return int(number)


async def _names(sender: CommandSender, prefix: str) -> list[str]:
    """Return all keys that begin with this prefix."""
    return [str(name) for name in await sender.send("KEYS", f"{prefix}*")]


async def _hashes(sender: CommandSender, prefix: str) -> dict[int, dict[str, str]]:
    names = await _names(sender, prefix)
    hashes = await asyncio.gather(*(hash_at(sender, name) for name in names))
    return {int(name.removeprefix(prefix)): fields for name, fields in zip(names, hashes, strict=True)}

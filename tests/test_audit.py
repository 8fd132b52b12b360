"""service/ops/audit.py: every corruption is named, and nothing else ever is, whatever happens meanwhile."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from typing import Any, NamedTuple

import pytest
from pytest import MonkeyPatch  # noqa: PT013

from service.domain.errors.refusals import Refusal
from service.domain.requests import NewOrder, NewOrderLine, NewProduct, StockMove
from service.ops.audit import AuditInconclusive, Report, audit
from service.storage.connection import MultiplexedConnection
from service.storage.order_ids import BLOCK as ORDER_ID_BLOCK
from service.storage.sender import CommandSender
from service.storage.store import Store
from tests.support.clock import Clock
from tests.support.fake_redis import FakeRedis
from tests.support.shop import SHOP, make_store, new_mug

Change = Callable[[], Awaitable[object]]
Command = tuple[str | int, ...]

NOON = 1_700_000_000_000
"""When the tests begin, in ms since 1970."""

INDEX, HOLDS, PENDING = f"{{{SHOP}}}:products", f"{{{SHOP}}}:holds", f"{{{SHOP}}}:pending"
EVENTS, COUNTER = f"{{{SHOP}}}:events", f"{{{SHOP}}}:ids:orders"


def product_key(product_id: int) -> str:
    return f"{{{SHOP}}}:product:{product_id}"


def order_key(order_id: int) -> str:
    return f"{{{SHOP}}}:order:{order_id}"


MUG, POT, CUP, SPOON = (product_key(product_id) for product_id in (1, 2, 3, 4))
COMPLETED, PENDING_ORDER, CANCELLED, EXPIRED, OF_WITHDRAWN = (order_key(order_id) for order_id in (1, 2, 3, 4, 5))
"""The orders of `fill`."""


class Shop(NamedTuple):
    """A shop with the audit's view of it."""

    link: CommandSender
    clock: Clock
    store: Store

    async def audit(self, progress: Callable[[int], object] = lambda done: None) -> Report:
        return await audit(self.store, SHOP, progress)

    async def place(self, *lines: tuple[int, int], hold: int | None = None) -> int:
        return (await self.store.orders.place(order(*lines, hold=hold))).order.id


def order(*lines: tuple[int, int], hold: int | None = None) -> NewOrder:
    """A completed order of `(product id, quantity)`, or one held for so many seconds."""
    products = [NewOrderLine(product_id=product_id, quantity=quantity) for product_id, quantity in lines]
    if hold is None:
        return NewOrder(products=products)
    return NewOrder(products=products, status="pending", hold_seconds=hold)


def product(product_id: int | None = None, price: int = 1999, stock: int = 10) -> NewProduct:
    return new_mug(id=product_id, price=price / 100, stock=stock)


def move(change: int) -> StockMove:
    return StockMove(change=change, reason="counted")


def open_shop(link: CommandSender, **options: Any) -> Shop:
    clock = Clock(NOON)
    return Shop(link, clock, make_store(link, clock=clock, **options))


async def fill(shop: Shop) -> Shop:
    """Four products, one of them withdrawn, and an order in every status."""
    for new in (product(1), product(2, price=500), product(3, price=7, stock=3), product(4, price=0, stock=0)):
        await shop.store.products.add(new)
    assert await shop.place((1, 2), (2, 1)) == 1
    assert await shop.place((1, 3), (3, 1), hold=900) == 2
    assert await shop.place((2, 2), hold=900) == 3
    await shop.store.holds.cancel(3)
    assert await shop.place((2, 1), hold=1) == 4
    shop.clock.forward(1)
    await shop.store.holds.expire_due(10)
    assert await shop.place((3, 1)) == 5
    await shop.store.products.withdraw(3)
    await shop.store.stock.move(1, move(5))
    return shop


@pytest.fixture
async def shop(link: CommandSender) -> Shop:
    return await fill(open_shop(link))


def assert_balanced(report: Report) -> None:
    assert report.findings == []
    assert report.balanced


# --- What is right is not named ---------------------------------------------------------------------------------------


async def test_a_shop_with_every_kind_of_order_and_product_balances(shop: Shop) -> None:
    report = await shop.audit()
    assert_balanced(report)
    assert (report.products, report.orders, report.pending, report.events_followed) == (4, 5, 1, 0)


async def test_an_empty_shop_balances(link: CommandSender) -> None:
    report = await open_shop(link).audit()
    assert_balanced(report)
    assert report.as_dict() == {
        "balanced": True,
        "products": 0,
        "orders": 0,
        "pending": 0,
        "events_followed": 0,
        "findings": [],
    }


async def test_an_overdue_hold_that_nobody_returned_yet_balances(shop: Shop) -> None:
    shop.clock.forward(3600)
    report = await shop.audit()
    assert_balanced(report)
    assert report.pending == 1


async def test_a_shop_without_its_event_stream_balances(shop: Shop) -> None:
    await shop.link.send("DEL", EVENTS)
    assert_balanced(await shop.audit())


async def test_another_shop_on_the_same_redis_is_not_looked_at(shop: Shop) -> None:
    await shop.link.send("HSET", "{other}:product:1", "stock", "-1")
    await shop.link.send("SET", "{other}:holds", "no sorted set")
    assert_balanced(await shop.audit())


@pytest.mark.parametrize("ids", [64, 100_000, 2**52])
async def test_ids_that_were_taken_and_never_used_are_no_finding(shop: Shop, ids: int) -> None:
    await shop.link.send("INCRBY", COUNTER, ids)
    await make_store(shop.link, clock=shop.clock).orders.place(order((1, 1)))
    assert_balanced(await shop.audit())


@pytest.mark.parametrize("batch", [1, 2, 500])
async def test_progress_adds_up_to_the_keys_that_were_read(shop: Shop, batch: int, monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr("service.ops.audit._BATCH", batch)
    steps: list[int] = []
    report = await shop.audit(steps.append)
    assert sum(steps) == report.products + report.orders == 9
    assert 0 < max(steps) <= batch


# --- What is wrong is named, and nothing else -------------------------------------------------------------------------


class Case(NamedTuple):
    """Raw commands that corrupt the shop, and the keys that are off then, each with a part of what is said of it."""

    commands: list[Command]
    off: dict[str, str]


def _hash_field(key: str, field: str, value: str | None) -> Command:
    return ("HDEL", key, field) if value is None else ("HSET", key, field, value)


def _replaced(key: str) -> list[Command]:
    return [("DEL", key), ("SET", key, "nonsense")]


NOT_NUMBERS = ["-1", None, "many", "", "1.5", "1e3", " 7", "0x10", "\N{ARABIC-INDIC DIGIT SEVEN}", "9" * 19, "nan"]


def wrong_field(field: str, value: str | None) -> str:
    return f"has no field {field}" if value is None else f"has {field} {value!r}, expected "


CASES: dict[str, Case] = {
    **{
        f"{field} of a product is {value!r}": Case([_hash_field(MUG, field, value)], {MUG: wrong_field(field, value)})
        for field in ("stock", "held", "sold", "received")
        for value in NOT_NUMBERS
    },
    "stock is wrong": Case([("HSET", MUG, "stock", 3)], {MUG: "has received 15, but stock 3 + held 3 + sold 2 is 8"}),
    "received is wrong": Case(
        [("HSET", MUG, "received", 99)], {MUG: "has received 99, but stock 10 + held 3 + sold 2 is 15"}
    ),
    "held is wrong": Case([("HSET", MUG, "held", 4)], {MUG: "has held 4, but its orders add up to 3"}),
    "sold is wrong": Case([("HSET", MUG, "sold", 1)], {MUG: "has sold 1, but its orders add up to 2"}),
    "a unit went from stock to held": Case(
        [("HINCRBY", MUG, "stock", -1), ("HINCRBY", MUG, "held", 1)], {MUG: "has held 4, but its orders add up to 3"}
    ),
    "a unit went from held to sold": Case(
        [("HINCRBY", MUG, "held", -1), ("HINCRBY", MUG, "sold", 1)], {MUG: "has sold 3, but its orders add up to 2"}
    ),
    "sold and received of a product without orders are wrong": Case(
        [("HSET", SPOON, "sold", 1, "received", 1)], {SPOON: "has sold 1, but its orders add up to 0"}
    ),
    "held of a withdrawn product is wrong": Case(
        [("HSET", CUP, "held", 0, "stock", 2)], {CUP: "has held 0, but its orders add up to 1"}
    ),
    **{
        f"price is {value!r}": Case([_hash_field(POT, "price", value)], {POT: wrong_field("price", value)})
        for value in ("free", "-1.00", "1.005", "", None, "1e3", "NaN", "5,00")
    },
    **{
        f"withdrawn is {value!r}": Case([_hash_field(POT, "withdrawn", value)], {POT: wrong_field("withdrawn", value)})
        for value in ("2", "yes", None, "-1", "00")
    },
    "withdrawn, but in the index": Case([("HSET", POT, "withdrawn", "1")], {POT: f"is withdrawn, but is in {INDEX}"}),
    "in the index, but withdrawn": Case([("ZADD", INDEX, 3, 3)], {CUP: f"is withdrawn, but is in {INDEX}"}),
    "on sale again, but not in the index": Case(
        [("HSET", CUP, "withdrawn", "0")], {CUP: f"is on sale, but is not in {INDEX}"}
    ),
    "on sale, but not in the index": Case([("ZREM", INDEX, 2)], {POT: f"is on sale, but is not in {INDEX}"}),
    **{
        f"score in the index is {score}": Case(
            [("ZADD", INDEX, score, 2)], {POT: f"is on sale, but its score in {INDEX} is {score}, expected 2"}
        )
        for score in ("3", "2.5", "inf", "-2")
    },
    "in the index, but never added": Case(
        [("ZADD", INDEX, 99, 99)], {INDEX: "has the entry 99, but there is no such product"}
    ),
    "in the index, but deleted": Case([("DEL", SPOON)], {INDEX: "has the entry 4, but there is no such product"}),
    "the index names no id": Case([("ZADD", INDEX, 7, "seven")], {INDEX: "has the entry 'seven', which is not an id"}),
    "the index has an id in another spelling": Case(
        [("ZADD", INDEX, 1, "01")], {INDEX: "has the entry '01', which is not an id"}
    ),
    "deleted together with its place in the index": Case([("DEL", POT), ("ZREM", INDEX, 2)], {POT: "does not exist"}),
    "withdrawn and deleted, though orders name it": Case([("DEL", CUP)], {CUP: "does not exist"}),
    "id of a product is wrong": Case([("HSET", MUG, "id", "2")], {MUG: "has id '2', expected 1"}),
    "id of a product is missing": Case([("HDEL", MUG, "id")], {MUG: "has no field id"}),
    "id of a withdrawn product is missing": Case([("HDEL", CUP, "id")], {CUP: "has no field id"}),
    "product of another type": Case(_replaced(SPOON), {SPOON: "cannot be read: "}),
    "product with orders of another type": Case(_replaced(MUG), {MUG: "cannot be read: "}),
    **{
        f"key that ends in {end!r}": Case(
            [("HSET", f"{{{SHOP}}}:{kind}:{end}", "id", "7")], {f"{{{SHOP}}}:{kind}:{end}": "does not end in an id"}
        )
        for kind, end in [("product", "mug"), ("product", "0"), ("order", "007"), ("order", ""), ("order", "1:old")]
    },
    "status is unknown": Case(
        [("HSET", COMPLETED, "status", "lost")],
        {COMPLETED: "has status 'lost', expected one of pending", MUG: "has sold 2", POT: "has sold 1"},
    ),
    "status is missing": Case(
        [("HDEL", COMPLETED, "status")], {COMPLETED: "has no field status", MUG: "has sold 2", POT: "has sold 1"}
    ),
    "status of a pending order is missing": Case(
        [("HDEL", PENDING_ORDER, "status")],
        {
            PENDING_ORDER: "has no field status",
            MUG: "has held 3, but its orders add up to 0",
            CUP: "has held 1, but its orders add up to 0",
        },
    ),
    "a completed order is called cancelled": Case(
        [("HSET", COMPLETED, "status", "cancelled")],
        {MUG: "has sold 2, but its orders add up to 0", POT: "has sold 1, but its orders add up to 0"},
    ),
    "a cancelled order is called completed": Case(
        [("HSET", CANCELLED, "status", "completed")], {POT: "has sold 1, but its orders add up to 3"}
    ),
    "a pending order is called completed": Case(
        [("HSET", PENDING_ORDER, "status", "completed")],
        {PENDING_ORDER: f"is completed, but is in {HOLDS}", MUG: "has held 3", CUP: "has held 1"},
    ),
    "an expired order is called pending": Case(
        [("HSET", EXPIRED, "status", "pending")],
        {EXPIRED: f"is pending, but is not in {HOLDS}", POT: "has held 0, but its orders add up to 1"},
    ),
    "total is wrong": Case(
        [("HSET", COMPLETED, "total_price", "44.97")],
        {COMPLETED: "has total_price 44.97, but the sum of its lines is 44.98"},
    ),
    **{
        f"total is {value!r}": Case(
            [_hash_field(COMPLETED, "total_price", value)], {COMPLETED: wrong_field("total_price", value)}
        )
        for value in ("much", None, "-44.98", "44.980")
    },
    "total of a cancelled order is wrong": Case(
        [("HSET", CANCELLED, "total_price", "0")], {CANCELLED: "has total_price 0, but the sum of its lines is 10.00"}
    ),
    "price of a line is wrong": Case(
        [("HSET", COMPLETED, "products", "1: 2 x 19.98\n2: 1 x 5.00")],
        {COMPLETED: "has total_price 44.98, but the sum of its lines is 44.96"},
    ),
    "quantity of a line is wrong": Case(
        [("HSET", COMPLETED, "products", "1: 2 x 19.99\n2: 2 x 5.00")],
        {COMPLETED: "but the sum of its lines is 49.98", POT: "has sold 1, but its orders add up to 2"},
    ),
    "quantity and total are wrong": Case(
        [("HSET", COMPLETED, "products", "1: 2 x 19.99\n2: 2 x 5.00", "total_price", "49.98")],
        {POT: "has sold 1, but its orders add up to 2"},
    ),
    "a line names another product": Case(
        [("HSET", COMPLETED, "products", "4: 2 x 19.99\n2: 1 x 5.00")],
        {MUG: "has sold 2, but its orders add up to 0", SPOON: "has sold 0, but its orders add up to 2"},
    ),
    "a line names a product that never was": Case(
        [("HSET", COMPLETED, "products", "1: 2 x 19.99\n2: 1 x 4.00\n77: 1 x 1.00")],
        {product_key(77): "does not exist"},
    ),
    **{
        f"lines are {value!r}": Case(
            [_hash_field(COMPLETED, "products", value)],
            {COMPLETED: wrong_field("products", value), MUG: "has sold 2", POT: "has sold 1"},
        )
        for value in ("two mugs", None, "", "1: 2 x 19.99\n2: 1 x 5.00\n", "1: -2 x 19.99")
    },
    "id of an order is wrong": Case([("HSET", COMPLETED, "id", "3")], {COMPLETED: "has id '3', expected 1"}),
    "id of an order is missing": Case([("HDEL", COMPLETED, "id")], {COMPLETED: "has no field id"}),
    **{
        f"expires_at is {value!r}": Case(
            [_hash_field(PENDING_ORDER, "expires_at", value)], {PENDING_ORDER: wrong_field("expires_at", value)}
        )
        for value in ("soon", None, "-1", "1.5")
    },
    "expires_at is another time than in holds": Case(
        [("HSET", PENDING_ORDER, "expires_at", NOON)],
        {PENDING_ORDER: f"has expires_at {NOON}, but its score in {HOLDS} is"},
    ),
    **{
        f"score in holds is {score}": Case(
            [("ZADD", HOLDS, score, 2)], {PENDING_ORDER: f"but its score in {HOLDS} is {score}"}
        )
        for score in ("5", str(NOON + 900_001), f"{NOON + 900_000}.5", "inf", "-inf")
    },
    "pending, but not in holds": Case(
        [("ZREM", HOLDS, 2)], {PENDING_ORDER: f"is not in {HOLDS}: it would never expire"}
    ),
    "pending, but not in pending": Case([("ZREM", PENDING, 2)], {PENDING_ORDER: f"but is not in {PENDING}"}),
    **{
        f"score in pending is {score}": Case(
            [("ZADD", PENDING, score, 2)],
            {PENDING_ORDER: f"is pending, but its score in {PENDING} is {score}, expected 2"},
        )
        for score in ("3", "2.5", "inf")
    },
    **{
        f"{status}, but in {name}": Case(
            [("ZADD", index, 5, order_id)], {order_key(order_id): f"is {status}, but is in {index}"}
        )
        for order_id, status in [(1, "completed"), (3, "cancelled"), (4, "expired")]
        for name, index in [("holds", HOLDS), ("pending", PENDING)]
    },
    **{
        f"{name} names an order that never was": Case(
            [("ZADD", index, 5, 60)], {index: "has the entry 60, but there is no such order"}
        )
        for name, index in [("holds", HOLDS), ("pending", PENDING)]
    },
    **{
        f"{name} names no id": Case([("ZADD", index, 5, "five")], {index: "has the entry 'five', which is not an id"})
        for name, index in [("holds", HOLDS), ("pending", PENDING)]
    },
    "order above the counter": Case(
        [
            (
                "HSET",
                order_key(1000),
                "id",
                1000,
                "status",
                "cancelled",
                "products",
                "1: 1 x 1.00",
                "total_price",
                "1.00",
            )
        ],
        {order_key(1000): f"has an id that was never assigned: {COUNTER} is {ORDER_ID_BLOCK}"},
    ),
    "counter was set back": Case(
        [("SET", COUNTER, 4)],
        {OF_WITHDRAWN: "has an id that was never assigned", CUP: "has sold 1, but its orders add up to 0"},
    ),
    "completed order was deleted": Case(
        [("DEL", COMPLETED)],
        {MUG: "has sold 2, but its orders add up to 0", POT: "has sold 1, but its orders add up to 0"},
    ),
    "pending order was deleted": Case(
        [("DEL", PENDING_ORDER)],
        {
            MUG: "has held 3, but its orders add up to 0",
            CUP: "has held 1, but its orders add up to 0",
            HOLDS: "has the entry 2, but there is no such order",
            PENDING: "has the entry 2, but there is no such order",
        },
    ),
    "cancelled order of another type": Case(_replaced(CANCELLED), {CANCELLED: "cannot be read: "}),
    "pending order of another type": Case(
        _replaced(PENDING_ORDER), {PENDING_ORDER: "cannot be read: ", MUG: "has held 3", CUP: "has held 1"}
    ),
    **{
        f"{name} is a string": Case(_replaced(key), {key: "is a string, not a sorted set"})
        for name, key in [("holds", HOLDS), ("pending", PENDING), ("products", INDEX)]
    },
    "events is a string": Case(_replaced(EVENTS), {EVENTS: "is a string, not a stream"}),
    "the counter is no number": Case([("SET", COUNTER, "many")], {COUNTER: "many"}),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_what_is_off_is_named_and_nothing_else(shop: Shop, case: Case) -> None:
    for command in case.commands:
        await shop.link.send(*command)
    report = await shop.audit()
    assert not report.balanced
    assert {finding.key for finding in report.findings} == set(case.off), report.findings
    for key, what in case.off.items():
        assert [finding for finding in report.findings if finding.key == key and what in finding.what], report.findings


async def test_all_that_is_off_is_named_at_once(shop: Shop) -> None:
    await shop.link.send("HSET", MUG, "stock", -1)
    await shop.link.send("HSET", POT, "price", "free")
    await shop.link.send("ZREM", HOLDS, 2)
    report = await shop.audit()
    assert {finding.key for finding in report.findings} == {MUG, POT, PENDING_ORDER}
    assert report.as_dict()["balanced"] is False


async def test_a_finding_is_said_once(shop: Shop) -> None:
    await shop.link.send("HSET", SPOON, "received", 1)
    report = await shop.audit()
    assert len(report.findings) == 1


@pytest.mark.parametrize(
    ("corruption", "off"),
    [
        (None, []),
        (("HSET", CANCELLED, "id", "9"), [CANCELLED]),
        (("HSET", CANCELLED, "status", "lost"), [CANCELLED]),
        (("ZADD", HOLDS, "5", "60"), [HOLDS]),
        (("HSET", f"{{{SHOP}}}:order:old", "id", "1"), [f"{{{SHOP}}}:order:old"]),
    ],
)
async def test_keys_that_a_scan_shows_twice_count_once(
    shop: Shop, corruption: Command | None, off: list[str], monkeypatch: MonkeyPatch
) -> None:
    def twice(scan: Callable[..., AsyncIterator[list[str]]]) -> Callable[..., AsyncIterator[list[str]]]:
        async def scan_twice(*args: str) -> AsyncIterator[list[str]]:
            async for page in scan(*args):
                yield page
                yield page

        return scan_twice

    if corruption is not None:
        await shop.link.send(*corruption)
    monkeypatch.setattr(shop.store.inspection, "scan_keys", twice(shop.store.inspection.scan_keys))
    monkeypatch.setattr(shop.store.inspection, "scan_index", twice(shop.store.inspection.scan_index))
    report = await shop.audit()
    assert (report.products, report.orders, report.pending) == (4, 5, 1)
    assert [finding.key for finding in report.findings] == off


# --- What happens meanwhile is counted rightly ------------------------------------------------------------------------


class SmallPages:
    """A link that reads a few at a time, so that much can happen between two reads, and lets it happen."""

    def __init__(
        self, link: CommandSender, before: Callable[[int], Awaitable[object]] | None = None, page: int = 20
    ) -> None:
        self.link = link
        self.before = before
        self.page = page
        self.sent = 0

    def send(self, *command: bytes | str | int, idempotent: bool = False) -> Awaitable[Any]:
        return asyncio.ensure_future(self._send(*command))

    async def _send(self, *command: bytes | str | int) -> Any:
        self.sent += 1
        if self.before is not None:
            await self.before(self.sent)
        if command[0] in ("SCAN", "ZSCAN", "XRANGE"):
            command = tuple(self.page if part == 1000 else part for part in command)
        return await self.link.send(*command)


@pytest.fixture
def small_batches(monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr("service.ops.audit._BATCH", 6)


async def _place_and_complete(shop: Shop) -> None:
    await shop.store.holds.complete(await shop.place((1, 1), (2, 1), hold=900))


async def _place_and_cancel(shop: Shop) -> None:
    await shop.store.holds.cancel(await shop.place((1, 1), hold=900))


async def _expire(shop: Shop, order_id: int) -> None:
    shop.clock.forward(1)
    await shop.store.holds.expire_due(100)
    with pytest.raises(Refusal):
        await shop.store.orders.get(order_id)


async def _add_sell_and_withdraw(shop: Shop) -> None:
    added = await shop.store.products.add(product())
    await shop.place((added.id, 1))
    await shop.store.products.withdraw(added.id)


CHANGES: dict[str, tuple[int | None, Callable[[Shop, int], Awaitable[object]]]] = {
    "a completed order is placed": (None, lambda shop, _: shop.place((1, 1), (2, 3))),
    "a pending order is placed": (None, lambda shop, _: shop.place((1, 1), (2, 3), hold=900)),
    "a pending order is completed": (900, lambda shop, order_id: shop.store.holds.complete(order_id)),
    "a pending order is cancelled": (900, lambda shop, order_id: shop.store.holds.cancel(order_id)),
    "a pending order expires": (1, _expire),
    "an order is placed and completed": (None, lambda shop, _: _place_and_complete(shop)),
    "an order is placed and cancelled": (None, lambda shop, _: _place_and_cancel(shop)),
    "stock is added": (None, lambda shop, _: shop.store.stock.move(1, move(3))),
    "a product is added": (None, lambda shop, _: shop.store.products.add(product())),
    "a product is added, sold and withdrawn": (None, lambda shop, _: _add_sell_and_withdraw(shop)),
}
"""Seconds for which the order is held that the change is about, if any, and the change."""


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize(("hold", "change"), CHANGES.values(), ids=CHANGES)
async def test_a_change_between_any_two_reads_raises_no_alarm(
    hold: int | None, change: Callable[[Shop, int], Awaitable[object]]
) -> None:
    shop = await fill(open_shop(FakeRedis()))
    await shop.store.stock.move(1, move(1000))
    await shop.store.stock.move(2, move(1000))
    for _ in range(4):
        await shop.store.products.add(product())
        await shop.place((1, 1))
    moment, reads = 0, 1
    while moment < reads:
        moment += 1
        order_id = 0 if hold is None else await shop.place((1, 1), (2, 2), hold=hold)

        async def before(sent: int, moment: int = moment, order_id: int = order_id) -> None:
            if sent == moment:
                await change(shop, order_id)

        link = SmallPages(shop.link, before)
        report = await audit(make_store(link), SHOP)
        assert report.findings == [], f"before read {moment} of {link.sent}"
        reads = link.sent
    assert reads >= 20


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("seed", range(5))
async def test_changes_before_every_read_raise_no_alarm_and_hide_nothing(seed: int) -> None:
    rng = random.Random(seed)
    shop = await fill(open_shop(FakeRedis()))
    customer = Customer(shop.store, shop.clock, rng)

    async def before(sent: int) -> None:
        await customer.act()

    store = make_store(SmallPages(shop.link, before))
    followed = 0
    for corrupt, mend, off in [(None, None, set()), *MENDABLE]:
        if corrupt is not None:
            await shop.link.send(*corrupt)
        report = await audit(store, SHOP)
        assert {finding.key for finding in report.findings} == off, report.findings
        if mend is not None:
            await shop.link.send(*mend)
        followed += report.events_followed
    assert followed > 50


MENDABLE: list[tuple[Command, Command, set[str]]] = [
    (("HINCRBY", MUG, "stock", 1), ("HINCRBY", MUG, "stock", -1), {MUG}),
    (("HINCRBY", POT, "sold", -1), ("HINCRBY", POT, "sold", 1), {POT}),
    (("HINCRBY", CUP, "held", 1), ("HINCRBY", CUP, "held", -1), {CUP}),
    (("RENAME", COMPLETED, "away"), ("RENAME", "away", COMPLETED), {MUG, POT}),
    (("RENAME", SPOON, "away"), ("RENAME", "away", SPOON), {INDEX}),
    (("HSET", OF_WITHDRAWN, "total_price", "0.08"), ("HSET", OF_WITHDRAWN, "total_price", "0.07"), {OF_WITHDRAWN}),
    (("ZADD", HOLDS, "9e15", "5"), ("ZREM", HOLDS, "5"), {OF_WITHDRAWN}),
    (("ZADD", PENDING, "9e15", "9000000"), ("ZREM", PENDING, "9000000"), {PENDING}),
    (("ZREM", INDEX, "4"), ("ZADD", INDEX, "4", "4"), {SPOON}),
]
"""A corruption that outlives any change, what takes it back, and the keys that are off in between."""


class Customer:
    """Places orders and ends them, moves stock, adds and withdraws products. Spares what MENDABLE needs."""

    def __init__(self, store: Store, clock: Clock, rng: random.Random) -> None:
        self.store = store
        self.clock = clock
        self.rng = rng
        self.pending: list[int] = []
        self.added: list[int] = []
        self.done = 0

    async def act(self) -> None:
        acts = [
            (8, self.place),
            (5, self.hold),
            (3, lambda: self.end(self.store.holds.complete)),
            (2, lambda: self.end(self.store.holds.cancel)),
            (1, self.expire),
            (3, self.move),
            (1, self.add),
            (1, self.withdraw),
        ]
        [(_, act)] = self.rng.choices(acts, [weight for weight, _ in acts])
        with suppress(Refusal):
            await act()
        self.done += 1

    def lines(self) -> list[tuple[int, int]]:
        choices = [1, 2, *self.added[-5:]]
        return [(product_id, self.rng.randint(1, 3)) for product_id in self.rng.sample(choices, min(2, len(choices)))]

    async def place(self) -> None:
        await self.store.orders.place(order(*self.lines()))

    async def hold(self) -> None:
        placed = await self.store.orders.place(order(*self.lines(), hold=self.rng.randint(1, 5)))
        self.pending.append(placed.order.id)

    async def end(self, how: Callable[[int], Awaitable[object]]) -> None:
        if self.pending:
            await how(self.pending.pop(self.rng.randrange(len(self.pending))))

    async def expire(self) -> None:
        self.clock.forward(1)
        await self.store.holds.expire_due(10)

    async def move(self) -> None:
        await self.store.stock.move(self.rng.choice([1, 2]), move(self.rng.choice([-1, 4, 10])))

    async def add(self) -> None:
        self.added.append((await self.store.products.add(product(stock=50))).id)

    async def withdraw(self) -> None:
        if len(self.added) > 2:
            await self.store.products.withdraw(self.added.pop(self.rng.randrange(len(self.added))))


@pytest.fixture
async def workers(wire: MultiplexedConnection, engine_url: str) -> AsyncIterator[list[Shop]]:
    """A filled shop on the real engine and four workers, each with a connection of its own, on one clock."""
    shop = await fill(open_shop(wire))
    async with AsyncExitStack() as stack:
        links = [
            await stack.enter_async_context(MultiplexedConnection(engine_url, timeout=10, max_in_flight=100_000))
            for _ in range(4)
        ]
        yield [Shop(link, shop.clock, make_store(link, clock=shop.clock)) for link in links]


async def _work(shop: Shop, seed: int, stop: asyncio.Event) -> int:
    customer = Customer(shop.store, shop.clock, random.Random(seed))
    while not stop.is_set() and customer.done < 1000:  # else the shop grows faster than it is read
        await customer.act()
    return customer.done


@pytest.mark.parametrize("corrupted", [False, True], ids=["balanced", "one thing off"])
async def test_the_audit_of_a_busy_shop_says_what_the_audit_of_a_quiet_one_would(
    wire: MultiplexedConnection, workers: list[Shop], corrupted: bool, monkeypatch: MonkeyPatch
) -> None:
    monkeypatch.setattr("service.ops.audit._BATCH", 20)
    stop = asyncio.Event()
    store = make_store(SmallPages(wire, page=100))
    followed = 0
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_work(worker, seed, stop)) for seed, worker in enumerate(workers)]
        for corrupt, mend, off in 3 * MENDABLE:
            if corrupted:
                await wire.send(*corrupt)
            report = await audit(store, SHOP)
            assert {finding.key for finding in report.findings} == (off if corrupted else set()), report.findings
            if corrupted:
                await wire.send(*mend)
            followed += report.events_followed
        stop.set()
    assert sum(task.result() for task in tasks) > 500
    assert followed > 100
    assert_balanced(await audit(store, SHOP))


# --- Where it cannot know, it says so ---------------------------------------------------------------------------------


def before_products(store: Store, change: Change, monkeypatch: MonkeyPatch) -> None:
    """Makes a change once, after the orders were read and before the first products are."""
    read, changes = store.inspection.audit_products, [change]

    async def audit_products(product_ids: list[int]) -> tuple[str, list[list[str | None]]]:
        if changes:
            await changes.pop()()
        return await read(product_ids)

    monkeypatch.setattr(store.inspection, "audit_products", audit_products)


async def _many_orders(shop: Shop) -> None:
    """More than a stream of one entry keeps: Redis cuts whole blocks of a hundred."""
    store = make_store(shop.link, clock=shop.clock, events_max=1)
    await store.stock.move(2, move(300))
    for _ in range(300):
        await store.orders.place(order((2, 1)))


async def test_many_changes_meanwhile_are_counted_where_the_stream_keeps_them(
    shop: Shop, monkeypatch: MonkeyPatch
) -> None:
    async def change() -> None:
        await shop.store.stock.move(2, move(1200))
        await asyncio.gather(*(shop.store.orders.place(order((2, 1))) for _ in range(1200)))

    before_products(shop.store, change, monkeypatch)
    report = await shop.audit()
    assert_balanced(report)
    assert report.events_followed == 1201


async def test_an_audit_whose_events_were_cut_cannot_tell(shop: Shop, monkeypatch: MonkeyPatch) -> None:
    before_products(shop.store, lambda: _many_orders(shop), monkeypatch)
    with pytest.raises(AuditInconclusive, match="HOLDFAST_EVENTS_MAX"):
        await shop.audit()


async def test_an_audit_that_began_before_the_first_event_cannot_tell_either(
    shop: Shop, monkeypatch: MonkeyPatch
) -> None:
    await shop.link.send("DEL", EVENTS)
    before_products(shop.store, lambda: _many_orders(shop), monkeypatch)
    with pytest.raises(AuditInconclusive):
        await shop.audit()


@pytest.mark.parametrize("command", [("DEL", EVENTS), ("XTRIM", EVENTS, "MAXLEN", 0)], ids=["deleted", "emptied"])
async def test_an_audit_whose_stream_vanished_cannot_tell(
    shop: Shop, command: Command, monkeypatch: MonkeyPatch
) -> None:
    async def change() -> None:
        await shop.place((2, 1))
        await shop.link.send(*command)

    before_products(shop.store, change, monkeypatch)
    with pytest.raises(AuditInconclusive):
        await shop.audit()


async def test_a_stream_that_was_cut_before_the_audit_is_enough(shop: Shop) -> None:
    await _many_orders(shop)
    assert await shop.link.send("XLEN", EVENTS) < 300
    assert_balanced(await shop.audit())


async def test_an_entry_that_somebody_else_wrote_to_the_stream_is_passed_over(
    shop: Shop, monkeypatch: MonkeyPatch
) -> None:
    async def change() -> None:
        await shop.link.send("XADD", EVENTS, "*", "note", "hello")
        await shop.place((2, 1))

    before_products(shop.store, change, monkeypatch)
    assert_balanced(await shop.audit())

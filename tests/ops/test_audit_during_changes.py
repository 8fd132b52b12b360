"""The service runs during the audit: changes must neither cause a finding nor hide a finding."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest

from service.domain.errors.refusals import Refusal
from service.domain.order import Order
from service.domain.requests import HoldExtension
from service.ops.audit import audit
from service.storage import keys
from service.storage.connection import MultiplexedConnection
from tests.support.audited_shop import (
    COMPLETED,
    CUP,
    HOLDS,
    INDEX,
    MUG,
    OF_WITHDRAWN,
    PENDING,
    POT,
    SPOON,
    AuditedShop,
    RedisCommand,
    SmallPages,
    assert_no_findings,
    fill,
    new_return,
    open_shop,
    order,
    order_key,
    product,
    stock_change,
)
from tests.support.fake_redis import FakeRedis
from tests.support.shop import SHOP, make_store

pytestmark = pytest.mark.slow


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.ops.audit_steps.BATCH", 6)
    monkeypatch.setattr("service.ops.audit_customers.BATCH", 15)


async def _place_and_complete(shop: AuditedShop) -> None:
    await shop.store.holds.complete(await shop.place((1, 1), (2, 1), hold=900))


async def _place_and_cancel(shop: AuditedShop) -> None:
    await shop.store.holds.cancel(await shop.place((1, 1), hold=900))


async def _expire(shop: AuditedShop, order_id: int) -> None:
    shop.clock.forward(1)
    await shop.store.expired_holds.expire_due(100)
    with pytest.raises(Refusal):
        await shop.store.orders.get(order_id)


async def _add_sell_and_withdraw(shop: AuditedShop) -> None:
    added = await shop.store.products.add(product())
    await shop.place((added.id, 1))
    await shop.store.products.withdraw(added.id)


ANNA: dict[str, Any] = {"customer": "anna", "reference": "cart 7"}


async def _buy_and_return(shop: AuditedShop) -> None:
    order_id = await shop.place((1, 2), (2, 2), **ANNA)
    await shop.store.returns.make(order_id, new_return((2, 1), restock=False))
    await shop.store.returns.make(order_id, new_return((1, 1), (2, 1)))


async def _archive(shop: AuditedShop, order_id: int) -> None:
    [ended] = await shop.store.archive.read([order_id])
    assert ended is not None
    assert await shop.store.archive.remove([ended], 0) == ["removed"]


async def _return_and_archive(shop: AuditedShop, order_id: int) -> None:
    await shop.store.returns.make(order_id, new_return((2, 1), restock=False))
    await _archive(shop, order_id)


async def _archive_all(shop: AuditedShop) -> int:
    """Archive all orders that have ended, except carl's. Return how many there were."""
    order_ids = sorted({order_id async for order_id in shop.store.orders.scan_ids()})
    orders = [order for order in await shop.store.archive.read(order_ids) if order is not None]
    ended = [order for order in orders if order.order.status != "pending" and order.order.customer != "carl"]
    words = await shop.store.archive.remove(ended, 0) if ended else []
    return words.count("removed")


CHANGES: dict[str, tuple[int | None, Callable[[AuditedShop, int], Awaitable[object]]]] = {
    "a completed order is placed": (None, lambda shop, _: shop.place((1, 1), (2, 3))),
    "a pending order is placed": (None, lambda shop, _: shop.place((1, 1), (2, 3), hold=900)),
    "a pending order is completed": (900, lambda shop, order_id: shop.store.holds.complete(order_id)),
    "a pending order is cancelled": (900, lambda shop, order_id: shop.store.holds.cancel(order_id)),
    "a pending order expires": (1, _expire),
    "an order is placed and completed": (None, lambda shop, _: _place_and_complete(shop)),
    "an order is placed and cancelled": (None, lambda shop, _: _place_and_cancel(shop)),
    "a customer buys": (None, lambda shop, _: shop.place((1, 1), (2, 3), **ANNA)),
    "a customer buys and returns": (None, lambda shop, _: _buy_and_return(shop)),
    "an order is returned": (0, lambda shop, order_id: shop.store.returns.make(order_id, new_return((2, 1)))),
    "a customer's order is returned": (0, lambda shop, order_id: shop.store.returns.make(order_id, new_return((2, 1)))),
    "a customer's order is completed": (900, lambda shop, order_id: shop.store.holds.complete(order_id)),
    "a customer's order is cancelled": (900, lambda shop, order_id: shop.store.holds.cancel(order_id)),
    "a customer's order expires": (1, _expire),
    "an order is archived": (0, _archive),
    "a customer's order is archived": (0, _archive),
    "a customer's order is returned and archived": (0, lambda shop, order_id: _return_and_archive(shop, order_id)),
    "all orders that have ended are archived": (None, lambda shop, _: _archive_all(shop)),
    "a hold is extended": (
        900,
        lambda shop, order_id: shop.store.holds.extend(order_id, HoldExtension(hold_seconds=60)),
    ),
    "stock is added": (None, lambda shop, _: shop.store.stock.change(1, stock_change(3))),
    "a product is added": (None, lambda shop, _: shop.store.products.add(product())),
    "a product is added, sold and withdrawn": (None, lambda shop, _: _add_sell_and_withdraw(shop)),
}
"""If the change needs an order, the seconds of its hold, or 0 for a completed order.

Then the change itself, called with the order's id.
"""


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("name", CHANGES)
async def test_a_change_between_two_reads_of_the_audit_causes_no_finding(name: str) -> None:
    hold, change = CHANGES[name]
    names = ANNA if "customer" in name else {}
    # With each order that stays pending, and each order of a customer, the next audit has nearly one more read. Half of
    # the changes come before the odd reads, and half before the even ones.
    step = 6 if names or name in ("a pending order is placed", "a hold is extended") else 2
    shop = await fill(open_shop(FakeRedis()))
    await shop.store.stock.change(1, stock_change(1000))
    await shop.store.stock.change(2, stock_change(1000))
    for _ in range(4):
        await shop.store.products.add(product())
        await shop.place((1, 1))
    moment, reads = -(list(CHANGES).index(name) % 2), 1
    while moment < reads:
        moment += step
        order_id = 0 if hold is None else await shop.place((1, 1), (2, 2), hold=hold or None, **names)

        async def before(sent: int, moment: int = moment, order_id: int = order_id) -> None:
            if sent == moment:
                await change(shop, order_id)

        redis = SmallPages(shop.redis, before)
        report = await audit(make_store(redis), SHOP)
        assert report.findings == [], f"before read {moment} of {redis.sent}"
        reads = redis.sent
    assert reads >= 20


CARL, CARLS_ORDERS, CARLS_ORDER = keys.customer(SHOP, "carl"), keys.customer_orders(SHOP, "carl"), order_key(6)
"""A customer of whom only this order is. No random change is his."""


async def fill_for_corruptions(shop: AuditedShop) -> AuditedShop:
    """Fill a shop, and let carl buy two pots and return one, which is written off."""
    await fill(shop)
    assert await shop.place((2, 2), customer="carl", reference="cart 1") == 6
    await shop.store.returns.make(6, new_return((2, 1), restock=False))
    return shop


CORRUPTIONS: list[tuple[RedisCommand, RedisCommand, set[str]]] = [
    (("HINCRBY", MUG, "stock", 1), ("HINCRBY", MUG, "stock", -1), {MUG}),
    (("HINCRBY", POT, "sold", -1), ("HINCRBY", POT, "sold", 1), {POT}),
    (("HINCRBY", CUP, "held", 1), ("HINCRBY", CUP, "held", -1), {CUP}),
    (("RENAME", COMPLETED, "away"), ("RENAME", "away", COMPLETED), {MUG, POT}),
    (("RENAME", SPOON, "away"), ("RENAME", "away", SPOON), {INDEX}),
    (("HSET", OF_WITHDRAWN, "total_price", "0.08"), ("HSET", OF_WITHDRAWN, "total_price", "0.07"), {OF_WITHDRAWN}),
    (("ZADD", HOLDS, "9e15", "5"), ("ZREM", HOLDS, "5"), {OF_WITHDRAWN}),
    (("ZADD", PENDING, "9e15", "9000000"), ("ZREM", PENDING, "9000000"), {PENDING}),
    (("ZREM", INDEX, "4"), ("ZADD", INDEX, "4", "4"), {SPOON}),
    (("HINCRBY", CARL, "2", 1), ("HINCRBY", CARL, "2", -1), {CARL}),
    (("RENAME", CARL, "away"), ("RENAME", "away", CARL), {CARL}),
    (("ZREM", CARLS_ORDERS, "6"), ("ZADD", CARLS_ORDERS, "6", "6"), {CARLS_ORDER, CARL}),
    (("HINCRBY", POT, "written_off", 1), ("HINCRBY", POT, "written_off", -1), {POT}),
    (("HINCRBY", MUG, "archived", 1), ("HINCRBY", MUG, "archived", -1), {MUG}),
    (("HINCRBY", CARL, "archived:2", 1), ("HINCRBY", CARL, "archived:2", -1), {CARL}),
    (("HSET", CARLS_ORDER, "refunded", "5.01"), ("HSET", CARLS_ORDER, "refunded", "5.00"), {CARLS_ORDER}),
]
"""Commands that corrupt the shop and that repair it, and the keys of the findings between the two.

`RandomChanges` cannot repair a corruption by accident.
"""


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("seed", range(2))
async def test_the_audit_finds_exactly_the_corruptions_if_the_shop_changes_before_each_read(seed: int) -> None:
    rng = random.Random(seed)
    shop = await fill_for_corruptions(open_shop(FakeRedis()))
    changes = RandomChanges(shop, rng)

    async def before(sent: int) -> None:
        await changes.make_one()

    store = make_store(SmallPages(shop.redis, before))
    followed = 0
    for corrupt, repair, expected in [(None, None, set()), *CORRUPTIONS[seed::2]]:
        if corrupt is not None:
            await shop.redis.send(*corrupt)
        report = await audit(store, SHOP)
        assert {finding.key for finding in report.findings} == expected, report.findings
        if repair is not None:
            await shop.redis.send(*repair)
        followed += report.events_followed
    assert followed > 50


class RandomChanges:
    """Makes random changes to orders, stock and products, but never repairs one of CORRUPTIONS."""

    def __init__(self, shop: AuditedShop, rng: random.Random) -> None:
        self.store = shop.store
        # A worker of its own expires orders: one that finds too many of them would refuse pending orders.
        self.sweeper = make_store(shop.redis, clock=shop.clock)
        self.clock = shop.clock
        self.rng = rng
        self.pending: list[int] = []
        self.sold: list[Order] = []
        self.added: list[int] = []
        self.done = 0

    async def make_one(self) -> None:
        actions = [
            (8, self.place),
            (5, self.hold),
            (3, lambda: self.end(self.store.holds.complete)),
            (2, lambda: self.end(self.store.holds.cancel)),
            (1, self.expire),
            (2, self.extend),
            (3, self.give_back),
            (1, self.archive),
            (3, self.change_stock),
            (1, self.add),
            (1, self.withdraw),
        ]
        [(_, action)] = self.rng.choices(actions, [weight for weight, _ in actions])
        with suppress(Refusal):
            await action()
        self.done += 1

    def lines(self) -> list[tuple[int, int]]:
        choices = [1, 2, *self.added[-5:]]
        return [(product_id, self.rng.randint(1, 3)) for product_id in self.rng.sample(choices, min(2, len(choices)))]

    def names(self) -> dict[str, Any]:
        return self.rng.choice([{}, {"customer": "anna"}, {"customer": "ben", "reference": f"cart {self.done % 5}"}])

    async def place(self) -> None:
        placed = await self.store.orders.place(order(*self.lines(), **self.names()))
        self.sold.append(placed.order)

    async def hold(self) -> None:
        placed = await self.store.orders.place(order(*self.lines(), hold=self.rng.randint(1, 5), **self.names()))
        self.pending.append(placed.order.id)

    async def extend(self) -> None:
        if self.pending:
            extension = HoldExtension(hold_seconds=self.rng.randint(1, 5))
            await self.store.holds.extend(self.rng.choice(self.pending), extension)

    async def give_back(self) -> None:
        if self.sold:
            bought = self.rng.choice(self.sold[-20:])
            line = self.rng.choice(bought.lines)
            new = new_return((line.product_id, 1), restock=self.rng.random() < 0.7)
            await self.store.returns.make(bought.id, new)

    async def end(self, verb: Callable[[int], Awaitable[object]]) -> None:
        if self.pending:
            await verb(self.pending.pop(self.rng.randrange(len(self.pending))))

    async def expire(self) -> None:
        self.clock.forward(1)
        await self.sweeper.expired_holds.expire_due(100)

    async def archive(self) -> None:
        # The orders that are corrupted must stay.
        order_ids = sorted({order_id async for order_id in self.store.orders.scan_ids()} - {1, 2, 3, 4, 5, 6})
        orders = [order for order in await self.store.archive.read(order_ids) if order is not None]
        ended = [order for order in orders if order.order.status != "pending"][:20]
        if ended:
            await self.store.archive.remove(ended, 0)

    async def change_stock(self) -> None:
        await self.store.stock.change(self.rng.choice([1, 2]), stock_change(self.rng.choice([-1, 4, 10])))

    async def add(self) -> None:
        self.added.append((await self.store.products.add(product(stock=50))).id)

    async def withdraw(self) -> None:
        if len(self.added) > 2:
            await self.store.products.withdraw(self.added.pop(self.rng.randrange(len(self.added))))


@pytest.fixture
async def workers(engine: MultiplexedConnection, engine_url: str) -> AsyncIterator[list[AuditedShop]]:
    """Four workers on one filled shop of the real engine: a connection per worker, and one common clock."""
    shop = await fill_for_corruptions(open_shop(engine))
    async with AsyncExitStack() as stack:
        connections = [
            await stack.enter_async_context(MultiplexedConnection(engine_url, timeout=10, max_in_flight=100_000))
            for _ in range(4)
        ]
        yield [
            AuditedShop(connection, shop.clock, make_store(connection, clock=shop.clock)) for connection in connections
        ]


async def _change_shop_until(shop: AuditedShop, seed: int, stop: asyncio.Event) -> int:
    """Make random changes until `stop` is set. Return their number."""
    changes = RandomChanges(shop, random.Random(seed))
    while not stop.is_set() and changes.done < 1000:  # with more orders, the audit cannot keep up
        await changes.make_one()
    return changes.done


async def test_the_audit_finds_exactly_the_corruptions_while_several_workers_change_the_shop(
    engine: MultiplexedConnection, workers: list[AuditedShop], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every second audit is of a balanced shop."""
    monkeypatch.setattr("service.ops.audit_steps.BATCH", 20)
    monkeypatch.setattr("service.ops.audit_customers.BATCH", 20)
    stop = asyncio.Event()
    store = make_store(SmallPages(engine, page=100))
    followed = 0
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_change_shop_until(worker, seed, stop)) for seed, worker in enumerate(workers)]
        for corrupt, repair, expected in CORRUPTIONS:
            report = await audit(store, SHOP)
            assert report.findings == []
            followed += report.events_followed
            await engine.send(*corrupt)
            report = await audit(store, SHOP)
            assert {finding.key for finding in report.findings} == expected, report.findings
            await engine.send(*repair)
            followed += report.events_followed
        stop.set()
    assert sum(task.result() for task in tasks) > 500
    assert followed > 100
    assert_no_findings(await audit(store, SHOP))

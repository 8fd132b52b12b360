"""The sweeper: overdue orders expire, each once. Neither an error nor a damaged order stops it."""

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from structlog.testing import capture_logs

from service.domain.errors.storage import OutcomeUnknown, StorageUnavailable
from service.storage import keys
from service.storage.connection import MultiplexedConnection
from service.storage.sender import CommandSender
from service.storage.store import Store
from service.storage.sweeper import sweep
from tests.support.balance import Units, assert_balanced
from tests.support.clock import Clock
from tests.support.shop import SHOP, add_mugs, expire_all_due, http_client, make_store, new_order, place
from tests.support.waiting import eventually


@pytest.fixture
def store(redis: CommandSender, clock: Clock) -> Store:
    """A Store on both kinds of Redis, with a clock that stands still."""
    return make_store(redis, clock=clock)


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


@asynccontextmanager
async def sweeping(*stores: Store) -> AsyncIterator[None]:
    """Run a sweeper on each store during the block. Assert that none ends by itself."""
    tasks = [asyncio.create_task(sweep(store.holds)) for store in stores]
    yield
    assert not any(task.done() for task in tasks)
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


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


async def test_the_next_deadline_is_infinity_when_no_stock_is_held(store: Store) -> None:
    assert await store.holds.expire_due(100) == math.inf
    mugs = await add_mugs(store)
    await store.holds.complete(await place_pending(store, mugs))
    await store.holds.cancel(await place_pending(store, mugs))
    assert await store.holds.expire_due(100) == math.inf


async def test_expire_due_returns_the_seconds_until_the_next_deadline(
    store: Store, redis: CommandSender, clock: Clock
) -> None:
    mugs = await add_mugs(store)
    for seconds in (60, 7, 900):
        await place_pending(store, mugs, seconds=seconds)
    assert await store.holds.expire_due(100) == 7
    clock.forward(6.999)
    assert await store.holds.expire_due(100) == 0.001
    assert (await assert_balanced(redis)).statuses() == {"pending": 3}
    clock.forward(0.001)
    assert await store.holds.expire_due(100) == 0
    assert (await assert_balanced(redis)).statuses() == {"expired": 1, "pending": 2}
    assert await store.holds.expire_due(100) == 53


@pytest.mark.parametrize("limit", [1, 7, 100, 1000])
async def test_expire_due_expires_no_more_orders_than_its_limit(
    store: Store, redis: CommandSender, clock: Clock, limit: int
) -> None:
    mugs = await add_mugs(store)
    await place_many_pending(store, mugs, 30)
    clock.forward(900)
    for expired in range(0, 30, limit):
        assert (await assert_balanced(redis)).statuses()["expired"] == expired
        assert await store.holds.expire_due(limit) == 0
    assert await store.holds.expire_due(limit) == math.inf
    contents = await assert_balanced(redis)
    assert (contents.units[mugs], contents.statuses()) == (Units(10_000, 0, 0, 10_000), {"expired": 30})


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


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_order_does_not_prevent_other_orders_from_expiring(
    store: Store, redis: CommandSender, clock: Clock, damage: str
) -> None:
    pots, mugs = await add_mugs(store), await add_mugs(store)
    before = await place_many_pending(store, mugs, 3)
    damaged = await place_pending(store, pots)
    after = await place_many_pending(store, mugs, 3)
    await damage_data(redis, damage, damaged, pots)
    clock.forward(900)
    with capture_logs():
        for _ in range(3):
            await store.holds.expire_due(100)
    assert [await status_of(redis, order_id) for order_id in before + after] == ["expired"] * 6
    assert await redis.send("HMGET", keys.product(SHOP, mugs), "stock", "held") == ["10000", "0"]


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_hold_that_cannot_be_released_does_not_keep_the_sweeper_busy(
    store: Store, redis: CommandSender, clock: Clock, damage: str
) -> None:
    pots, mugs = await add_mugs(store), await add_mugs(store)
    damaged = await place_pending(store, pots)
    await place_pending(store, mugs, seconds=905)
    await damage_data(redis, damage, damaged, pots)
    clock.forward(900)
    with capture_logs():
        rounds = [await store.holds.expire_due(100) for _ in range(3)]
    assert rounds[-1] == 5


async def test_a_hold_that_cannot_be_released_is_logged(store: Store, redis: CommandSender, clock: Clock) -> None:
    mugs = await add_mugs(store)
    await damage_data(redis, "a product without its held units", await place_pending(store, mugs), mugs)
    clock.forward(900)
    with capture_logs() as logs:
        await store.holds.expire_due(100)
    assert [(entry["event"], entry["log_level"], entry["count"]) for entry in logs if "count" in entry] == [
        ("holds_not_released", "error", 1)
    ]


async def test_a_batch_full_of_damaged_orders_does_not_prevent_other_orders_from_expiring(
    store: Store, redis: CommandSender, clock: Clock
) -> None:
    pots, mugs = await add_mugs(store), await add_mugs(store)
    await place_many_pending(store, pots, 6)
    undamaged = await place_many_pending(store, mugs, 3)
    await damage_data(redis, "a product without its held units", 0, pots)
    clock.forward(900)
    with capture_logs():
        for _ in range(200):  # each batch begins at a random place: the chance that a place is never read is 1 in 10^13
            await store.holds.expire_due(3)
    assert [await status_of(redis, order_id) for order_id in undamaged] == ["expired"] * 3


async def test_orders_that_a_failed_round_left_pending_expire_later(
    store: Store, redis: CommandSender, clock: Clock
) -> None:
    mugs = await add_mugs(store)
    await place_many_pending(store, mugs, 20)
    clock.forward(900)
    numbers = iter(range(1000))

    def error_for_every_second_script(command: str) -> Exception | None:
        return StorageUnavailable("cut") if command == "EVALSHA" and next(numbers) % 2 else None

    with capture_logs():
        await expire_all_due(make_store(ObservedSender(redis, error_for_every_second_script), clock=clock))
        await expire_all_due(store)
    contents = await assert_balanced(redis)
    assert (contents.units[mugs], contents.statuses()) == (Units(10_000, 0, 0, 10_000), {"expired": 20})


async def test_stock_returns_about_a_second_after_the_deadline_of_its_hold(engine: MultiplexedConnection) -> None:
    store, sender = make_store(engine), ObservedSender(engine)
    mugs = await add_mugs(store)
    async with sweeping(make_store(sender)):
        await eventually(lambda: sender.sent["ZCOUNT"], "a sweeper that has found no hold and sleeps")
        order_id = await place_pending(store, mugs, seconds=1)
        placed = time.monotonic()
        assert (await store.products.get(mugs)).stock == 9999

        async def is_back() -> bool:
            return (await store.products.get(mugs)).stock == 10_000

        await eventually(is_back, "the stock")
        # One second of hold, at most one second of sleep, and some time for a busy machine.
        assert 0.99 <= time.monotonic() - placed < 3.5
    assert await status_of(engine, order_id) == "expired"
    assert sender.sent.total() < 50, "the sweeper polls instead of sleeping"


async def test_concurrent_sweepers_release_each_hold_only_once(
    engine_url: str, engine: MultiplexedConnection, clock: Clock
) -> None:
    store = make_store(engine, clock=clock)
    mugs = await add_mugs(store)
    orders = await place_many_pending(store, mugs, 500)
    async with (
        MultiplexedConnection(engine_url, timeout=10, max_in_flight=1000) as first,
        MultiplexedConnection(engine_url, timeout=10, max_in_flight=1000) as second,
    ):
        clock.forward(900)
        async with sweeping(*(make_store(connection, clock=clock) for connection in (first, second, first, second))):

            async def is_over() -> bool:
                return await count_holds(engine) == 0

            await eventually(is_over, "the end of the backlog")
    contents = await assert_balanced(engine)
    assert (contents.units[mugs], contents.statuses()) == (Units(10_000, 0, 0, 10_000), {"expired": 500})
    events = await store.events.read("0-0", limit=5000)
    assert sorted(int(event.fields["order"]) for event in events if event.fields["event"] == "order_expired") == orders


@pytest.mark.parametrize(
    ("error", "level"),
    [
        (StorageUnavailable("cut"), "warning"),
        (OutcomeUnknown("cut"), "warning"),
        (RuntimeError("an unexpected error"), "error"),
    ],
)
async def test_a_sweeper_logs_an_error_of_the_storage_and_continues(
    engine: MultiplexedConnection, clock: Clock, error: Exception, level: str
) -> None:
    store = make_store(engine, clock=clock)
    mugs = await add_mugs(store)
    await place_many_pending(store, mugs, 3)
    clock.forward(900)
    is_down = True
    sender = ObservedSender(engine, lambda command: error if is_down else None)
    with capture_logs() as logs:
        async with sweeping(make_store(sender, clock=clock)):
            await eventually(lambda: logs, "a line in the log")
            for _ in range(20):  # time enough for a sweeper without a pause to try again
                assert await count_holds(engine) == 3
            assert [(entry["event"], entry["log_level"]) for entry in logs] == [("sweep_failed", level)]
            is_down = False

            async def is_over() -> bool:
                return await count_holds(engine) == 0

            await eventually(is_over, "the holds")
    contents = await assert_balanced(engine)
    assert (contents.units[mugs], contents.statuses()) == (Units(10_000, 0, 0, 10_000), {"expired": 3})


async def test_requests_are_answered_while_a_backlog_expires(
    engine_url: str, engine: MultiplexedConnection, clock: Clock
) -> None:
    store = make_store(engine, clock=clock)
    mugs, pots = await add_mugs(store), await add_mugs(store)
    await place_many_pending(store, mugs, 5000)
    clock.forward(900)
    longest, answered = 0.0, 0
    async with (
        MultiplexedConnection(engine_url, timeout=10, max_in_flight=100_000) as connection,
        http_client(store) as client,
        sweeping(make_store(connection, clock=clock)),
    ):
        while await count_holds(engine):
            started = time.monotonic()
            assert (await place(client, (pots, 1))).status_code == 201
            longest, answered = max(longest, time.monotonic() - started), answered + 1
    assert answered >= 30, "fewer than one request per batch"
    assert longest < 1
    contents = await assert_balanced(engine)
    assert contents.statuses() == {"expired": 5000, "completed": answered}
    assert contents.units[mugs] == Units(10_000, 0, 0, 10_000)

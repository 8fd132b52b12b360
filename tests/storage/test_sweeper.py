"""The sweeper: overdue holds come back, each once, whatever else is wrong."""

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
from tests.support.books import Account, assert_books_balance
from tests.support.clock import Clock
from tests.support.shop import SHOP, add_mugs, http_client, make_store, new_order, place, release_all_due
from tests.support.waiting import eventually


@pytest.fixture
def store(link: CommandSender, clock: Clock) -> Store:
    """On both kinds of Redis, with a clock that stands still."""
    return make_store(link, clock=clock)


class Tap:
    """A CommandSender that counts the commands, and fails those that `fault` gives an error for."""

    def __init__(self, link: CommandSender, fault: Callable[[str], Exception | None] = lambda command: None) -> None:
        self.link = link
        self.fault = fault
        self.sent: Counter[str] = Counter()

    def send(self, *command: bytes | str | int, idempotent: bool = False) -> Awaitable[Any]:
        name = str(command[0])
        self.sent[name] += 1
        if error := self.fault(name):
            lost = asyncio.get_running_loop().create_future()
            lost.set_exception(error)
            return lost
        return self.link.send(*command, idempotent=idempotent)


@asynccontextmanager
async def sweeping(*stores: Store) -> AsyncIterator[None]:
    """A sweeper on each store. None may end by itself."""
    tasks = [asyncio.create_task(sweep(store.holds)) for store in stores]
    yield
    assert not any(task.done() for task in tasks)
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def hold(store: Store, product_id: int, quantity: int = 1, seconds: int = 900) -> int:
    """Places a pending order and gives its id."""
    new = new_order((product_id, quantity), status="pending", hold_seconds=seconds)
    return (await store.orders.place(new)).order.id


async def hold_many(store: Store, product_id: int, count: int) -> list[int]:
    return await asyncio.gather(*(hold(store, product_id) for _ in range(count)))


async def status_of(link: CommandSender, order_id: int) -> str:
    [status] = await link.send("HMGET", keys.order(SHOP, order_id), "status")
    return str(status)


async def count_holds(link: CommandSender) -> int:
    return int(await link.send("ZCARD", keys.holds(SHOP)))


async def test_where_nothing_is_held_nothing_is_ever_due(store: Store) -> None:
    assert await store.holds.expire_due(100) == math.inf
    mugs = await add_mugs(store)
    await store.holds.complete(await hold(store, mugs))
    await store.holds.cancel(await hold(store, mugs))
    assert await store.holds.expire_due(100) == math.inf


async def test_the_next_deadline_is_told_in_seconds(store: Store, link: CommandSender, clock: Clock) -> None:
    mugs = await add_mugs(store)
    for seconds in (60, 7, 900):
        await hold(store, mugs, seconds=seconds)
    assert await store.holds.expire_due(100) == 7
    clock.forward(6.999)
    assert await store.holds.expire_due(100) == 0.001
    assert (await assert_books_balance(link)).statuses() == {"pending": 3}
    clock.forward(0.001)
    assert await store.holds.expire_due(100) == 0
    assert (await assert_books_balance(link)).statuses() == {"expired": 1, "pending": 2}
    assert await store.holds.expire_due(100) == 53


@pytest.mark.parametrize("most", [1, 7, 100, 1000])
async def test_a_round_releases_no_more_than_its_batch(
    store: Store, link: CommandSender, clock: Clock, most: int
) -> None:
    mugs = await add_mugs(store)
    await hold_many(store, mugs, 30)
    clock.forward(900)
    for released in range(0, 30, most):
        assert (await assert_books_balance(link)).statuses()["expired"] == released
        assert await store.holds.expire_due(most) == 0
    assert await store.holds.expire_due(most) == math.inf
    books = await assert_books_balance(link)
    assert (books.accounts[mugs], books.statuses()) == (Account(10_000, 0, 0, 10_000), {"expired": 30})


CORRUPTIONS = {
    "lines that cannot be read": ("HSET", "{order}", "products", "two mugs"),
    "no lines": ("HDEL", "{order}", "products"),
    "a total that cannot be read": ("HSET", "{order}", "total_price", "much"),
    "no deadline": ("HDEL", "{order}", "expires_at"),
    "a deadline that is no number": ("HSET", "{order}", "expires_at", "soon"),
    "no status": ("HDEL", "{order}", "status"),
    "a status that is none": ("HSET", "{order}", "status", "lost"),
    "another type": ("SET", "{order}", "x"),
    "no order": ("DEL", "{order}"),
    "an order that has ended": ("HSET", "{order}", "status", "completed"),
    "a deadline after that of its hold": ("HSET", "{order}", "expires_at", "9999999999999"),
    "no product": ("DEL", "{product}"),
    "a product without figures": ("HDEL", "{product}", "held"),
    "a product whose stock is no number": ("HSET", "{product}", "stock", "many"),
}


async def corrupt(link: CommandSender, what: str, order_id: int, product_id: int) -> None:
    names = {"{order}": keys.order(SHOP, order_id), "{product}": keys.product(SHOP, product_id)}
    await link.send(*(names.get(part, part) for part in CORRUPTIONS[what]))


@pytest.mark.parametrize("what", CORRUPTIONS)
async def test_a_poison_order_does_not_keep_the_others_from_release(
    store: Store, link: CommandSender, clock: Clock, what: str
) -> None:
    pots, mugs = await add_mugs(store), await add_mugs(store)
    before = await hold_many(store, mugs, 3)
    poison = await hold(store, pots)
    after = await hold_many(store, mugs, 3)
    await corrupt(link, what, poison, pots)
    clock.forward(900)
    with capture_logs():
        for _ in range(3):
            await store.holds.expire_due(100)
    assert [await status_of(link, order_id) for order_id in before + after] == ["expired"] * 6
    assert await link.send("HMGET", keys.product(SHOP, mugs), "stock", "held") == ["10000", "0"]


@pytest.mark.parametrize("what", CORRUPTIONS)
async def test_a_hold_that_cannot_be_released_does_not_keep_the_sweeper_busy(
    store: Store, link: CommandSender, clock: Clock, what: str
) -> None:
    pots, mugs = await add_mugs(store), await add_mugs(store)
    poison = await hold(store, pots)
    await hold(store, mugs, seconds=905)
    await corrupt(link, what, poison, pots)
    clock.forward(900)
    with capture_logs():
        rounds = [await store.holds.expire_due(100) for _ in range(3)]
    assert rounds[-1] == 5


async def test_a_hold_that_cannot_be_released_is_logged(store: Store, link: CommandSender, clock: Clock) -> None:
    mugs = await add_mugs(store)
    await corrupt(link, "a product without figures", await hold(store, mugs), mugs)
    clock.forward(900)
    with capture_logs() as logs:
        await store.holds.expire_due(100)
    assert [(entry["event"], entry["log_level"], entry["count"]) for entry in logs if "count" in entry] == [
        ("holds_not_released", "error", 1)
    ]


async def test_more_poison_than_a_batch_does_not_keep_the_others_from_release_for_long(
    store: Store, link: CommandSender, clock: Clock
) -> None:
    pots, mugs = await add_mugs(store), await add_mugs(store)
    await hold_many(store, pots, 6)
    healthy = await hold_many(store, mugs, 3)
    await corrupt(link, "a product without figures", 0, pots)
    clock.forward(900)
    with capture_logs():
        for _ in range(200):  # at random places of the backlog: 1 in 10^13 that one place is never looked at
            await store.holds.expire_due(3)
    assert [await status_of(link, order_id) for order_id in healthy] == ["expired"] * 3


async def test_a_round_that_was_cut_off_is_finished_later(store: Store, link: CommandSender, clock: Clock) -> None:
    mugs = await add_mugs(store)
    await hold_many(store, mugs, 20)
    clock.forward(900)
    calls = iter(range(1000))

    def every_other_script(command: str) -> Exception | None:
        return StorageUnavailable("cut") if command == "EVALSHA" and next(calls) % 2 else None

    with capture_logs():
        await release_all_due(make_store(Tap(link, every_other_script), clock=clock))
        await release_all_due(store)
    books = await assert_books_balance(link)
    assert (books.accounts[mugs], books.statuses()) == (Account(10_000, 0, 0, 10_000), {"expired": 20})


async def test_the_stock_of_a_hold_is_back_about_a_second_after_its_deadline(wire: MultiplexedConnection) -> None:
    store, tap = make_store(wire), Tap(wire)
    mugs = await add_mugs(store)
    async with sweeping(make_store(tap)):
        await eventually(lambda: tap.sent["ZCOUNT"], "a sweeper that sleeps, seeing nothing held")
        order_id = await hold(store, mugs, seconds=1)
        placed = time.monotonic()
        assert (await store.products.get(mugs)).stock == 9999

        async def is_back() -> bool:
            return (await store.products.get(mugs)).stock == 10_000

        await eventually(is_back, "the stock")
        # A second of the hold, a second of sleep at the most, and room for a busy machine.
        assert 0.99 <= time.monotonic() - placed < 3.5
    assert await status_of(wire, order_id) == "expired"
    assert tap.sent.total() < 50, "the sweeper polls instead of sleeping"


async def test_sweepers_at_once_return_each_stock_once(
    engine_url: str, wire: MultiplexedConnection, clock: Clock
) -> None:
    store = make_store(wire, clock=clock)
    mugs = await add_mugs(store)
    orders = await hold_many(store, mugs, 500)
    async with (
        MultiplexedConnection(engine_url, timeout=10, max_in_flight=1000) as one,
        MultiplexedConnection(engine_url, timeout=10, max_in_flight=1000) as two,
    ):
        clock.forward(900)
        async with sweeping(*(make_store(link, clock=clock) for link in (one, two, one, two))):

            async def is_over() -> bool:
                return await count_holds(wire) == 0

            await eventually(is_over, "the end of the backlog")
    books = await assert_books_balance(wire)
    assert (books.accounts[mugs], books.statuses()) == (Account(10_000, 0, 0, 10_000), {"expired": 500})
    events = await store.events.read("0-0", limit=5000)
    assert sorted(int(event.fields["order"]) for event in events if event.fields["event"] == "order_expired") == orders


@pytest.mark.parametrize(
    ("error", "level"),
    [
        (StorageUnavailable("cut"), "warning"),
        (OutcomeUnknown("cut"), "warning"),
        (RuntimeError("never thought of"), "error"),
    ],
)
async def test_a_sweeper_whose_storage_fails_says_so_and_goes_on(
    wire: MultiplexedConnection, clock: Clock, error: Exception, level: str
) -> None:
    store = make_store(wire, clock=clock)
    mugs = await add_mugs(store)
    await hold_many(store, mugs, 3)
    clock.forward(900)
    is_down = True
    tap = Tap(wire, lambda command: error if is_down else None)
    with capture_logs() as logs:
        async with sweeping(make_store(tap, clock=clock)):
            await eventually(lambda: logs, "a line in the log")
            for _ in range(20):  # a while in which one that does not rest would try again
                assert await count_holds(wire) == 3
            assert [(entry["event"], entry["log_level"]) for entry in logs] == [("sweep_failed", level)]
            is_down = False

            async def is_over() -> bool:
                return await count_holds(wire) == 0

            await eventually(is_over, "the holds")
    books = await assert_books_balance(wire)
    assert (books.accounts[mugs], books.statuses()) == (Account(10_000, 0, 0, 10_000), {"expired": 3})


async def test_a_backlog_is_worked_off_while_requests_are_answered(
    engine_url: str, wire: MultiplexedConnection, clock: Clock
) -> None:
    store = make_store(wire, clock=clock)
    mugs, pots = await add_mugs(store), await add_mugs(store)
    await hold_many(store, mugs, 5000)
    clock.forward(900)
    longest, answered = 0.0, 0
    async with (
        MultiplexedConnection(engine_url, timeout=10, max_in_flight=100_000) as own,
        http_client(store) as client,
        sweeping(make_store(own, clock=clock)),
    ):
        while await count_holds(wire):
            started = time.monotonic()
            assert (await place(client, (pots, 1))).status_code == 201
            longest, answered = max(longest, time.monotonic() - started), answered + 1
    assert answered >= 30, "fewer than one request a batch"
    assert longest < 1
    books = await assert_books_balance(wire)
    assert books.statuses() == {"expired": 5000, "completed": answered}
    assert books.accounts[mugs] == Account(10_000, 0, 0, 10_000)

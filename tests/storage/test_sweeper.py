"""The sweeper: it sleeps until the next deadline, survives errors, and leaves time for requests."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from structlog.testing import capture_logs

from service.app import new_metrics
from service.domain.errors.storage import OutcomeUnknown, StorageUnavailable
from service.logger import RepeatedFailures
from service.storage.connection import MultiplexedConnection
from service.storage.store import Store
from service.storage.sweeper import deliver_regularly, sweep
from tests.support.balance import Units, assert_balanced
from tests.support.clock import Clock
from tests.support.holds import (
    ObservedSender,
    count_holds,
    place_many_pending,
    place_pending,
    status_of,
)
from tests.support.shop import add_mugs, http_client, make_store, place
from tests.support.waiting import eventually


@asynccontextmanager
async def sweeping(*stores: Store) -> AsyncIterator[None]:
    """Run a sweeper on each store during the block. Assert that none ends by itself."""
    tasks = [asyncio.create_task(sweep(store.expired_holds, store.metrics)) for store in stores]
    yield
    assert not any(task.done() for task in tasks)
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_stock_returns_about_a_second_after_the_deadline_of_its_hold(engine: MultiplexedConnection) -> None:
    store, sender = make_store(engine), ObservedSender(engine)
    mugs = await add_mugs(store)
    async with sweeping(make_store(sender)):
        await eventually(lambda: sender.sent["EVALSHA"], "a sweeper that has found no hold and sleeps")
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


def test_a_failure_that_goes_on_is_due_once_a_minute_and_another_one_at_once() -> None:
    now = 5.0
    logged = RepeatedFailures(lambda: now)
    assert [logged.is_due("no reply") for _ in range(3)] == [True, False, False]
    assert logged.is_due("refused")
    now += 59
    assert not logged.is_due("no reply")
    now += 1
    assert [logged.is_due("no reply") for _ in range(2)] == [True, False]


async def test_a_delivery_that_fails_again_and_again_is_logged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.storage.sweeper.MAX_IDLE_PAUSE_SECONDS", 0)
    tries = 0

    async def deliver() -> None:
        nonlocal tries
        tries += 1
        raise StorageUnavailable("partition 1: no reply")

    with capture_logs() as logs:
        task = asyncio.create_task(deliver_regularly(deliver, new_metrics()))
        await eventually(lambda: tries > 9, "some tries")
        task.cancel()
    assert [(entry["event"], entry["reason"]) for entry in logs] == [("delivery_failed", "partition 1: no reply")]


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
    assert answered >= 5, "requests wait until the backlog has ended"
    assert longest < 1
    contents = await assert_balanced(engine)
    assert contents.statuses() == {"expired": 5000, "completed": answered}
    assert contents.units[mugs] == Units(10_000, 0, 0, 10_000)

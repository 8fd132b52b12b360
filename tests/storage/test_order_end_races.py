"""Several workers end the same orders at the same time, on the real engine: each order ends only once."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from service.domain.errors.refusals import OrderCancelled, OrderCompleted, OrderExpired, Refusal
from service.domain.requests import HoldExtension, NewReturn, StockChange
from service.storage import keys
from service.storage.connection import MultiplexedConnection
from service.storage.store import Store
from tests.support.balance import Units, assert_balanced
from tests.support.clock import Clock
from tests.support.shop import SHOP, add_mugs, expire_all_due, make_store, new_order

WORKERS = 4
HOLD = 900
"""Seconds."""


class Workers(list[Store]):
    """Stores with a connection each. By the clock of `late`, the deadline of the orders has just come."""

    late: Store


@pytest.fixture
async def workers(engine_url: str, engine: MultiplexedConnection) -> AsyncIterator[Workers]:
    """Return Stores on the same engine. The clock of `late` is at the deadline, the other clock HOLD seconds before."""
    early, late = Clock(), Clock()
    late.forward(HOLD)
    async with AsyncExitStack() as stack:
        connections = [
            await stack.enter_async_context(MultiplexedConnection(engine_url, timeout=10, max_in_flight=100_000))
            for _ in range(WORKERS + 1)
        ]
        workers = Workers(make_store(opened, clock=early) for opened in connections[:-1])
        workers.late = make_store(connections[-1], clock=late)
        yield workers


def call_of(store: Store, verb: str) -> Callable[[int], Awaitable[object]]:
    """Return the verb of the Store that ends or reads an order."""
    calls: dict[str, Callable[[int], Awaitable[object]]] = {
        "complete": store.holds.complete,
        "cancel": store.holds.cancel,
        "get": store.orders.get,
    }
    return calls[verb]


async def place(store: Store, *lines: tuple[int, int], key: str | None = None, **fields: Any) -> int:
    """Place an order, pending unless `fields` has another status. Return its id."""
    new = new_order(*lines, **{"status": "pending", **fields})
    return (await store.orders.place(new, key)).order.id


async def outcome_of(call: Awaitable[object]) -> str:
    """Return what the caller gets: `done`, or the class name of the refusal."""
    try:
        await call
    except Refusal as refusal:
        return type(refusal).__name__
    return "done"


async def outcomes_of(*calls: Awaitable[object]) -> list[str]:
    return await asyncio.gather(*map(outcome_of, calls))


async def count_end_events(store: Store) -> Counter[tuple[str, str]]:
    """Count the events that end an order, by type and order."""
    events = await store.events.read("0-0", limit=100_000)
    return Counter(
        (event.fields["event"], event.fields["order"])
        for event in events
        if event.fields["event"] in ("order_completed", "order_cancelled", "order_expired")
    )


async def test_complete_and_cancel_at_the_same_time_end_an_order_once(
    workers: Workers, engine: MultiplexedConnection
) -> None:
    mugs = await add_mugs(workers[0])
    order_ids = [await place(workers[0], (mugs, 3)) for _ in range(60)]
    pairs = []
    for i, order_id in enumerate(order_ids):
        complete, cancel = (
            workers[i % WORKERS].holds.complete(order_id),
            workers[-1 - i % WORKERS].holds.cancel(order_id),
        )
        # Sometimes the complete is sent first, sometimes the cancel.
        if i // WORKERS % 2:
            pairs.append(await outcomes_of(complete, cancel))
        else:
            pairs.append((await outcomes_of(cancel, complete))[::-1])
    contents = await assert_balanced(engine)
    for order_id, pair in zip(order_ids, pairs, strict=True):
        expected = {"completed": ["done", "OrderCompleted"], "cancelled": ["OrderCancelled", "done"]}
        assert pair == expected[contents.status_of[order_id]]
    sold = 3 * contents.statuses()["completed"]
    assert contents.units[mugs] == Units(10_000 - sold, 0, sold, 10_000)
    assert set((await count_end_events(workers[0])).values()) == {1}


@pytest.mark.parametrize(
    ("verb", "done"),
    [("complete", "completed"), ("cancel", "cancelled")],
)
async def test_client_and_sweeper_at_the_deadline_end_an_order_once(
    workers: Workers, engine: MultiplexedConnection, verb: str, done: str
) -> None:
    mugs = await add_mugs(workers[0])
    order_ids = [await place(workers[0], (mugs, 3), hold_seconds=HOLD) for _ in range(90)]
    answers: dict[int, str] = {}

    async def end_one_by_one(worker: Store, share: list[int]) -> None:
        for order_id in share:
            answers[order_id] = await outcome_of(call_of(worker, verb)(order_id))

    await asyncio.gather(
        *(end_one_by_one(worker, order_ids[i::WORKERS]) for i, worker in enumerate(workers)),
        *(expire_all_due(workers.late, batch) for batch in (2, 3)),
    )
    contents = await assert_balanced(engine)
    assert answers == {
        order_id: {done: "done"}.get(how, "OrderExpired") for order_id, how in contents.status_of.items()
    }
    assert contents.statuses().keys() <= {done, "expired"}
    sold = 3 * contents.statuses()["completed"]
    assert contents.units[mugs] == Units(10_000 - sold, 0, sold, 10_000)
    assert set((await count_end_events(workers[0])).values()) == {1}


@pytest.mark.parametrize("verb", ["complete", "cancel"])
async def test_order_can_only_expire_after_its_deadline(
    workers: Workers, engine: MultiplexedConnection, verb: str
) -> None:
    mugs = await add_mugs(workers[0])
    order_ids = [await place(workers[0], (mugs, 3), hold_seconds=HOLD) for _ in range(30)]
    *answers, _ = await outcomes_of(
        *(call_of(workers.late, verb)(order_id) for order_id in order_ids), expire_all_due(workers.late, 7)
    )
    assert set(answers) == {"OrderExpired"}
    contents = await assert_balanced(engine)
    assert contents.units[mugs] == Units(10_000, 0, 0, 10_000)
    assert await count_end_events(workers[0]) == {("order_expired", str(order_id)): 1 for order_id in order_ids}


@pytest.mark.parametrize(
    ("verb", "event", "expected"),
    [
        ("cancel", "order_cancelled", Units(10, 0, 0, 10)),
        ("complete", "order_completed", Units(7, 0, 3, 10)),
    ],
)
async def test_fifty_concurrent_calls_end_an_order_once(
    workers: Workers, engine: MultiplexedConnection, verb: str, event: str, expected: Units
) -> None:
    mugs = await add_mugs(workers[0], stock=10)
    order_id = await place(workers[0], (mugs, 3))
    answers = await outcomes_of(*(call_of(workers[i % WORKERS], verb)(order_id) for i in range(50)))
    assert answers == ["done"] * 50
    assert (await assert_balanced(engine)).units == {mugs: expected}
    assert await count_end_events(workers[0]) == {(event, str(order_id)): 1}


async def test_fifty_sweepers_at_the_same_time_release_the_stock_once(
    workers: Workers, engine: MultiplexedConnection
) -> None:
    mugs = await add_mugs(workers[0], stock=10)
    order_id = await place(workers[0], (mugs, 3), hold_seconds=HOLD)
    await asyncio.gather(*(workers.late.expired_holds.expire_due(100) for _ in range(50)))
    assert (await assert_balanced(engine)).units == {mugs: Units(10, 0, 0, 10)}
    assert await count_end_events(workers[0]) == {("order_expired", str(order_id)): 1}


async def test_delivery_and_cancelling_at_the_same_time_both_count(
    workers: Workers, engine: MultiplexedConnection
) -> None:
    mugs = await add_mugs(workers[0], stock=300)
    order_ids = [await place(workers[0], (mugs, 3)) for _ in range(100)]
    answers = await outcomes_of(
        *(
            call
            for i, order_id in enumerate(order_ids)
            for call in (
                workers[i % WORKERS].holds.cancel(order_id),
                workers[-1 - i % WORKERS].stock.change(mugs, StockChange(change=1, reason="delivery")),
            )
        )
    )
    assert set(answers) == {"done"}
    assert (await assert_balanced(engine)).units == {mugs: Units(400, 0, 0, 400)}


async def test_product_withdrawn_while_its_orders_end_stays_balanced(
    workers: Workers, engine: MultiplexedConnection
) -> None:
    mugs = await add_mugs(workers[0])
    order_ids = [await place(workers[0], (mugs, 3)) for _ in range(60)]
    endings = [
        (workers[i % WORKERS].holds.complete if i % 2 else workers[i % WORKERS].holds.cancel)(order_id)
        for i, order_id in enumerate(order_ids)
    ]
    answers = await outcomes_of(*endings[:30], workers[1].products.withdraw(mugs), *endings[30:])
    assert set(answers) == {"done"}
    assert (await assert_balanced(engine)).units == {mugs: Units(9910, 0, 90, 10_000)}


async def test_repeated_key_during_the_end_of_its_order_places_no_second_order(
    workers: Workers, engine: MultiplexedConnection
) -> None:
    mugs = await add_mugs(workers[0])
    order_id = await place(workers[0], (mugs, 3), key="k")
    *answers, _ = await outcomes_of(
        *(place(workers[i % WORKERS], (mugs, 3), key="k") for i in range(40)), workers[0].holds.cancel(order_id)
    )
    assert set(answers) <= {"done", "OrderCancelled"}
    assert (await assert_balanced(engine)).status_of == {order_id: "cancelled"}


# Returns, extended holds and limits, 200 calls at once


def back(*lines: tuple[int, int], **fields: object) -> NewReturn:
    """Return a return of `(product id, quantity)` lines."""
    products = [{"product_id": product_id, "quantity": quantity} for product_id, quantity in lines]
    return NewReturn.model_validate({"products": products, **fields})


async def test_complete_and_return_at_the_same_time_return_only_what_was_sold(
    workers: Workers, engine: MultiplexedConnection
) -> None:
    mugs = await add_mugs(workers[0])
    order_ids = [await place(workers[0], (mugs, 3), customer="anna") for _ in range(100)]
    rng = random.Random(1)
    calls: list[tuple[int, str, Awaitable[object]]] = []
    for i, order_id in enumerate(order_ids):
        calls.append((order_id, "complete", workers[i % WORKERS].holds.complete(order_id)))
        restock = rng.random() < 0.5
        returning = workers[-1 - i % WORKERS].returns.make(order_id, back((mugs, 2), restock=restock))
        calls.append((order_id, "return", returning))
    rng.shuffle(calls)
    answers = await outcomes_of(*(call for _, _, call in calls))
    contents = await assert_balanced(engine)
    assert set(contents.status_of.values()) == {"completed"}
    for (order_id, verb, _), answer in zip(calls, answers, strict=True):
        returned = "returned" in contents.orders[order_id]
        assert answer == ("done" if verb == "complete" or returned else "ReturnOfPendingOrder")
    assert 0 < sum("returned" in order for order in contents.orders.values()) < 100


async def test_two_hundred_returns_at_the_same_time_return_each_unit_once(
    workers: Workers, engine: MultiplexedConnection
) -> None:
    mugs, pots = await add_mugs(workers[0]), await add_mugs(workers[0])
    order_id = await place(workers[0], (mugs, 50), (pots, 30), status="completed", customer="anna")
    answers = await outcomes_of(
        *(
            workers[i % WORKERS].returns.make(
                order_id, back((mugs, 1), *([(pots, 1)] if i % 2 else []), restock=i % 3 > 0)
            )
            for i in range(200)
        )
    )
    contents = await assert_balanced(engine)
    assert Counter(answers)["done"] >= 50
    assert set(answers) == {"done", "ReturnExceedsOrder"}
    assert contents.units[mugs].sold == 0
    assert contents.products[pots]["sold"] == str(30 - sum(a == "done" for a in answers[1::2]))


async def test_a_return_that_two_hundred_clients_repeat_with_one_key_is_made_once(
    workers: Workers, engine: MultiplexedConnection
) -> None:
    mugs = await add_mugs(workers[0], stock=10)
    order_id = await place(workers[0], (mugs, 5), status="completed")
    made = await asyncio.gather(
        *(workers[i % WORKERS].returns.make(order_id, back((mugs, 2)), "r-1") for i in range(200))
    )
    assert Counter(returned.replayed for returned in made) == {False: 1, True: 199}
    assert (await assert_balanced(engine)).units == {mugs: Units(7, 0, 3, 10)}


async def test_extension_and_sweeper_at_the_deadline_leave_each_order_held_or_expired(
    workers: Workers, engine: MultiplexedConnection
) -> None:
    mugs = await add_mugs(workers[0])
    order_ids = [await place(workers[0], (mugs, 3), hold_seconds=HOLD, customer="anna") for _ in range(200)]
    extension = HoldExtension(hold_seconds=HOLD + 1)
    answers: dict[int, str] = {}

    async def extend_one_by_one(worker: Store, share: list[int]) -> None:
        for order_id in share:
            answers[order_id] = await outcome_of(worker.holds.extend(order_id, extension))

    await asyncio.gather(
        *(extend_one_by_one(worker, order_ids[i::WORKERS][::-1]) for i, worker in enumerate(workers)),
        *(expire_all_due(workers.late, batch) for batch in (2, 3)),
    )
    contents = await assert_balanced(engine)
    assert answers == {
        order_id: {"pending": "done"}.get(how, "OrderExpired") for order_id, how in contents.status_of.items()
    }
    assert contents.statuses().keys() == {"pending", "expired"}
    held = 3 * contents.statuses()["pending"]
    assert contents.units[mugs] == Units(10_000 - held, held, 0, 10_000)


@pytest.mark.parametrize("status", ["completed", "pending"])
async def test_two_hundred_clients_of_one_customer_get_no_more_than_the_limit(
    workers: Workers, engine: MultiplexedConnection, status: str
) -> None:
    mugs = await add_mugs(workers[0], limit_per_customer=2)
    answers = await outcomes_of(
        *(
            place(workers[i % WORKERS], (mugs, 1), status=status, customer="anna" if i % 2 else "ben")
            for i in range(400)
        )
    )
    assert Counter(answers) == {"done": 4, "CustomerLimitExceeded": 396}
    contents = await assert_balanced(engine)
    assert Counter(order["customer"] for order in contents.orders.values()) == {"anna": 2, "ben": 2}


async def test_units_that_come_back_during_the_race_can_be_bought_again_but_never_more(
    workers: Workers, engine: MultiplexedConnection
) -> None:
    mugs = await add_mugs(workers[0], limit_per_customer=2)

    async def buy_and_give_back(worker: Store, i: int) -> None:
        try:
            order_id = await place(
                worker, (mugs, 1 + i % 2), customer="anna", status=["completed", "pending"][i % 3 > 1]
            )
        except Refusal:
            return
        if i % 3 > 1:
            await worker.holds.cancel(order_id)
        elif i % 5:
            await worker.returns.make(order_id, back((mugs, 1)))

    await asyncio.gather(*(buy_and_give_back(workers[i % WORKERS], i) for i in range(200)))
    contents = await assert_balanced(engine)
    assert contents.units[mugs].held + contents.units[mugs].sold <= 2


async def test_order_completed_before_its_deadline_is_not_read_as_expired(
    engine_url: str, engine: MultiplexedConnection
) -> None:
    clock = Clock()
    other = make_store(engine, clock=clock)
    mugs = await add_mugs(other)
    order_id = await place(other, (mugs, 3), hold_seconds=HOLD)
    clock.forward(HOLD - 0.001)

    class SlowSender:
        """Completes the order before its deadline, while the reply with the pending order is on its way."""

        def send(self, *command: bytes | str | int, safe_to_repeat: bool = False) -> Awaitable[Any]:
            return asyncio.ensure_future(self.send_slowly(*command))

        async def send_slowly(self, *command: bytes | str | int) -> Any:
            reply = await engine.send(*command)
            if command[:2] == ("HMGET", keys.order(SHOP, order_id)):
                await other.holds.complete(order_id)
                clock.forward(0.001)
            return reply

    assert (await outcome_of(make_store(SlowSender(), clock=clock).orders.get(order_id))) == "done"


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_shop_is_balanced_after_hundreds_of_orders_with_random_ends(
    workers: Workers, engine: MultiplexedConnection, seed: int
) -> None:
    rng = random.Random(seed)
    products = [await add_mugs(workers[0], stock=150) for _ in range(5)]
    answers: dict[int, list[tuple[str, str]]] = {}

    async def place_and_end(order_rng: random.Random) -> None:
        """Place an order, and call up to three verbs on it at the same time."""
        worker = order_rng.choice(workers)
        lines = [
            (product_id, order_rng.randint(1, 3)) for product_id in order_rng.sample(products, order_rng.randint(1, 4))
        ]
        try:
            # By the clock of `late`, which sweeps, a third of the orders is overdue.
            order_id = await place(worker, *lines, hold_seconds=order_rng.choice([HOLD, HOLD + 1, 86_400]))
        except Refusal:
            return
        verbs = order_rng.choices(["complete", "cancel", "get"], k=order_rng.randint(0, 3))
        outcomes = await outcomes_of(*(call_of(order_rng.choice(workers), verb)(order_id) for verb in verbs))
        answers[order_id] = list(zip(verbs, outcomes, strict=True))

    async def change_stock() -> None:
        for _ in range(40):
            change = rng.choice([-2, -1, 1, 2, 3])
            stock_change = StockChange(change=change, reason="x")
            await outcome_of(rng.choice(workers).stock.change(rng.choice(products), stock_change))

    async def sweep() -> None:
        for _ in range(20):
            await workers.late.expired_holds.expire_due(10)

    await asyncio.gather(
        *(place_and_end(random.Random(rng.random())) for _ in range(400)), change_stock(), sweep(), sweep()
    )
    contents = await assert_balanced(engine)
    assert contents.orders.keys() == answers.keys()
    assert len(answers) >= 100
    for order_id, status in contents.status_of.items():
        ends = [(verb, outcome) for verb, outcome in answers[order_id] if verb != "get"]
        allowed = {
            "pending": set(),
            "completed": {("complete", "done"), ("cancel", OrderCompleted.__name__)},
            "cancelled": {("cancel", "done"), ("complete", OrderCancelled.__name__)},
            "expired": {(verb, OrderExpired.__name__) for verb in ("complete", "cancel")},
        }
        assert set(ends) <= allowed[status], (order_id, status, ends)
    assert set((await count_end_events(workers[0])).values()) == {1}

    after_all_deadlines = Clock()
    after_all_deadlines.forward(100_000)
    await expire_all_due(make_store(engine, clock=after_all_deadlines))
    contents = await assert_balanced(engine)
    assert contents.statuses()["pending"] == 0
    assert [units.held for units in contents.units.values()] == [0] * 5

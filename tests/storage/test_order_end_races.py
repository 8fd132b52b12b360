"""Many ends of one order at once, over several workers on the real engine: one wins, the stock moves once."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from service.domain.errors.refusals import OrderCancelled, OrderCompleted, OrderExpired, Refusal
from service.domain.requests import StockMove
from service.storage import keys
from service.storage.connection import MultiplexedConnection
from service.storage.store import Store
from tests.support.books import Account, assert_books_balance
from tests.support.clock import Clock
from tests.support.shop import SHOP, add_mugs, make_store, new_order, release_all_due

WORKERS = 4
HOLD = 900
"""Seconds."""


class Workers(list[Store]):
    """Stores with a connection each. `late` is one by whose clock a hold's deadline has just come."""

    late: Store


@pytest.fixture
async def workers(engine_url: str, wire: MultiplexedConnection) -> AsyncIterator[Workers]:
    """On one engine, with clocks that stand still: `late` at the deadline, the others a millisecond before it."""
    early, late = Clock(), Clock()
    late.forward(HOLD)
    async with AsyncExitStack() as stack:
        links = [
            await stack.enter_async_context(MultiplexedConnection(engine_url, timeout=10, max_in_flight=100_000))
            for _ in range(WORKERS + 1)
        ]
        workers = Workers(make_store(link, clock=early) for link in links[:-1])
        workers.late = make_store(links[-1], clock=late)
        yield workers


def call_of(store: Store, verb: str) -> Callable[[int], Awaitable[object]]:
    """Return the verb of the Store that ends or reads an order."""
    calls: dict[str, Callable[[int], Awaitable[object]]] = {
        "complete_order": store.holds.complete,
        "cancel_order": store.holds.cancel,
        "get_order": store.orders.get,
    }
    return calls[verb]


async def place(store: Store, *lines: tuple[int, int], key: str | None = None, **members: Any) -> int:
    """Places an order, pending unless told otherwise, and gives its id."""
    new = new_order(*lines, **{"status": "pending", **members})
    return (await store.orders.place(new, key)).order.id


async def told(call: Awaitable[object]) -> str:
    """What the client is told: `done`, or the name of the refusal."""
    try:
        await call
    except Refusal as refusal:
        return type(refusal).__name__
    return "done"


async def all_told(*calls: Awaitable[object]) -> list[str]:
    return await asyncio.gather(*map(told, calls))


async def ends_written(store: Store) -> Counter[tuple[str, str]]:
    """How often each order has ended how, by the event stream."""
    events = await store.events.read("0-0", limit=100_000)
    return Counter(
        (event.fields["event"], event.fields["order"])
        for event in events
        if event.fields["event"] in ("order_completed", "order_cancelled", "order_expired")
    )


async def test_of_complete_and_cancel_one_wins_and_the_other_is_told(
    workers: Workers, wire: MultiplexedConnection
) -> None:
    mugs = await add_mugs(workers[0])
    order_ids = [await place(workers[0], (mugs, 3)) for _ in range(60)]
    pairs = []
    for i, order_id in enumerate(order_ids):
        complete, cancel = (
            workers[i % WORKERS].holds.complete(order_id),
            workers[-1 - i % WORKERS].holds.cancel(order_id),
        )
        # Now the one leaves first, now the other.
        pairs.append(await all_told(complete, cancel) if i // WORKERS % 2 else (await all_told(cancel, complete))[::-1])
    books = await assert_books_balance(wire)
    for order_id, pair in zip(order_ids, pairs, strict=True):
        expected = {"completed": ["done", "OrderCompleted"], "cancelled": ["OrderCancelled", "done"]}
        assert pair == expected[books.status_of[order_id]]
    sold = 3 * books.statuses()["completed"]
    assert books.accounts[mugs] == Account(10_000 - sold, 0, sold, 10_000)
    assert set((await ends_written(workers[0])).values()) == {1}


@pytest.mark.parametrize(
    ("verb", "done"),
    [("complete_order", "completed"), ("cancel_order", "cancelled")],
)
async def test_at_the_deadline_an_order_ends_as_its_client_says_or_expires(
    workers: Workers, wire: MultiplexedConnection, verb: str, done: str
) -> None:
    mugs = await add_mugs(workers[0])
    order_ids = [await place(workers[0], (mugs, 3), hold_seconds=HOLD) for _ in range(90)]
    answers: dict[int, str] = {}

    async def end_in_turn(worker: Store, share: list[int]) -> None:
        for order_id in share:
            answers[order_id] = await told(call_of(worker, verb)(order_id))

    await asyncio.gather(
        *(end_in_turn(worker, order_ids[i::WORKERS]) for i, worker in enumerate(workers)),
        *(release_all_due(workers.late, batch) for batch in (2, 3)),
    )
    books = await assert_books_balance(wire)
    assert answers == {order_id: {done: "done"}.get(how, "OrderExpired") for order_id, how in books.status_of.items()}
    assert books.statuses().keys() <= {done, "expired"}
    sold = 3 * books.statuses()["completed"]
    assert books.accounts[mugs] == Account(10_000 - sold, 0, sold, 10_000)
    assert set((await ends_written(workers[0])).values()) == {1}


@pytest.mark.parametrize("verb", ["complete_order", "cancel_order"])
async def test_after_the_deadline_it_only_expires(workers: Workers, wire: MultiplexedConnection, verb: str) -> None:
    mugs = await add_mugs(workers[0])
    order_ids = [await place(workers[0], (mugs, 3), hold_seconds=HOLD) for _ in range(30)]
    *answers, _ = await all_told(
        *(call_of(workers.late, verb)(order_id) for order_id in order_ids), release_all_due(workers.late, 7)
    )
    assert set(answers) == {"OrderExpired"}
    books = await assert_books_balance(wire)
    assert books.accounts[mugs] == Account(10_000, 0, 0, 10_000)
    assert await ends_written(workers[0]) == {("order_expired", str(order_id)): 1 for order_id in order_ids}


@pytest.mark.parametrize(
    ("verb", "event", "expected"),
    [
        ("cancel_order", "order_cancelled", Account(10, 0, 0, 10)),
        ("complete_order", "order_completed", Account(7, 0, 3, 10)),
    ],
)
async def test_fifty_times_at_once_is_as_good_as_once(
    workers: Workers, wire: MultiplexedConnection, verb: str, event: str, expected: Account
) -> None:
    mugs = await add_mugs(workers[0], stock=10)
    order_id = await place(workers[0], (mugs, 3))
    answers = await all_told(*(call_of(workers[i % WORKERS], verb)(order_id) for i in range(50)))
    assert answers == ["done"] * 50
    assert (await assert_books_balance(wire)).accounts == {mugs: expected}
    assert await ends_written(workers[0]) == {(event, str(order_id)): 1}


async def test_fifty_sweepers_at_once_return_the_stock_once(workers: Workers, wire: MultiplexedConnection) -> None:
    mugs = await add_mugs(workers[0], stock=10)
    order_id = await place(workers[0], (mugs, 3), hold_seconds=HOLD)
    await asyncio.gather(*(workers.late.holds.expire_due(100) for _ in range(50)))
    assert (await assert_books_balance(wire)).accounts == {mugs: Account(10, 0, 0, 10)}
    assert await ends_written(workers[0]) == {("order_expired", str(order_id)): 1}


async def test_a_restock_while_stock_returns_counts_in_full(workers: Workers, wire: MultiplexedConnection) -> None:
    mugs = await add_mugs(workers[0], stock=300)
    order_ids = [await place(workers[0], (mugs, 3)) for _ in range(100)]
    answers = await all_told(
        *(
            call
            for i, order_id in enumerate(order_ids)
            for call in (
                workers[i % WORKERS].holds.cancel(order_id),
                workers[-1 - i % WORKERS].stock.move(mugs, StockMove(change=1, reason="delivery")),
            )
        )
    )
    assert set(answers) == {"done"}
    assert (await assert_books_balance(wire)).accounts == {mugs: Account(400, 0, 0, 400)}


async def test_a_product_withdrawn_while_its_orders_end_keeps_its_books(
    workers: Workers, wire: MultiplexedConnection
) -> None:
    mugs = await add_mugs(workers[0])
    order_ids = [await place(workers[0], (mugs, 3)) for _ in range(60)]
    endings = [
        (workers[i % WORKERS].holds.complete if i % 2 else workers[i % WORKERS].holds.cancel)(order_id)
        for i, order_id in enumerate(order_ids)
    ]
    answers = await all_told(*endings[:30], workers[1].products.withdraw(mugs), *endings[30:])
    assert set(answers) == {"done"}
    assert (await assert_books_balance(wire)).accounts == {mugs: Account(9910, 0, 90, 10_000)}


async def test_a_repeated_key_racing_with_its_orders_end_makes_no_second_order(
    workers: Workers, wire: MultiplexedConnection
) -> None:
    mugs = await add_mugs(workers[0])
    order_id = await place(workers[0], (mugs, 3), key="k")
    *answers, _ = await all_told(
        *(place(workers[i % WORKERS], (mugs, 3), key="k") for i in range(40)), workers[0].holds.cancel(order_id)
    )
    assert set(answers) <= {"done", "OrderCancelled"}
    assert (await assert_books_balance(wire)).status_of == {order_id: "cancelled"}


async def test_an_order_completed_in_time_is_never_read_as_expired(
    engine_url: str, wire: MultiplexedConnection
) -> None:
    clock = Clock()
    other = make_store(wire, clock=clock)
    mugs = await add_mugs(other)
    order_id = await place(other, (mugs, 3), hold_seconds=HOLD)
    clock.forward(HOLD - 0.001)

    class SlowLink:
        """The order is completed, in time, while the reply with the pending one is on its way."""

        def send(self, *command: bytes | str | int, idempotent: bool = False) -> Awaitable[Any]:
            return asyncio.ensure_future(self.send_slowly(*command))

        async def send_slowly(self, *command: bytes | str | int) -> Any:
            reply = await wire.send(*command)
            if command[:2] == ("HMGET", keys.order(SHOP, order_id)):
                await other.holds.complete(order_id)
                clock.forward(0.001)
            return reply

    assert (await told(make_store(SlowLink(), clock=clock).orders.get(order_id))) == "done"


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_hundreds_of_orders_with_any_ends_leave_the_books_balanced(
    workers: Workers, wire: MultiplexedConnection, seed: int
) -> None:
    choose = random.Random(seed)
    products = [await add_mugs(workers[0], stock=150) for _ in range(5)]
    answers: dict[int, list[tuple[str, str]]] = {}

    async def live(seeds: random.Random) -> None:
        """Places an order, and ends it in up to three ways at once."""
        worker = seeds.choice(workers)
        lines = [(product_id, seeds.randint(1, 3)) for product_id in seeds.sample(products, seeds.randint(1, 4))]
        try:
            # Some are due by the clock of the late one, who sweeps; most are not.
            order_id = await place(worker, *lines, hold_seconds=seeds.choice([HOLD, HOLD + 1, 86_400]))
        except Refusal:
            return
        verbs = seeds.choices(["complete_order", "cancel_order", "get_order"], k=seeds.randint(0, 3))
        outcomes = await all_told(*(call_of(seeds.choice(workers), verb)(order_id) for verb in verbs))
        answers[order_id] = list(zip(verbs, outcomes, strict=True))

    async def move() -> None:
        for _ in range(40):
            change = choose.choice([-2, -1, 1, 2, 3])
            await told(choose.choice(workers).stock.move(choose.choice(products), StockMove(change=change, reason="x")))

    async def sweep_on() -> None:
        for _ in range(20):
            await workers.late.holds.expire_due(10)

    await asyncio.gather(*(live(random.Random(choose.random())) for _ in range(400)), move(), sweep_on(), sweep_on())
    books = await assert_books_balance(wire)
    assert books.orders.keys() == answers.keys()
    assert len(answers) >= 100
    for order_id, status in books.status_of.items():
        ends = [(verb, outcome) for verb, outcome in answers[order_id] if verb != "get_order"]
        allowed = {
            "pending": set(),
            "completed": {("complete_order", "done"), ("cancel_order", OrderCompleted.__name__)},
            "cancelled": {("cancel_order", "done"), ("complete_order", OrderCancelled.__name__)},
            "expired": {(verb, OrderExpired.__name__) for verb in ("complete_order", "cancel_order")},
        }
        assert set(ends) <= allowed[status], (order_id, status, ends)
    assert set((await ends_written(workers[0])).values()) == {1}

    end_of_time = Clock()
    end_of_time.forward(100_000)
    await release_all_due(make_store(wire, clock=end_of_time))
    books = await assert_books_balance(wire)
    assert books.statuses()["pending"] == 0
    assert [account.held for account in books.accounts.values()] == [0] * 5

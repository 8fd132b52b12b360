"""The event stream: one entry per change. The stock of every product can be computed from the entries."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest
from httpx2 import AsyncClient

from service.domain.errors.refusals import Refusal
from service.domain.event import Event
from service.domain.money import Cents
from service.domain.requests import NewOrder, NewOrderLine, ProductChange, StockChange
from service.storage import keys
from service.storage.connection import MultiplexedConnection
from service.storage.sender import CommandSender
from service.storage.store import Store
from tests.support.balance import assert_balanced, units_from_events
from tests.support.clock import Clock
from tests.support.products import as_text, product_added_event
from tests.support.shop import SHOP, add_mugs, add_product, expire_all_due, http_client, make_store, mug, place


@pytest.fixture
def store(redis: CommandSender, clock: Clock) -> Store:
    """A Store on both kinds of Redis, with a clock that stands still."""
    return make_store(redis, clock=clock)


class OpenShop:
    """A shop over HTTP: 10 mugs (product 7), 5 pots (product 9); order 1 is pending, 2 is cancelled, 3 is completed."""

    def __init__(self, client: AsyncClient, store: Store, clock: Clock) -> None:
        self.client = client
        self.store = store
        self.clock = clock

    async def open(self) -> None:
        await add_product(self.client, id=7, stock=11)
        await add_product(self.client, id=9, stock=6, price=7)
        for product_id, status in ((7, "pending"), (7, "pending"), (9, "completed")):
            assert (await place(self.client, (product_id, 1), status=status)).status_code == 201
        assert (await self.client.delete("/orders/2")).status_code == 204
        self.opened_at = await self.store.events.last_id()

    async def request(self, action: str) -> int:
        """Make a request such as `POST /orders {...}` and return its status. Or `expire` all holds, and return 0."""
        if action == "expire":
            self.clock.forward(900)
            await expire_all_due(self.store)
            return 0
        method, path, *body = action.split(" ", 2)
        response = await self.client.request(
            method, path, content=body[0] if body else None, headers={"Content-Type": "application/json"}
        )
        return response.status_code

    async def new_events(self) -> list[dict[str, str]]:
        """Return the fields of the events since the shop was opened."""
        return [event.fields for event in await self.store.events.read(self.opened_at)]


@pytest.fixture
async def shop(client: AsyncClient, store: Store, clock: Clock) -> OpenShop:
    shop = OpenShop(client, store, clock)
    await shop.open()
    return shop


ADDED: dict[str, object] = {"name": "Böcher\n", "price": 0.5, "stock": 3}
ADD = "POST /products " + json.dumps(mug(id=11, **ADDED))
LINES = '{"products": [{"product_id": 9, "quantity": 2}, {"product_id": 7, "quantity": 1}]'


@pytest.mark.parametrize(
    ("action", "status", "event"),
    [
        (ADD, 201, as_text(product_added_event(11, **ADDED))),
        (
            'PATCH /products/7 {"price": 5}',
            200,
            {"event": "product_changed", "product": "7", "price": "5.00"},
        ),
        (
            'PATCH /products/7 {"name": "Cup", "description": "", "price": 19.99}',
            200,
            {"event": "product_changed", "product": "7", "name": "Cup", "description": ""},
        ),
        ("DELETE /products/7", 204, {"event": "product_withdrawn", "product": "7"}),
        (
            'POST /products/9/stock {"change": -2, "reason": "damaged"}',
            200,
            {"event": "stock_moved", "product": "9", "change": "-2", "reason": "damaged", "stock": "3"},
        ),
        (
            f"POST /orders {LINES}}}",
            201,
            {
                "event": "order_placed",
                "order": "4",
                "status": "completed",
                "total_price": "33.99",
                "products": "9: 2 x 7.00\n7: 1 x 19.99",
            },
        ),
        (
            f'POST /orders {LINES}, "status": "pending"}}',
            201,
            {
                "event": "order_placed",
                "order": "4",
                "status": "pending",
                "total_price": "33.99",
                "products": "9: 2 x 7.00\n7: 1 x 19.99",
            },
        ),
        ("POST /orders/1/complete", 200, {"event": "order_completed", "order": "1", "products": "7: 1 x 19.99"}),
        ("DELETE /orders/1", 204, {"event": "order_cancelled", "order": "1", "products": "7: 1 x 19.99"}),
        ("expire", 0, {"event": "order_expired", "order": "1", "products": "7: 1 x 19.99"}),
    ],
)
async def test_a_change_writes_one_event_even_if_the_request_is_repeated(
    shop: OpenShop, action: str, status: int, event: dict[str, str]
) -> None:
    assert await shop.request(action) == status
    assert await shop.new_events() == [event]
    if not action.startswith(("POST /orders {", "POST /products/9/stock")):
        await shop.request(action)
        assert await shop.new_events() == [event]


@pytest.mark.parametrize(
    ("action", "status"),
    [
        ("POST /products " + json.dumps(mug(id=7)), 409),
        ("POST /products " + json.dumps(mug(id=11, stock=-1)), 422),
        ("PATCH /products/7 {}", 200),
        ('PATCH /products/7 {"price": 19.99, "name": "Mug"}', 200),
        ('PATCH /products/8 {"price": 5}', 404),
        ("DELETE /products/8", 404),
        ('POST /products/9/stock {"change": -6, "reason": "damaged"}', 409),
        ('POST /products/9/stock {"change": 1000000000, "reason": "delivery"}', 409),
        ('POST /products/8/stock {"change": 1, "reason": "delivery"}', 404),
        ('POST /products/9/stock {"change": 0, "reason": "nothing"}', 422),
        ('POST /orders {"products": [{"product_id": 7, "quantity": 1}, {"product_id": 9, "quantity": 6}]}', 409),
        ('POST /orders {"products": [{"product_id": 7, "quantity": 11}], "status": "pending"}', 409),
        ('POST /orders {"products": [{"product_id": 7, "quantity": 1}, {"product_id": 8, "quantity": 1}]}', 404),
        ('POST /orders {"products": [{"product_id": 7, "quantity": 1}], "total_price": 1}', 409),
        ('POST /orders {"products": []}', 422),
        ("POST /orders/2/complete", 410),
        ("POST /orders/3/complete", 200),
        ("POST /orders/99/complete", 404),
        ("DELETE /orders/2", 204),
        ("DELETE /orders/3", 409),
        ("DELETE /orders/99", 404),
        ("GET /orders/1", 200),
    ],
)
async def test_a_request_that_changes_nothing_writes_no_event(shop: OpenShop, action: str, status: int) -> None:
    assert await shop.request(action) == status
    assert await shop.new_events() == []


async def test_a_repeated_idempotency_key_writes_no_second_event(shop: OpenShop) -> None:
    for _ in range(3):
        await place(shop.client, (7, 1), key="order")
        await place(shop.client, (7, 100), key="refused")
        body = {"change": 1, "reason": "delivery"}
        await shop.client.post("/products/9/stock", json=body, headers={"Idempotency-Key": "stock-change"})
    assert [fields["event"] for fields in await shop.new_events()] == ["order_placed", "stock_moved"]


async def test_a_change_and_its_event_are_written_by_one_command(redis: CommandSender) -> None:
    changes: list[str] = []

    class RecordingSender:
        def send(self, *command: bytes | str | int, safe_to_repeat: bool = False) -> Awaitable[Any]:
            if not safe_to_repeat:
                changes.append(str(command[0]))
            return redis.send(*command, safe_to_repeat=safe_to_repeat)

    async with http_client(make_store(RecordingSender())) as client:
        for _ in range(2):  # in the first round, EVAL loads each script; in the second, it is loaded already
            changes.clear()
            mugs = await add_product(client)
            ids = [(await place(client, (mugs, 1), status="pending")).json()["id"] for _ in range(2)]
            await client.post(f"/orders/{ids[0]}/complete")
            await client.delete(f"/orders/{ids[1]}")
            await client.post(f"/products/{mugs}/stock", json={"change": 1, "reason": "found"})
            await client.patch(f"/products/{mugs}", json={"price": 5})
            await client.delete(f"/products/{mugs}")
    assert changes == ["EVALSHA"] * 8


@pytest.mark.parametrize("seed", [1, 2])
async def test_the_units_of_every_product_can_be_computed_from_the_events(
    store: Store, redis: CommandSender, clock: Clock, seed: int
) -> None:
    choose = random.Random(seed)
    products = [await add_mugs(store, stock=60) for _ in range(6)]

    sweeper = make_store(redis, clock=clock)  # a worker that places no orders: it could refuse pending ones for a while

    async def make_a_random_change() -> None:
        product_id, order_id = choose.choice(products), choose.randint(1, 120)
        match choose.randint(0, 9):
            case 0 | 1 | 2 | 3:
                lines = [NewOrderLine(product_id=p, quantity=choose.randint(1, 4)) for p in choose.sample(products, 3)]
                status: Any = choose.choice(["pending", "pending", "completed"])
                await store.orders.place(NewOrder(products=lines, status=status))
            case 4:
                await store.holds.complete(order_id)
            case 5:
                await store.holds.cancel(order_id)
            case 6 | 7:
                await store.stock.change(product_id, StockChange(change=choose.choice([-3, 2, 9]), reason="x"))
            case 8:
                await store.products.change(product_id, ProductChange(price=Cents(choose.randint(0, 500))))
            case 9:
                clock.forward(choose.choice([1, 300]))
                await sweeper.expired_holds.expire_due(2)

    withdraw_at = choose.randint(100, 200)
    for i in range(300):
        try:
            await (store.products.withdraw(products[0]) if i == withdraw_at else make_a_random_change())
        except Refusal:
            continue
    contents = await assert_balanced(redis)
    assert len(contents.statuses()) >= 3
    events = await store.events.read("0-0", limit=10_000)
    assert units_from_events([event.fields for event in events]) == contents.units


async def test_the_stream_keeps_approximately_the_configured_number_of_entries(redis: CommandSender) -> None:
    store = make_store(redis, events_max=200)
    mugs = await add_mugs(store, stock=0)
    for _ in range(500):
        await store.stock.change(mugs, StockChange(change=1, reason="x"))
    length = await redis.send("XLEN", keys.events(SHOP))
    assert 200 <= length <= 300  # Redis removes blocks of 100 entries
    kept = await store.events.read("0-0")
    assert kept[-1].fields["stock"] == "500"
    trimmed_id = f"{int(kept[0].id.partition('-')[0]) - 100_000}-0"
    assert await store.events.has_all_after(kept[0].id)
    assert not await store.events.has_all_after(trimmed_id)
    assert not await store.events.has_all_after("0-0")


async def write_events(store: Store, count: int) -> list[Event]:
    """Make `count` changes and return all events."""
    mugs = await add_mugs(store, stock=0)
    for _ in range(count - 1):
        await store.stock.change(mugs, StockChange(change=1, reason="x"))
    return await store.events.read("0-0")


async def test_events_are_read_oldest_first_in_pages(store: Store) -> None:
    events = await write_events(store, 25)
    assert [event.fields.get("change", "added") for event in events] == ["added"] + ["1"] * 24
    assert [event.fields["stock"] for event in events] == [str(stock) for stock in range(25)]
    found: list[Event] = []
    while page := await store.events.read(found[-1].id if found else "0-0", limit=10):
        assert len(page) == min(10, 25 - len(found))
        found += page
    assert found == events


async def test_events_are_read_up_to_and_including_the_given_id(store: Store) -> None:
    events = await write_events(store, 10)
    assert await store.events.read(events[2].id, events[6].id) == events[3:7]
    assert await store.events.read(events[2].id, events[6].id, 2) == events[3:5]
    assert await store.events.read(events[6].id, events[2].id) == []


async def test_the_store_knows_the_last_event_and_whether_all_events_are_still_there(store: Store) -> None:
    assert await store.events.last_id() == "0-0"
    assert await store.events.has_all_after("0-0")
    assert await store.events.read("0-0") == []
    events = await write_events(store, 3)
    assert await store.events.last_id() == events[-1].id
    assert await store.events.has_all_after("0-0")
    assert await store.events.read(await store.events.last_id()) == []


@pytest.fixture
async def waiting_store(engine_url: str, engine: MultiplexedConnection) -> AsyncIterator[Store]:
    """A Store with its own connection, because a command that waits blocks its connection."""
    async with MultiplexedConnection(engine_url, timeout=10, max_in_flight=100) as connection:
        yield make_store(connection)


async def test_waiting_returns_existing_events_immediately(waiting_store: Store, engine: MultiplexedConnection) -> None:
    events = await write_events(make_store(engine), 5)
    assert await waiting_store.events.wait("0-0", 5000) == events
    assert await waiting_store.events.wait(events[3].id, 5000) == events[4:]


async def test_waiting_returns_only_the_next_event(waiting_store: Store, engine: MultiplexedConnection) -> None:
    store = make_store(engine)
    [*_, last] = await write_events(store, 3)
    await waiting_store.check()
    for _ in range(3):
        wait = asyncio.ensure_future(waiting_store.events.wait(last.id, 9000))
        while "blocked_clients:1" not in await engine.send("INFO", "clients"):
            assert not wait.done()
        await store.stock.change(1, StockChange(change=5, reason="delivery"))
        [last] = await wait
        assert (last.fields["reason"], last.id) == ("delivery", await store.events.last_id())


async def test_waiting_without_a_new_event_returns_nothing(waiting_store: Store, engine: MultiplexedConnection) -> None:
    [last] = await write_events(make_store(engine), 1)
    assert await waiting_store.events.wait(last.id, 20) == []


async def test_the_json_of_an_event_has_numbers_amounts_and_order_lines(shop: OpenShop) -> None:
    for request in (
        ADD,
        f'POST /orders {LINES}, "status": "pending"}}',
        "POST /orders/4/complete",
        'POST /products/11/stock {"change": -2, "reason": "Bruch: \\"ü\\" \\u0000 ☕"}',
        'PATCH /products/11 {"price": 999999999.99, "name": "7", "description": "8"}',
        "DELETE /products/11",
    ):
        await shop.request(request)
    events = await shop.store.events.read(shop.opened_at)
    texts = [event.json() for event in events]
    assert not any("\n" in text for text in texts), "JSON Lines: one event per line"
    lines = [
        {"product_id": 9, "quantity": 2, "price": 7.0},
        {"product_id": 7, "quantity": 1, "price": 19.99},
    ]
    assert [json.loads(text) for text in texts] == [
        {"id": event.id, **fields}
        for event, fields in zip(
            events,
            [
                product_added_event(11, **ADDED),
                {"event": "order_placed", "order": 4, "status": "pending", "total_price": 33.99, "products": lines},
                {"event": "order_completed", "order": 4, "products": lines},
                {
                    "event": "stock_moved",
                    "product": 11,
                    "change": -2,
                    "reason": 'Bruch: "ü" \u0000 ☕',
                    "stock": 1,
                },
                {"event": "product_changed", "product": 11, "name": "7", "description": "8", "price": 999999999.99},
                {"event": "product_withdrawn", "product": 11},
            ],
            strict=True,
        )
    ]
    assert '"price":0.50,' in texts[0]
    assert all(text.startswith(f'{{"id":"{event.id}","event":"') for text, event in zip(texts, events, strict=True))

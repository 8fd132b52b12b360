"""The API of a shop with partitions: events from several streams, the board, and whether it is ready."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal

import pytest

from service.domain.event import cursor_positions
from service.domain.requests import ProductChange, StockChange
from service.settings import Settings
from service.storage import keys
from service.storage.opening import open_store
from service.storage.partitioned import PartitionedStore
from service.storage.sender import CommandSender
from service.storage.transfers import Wish
from tests.api.test_events import Listeners
from tests.api.test_shops import serving
from tests.support.partitions import home_of, make_partitioned_store
from tests.support.problems import assert_problem
from tests.support.shop import SHOP, add_mugs, add_product, http_client, make_store, new_order, place, stock_of
from tests.support.waiting import eventually

COUNT = 3


@pytest.fixture
async def store(redis: CommandSender) -> AsyncIterator[PartitionedStore]:
    store = make_partitioned_store(redis, count=COUNT)
    yield store
    await store.all.exchange.close()


@pytest.fixture
def listeners(store: PartitionedStore) -> Listeners:
    return Listeners(store)


async def make_events(store: PartitionedStore, count: int) -> None:
    """Place orders, each in any partition, so that all streams get events."""
    mugs = await add_mugs(store)
    for _ in range(count):
        await store.orders.place(new_order((mugs, 1)))


def orders_in(messages: list[dict[str, str]]) -> list[int]:
    return [json.loads(message["data"])["order"] for message in messages if message["event"] == "order_placed"]


async def test_a_client_gets_the_events_of_all_streams_once(store: PartitionedStore, listeners: Listeners) -> None:
    await make_events(store, 7)
    async with listeners.listen("after=0") as from_start, listeners.listen() as from_now:
        await from_start.wait_for_ids(8)
        await make_events(store, 7)
        await from_start.wait_for_ids(16)
        await from_now.wait_for_ids(8)
        await asyncio.sleep(0.05)
        placed = orders_in(from_start.messages())
        assert len(placed) == len(set(placed)) == 14
        assert {order_id % COUNT for order_id in placed} == set(range(COUNT))
        assert orders_in(from_now.messages()) == placed[7:]
        assert {json.loads(message["data"])["partition"] for message in from_start.messages()} == set(range(COUNT))


async def test_a_client_that_resumes_after_any_event_gets_all_later_ones_and_none_twice(
    store: PartitionedStore, listeners: Listeners
) -> None:
    await make_events(store, 9)
    async with listeners.listen("after=0") as stream:
        await stream.wait_for_ids(10)
        ids = stream.ids()
    for position, cursor in enumerate(ids[:-1]):
        async with listeners.listen(Last_Event_ID=cursor) as stream:
            await stream.wait_for_ids(len(ids) - 1 - position)
            assert stream.ids() == ids[position + 1 :]
            assert not stream.messages("events_lost")


async def test_a_client_that_catches_up_while_orders_are_placed_misses_none(
    store: PartitionedStore, listeners: Listeners
) -> None:
    mugs = await add_mugs(store)
    placed: list[int] = []
    found: list[int] = []
    cursor = "0"
    async with listeners.listen():  # so the shared reader is ahead of those that join
        for _ in range(4):
            async with listeners.listen(f"after={cursor}") as stream:
                for _ in range(6):
                    placed.append((await store.orders.place(new_order((mugs, 1)))).order.id)
                await eventually(lambda: len(orders_in(stream.messages())) >= 3, "some events")
                found += orders_in(stream.messages())
                cursor = stream.ids()[-1]
        async with listeners.listen(f"after={cursor}") as stream:
            await eventually(lambda: len(found) + len(orders_in(stream.messages())) >= len(placed), "all events")
            await asyncio.sleep(0.05)
            found += orders_in(stream.messages())
    assert sorted(found) == sorted(placed)


@pytest.mark.parametrize("cursor", ["7-0", "7-0_7-0", "7-0_7-0_7-0_7-0", "_".join(["7-0"] * 64)])
@pytest.mark.parametrize("part", ["query", "header"])
async def test_a_cursor_with_another_number_of_ids_is_refused(
    store: PartitionedStore, listeners: Listeners, cursor: str, part: str
) -> None:
    given = {"Last_Event_ID": cursor} if part == "header" else {}
    async with listeners.listen("" if given else f"after={cursor}", **given) as stream:
        assert stream.status == 422
        [error] = json.loads(stream.text)["errors"]
    assert (error["pointer"], error["in"]) == ("#/after", part)
    assert error["detail"] == ("Input should be the id of a message of this call: 3 ids of events, with _ between them")


@pytest.mark.parametrize("cursor", ["999999999999999-0_0-0_0-0", "0-0_0-0_999999999999999-0"])
async def test_a_cursor_of_another_shop_loses_events(
    store: PartitionedStore, listeners: Listeners, cursor: str
) -> None:
    await make_events(store, 6)
    async with listeners.listen(f"after={cursor}") as stream:
        await eventually(lambda: stream.messages("events_lost"), "the message")
        assert stream.data("events_lost") == [{"after": cursor}]
        await make_events(store, 3)
        await stream.wait_for_ids(4)
        assert len(orders_in(stream.messages())) == 3


async def test_a_cursor_of_partitions_is_refused_in_a_shop_without_them(redis: CommandSender) -> None:
    async with Listeners(make_store(redis)).listen("after=7-0_7-0") as stream:
        assert stream.status == 422
        assert "this call: the id of an event" in stream.text


async def test_the_ids_of_events_are_cursors_that_grow_in_one_stream_at_a_time(store: PartitionedStore) -> None:
    await make_events(store, 12)
    events, cursor = [], "0"
    while page := await store.events.read(cursor, limit=5):
        events += page
        cursor = page[-1].cursor
    assert [event.cursor for event in events] == [event.cursor for event in await store.events.read("0")]
    before = ((0, 0),) * COUNT
    for event in events:
        after = cursor_positions(event.cursor)
        assert [number for number in range(COUNT) if after[number] != before[number]] == [event.partition]
        assert after > before
        before = after
    assert await store.events.last_id() == events[-1].cursor
    assert await store.events.count() == len(events)


async def test_products_orders_and_readiness_over_http(store: PartitionedStore) -> None:
    async with http_client(store) as client:
        mugs = await add_product(client, stock=10)
        first = await place(client, (mugs, 4), key="one")
        assert first.status_code == 201, first.text
        again = await place(client, (mugs, 4), key="one")
        assert (again.json()["id"], again.headers["Idempotent-Replayed"]) == (first.json()["id"], "true")
        refused = await place(client, (mugs, 7), key="two")
        assert_problem(refused, 409, "insufficient-stock")
        assert '"available":6' in refused.text.replace(" ", "")
        assert await stock_of(client, mugs) == 6
        assert (await client.get(first.headers["Location"])).json()["id"] == first.json()["id"]
        assert (await client.get("/readyz")).status_code == 200


async def test_the_board_begins_with_the_units_of_all_partitions(store: PartitionedStore, listeners: Listeners) -> None:
    mugs = await add_mugs(store, 10)
    await store.orders.place(new_order((mugs, 9), status="pending", hold_seconds=60))
    await store.stock.change(mugs, StockChange.model_construct(change=5, reason=""))
    [numbers] = await store.board.products([mugs])
    assert numbers is not None
    assert (numbers.stock, numbers.held, numbers.sold) == (6, 9, 0)
    holds = await store.board.next_holds(10)
    assert (holds.total, len(holds.next)) == (1, 1)
    async with listeners.listen("type=summary") as stream:
        await eventually(lambda: stream.messages("summary"), "the snapshot")
        assert stream.data("products")[0]["products"] == [[mugs, "Mug", 19.99, 6, 9, 0]]


async def test_a_service_finishes_what_a_stopped_worker_has_begun(engine: CommandSender, engine_url: str) -> None:
    settings = replace(Settings(), redis_url=engine_url, shop=SHOP, partitions=COUNT, durability="none")
    async with open_store(settings) as stopped:
        assert isinstance(stopped, PartitionedStore)
        mugs = await add_mugs(stopped)
        await stopped.all.exchange.partitions[0].give(1, "0", [Wish(mugs, 2, 0, 0)])
        await home_of(stopped, mugs).products.change(mugs, ProductChange.model_validate({"price": Decimal("3.00")}))
    home = keys.partition(SHOP, mugs % COUNT)
    begun = (keys.outgoing(keys.partition(SHOP, 0), 1), keys.unpropagated(home))
    assert [await engine.send("ZCARD", name) for name in begun] == [1, 1]

    async def has_ended() -> bool:
        return not any([await engine.send("ZCARD", name) for name in begun])

    async with serving(engine_url, shops=None, shop=SHOP, partitions=COUNT):
        await eventually(has_ended)

"""Pages of products: what has not changed is not read again, and what has changed is never shown as it was before."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from redis import Redis
from structlog.testing import capture_logs

from service.domain.product import ListedProduct
from service.domain.requests import ProductChange
from service.domain.times import Milliseconds
from service.storage import keys
from service.storage.connection import MultiplexedConnection
from service.storage.sender import ErrorReply
from service.storage.store import Store
from service.storage.tracked_products import TrackedProducts
from tests.support.engines import TestConnection
from tests.support.network import LONG_TIMEOUT, Network, connect_through
from tests.support.pages import hashes_read, needs_tracking, page, stocks
from tests.support.shop import SHOP, add_mugs, make_store, new_order
from tests.support.waiting import eventually

MUG = keys.product(SHOP, 1)


def store_over(connection: MultiplexedConnection) -> Store:
    return Store(connection, shop=SHOP, durability="none", events_max=1000, tracked=lambda: connection.tracked)


@pytest.fixture
async def worker(network: Network) -> AsyncIterator[Store]:
    """A shop with three mugs, whose page was read twice: over a network that the test can disturb."""
    async with connect_through(network) as connection:
        store = store_over(connection)
        for _ in range(3):
            await add_mugs(store, 10)
        assert await stocks(store) == await stocks(store) == [10, 10, 10]
        yield store


async def test_products_that_have_not_changed_are_not_read_again(worker: Store, engine: TestConnection) -> None:
    await needs_tracking(engine)
    await hashes_read(engine)
    assert await stocks(worker) == [10, 10, 10]
    assert await hashes_read(engine) == 0
    await engine.send("HSET", MUG, "stock", 9)
    assert await stocks(worker) == [9, 10, 10]
    assert await hashes_read(engine) == 1


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (("HSET", MUG, "name", "Cup"), ["Cup", "Mug", "Mug"]),
        (("DEL", MUG), ["Mug", "Mug"]),
        (("RENAME", keys.product(SHOP, 2), MUG), ["Mug", "Mug"]),
        (("ZREM", keys.products(SHOP), 1), ["Mug", "Mug"]),
        (("EVAL", "redis.call('HSET', KEYS[1], 'name', 'Cup')", 1, MUG), ["Cup", "Mug", "Mug"]),
        (("FLUSHALL",), []),
    ],
)
async def test_a_page_shows_what_somebody_has_changed_by_hand(
    worker: Store, engine: TestConnection, command: tuple[str | int, ...], shown: list[str]
) -> None:
    await engine.send(*command)
    assert [item["name"] for item in await page(worker)] == shown


async def test_a_page_shows_each_change_of_this_worker_and_of_another_one(
    worker: Store, engine: TestConnection
) -> None:
    for store in (worker, make_store(engine)):
        await store.orders.place(new_order((1, 1), (3, 2)))
        assert await stocks(worker) == [item["stock"] for item in await page(make_store(engine))]
        await store.products.change(2, ProductChange.model_validate({"name": f"Cup of {id(store)}"}))
        assert (await page(worker))[1]["name"] == f"Cup of {id(store)}"
    assert await stocks(worker) == [8, 10, 6]
    await store.products.withdraw(2)
    assert await stocks(worker) == [8, 6]
    assert await page(worker, in_stock="false") == []


async def test_a_page_is_never_older_than_its_request_while_products_change_all_the_time(
    worker: Store, engine: TestConnection
) -> None:
    async def read_on() -> None:
        while True:
            await stocks(worker)

    readers = [asyncio.create_task(read_on()) for _ in range(5)]
    for number in range(1, 301):
        product = number % 3
        await engine.send("HSET", keys.product(SHOP, product + 1), "stock", number)
        assert (await stocks(worker))[product] == number
    for reader in readers:
        reader.cancel()
        with suppress(asyncio.CancelledError):
            await reader


async def test_a_product_that_changes_while_its_reply_is_on_the_way_is_read_again(
    engine: TestConnection, engine_url: str
) -> None:
    async with MultiplexedConnection(engine_url, timeout=LONG_TIMEOUT, max_in_flight=1000) as connection:
        store = store_over(connection)
        await add_mugs(store, 10)
        await stocks(store)
        with Redis.from_url(engine_url) as blocking:  # while it waits, this event loop reads no reply
            for number in range(20):
                blocking.hset(MUG, "stock", number)
                blocking.config_resetstat()
                reading = asyncio.create_task(stocks(store))
                while not reading.done() and "cmdstat_hmget" not in blocking.info("commandstats"):  # noqa: ASYNC110
                    await asyncio.sleep(0)
                blocking.hset(MUG, "stock", 100 + number)  # the news of this comes together with the reply
                assert await reading in ([number], [100 + number])
                assert await stocks(store) == [100 + number]


async def test_nothing_is_known_after_the_connection_was_lost(
    worker: Store, engine: TestConnection, network: Network
) -> None:
    await network.close()
    await engine.send("HSET", MUG, "stock", 9)
    await network.open()
    assert await stocks(worker) == [9, 10, 10]
    await engine.send("HSET", MUG, "stock", 8)
    assert await stocks(worker) == [8, 10, 10]
    await needs_tracking(engine)
    await hashes_read(engine)
    assert await stocks(worker) == [8, 10, 10]
    assert await hashes_read(engine) == 0


async def test_a_page_whose_connection_breaks_before_the_reply_is_read_over_the_next_one(
    worker: Store, engine: TestConnection, network: Network
) -> None:
    network.replies_pass.clear()
    reading = asyncio.create_task(stocks(worker))
    sent = len(network.chunks)
    await eventually(lambda: len(network.chunks) > sent, "the command for the index")
    await engine.send("HSET", MUG, "stock", 9)
    network.cut()
    network.replies_pass.set()
    assert await reading == [9, 10, 10]


async def test_a_cancelled_page_leaves_nothing_that_is_wrong_later(
    worker: Store, engine: TestConnection, network: Network
) -> None:
    for number in range(1, 30):
        await engine.send("HSET", MUG, "stock", 100 + number)
        reading = asyncio.create_task(stocks(worker))
        for _ in range(number % 10):
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait([reading])
        await engine.send("HSET", MUG, "stock", 200 + number)
        assert await stocks(worker) == [200 + number, 10, 10]


async def test_a_lost_script_and_a_key_of_another_type_are_handled_as_without_tracking(
    worker: Store, engine: TestConnection
) -> None:
    await engine.send("SCRIPT", "FLUSH")
    await engine.send("HSET", MUG, "stock", 9)
    assert await stocks(worker) == [9, 10, 10]
    await engine.send("DEL", MUG)
    await engine.send("SET", MUG, "text")
    with pytest.raises(ErrorReply) as error:
        await page(worker)
    assert error.value.code == "WRONGTYPE"
    await engine.send("DEL", MUG)
    assert await stocks(worker) == [10, 10]


@pytest.mark.parametrize("command", ["tracking", "caching"])
async def test_without_the_right_to_track_pages_are_read_whole(
    engine: TestConnection, engine_url: str, command: str
) -> None:
    await engine.send("ACL", "SETUSER", "reader", "reset", "on", ">secret", "~*", "+@all", f"-client|{command}")
    url = f"unix://reader@{engine_url.removeprefix('unix://')}?password=secret"
    async with MultiplexedConnection(url, timeout=LONG_TIMEOUT, max_in_flight=1000) as connection:
        store = store_over(connection)
        await add_mugs(store, 10)
        with capture_logs() as logs:
            assert await stocks(store) == await stocks(store) == [10]
        await engine.send("HSET", MUG, "stock", 9)
        assert await stocks(store) == [9]
    await needs_tracking(engine)
    assert [entry["event"] for entry in logs] == ["products_not_tracked"]


async def test_orders_do_not_pay_for_tracking(worker: Store, engine: TestConnection) -> None:
    await needs_tracking(engine)
    await add_mugs(worker, 10)
    for _ in range(3):
        await worker.orders.place(new_order((4, 1)))
        await worker.products.get(4)
    tracked = str(await engine.send("INFO", "stats")).partition("tracking_total_keys:")[2].split()[0]
    assert int(tracked) == 3


async def test_all_other_reads_mean_the_same_after_a_page_was_read(network: Network, engine: TestConnection) -> None:
    async with connect_through(network) as connection:
        store = Store(
            connection,
            shop=SHOP,
            durability="none",
            events_max=1000,
            clock=lambda: Milliseconds(1_795_656_145_265),
            tracked=lambda: connection.tracked,
        )
        await add_mugs(store, 10)
        placed = await store.orders.place(new_order((1, 1), status="pending"))
        await engine.send("XGROUP", "CREATE", keys.events(SHOP), "group", "0")
        await engine.send("ZADD", keys.archived(SHOP), 9_007_199_254_740_990, 9_007_199_254_740_980)

        async def read_all() -> list[Any]:
            status = await store.engine_status.read()
            await store.check()
            return [
                await store.board.next_holds(10),
                (status.groups, status.pending_orders, status.oldest_overdue),
                await store.events.has_all_after("0-0"),
                [found async for found in store.archive.ranges()],
                await store.archive.highest_id(),
                await store.archive.read([placed.order.id]),
                await store.orders.get(placed.order.id),
                await store.products.read_many([1, 2]),
            ]

        before = await read_all()
        assert await stocks(store) == [9]
        assert str(await connection.send("HELLO")).count("'proto': 3") == 1
        assert await read_all() == before


def mugs(*numbers: int) -> list[tuple[str, ListedProduct | None]]:
    return [(f"key {number}", ListedProduct(number, 1, f"{number:0100}")) for number in numbers]


def test_products_that_have_changed_make_room_for_others() -> None:
    known = TrackedProducts[ListedProduct](max_bytes=1200)
    names = [f"key {number}" for number in range(3)]
    had_room = []
    for number in (0, 1, 2, 2):
        had_room.append(known.has_room)
        mark = known.expect(names)
        known.keep(mark, mugs(number))
        known.abandon(mark, names)
    assert had_room == [True, True, True, False]
    known.forget(["key 1", "key 7"])
    assert known.has_room
    assert [product and product.id for product in known.find(names)] == [0, None, 2]
    known.forget(None)
    assert known.find(names) == [None, None, None]


def test_what_overlapping_readers_read_is_kept_by_the_first() -> None:
    """Otherwise nothing would be kept while a new reader begins before each reply."""
    known = TrackedProducts[ListedProduct]()
    first, second = known.expect(["key 1"]), known.expect(["key 1", "key 2"])
    known.keep(first, mugs(1))
    assert known.find(["key 1"]) != [None]
    known.forget(["key 1"])
    known.keep(second, mugs(1, 2))
    assert [product and product.id for product in known.find(["key 1", "key 2"])] == [None, 2]


async def test_without_room_pages_are_read_whole(engine: TestConnection) -> None:
    await needs_tracking(engine)
    known = TrackedProducts[ListedProduct](max_bytes=1)
    store = make_store(engine, tracked=lambda: known)
    for _ in range(3):
        await add_mugs(store, 10)
    assert await stocks(store) == await stocks(store) == [10, 10, 10]
    await add_mugs(store, 10)
    await hashes_read(engine)
    assert await stocks(store) == await stocks(store) == [10, 10, 10, 10]
    assert await hashes_read(engine) == 2


def test_a_product_that_was_named_between_question_and_reply_is_not_kept() -> None:
    known = TrackedProducts[ListedProduct]()
    first = known.expect(["key 1"])
    known.forget(["key 1"])
    second = known.expect(["key 1"])
    known.keep(first, mugs(1))
    assert known.find(["key 1"]) == [None]
    known.abandon(first, ["key 1"])
    known.keep(second, mugs(1))
    assert known.find(["key 1"]) != [None]
    known.forget(None)
    assert known.find(["key 1"]) == [None]

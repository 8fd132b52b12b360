"""Pages of a shop with partitions: what no partition has changed is not read again, and each change is shown."""

import asyncio
import random
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from service.domain.errors.order_refusals import InsufficientStock
from service.domain.errors.storage import StorageUnavailable
from service.domain.requests import ProductChange, StockChange
from service.engine.launcher import run_engines
from service.partition_url import partition_url
from service.settings import Settings
from service.storage.opening import open_store
from service.storage.partitioned import PartitionedStore
from service.storage.transfers import Wish, read_pending
from tests.support.engines import TestConnection
from tests.support.pages import COUNT, hashes_read, mug_in, needs_tracking, page, stocks
from tests.support.partitions import assert_nothing_is_lost, home_of, make_partitioned_store, open_partitioned_store
from tests.support.shop import new_mug, new_order
from tests.support.waiting import eventually


async def test_products_that_have_not_changed_are_not_read_again(
    worker: PartitionedStore, other: PartitionedStore, engine: TestConnection
) -> None:
    await needs_tracking(engine)
    for store in (worker, other):
        await stocks(store)
        await hashes_read(engine)
        for _ in range(COUNT):  # the ids are read in each partition in turn
            assert await stocks(store) == [10, 10, 10]
        assert await hashes_read(engine) == 0
    for partition, stock in ((0, 11), (1, 12), (2, 13)):
        await engine.send("HINCRBY", mug_in(partition), "stock", 1)
        for store in (worker, other):
            assert await stocks(store) == [stock, 10, 10]
            assert await hashes_read(engine) == 1  # the part that has changed


@pytest.mark.parametrize("partition", range(COUNT))
@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (("HINCRBY", 1, "stock", 3), [13, 10, 10]),
        (("HINCRBY", 1, "moved", 3), [7, 10, 10]),
        (("HSET", 1, "stock", -50), [0, 10, 10]),
        (("EVAL", "redis.call('HSET', KEYS[1], 'moved', '-1')", 1, 1), [11, 10, 10]),
    ],
)
async def test_a_page_shows_what_somebody_has_changed_by_hand(
    worker: PartitionedStore, engine: TestConnection, partition: int, command: tuple[Any, ...], shown: list[int]
) -> None:
    place = len(command) - 1 if command[0] == "EVAL" else 1
    await engine.send(*command[:place], mug_in(partition), *command[place + 1 :])
    for _ in range(COUNT):
        assert await stocks(worker) == shown


async def test_a_page_shows_that_all_data_are_gone(worker: PartitionedStore, engine: TestConnection) -> None:
    await engine.send("DEL", mug_in(1))
    for _ in range(COUNT):
        assert [item["id"] for item in await page(worker)] == [2, 3]  # its home has lost it
    await engine.send("DEL", mug_in(0, 2))
    for _ in range(COUNT):
        assert await stocks(worker) == [7, 10]
    await engine.send("FLUSHALL")
    for _ in range(COUNT):
        assert await page(worker) == []
    await worker.products.add(new_mug(id=3, stock=7))
    assert await stocks(worker) == [7]


async def test_a_page_shows_each_change_of_this_worker_and_of_another_one(
    worker: PartitionedStore, other: PartitionedStore, engine: TestConnection
) -> None:
    untracked = make_partitioned_store(engine, count=COUNT)  # all partitions over one connection
    for store in (worker, other):
        for number in range(2 * COUNT):
            placed = await store.orders.place(new_order((1, 1), (3, 1), status="pending"))
            assert await stocks(worker) == await stocks(other) == await stocks(untracked)
            await store.holds.cancel(placed.order.id)
            assert await stocks(worker) == await stocks(other) == await stocks(untracked)
            await store.products.change(2, ProductChange.model_validate({"name": f"Cup {number} of {id(store)}"}))
            for _ in range(COUNT):
                assert (await page(worker))[1]["name"] == f"Cup {number} of {id(store)}"
            await store.stock.change(2, StockChange.model_construct(change=1, reason=""))
            assert (await stocks(worker))[1] == (await stocks(untracked))[1]
    assert await stocks(worker) == [10, 10 + 4 * COUNT, 10]
    await store.products.withdraw(2)
    for _ in range(COUNT):
        assert await stocks(worker) == [10, 10]
        assert await page(worker, in_stock="false") == []


async def test_units_that_move_change_no_stock(worker: PartitionedStore, engine: TestConnection) -> None:
    transfers = worker.all.exchange.partitions
    for source in (0, 2):
        moved = await transfers[source].give(1, "0", [Wish(1, 2, 0, 0)])
        assert await stocks(worker) == [10, 10, 10]
        await transfers[1].take(source, moved)
        assert await stocks(worker) == [10, 10, 10]
    await worker.orders.place(new_order((1, 10)))
    assert await stocks(worker) == [0, 10, 10]
    assert [item["id"] for item in await page(worker, in_stock="true")] == [2, 3]


async def test_a_page_is_never_older_than_its_request_while_products_change_all_the_time(
    worker: PartitionedStore, engine: TestConnection
) -> None:
    async def read_on() -> None:
        while True:
            await stocks(worker)

    readers = [asyncio.create_task(read_on()) for _ in range(5)]
    expected = [10, 10, 10]
    chance = random.Random(1)
    for _ in range(300):
        product, partition, units = chance.randrange(3), chance.randrange(COUNT), chance.randrange(1, 9)
        await engine.send("HINCRBY", mug_in(partition, product + 1), "stock", units)
        expected[product] += units
        assert await stocks(worker) == expected
    for reader in readers:
        reader.cancel()
        with suppress(asyncio.CancelledError):
            await reader


@pytest.mark.parametrize("seed", range(3))
async def test_no_page_counts_an_order_before_it_is_placed_or_misses_one_that_was_answered(
    worker: PartitionedStore, other: PartitionedStore, engine: TestConnection, seed: int
) -> None:
    """Units move between the partitions all the time, and the products sell out."""
    sold, begun = Counter[int](), Counter[int]()
    chance = random.Random(seed)
    for product_id in (1, 2, 3):
        await worker.stock.change(product_id, StockChange.model_construct(change=110, reason=""))
    is_over = False

    async def buy(store: PartitionedStore) -> None:
        refusals = 0
        while refusals < 5:
            product_id, units = chance.randint(1, 3), chance.randint(1, 3)
            begun[product_id] += units
            try:
                await store.orders.place(new_order((product_id, units)))
            except (InsufficientStock, StorageUnavailable):  # units were with other orders
                begun[product_id] -= units
                refusals += 1
            else:
                sold[product_id] += units

    async def read(store: PartitionedStore) -> int:
        pages = 0
        while not is_over:
            answered = Counter(sold)
            begun_meanwhile = Counter(begun)
            reading = asyncio.create_task(page(store))
            while not reading.done():
                begun_meanwhile |= begun
                await asyncio.sleep(0)
            for item in await reading:
                gone = 120 - item["stock"]
                assert answered[item["id"]] <= gone <= begun_meanwhile[item["id"]]
            pages += 1
        return pages

    readers = [asyncio.create_task(read(store)) for store in (worker, other, other)]
    await asyncio.gather(*[buy(store) for store in (worker, other, other, worker)])
    is_over = True
    assert min(await asyncio.gather(*readers)) > 0
    assert await stocks(worker) == await stocks(other) == [120 - sold[product_id] for product_id in (1, 2, 3)]
    await assert_nothing_is_lost(engine, worker)


async def test_a_product_that_has_not_reached_all_partitions_is_shown_as_soon_as_it_changes(
    worker: PartitionedStore,
) -> None:
    """Its addition was interrupted in its home, and the sweeper ends it."""
    await home_of(worker, 7).products.add(new_mug(id=7, stock=9))
    seen = {tuple(await stocks(worker)) for _ in range(2 * COUNT)}
    assert seen <= {(10, 10, 10), (10, 10, 10, 3)}
    await worker.deliver()
    for _ in range(COUNT):
        assert await stocks(worker) == [10, 10, 10, 9]


async def test_all_other_reads_mean_the_same_after_a_page_was_read(
    engine: TestConnection, url_of_holdfast: str
) -> None:
    async with open_partitioned_store(*[url_of_holdfast] * COUNT) as store:
        await store.products.add(new_mug(stock=9))
        await store.orders.place(new_order((1, 1), status="pending"))
        transfers = store.all.exchange.partitions
        await transfers[1].take(0, await transfers[0].give(1, "0", [Wish(1, 1, 0, 0)]))
        await transfers[2].give(1, "0", [Wish(1, 1, 0, 0)])
        await home_of(store, 1).products.change(1, ProductChange.model_validate({"name": "Cup"}))

        async def have_an_age() -> bool:
            pending = await read_pending(transfers)
            return pending.units_seconds > 0 < pending.products_seconds

        async def read_all() -> list[Any]:
            await eventually(have_an_age)  # at first, less than a millisecond may have passed
            pending = await read_pending(transfers)
            return [
                (pending.units, pending.products),
                [await partition.taken() for partition in transfers],
                [await partition.unpropagated() for partition in transfers],
                [await partition.outgoing([0, 1, 2]) for partition in transfers],
                await store.board.products([1]),
                (await store.board.next_holds(5)).total,
                await store.stock.levels(1),
                await home_of(store, 1).products.read_many([1, 2]),
            ]

        before = await read_all()
        assert await stocks(store) == [8]
        await needs_tracking(engine)
        assert str(await store.partitions[2].client.send("HELLO")).count("'proto': 3") == 1
        assert await read_all() == before


async def test_products_without_room_are_read_whole(
    engine: TestConnection, url_of_holdfast: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await needs_tracking(engine)
    monkeypatch.setattr("service.storage.summed_products.MAX_KEPT_BYTES", COUNT * 2500)
    async with open_partitioned_store(*[url_of_holdfast] * COUNT) as store:
        for count in range(1, 10):
            await store.products.add(new_mug(stock=10))
            assert await stocks(store) == await stocks(store) == [10] * count
        await hashes_read(engine)
        assert await stocks(store) == [10] * 9
        assert 0 < await hashes_read(engine) < 9 * COUNT  # only those for which there was no room
        for product_id in range(1, 10):
            await engine.send("HINCRBY", mug_in(0, product_id), "stock", 1)
            assert await stocks(store) == [11] * product_id + [10] * (9 - product_id)


async def test_with_an_engine_for_each_partition_only_what_has_changed_is_read(tmp_path: Path) -> None:
    """All is opened as the service does it."""

    def read() -> list[int]:
        """Return how many hashes were read by HMGET from each engine."""
        found = []
        for number in range(COUNT):
            with Redis.from_url(partition_url(url, number)) as engine:
                found.append(engine.info("commandstats").get("cmdstat_hmget", {}).get("calls", 0))
                engine.config_resetstat()
        return found

    with run_engines(tmp_path / "data", COUNT, "none") as url:
        settings = replace(Settings(), redis_url=url, partitions=COUNT, durability="none")
        async with open_store(settings) as store, open_store(settings) as other:
            await store.products.add(new_mug(stock=10))
            await store.products.add(new_mug(stock=10))
            for number in range(2 * COUNT):
                assert await stocks(store) == await stocks(store) == [10 - number, 10]
                read()
                assert await stocks(store) == [10 - number, 10]
                assert read() == [0] * COUNT
                placed = await other.orders.place(new_order((1, 1)))
                read()
                assert await stocks(store) == [9 - number, 10]
                assert read() == [int(placed.order.id % COUNT == partition) for partition in range(COUNT)]

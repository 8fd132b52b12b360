"""GET /metrics of a shop with partitions: what moves between them, and the Redis of each."""

import asyncio
import re

import pytest

from service.app import new_metrics
from service.storage.connection import MultiplexedConnection
from service.storage.sender import CommandSender
from service.storage.transfers import Wish
from tests.api.test_metrics import scrape
from tests.support.partitions import home_of, make_partitioned_store
from tests.support.shop import add_product, http_client, place

COUNT = 3


async def test_misses_transfers_and_pushes_are_counted(redis: CommandSender) -> None:
    store = make_partitioned_store(redis, count=COUNT)
    async with http_client(store) as client:
        product_id = await add_product(client, stock=6)
        assert (await place(client, (product_id, 5), key="all")).status_code == 201
        await store.deliver()
        found = await scrape(client)
        assert found["holdfast_partition_misses_total{}"] == 1
        # Two rounds: the only partition that is asked in the first one has too few units.
        assert found["holdfast_partition_rounds_total{}"] == 2
        assert found["holdfast_exchange_cycles_total{}"] >= 1
        assert found["holdfast_transfers_total{}"] >= 1
        assert 3 <= found["holdfast_transferred_units_total{}"] <= 4
        assert found["holdfast_catalogue_pushes_total{}"] == 1


async def test_units_that_several_workers_bring_are_counted_once(redis: CommandSender) -> None:
    metrics = new_metrics()
    workers = [make_partitioned_store(redis, count=COUNT, metrics=metrics) for _ in range(3)]
    async with http_client(workers[0]) as client:
        product_id = await add_product(client, stock=30)
        await workers[0].all.exchange.partitions[0].give(1, "0", [Wish(product_id, 2, 2, 0)])
        await asyncio.gather(*[worker.deliver() for worker in workers])
        assert (await scrape(client))["holdfast_transferred_units_total{}"] == 2


async def test_each_partition_has_its_row(redis: CommandSender) -> None:
    store = make_partitioned_store(redis, count=COUNT)
    async with http_client(store) as client:
        product_id = await add_product(client, stock=9)
        response = await place(client, (product_id, 1), key="held", status="pending")
        found = await scrape(client)
    home = response.json()["id"] % COUNT
    for number in range(COUNT):
        assert found[f"holdfast_ready{{partition={number}}}"] == 1
        assert found[f"holdfast_redis_up{{partition={number}}}"] == 1
        assert found[f"holdfast_products_on_sale{{partition={number}}}"] == 1
        assert found[f"holdfast_holds{{partition={number}}}"] == (number == home)


async def test_units_on_their_way_and_products_that_are_not_everywhere_are_shown(redis: CommandSender) -> None:
    store = make_partitioned_store(redis, count=COUNT)
    async with http_client(store) as client:
        product_id = await add_product(client, stock=30)
        found = await scrape(client)
        assert (found["holdfast_units_on_their_way{}"], found["holdfast_unpropagated_products{}"]) == (0, 0)
        transfers = store.all.exchange.partitions
        await transfers[0].give(1, "0", [Wish(product_id, 2, 2, 0)])
        given = await transfers[0].give(2, "0", [Wish(product_id, 3, 3, 0)])
        await home_of(store, product_id).products.withdraw(product_id)
        found = await scrape(client)
        assert (found["holdfast_units_on_their_way{}"], found["holdfast_unpropagated_products{}"]) == (5, 1)
        assert 0 < found["holdfast_units_on_their_way_oldest_seconds{}"] < 60
        assert 0 < found["holdfast_unpropagated_products_oldest_seconds{}"] < 60
        await transfers[2].take(0, given)  # has arrived, although nobody has settled it
        assert (await scrape(client))["holdfast_units_on_their_way{}"] == 2
        await store.deliver()
        found = await scrape(client)
        assert (found["holdfast_units_on_their_way{}"], found["holdfast_unpropagated_products{}"]) == (0, 0)
        assert found["holdfast_units_on_their_way_oldest_seconds{}"] == 0
        assert found["holdfast_unpropagated_products_oldest_seconds{}"] == 0


async def test_the_age_of_what_is_on_its_way_is_that_of_the_oldest(redis: CommandSender) -> None:
    store = make_partitioned_store(redis, count=COUNT)
    async with http_client(store) as client:
        seconds, _ = await redis.send("TIME")
        for age in (20, 500, 90):
            transfer_id = (int(seconds) - age) * 1_000_000
            await redis.send("ZADD", "{test:0}:outgoing:1", transfer_id, f"{transfer_id} 7 2")
            await redis.send("ZADD", "{test:2}:unpropagated", transfer_id, str(age))
        found = await scrape(client)
        assert 500 <= found["holdfast_units_on_their_way_oldest_seconds{}"] < 560
        assert 500 <= found["holdfast_unpropagated_products_oldest_seconds{}"] < 560


async def test_a_damaged_transfer_does_not_hide_the_other_metrics(redis: CommandSender) -> None:
    store = make_partitioned_store(redis, count=COUNT)
    async with http_client(store) as client:
        await add_product(client, stock=30)
        await redis.send("ZADD", "{test:0}:outgoing:1", 12, "twelve")
        found = await scrape(client)
    assert "holdfast_units_on_their_way{}" not in found
    assert found["holdfast_products_on_sale{partition=2}"] == 1


async def test_a_partition_that_does_not_answer_is_down_and_the_others_are_shown(redis: CommandSender) -> None:
    metrics = new_metrics()
    async with MultiplexedConnection("unix:///nowhere.sock", timeout=0.05, max_in_flight=9, metrics=metrics) as nowhere:
        store = make_partitioned_store(redis, redis, nowhere, count=COUNT, metrics=metrics)
        async with http_client(store) as client:
            found = await scrape(client)
    assert [found[f"holdfast_redis_up{{partition={number}}}"] for number in range(COUNT)] == [1, 1, 0]
    assert "holdfast_holds{partition=1}" in found
    assert "holdfast_holds{partition=2}" not in found
    assert "holdfast_units_on_their_way{}" not in found


@pytest.mark.parametrize("redis", ["fakeredis"], indirect=True)
async def test_a_shop_without_partitions_shows_nothing_about_them(redis: CommandSender) -> None:
    async with http_client(make_partitioned_store(redis, count=COUNT).partitions[0]) as client:
        text = (await client.get("/metrics")).text
    assert not re.findall("partition|holdfast_(exchange|transfer|catalogue|units_on|unpropagated)", text)

"""Product ids that the Store assigns."""

import asyncio

import pytest

from service.domain.errors.storage import StorageUnavailable
from service.domain.limits import MAX_ID
from service.storage import keys
from service.storage.connection import MultiplexedConnection
from service.storage.sender import CommandSender
from tests.support.balance import assert_balanced
from tests.support.shop import SHOP, add_mugs, make_store


async def test_assigned_product_ids_skip_the_ids_that_clients_chose(redis: CommandSender) -> None:
    store = make_store(redis)
    for product_id in range(1, 101):
        await add_mugs(store, id=product_id)
    before = await assert_balanced(redis)
    assigned = [await add_mugs(store, name="Assigned id") for _ in range(3)]
    after = await assert_balanced(redis)
    assert after.products.items() >= before.products.items()
    assert after.products.keys() - before.products.keys() == set(assigned)
    assert len(set(assigned)) == 3


async def test_assigned_product_ids_stay_below_the_limit_whatever_ids_clients_chose(redis: CommandSender) -> None:
    store = make_store(redis)
    for power in range(1, 54):
        await add_mugs(store, id=2**power - 1)
    assert [await add_mugs(store) for _ in range(5)] == [2, 4, 5, 6, 8]
    assert await redis.send("GET", keys.product_ids(SHOP)) == "8"
    await assert_balanced(redis)


@pytest.mark.parametrize("counter", [2**54 - 1, MAX_ID, MAX_ID - 1, 0, -7, 2**62])
async def test_a_counter_of_product_ids_that_somebody_has_set_gives_only_valid_ids(
    redis: CommandSender, counter: int
) -> None:
    store = make_store(redis)
    for product_id in (1, 2, 4, MAX_ID):
        await add_mugs(store, id=product_id)
    await redis.send("SET", keys.product_ids(SHOP), counter)
    assert [await add_mugs(store) for _ in range(3)] == [3, 5, 6]
    assert await redis.send("GET", keys.product_ids(SHOP)) == "6"


async def test_two_workers_that_move_the_counter_back_at_the_same_time_assign_different_ids(
    engine: MultiplexedConnection,
) -> None:
    first, second = make_store(engine), make_store(engine)
    await add_mugs(first, id=2)
    await engine.send("SET", keys.product_ids(SHOP), MAX_ID)
    ids = await asyncio.gather(*(add_mugs(store) for store in (first, second) * 10))
    assert len(set(ids)) == 20
    assert all(1 <= product_id <= MAX_ID for product_id in ids)
    assert 1 <= await add_mugs(second) <= MAX_ID


async def test_assigned_product_ids_skip_thousands_of_ids_that_clients_chose(engine: MultiplexedConnection) -> None:
    store = make_store(engine)
    for product_id in range(1, 2501):
        await add_mugs(store, id=product_id)
    assert [await add_mugs(store) for _ in range(2)] == [2501, 2502]


@pytest.mark.parametrize("counter", ["many", str(2**63 - 1), "1.5"])
async def test_a_counter_of_product_ids_that_cannot_count_is_named(redis: CommandSender, counter: str) -> None:
    store = make_store(redis)
    await redis.send("SET", keys.product_ids(SHOP), counter)
    with pytest.raises(StorageUnavailable, match="ids:products cannot be counted up"):
        await add_mugs(store)
    assert await add_mugs(store, id=7) == 7

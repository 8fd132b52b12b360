"""RedisClient."""

import pytest

from service.domain.errors.storage import StorageUnavailable
from service.storage.connection import MultiplexedConnection
from tests.support.books import assert_books_balance
from tests.support.engine_memory import full_memory
from tests.support.redis_content import dump
from tests.support.scripts import SCRIPTS, run_add_product
from tests.support.shop import make_store, new_order


async def test_an_order_that_fails_for_lack_of_memory_uses_neither_its_key_nor_its_id(
    wire: MultiplexedConnection,
) -> None:
    store = make_store(wire)
    await run_add_product(wire, 7)
    first = await store.orders.place(new_order((7, 1)))
    before = await dump(wire)
    async with full_memory(wire):
        with pytest.raises(StorageUnavailable, match="OOM"):
            await store.orders.place(new_order((7, 1)), "k-1")
        assert await dump(wire) == before
        assert (await store.orders.get(first.order.id)) == first.order
    second = await store.orders.place(new_order((7, 1)), "k-1")
    assert (second.order.id, second.replayed) == (first.order.id + 1, False)
    await assert_books_balance(wire)


async def test_the_store_loads_a_script_again_after_the_engine_has_lost_it(wire: MultiplexedConnection) -> None:
    store = make_store(wire)
    await run_add_product(wire, 7)
    for _ in range(2):
        await wire.send("SCRIPT", "FLUSH")
        assert list(await wire.send("SCRIPT", "EXISTS", SCRIPTS["place_order"].sha)) == [0]
        await store.orders.place(new_order((7, 1)))
        assert list(await wire.send("SCRIPT", "EXISTS", SCRIPTS["place_order"].sha)) == [1]
    await assert_books_balance(wire)

"""Order ids: workers reserve them in blocks, and no order is overwritten if the counter is lost."""

import asyncio
import re
from collections.abc import Awaitable
from typing import Any

import pytest

from service.domain.errors.remembered_refusals import InsufficientStock
from service.domain.errors.storage import StorageUnavailable
from service.domain.requests import OrdersQuery
from service.storage import keys
from service.storage.connection import MultiplexedConnection
from service.storage.order_ids import ID_BLOCK_SIZE
from service.storage.sender import CommandSender
from service.storage.store import Store
from tests.support.balance import assert_balanced
from tests.support.shop import SHOP, add_mugs, make_store, new_order


async def test_the_next_order_uses_the_id_of_a_refused_order(store: Store) -> None:
    mugs = await add_mugs(store, stock=1000)
    first = await store.orders.place(new_order((mugs, 1)))
    for key in (None, "k-1", "k-1"):
        with pytest.raises(InsufficientStock):
            await store.orders.place(new_order((mugs, 1001)), key)
    second = await store.orders.place(new_order((mugs, 1)))
    assert second.order.id == first.order.id + 1


async def test_a_replay_uses_no_order_id(store: Store) -> None:
    mugs = await add_mugs(store, stock=1000)
    first = await store.orders.place(new_order((mugs, 1)), "k-1")
    assert await store.orders.place(new_order((mugs, 1)), "k-1") == (first.order, True)
    assert (await store.orders.place(new_order((mugs, 1)))).order.id == first.order.id + 1


async def test_each_worker_reserves_order_ids_in_blocks(redis: CommandSender) -> None:
    first, second = make_store(redis), make_store(redis)
    mugs = await add_mugs(first, stock=1000)
    ids = [
        (await store.orders.place(new_order((mugs, 1)))).order.id
        for store in (first, second, first, second, *(first for _ in range(ID_BLOCK_SIZE)))
    ]
    assert ids[:4] == [1, ID_BLOCK_SIZE + 1, 2, ID_BLOCK_SIZE + 2]
    assert ids[4:] == [*range(3, ID_BLOCK_SIZE + 1), 2 * ID_BLOCK_SIZE + 1, 2 * ID_BLOCK_SIZE + 2]
    assert int(await redis.send("GET", keys.order_ids(SHOP))) == 3 * ID_BLOCK_SIZE


class SenderWithFailingCounter:
    """A CommandSender on which the counter of order ids answers the first command and fails all later commands."""

    def __init__(self, sender: CommandSender) -> None:
        self.sender = sender
        self.counter_commands = 0

    def send(self, *command: bytes | str | int, safe_to_repeat: bool = False) -> Awaitable[Any]:
        if command[0] == "INCRBY" and command[1] == keys.order_ids(SHOP):
            self.counter_commands += 1
            if self.counter_commands > 1:
                return fail()
        return self.sender.send(*command, safe_to_repeat=safe_to_repeat)


async def fail() -> Any:
    raise StorageUnavailable("the test lets the counter fail")


async def test_orders_that_wait_for_ids_share_one_reservation(engine: MultiplexedConnection) -> None:
    mugs = await add_mugs(make_store(engine), stock=5000)
    store = make_store(engine)
    before = await engine.send("INFO", "commandstats")
    placed = await asyncio.gather(*(store.orders.place(new_order((mugs, 1))) for _ in range(4000)))
    after = await engine.send("INFO", "commandstats")
    commands = [
        int(found[1]) if (found := re.search(r"cmdstat_incrby:calls=(\d+)", text)) else 0 for text in (before, after)
    ]
    assert commands[1] - commands[0] <= 3
    assert len({order.id for order, _ in placed}) == 4000


async def test_no_order_waits_for_the_counter_while_reserved_ids_are_left(redis: CommandSender) -> None:
    mugs = await add_mugs(make_store(redis), stock=1000)
    sender = SenderWithFailingCounter(redis)
    store = make_store(sender)
    ids = [(await store.orders.place(new_order((mugs, 1)))).order.id for _ in range(ID_BLOCK_SIZE)]
    assert ids == list(range(1, ID_BLOCK_SIZE + 1))
    assert sender.counter_commands > 1  # the worker asked for the next block before it was needed
    with pytest.raises(StorageUnavailable):
        await store.orders.place(new_order((mugs, 1)))
    sender.counter_commands = 0
    assert (await store.orders.place(new_order((mugs, 1)))).order.id == ID_BLOCK_SIZE + 1


@pytest.mark.parametrize("set_back_to", [None, 1, ID_BLOCK_SIZE])
async def test_no_order_is_overwritten_when_the_id_counter_is_lost(
    redis: CommandSender, set_back_to: int | None
) -> None:
    store = make_store(redis)
    mugs = await add_mugs(store, stock=1000)
    for _ in range(2 * ID_BLOCK_SIZE + 3):
        await store.orders.place(new_order((mugs, 1)))
    before = await assert_balanced(redis)
    if set_back_to is None:
        await redis.send("DEL", keys.order_ids(SHOP))
    else:
        await redis.send("SET", keys.order_ids(SHOP), set_back_to)
    restarted = make_store(redis)
    placed = [(await restarted.orders.place(new_order((mugs, 1)))).order for _ in range(3)]
    after = await assert_balanced(redis)
    assert len(after.orders) == len(before.orders) + 3
    assert after.orders.items() >= before.orders.items()
    assert (await restarted.orders.list(OrdersQuery.model_validate({"limit": "3"})))[0] == placed[::-1]

"""What a shop with partitions answers if one of them does not answer, or has no room for more commands."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from service.domain.errors.order_refusals import InsufficientStock
from service.domain.errors.storage import OutcomeUnknown, Overloaded, StorageError, StorageUnavailable
from service.domain.requests import ProductChange, StockChange
from service.storage.partitioned import PartitionedStore
from service.storage.scripts import load_scripts
from tests.support.fake_redis import FakeRedis
from tests.support.partitions import assert_nothing_is_lost, make_partitioned_store
from tests.support.shop import new_mug, new_order

COUNT = 4
TIMEOUT = 0.3

_NAMES = {text: name for name, script in load_scripts().items() for text in (script.sha, script.source)}


def works(_: str) -> None:
    """Let everything work."""


class Way:
    """The way to one partition. `fails`: returns the error with which a script or a command fails, by its name."""

    def __init__(self, redis: FakeRedis) -> None:
        self._redis = redis
        self.fails: Callable[[str], StorageError | None] = works
        self.is_silent = False

    def send(self, *command: bytes | str | int, safe_to_repeat: bool = False) -> Awaitable[Any]:
        return asyncio.ensure_future(self._send(*command))

    async def _send(self, *command: Any) -> Any:
        name = _NAMES.get(command[1], command[0]) if len(command) > 1 else command[0]
        if self.is_silent:
            await asyncio.sleep(TIMEOUT)  # as long as a connection waits for a reply
            raise StorageUnavailable("no reply")
        if error := self.fails(name):
            raise error
        return await self._redis.send(*command)


@pytest.fixture
def redis() -> FakeRedis:
    return FakeRedis()


@pytest.fixture
def ways(redis: FakeRedis) -> list[Way]:
    return [Way(redis) for _ in range(COUNT)]


@pytest.fixture
async def store(ways: list[Way]) -> AsyncIterator[PartitionedStore]:
    store = make_partitioned_store(*ways, count=COUNT, timeout=TIMEOUT)
    yield store
    await store.all.exchange.close()


async def add(store: PartitionedStore, stock: int) -> int:
    return (await store.products.add(new_mug(stock=stock))).id


ERRORS = [StorageUnavailable, Overloaded]


@pytest.mark.parametrize("error", ERRORS)
async def test_a_stock_change_that_was_made_is_never_answered_with_nothing_was_done(
    ways: list[Way], store: PartitionedStore, error: type[StorageError]
) -> None:
    mugs = await add(store, 8)
    looks = 0

    def fails(name: str) -> StorageError | None:
        """Let everything fail from the second look at a partition on: it comes after the change."""
        nonlocal looks
        looks += name == "read_hashes"
        return error("no reply") if looks > 1 else None

    ways[3].fails = fails  # the change is made in another one
    with pytest.raises(OutcomeUnknown):
        await store.stock.change(mugs, StockChange.model_construct(change=5, reason=""))
    ways[3].fails = works
    assert (await store.stock.levels(mugs)).stock == 13


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("failing", ["push_product", "read_hashes", "note_propagated"])
async def test_a_change_of_a_product_that_was_made_is_never_answered_with_nothing_was_done(
    ways: list[Way], store: PartitionedStore, error: type[StorageError], failing: str
) -> None:
    mugs = await add(store, 8)
    for way in ways:
        way.fails = lambda name: error("no reply") if name == failing else None
    for verb in (
        store.products.change(mugs, ProductChange.model_validate({"name": "Cup"})),
        store.products.withdraw(mugs),
        store.products.add(new_mug(id=77)),
    ):
        with pytest.raises(OutcomeUnknown):
            await verb
    for way in ways:
        way.fails = works
    await store.deliver()
    assert [await store.products.read_many([mugs]) for _ in range(COUNT)] == [[None]] * COUNT
    assert {(await store.products.get(77)).name for _ in range(COUNT)} == {"Mug"}


async def test_an_order_is_placed_with_the_units_of_the_partitions_that_answer(
    redis: FakeRedis, ways: list[Way], store: PartitionedStore
) -> None:
    mugs = await add(store, 40)
    ways[3].is_silent = True
    placed = await store.orders.place(new_order((mugs, 25)), "key-1")
    assert placed.order.id % COUNT != 3
    with pytest.raises(StorageUnavailable):  # 15 are left, 10 of them in the silent partition
        await store.orders.place(new_order((mugs, 7)), "key-1b")
    ways[3].is_silent = False
    await store.orders.place(new_order((mugs, 7)), "key-1b")
    with pytest.raises(InsufficientStock):
        await store.orders.place(new_order((mugs, 9)), "key-2")
    await assert_nothing_is_lost(redis, store)


async def test_an_order_that_may_run_anywhere_is_placed_although_a_partition_does_not_answer(
    ways: list[Way], store: PartitionedStore
) -> None:
    mugs = await add(store, 40)
    ways[2].is_silent = True
    found = {(await store.orders.place(new_order((mugs, 1)))).order.id % COUNT for _ in range(8)}
    assert found == {0, 1, 3}


async def test_an_order_without_a_key_is_not_tried_for_longer_than_a_command_may_take(redis: FakeRedis) -> None:
    ways = [Way(redis) for _ in range(12)]
    store = make_partitioned_store(*ways, count=12, timeout=TIMEOUT)
    mugs = await add(store, 12)
    ways[5].is_silent = True
    begin = time.monotonic()
    with pytest.raises(StorageUnavailable):  # nobody knows whether there are 13
        await store.orders.place(new_order((mugs, 13)))
    assert time.monotonic() - begin < 3 * TIMEOUT
    await store.all.exchange.close()

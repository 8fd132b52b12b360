"""Replays of orders that a worker remembers: one round trip for each, and Redis decides as always."""

from itertools import chain

import pytest

from service.domain.errors.refusals import OrderCancelled, OrderNotFound
from service.domain.errors.storage import (
    OutcomeUnknown,
    Overloaded,
    StorageError,
    StorageUnavailable,
    UnsupportedRedis,
)
from service.domain.requests import NewReturn
from service.storage import keys
from service.storage.recent_orders import RECENT_ORDERS, RecentOrders
from service.storage.records import ORDER_FIELDS
from service.storage.sender import CommandSender
from service.storage.store import Store
from tests.support.holds import ObservedSender
from tests.support.redis_content import nothing_changes
from tests.support.shop import SHOP, add_mugs, make_store, new_order
from tests.support.ways import Way


async def commands_of_replay(way: Way, store: Store) -> list[str]:
    """Repeat an order of one unit of product 1 with the key `k`. Return the commands and scripts that this took."""
    way.ran.clear()
    assert (await store.orders.place(new_order((1, 1)), "k")).replayed
    return way.ran


async def test_a_replay_takes_one_round_trip(redis: CommandSender) -> None:
    way = Way(redis)
    store = make_store(way)
    await add_mugs(store)
    first = await store.orders.place(new_order((1, 1)), "k")
    await commands_of_replay(way, store)  # from now on, the engine knows the script
    async with nothing_changes(redis):
        assert await commands_of_replay(way, store) == ["read_placed"]
        assert await store.orders.place(new_order((1, 1)), "k") == (first.order, True)


async def test_a_replay_of_another_worker_takes_one_round_trip_from_the_second_on(redis: CommandSender) -> None:
    other = make_store(redis)
    await add_mugs(other)
    for _ in range(2):
        await other.orders.place(new_order((1, 1)), "k")
    way = Way(redis)
    store = make_store(way)
    assert (await commands_of_replay(way, store))[-2:] == ["place_order", "HMGET"]
    assert await commands_of_replay(way, store) == ["read_placed"]


async def test_a_replay_shows_what_has_come_back_since(redis: CommandSender) -> None:
    store = make_store(redis)
    await add_mugs(store)
    placed = (await store.orders.place(new_order((1, 2)), "k")).order
    returned = NewReturn.model_validate({"products": [{"product_id": 1, "quantity": 1}]})
    await make_store(redis).returns.make(placed.id, returned)
    again = (await store.orders.place(new_order((1, 2)), "k")).order
    assert again == await store.orders.get(placed.id)
    assert [line.returned for line in again.lines] == [1]


async def test_a_replay_shows_all_that_redis_has_of_the_order(redis: CommandSender) -> None:
    way = Way(redis)
    store = make_store(way)
    await add_mugs(store)
    placed = (await store.orders.place(new_order((1, 2)), "k")).order
    values = {
        "products": "1: 2 x 19.99",
        "total_price": "39.98",
        "status": "completed",
        "created_at": "1000",
        "expires_at": "2000",
        "completed_at": "1500",
        "reference": "cart",
        "customer": "c",
        "returned": "1: 1",
        "refunded": "19.99",
    }
    assert values.keys() == set(ORDER_FIELDS)
    await redis.send("HSET", keys.order(SHOP, placed.id), *chain.from_iterable(values.items()))
    way.ran.clear()
    replay = (await store.orders.place(new_order((1, 2)), "k")).order
    assert replay == await make_store(redis).orders.get(placed.id)
    assert None not in replay
    assert "place_order" not in way.ran


async def test_a_key_that_was_removed_from_redis_places_a_new_order(redis: CommandSender) -> None:
    store = make_store(redis)
    await add_mugs(store)
    first = await store.orders.place(new_order((1, 1)), "k")
    await redis.send("DEL", keys.idempotency(SHOP, "k"))
    second = await store.orders.place(new_order((1, 1)), "k")
    assert not second.replayed
    assert second.order.id != first.order.id
    assert (await store.orders.place(new_order((1, 1)), "k")).order == second.order


async def test_a_replay_returns_the_order_that_redis_has_for_the_key(redis: CommandSender) -> None:
    store = make_store(redis)
    await add_mugs(store)
    await store.orders.place(new_order((1, 1)), "k")
    await redis.send("DEL", keys.idempotency(SHOP, "k"))
    other = await make_store(redis).orders.place(new_order((1, 1)), "k")
    assert (await store.orders.place(new_order((1, 1)), "k")) == (other.order, True)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (StorageUnavailable("lost"), OutcomeUnknown),
        # Raised unchanged, as when place_order.lua is run.
        (Overloaded("10 commands wait for Redis already"), Overloaded),
        (UnsupportedRedis("too old"), UnsupportedRedis),
    ],
)
async def test_only_storage_unavailable_becomes_outcome_unknown_when_a_known_order_is_read(
    redis: CommandSender, error: StorageError, expected: type[StorageError]
) -> None:
    errors: list[Exception] = []
    store = make_store(ObservedSender(redis, lambda command: errors[0] if errors else None))
    await add_mugs(store)
    await store.orders.place(new_order((1, 1)), "k")
    errors.append(error)
    with pytest.raises(expected) as raised:
        await store.orders.place(new_order((1, 1)), "k")
    assert raised.value.reason == error.reason


@pytest.mark.parametrize(
    ("command", "error"),
    [(("DEL",), OrderNotFound), (("HSET", "status", "cancelled"), OrderCancelled)],  # only a person does this
)
async def test_a_known_order_that_is_gone_or_not_completed_is_answered_as_a_read_of_it(
    redis: CommandSender, command: tuple[str, ...], error: type[Exception]
) -> None:
    store = make_store(redis)
    await add_mugs(store)
    placed = await store.orders.place(new_order((1, 1)), "k")
    name, *arguments = command
    await redis.send(name, keys.order(SHOP, placed.order.id), *arguments)
    with pytest.raises(error):
        await store.orders.place(new_order((1, 1)), "k")


async def test_shops_of_a_worker_have_the_same_key_for_different_orders(redis: CommandSender) -> None:
    recent = RecentOrders()
    shops = [make_store(redis, shop=shop, recent_orders=recent) for shop in ("berlin", "paris")]
    for store in shops:
        await add_mugs(store)
    await shops[0].orders.place(new_order((1, 1)))
    placed = [(await store.orders.place(new_order((1, 2)), "k")).order for store in shops]
    assert [order.id for order in placed] == [2, 1]
    assert [await store.orders.place(new_order((1, 2)), "k") for store in shops] == [(order, True) for order in placed]


@pytest.mark.parametrize("orders", [1, RECENT_ORDERS - 1, RECENT_ORDERS, RECENT_ORDERS + 1, 5 * RECENT_ORDERS // 2])
def test_the_newest_orders_are_known_and_the_oldest_forgotten(orders: int) -> None:
    recent = RecentOrders()
    for order_id in range(1, orders + 1):
        recent.note(f"key {order_id}", order_id)
    known = [order_id for order_id in range(1, orders + 1) if recent.id_of(f"key {order_id}") == order_id]
    assert known == list(range(orders - len(known) + 1, orders + 1))
    assert min(orders, RECENT_ORDERS) <= len(known) <= 2 * RECENT_ORDERS


def test_the_newest_order_of_a_key_is_the_known_one() -> None:
    recent = RecentOrders()
    recent.note("k", 1)
    for order_id in range(2, RECENT_ORDERS + 1):
        recent.note(f"key {order_id}", order_id)
    recent.note("k", RECENT_ORDERS + 1)
    assert recent.id_of("k") == RECENT_ORDERS + 1

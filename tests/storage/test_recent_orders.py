"""Repeated requests of which a worker still knows the order: one command for each, and Redis decides as always."""

import pytest

from service.domain.errors.refusals import IdempotencyKeyReused
from service.domain.errors.storage import OutcomeUnknown, StorageUnavailable
from service.domain.requests import NewReturn
from service.storage import keys
from service.storage.idempotency import RECENT_ORDERS, RecentOrders
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
        assert await commands_of_replay(way, store) == ["read_hashes"]
        assert await store.orders.place(new_order((1, 1)), "k") == (first.order, True)


async def test_a_replay_of_another_worker_takes_one_round_trip_from_the_second_on(redis: CommandSender) -> None:
    other = make_store(redis)
    await add_mugs(other)
    for _ in range(2):
        await other.orders.place(new_order((1, 1)), "k")
    way = Way(redis)
    store = make_store(way)
    assert (await commands_of_replay(way, store))[-2:] == ["place_order", "HMGET"]
    assert await commands_of_replay(way, store) == ["read_hashes"]


async def test_a_replay_shows_what_has_come_back_since(redis: CommandSender) -> None:
    store = make_store(redis)
    await add_mugs(store)
    placed = (await store.orders.place(new_order((1, 2)), "k")).order
    returned = NewReturn.model_validate({"products": [{"product_id": 1, "quantity": 1}]})
    await make_store(redis).returns.make(placed.id, returned)
    again = (await store.orders.place(new_order((1, 2)), "k")).order
    assert again == await store.orders.get(placed.id)
    assert [line.returned for line in again.lines] == [1]


async def test_the_key_of_a_known_order_cannot_be_used_for_a_different_order(redis: CommandSender) -> None:
    store = make_store(redis)
    await add_mugs(store)
    await store.orders.place(new_order((1, 1)), "k")
    async with nothing_changes(redis):
        with pytest.raises(IdempotencyKeyReused):
            await store.orders.place(new_order((1, 2)), "k")


async def test_a_key_that_was_removed_from_redis_places_a_new_order(redis: CommandSender) -> None:
    store = make_store(redis)
    await add_mugs(store)
    first = await store.orders.place(new_order((1, 1)), "k")
    await redis.send("DEL", keys.idempotency(SHOP, "k"))
    second = await store.orders.place(new_order((1, 1)), "k")
    assert not second.replayed
    assert second.order.id != first.order.id
    assert (await store.orders.place(new_order((1, 1)), "k")).order == second.order


async def test_the_order_that_redis_names_is_the_answer(redis: CommandSender) -> None:
    store = make_store(redis)
    await add_mugs(store)
    await store.orders.place(new_order((1, 1)), "k")
    await redis.send("DEL", keys.idempotency(SHOP, "k"))
    other = await make_store(redis).orders.place(new_order((1, 1)), "k")
    assert (await store.orders.place(new_order((1, 1)), "k")) == (other.order, True)


async def test_a_known_order_that_cannot_be_read_has_an_unknown_outcome(redis: CommandSender) -> None:
    """An answer that says "nothing was done" would make the client order again, with a new key."""
    lost: list[Exception] = []
    store = make_store(ObservedSender(redis, lambda command: lost[0] if lost else None))
    await add_mugs(store)
    await store.orders.place(new_order((1, 1)), "k")
    lost.append(StorageUnavailable("lost"))
    with pytest.raises(OutcomeUnknown):
        await store.orders.place(new_order((1, 1)), "k")


async def test_a_pending_order_is_shown_as_its_clock_says(redis: CommandSender) -> None:
    """Whether its hold has ended cannot be seen from its fields alone."""
    store = make_store(redis)
    await add_mugs(store)
    pending = new_order((1, 1), status="pending", hold_seconds=60)
    placed = await store.orders.place(pending, "k")
    assert (await store.orders.place(pending, "k")) == (placed.order, True)
    completed = await store.holds.complete(placed.order.id)
    assert (await store.orders.place(pending, "k")) == (completed, True)


@pytest.mark.parametrize("orders", [1, RECENT_ORDERS - 1, RECENT_ORDERS, RECENT_ORDERS + 1, 5 * RECENT_ORDERS // 2])
def test_the_newest_orders_are_known_and_the_oldest_forgotten(orders: int) -> None:
    recent = RecentOrders()
    for order_id in range(1, orders + 1):
        recent.note(f"key {order_id}", order_id)
    known = [order_id for order_id in range(1, orders + 1) if recent.id_of(f"key {order_id}") == order_id]
    assert known == list(range(orders - len(known) + 1, orders + 1))
    assert min(orders, RECENT_ORDERS) <= len(known) <= 2 * RECENT_ORDERS

"""What a restored shop gives away: ids far above those of the backup, and of all that was lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.errors.refusals import OrderNotFound
from service.domain.errors.storage import StorageUnavailable
from service.domain.event import event_position
from service.domain.limits import MAX_ID
from service.domain.requests import OrdersQuery
from service.ops.audit import audit
from service.ops.audit_report import Finding
from service.storage import keys
from service.storage.restored import CLOCK_ERROR_MS, IDS_PER_MS, ROUND, event_id_above, far_above
from service.storage.sender import CommandSender
from service.storage.store import Store
from tests.support.redis_content import dump, events_at, hash_at
from tests.support.scripts import run_mark_restored
from tests.support.shop import SHOP, make_store, new_mug, new_order

NOW = 1_795_000_000_000


async def shop_with_orders(store: Store, count: int = 3) -> list[int]:
    """Add a product whose id Holdfast chooses, and place orders. Return their ids."""
    product = await store.products.add(new_mug(stock=100))
    return [(await store.orders.place(new_order((product.id, 1)))).order.id for _ in range(count)]


async def test_orders_after_a_restore_get_ids_far_above(redis: CommandSender) -> None:
    await shop_with_orders(make_store(redis))
    marked = await make_store(redis).restored.mark()
    new_id = (await make_store(redis).orders.place(new_order((1, 1)))).order.id
    assert new_id == marked.last_skipped + 1
    assert marked.last_skipped % ROUND == 0
    assert new_id - 256 > IDS_PER_MS * CLOCK_ERROR_MS


async def test_a_worker_that_has_reserved_ids_before_the_restore_notices_it(redis: CommandSender) -> None:
    worker = make_store(redis)
    await shop_with_orders(worker)
    marked = await make_store(redis).restored.mark()
    await worker.check()
    assert (await worker.orders.place(new_order((1, 1)))).order.id > marked.last_skipped


async def test_products_after_a_restore_get_ids_far_above(redis: CommandSender) -> None:
    await shop_with_orders(make_store(redis))
    await make_store(redis).restored.mark()
    assert (await make_store(redis).products.add(new_mug())).id > IDS_PER_MS * CLOCK_ERROR_MS


async def test_ids_continue_above_a_known_order(redis: CommandSender) -> None:
    await shop_with_orders(make_store(redis))
    known = 5_000_000_000_000
    await make_store(redis).restored.mark(after_order=known)
    assert (await make_store(redis).orders.place(new_order((1, 1)))).order.id > known


async def test_an_event_says_what_is_lost_and_later_events_follow_it(redis: CommandSender) -> None:
    store = make_store(redis)
    await shop_with_orders(store)
    last_event = await store.events.last_id()
    last_order = await store.orders.last_id()
    marked = await store.restored.mark()
    [event] = await store.events.read(last_event)
    assert event.id == marked.event_id
    assert event.fields == {
        "event": "shop_restored",
        "last_event": last_event,
        "last_order": str(last_order),
        "next_order": str(marked.last_skipped + 1),
    }
    await make_store(redis).orders.place(new_order((1, 1)))
    assert event_position(await store.events.last_id()) > event_position(marked.event_id)


async def test_the_event_is_above_a_known_event(redis: CommandSender) -> None:
    store = make_store(redis)
    await shop_with_orders(store)
    known = f"{2 * NOW}-5"
    assert event_position((await store.restored.mark(after_event=known)).event_id) > event_position(known)


async def test_a_list_of_orders_does_not_read_the_skipped_ids_one_by_one(redis: CommandSender) -> None:
    old_ids = await shop_with_orders(make_store(redis))
    await make_store(redis).restored.mark()
    store = make_store(redis)
    new_id = (await store.orders.place(new_order((1, 1)))).order.id
    page, before = await store.orders.list(OrdersQuery.model_validate({"limit": "2"}))
    assert before is not None
    assert [order.id for order in page] == [new_id, old_ids[-1]]
    page, before = await store.orders.list(OrdersQuery.model_validate({"limit": "2", "before": str(before)}))
    assert ([order.id for order in page], before) == (old_ids[-2::-1], None)


async def test_a_skipped_id_has_no_order(redis: CommandSender) -> None:
    await shop_with_orders(make_store(redis))
    marked = await make_store(redis).restored.mark()
    for order_id in (marked.first_skipped, marked.last_skipped):
        with pytest.raises(OrderNotFound):
            await make_store(redis).orders.get(order_id)


async def test_a_shop_can_be_restored_twice(redis: CommandSender) -> None:
    old_ids = await shop_with_orders(make_store(redis))
    first = await make_store(redis).restored.mark()
    second = await make_store(redis).restored.mark()
    assert second.first_skipped == first.last_skipped + 1
    assert event_position(second.event_id) > event_position(first.event_id)
    store = make_store(redis)
    new_id = (await store.orders.place(new_order((1, 1)))).order.id
    page, _ = await store.orders.list(OrdersQuery())
    assert [order.id for order in page] == [new_id, *reversed(old_ids)]
    assert (await audit(store, SHOP)).balanced


async def test_the_audit_finds_an_order_with_a_skipped_id(redis: CommandSender) -> None:
    [order_id] = await shop_with_orders(make_store(redis), 1)
    store = make_store(redis)
    marked = await store.restored.mark()
    assert (await audit(store, SHOP)).balanced
    fields = {**await hash_at(redis, keys.order(SHOP, order_id)), "id": str(marked.last_skipped)}
    name = keys.order(SHOP, marked.last_skipped)
    await redis.send("HSET", name, *[part for pair in fields.items() for part in pair])
    findings = (await audit(store, SHOP)).findings
    assert Finding(name, f"exists, but {keys.skipped(SHOP)} says that no order has this id") in findings


async def test_a_lost_counter_does_not_bring_skipped_ids_back(redis: CommandSender) -> None:
    await shop_with_orders(make_store(redis))
    marked = await make_store(redis).restored.mark()
    await redis.send("HDEL", keys.meta(SHOP), "data_id")
    await redis.send("DECRBY", keys.order_ids(SHOP), marked.last_skipped)
    assert (await make_store(redis).orders.place(new_order((1, 1)))).order.id > marked.last_skipped


async def test_nothing_changes_if_a_service_counts_ids_up_meanwhile(redis: CommandSender) -> None:
    await shop_with_orders(make_store(redis))
    before = await dump(redis)
    for order, product in (("255", "1"), ("256", "2"), ("", "1"), ("256", "")):
        assert await run_mark_restored(redis, expected_order=order, expected_product=product) == ["changed"]
    assert await dump(redis) == before
    assert await run_mark_restored(redis, expected_order="256", expected_product="1") == ["marked"]
    assert (await events_at(redis, keys.events(SHOP)))[-1]["event"] == "shop_restored"


async def test_a_shop_without_free_ids_is_not_marked(redis: CommandSender) -> None:
    store = make_store(redis)
    await shop_with_orders(store)
    before = await dump(redis)
    with pytest.raises(StorageUnavailable, match="no ids are left"):
        await store.restored.mark(after_order=MAX_ID - 1)
    assert await dump(redis) == before


async def test_a_damaged_counter_is_named(redis: CommandSender) -> None:
    store = make_store(redis)
    await shop_with_orders(store)
    await redis.send("SET", keys.product_ids(SHOP), "many")
    with pytest.raises(StorageUnavailable, match="damaged"):
        await store.restored.mark()


@given(
    last_id=st.integers(0, 10**12),
    lost_ms=st.integers(0, 10 * 365 * CLOCK_ERROR_MS),
    clock_error=st.integers(-CLOCK_ERROR_MS, CLOCK_ERROR_MS),
    per_ms=st.integers(0, IDS_PER_MS),
)
def test_no_id_that_was_given_away_is_reached(last_id: int, lost_ms: int, clock_error: int, per_ms: int) -> None:
    """Between the last event of the backup and the restore, `per_ms` ids per ms were given away; the clock was set."""
    next_id = far_above(last_id, f"{NOW}-0", NOW + lost_ms + clock_error) + 1
    assert next_id > last_id + per_ms * lost_ms
    assert next_id % ROUND == 1
    assert next_id < MAX_ID


@given(lost_ms=st.integers(0, 10**11), clock_error=st.integers(-CLOCK_ERROR_MS + 1, CLOCK_ERROR_MS))
def test_no_event_that_was_written_is_reached(lost_ms: int, clock_error: int) -> None:
    lost = f"{NOW + lost_ms}-99"
    restored = event_id_above(NOW + lost_ms + clock_error, f"{NOW}-3")
    assert event_position(restored) > event_position(lost)

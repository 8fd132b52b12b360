"""The order ids of a shop with partitions, if somebody has set their counters."""

import pytest

from service.domain.limits import MAX_ID
from service.domain.requests import OrdersQuery
from service.ops.audit_partitions import audit_whole_shop
from service.storage import keys
from service.storage.order_ids import ID_BLOCK_SIZE
from service.storage.partitioned import PartitionedStore
from service.storage.sender import CommandSender
from tests.support.partitions import assert_nothing_is_lost, make_partitioned_store
from tests.support.shop import SHOP, add_mugs, new_order

COUNT = 4


@pytest.mark.parametrize("values", [(1, 2, 3, 4), (3, 3, 3, 3), (1001, 0, 7, 2), (0, 0, 0, 0)])
async def test_ids_stay_unique_and_in_their_partition_whatever_the_counters_are_set_to(
    engine: CommandSender, values: tuple[int, ...]
) -> None:
    workers = [make_partitioned_store(engine, count=COUNT) for _ in range(2)]
    mugs = await add_mugs(workers[0])
    placed: list[int] = []

    async def place(count: int) -> None:
        for number in range(count):
            store = workers[number % 2]
            placed.append((await store.orders.place(new_order((mugs, 1)))).order.id)

    await place(8)
    for number, value in enumerate(values):
        await engine.send("SET", keys.order_ids(keys.partition(SHOP, number)), value)
    await place(200)  # more than the workers have reserved
    assert len(set(placed)) == len(placed)
    for order_id in placed:
        assert await engine.send("EXISTS", keys.order(keys.partition(SHOP, order_id % COUNT), order_id)) == 1
    new_worker = make_partitioned_store(engine, count=COUNT)
    for _ in range(4):
        placed.append((await new_worker.orders.place(new_order((mugs, 1)))).order.id)
    query = OrdersQuery.model_validate({"limit": "100"})
    found: list[int] = []
    while True:
        page, before = await new_worker.orders.list(query)
        found += [order.id for order in page]
        if before is None:
            break
        query = query.model_copy(update={"before": before})
    assert found == sorted(placed, reverse=True)
    await assert_nothing_is_lost(engine, workers[0])
    for store in (*workers, new_worker):
        await store.all.exchange.close()


@pytest.mark.parametrize("value", range(1001, 1005))
async def test_no_reserved_id_is_above_the_counter_whatever_the_counters_are_set_to(
    engine: CommandSender, value: int
) -> None:
    store = make_partitioned_store(engine, count=COUNT)
    mugs = await add_mugs(store)
    for number in range(COUNT):
        await engine.send("SET", keys.order_ids(keys.partition(SHOP, number)), value)
    placed = [(await store.orders.place(new_order((mugs, 1)))).order.id for _ in range(COUNT)]
    for number, ids in enumerate(store.all.order_ids):
        assert value < ids.highest <= int(await engine.send("GET", keys.order_ids(keys.partition(SHOP, number))))
    await store.check()  # ids above the counter would be taken for those of other data
    orders, _ = await store.orders.list(OrdersQuery())
    assert {order.id for order in orders} == set(placed)
    await store.all.exchange.close()


def customer_of(store: PartitionedStore, partition: int) -> str:
    return next(name for name in map(str, range(999)) if store.all.of_text(name) == partition)


async def test_an_order_in_a_partition_with_few_orders_is_listed_among_the_newest(engine: CommandSender) -> None:
    store = make_partitioned_store(engine, count=COUNT)
    mugs = await add_mugs(store)
    often, seldom = customer_of(store, 1), customer_of(store, 2)
    await store.orders.place(new_order((mugs, 1), customer=seldom))
    for _ in range(600):
        newest = (await store.orders.place(new_order((mugs, 1), customer=often))).order.id
    worker = make_partitioned_store(engine, count=COUNT)
    await worker.orders.place(new_order((mugs, 1), customer=often))
    late = (await worker.orders.place(new_order((mugs, 1), customer=seldom))).order.id
    assert abs(late - newest) < 3 * ID_BLOCK_SIZE
    listed, _ = await store.orders.list(OrdersQuery.model_validate({"limit": "200"}))
    assert late in [order.id for order in listed]
    await store.deliver()  # the sweeper
    later = (await store.orders.place(new_order((mugs, 1), customer=seldom))).order.id
    assert abs(later - newest) < 3 * ID_BLOCK_SIZE
    for each in (store, worker):
        await each.all.exchange.close()


async def test_ids_that_a_partition_leaves_out_do_not_make_pages_short(engine: CommandSender) -> None:
    store = make_partitioned_store(engine, count=COUNT)
    mugs = await add_mugs(store)
    often, seldom = customer_of(store, 1), customer_of(store, 2)
    first = (await store.orders.place(new_order((mugs, 1), customer=seldom))).order.id
    await engine.send("SET", keys.order_ids(keys.partition(SHOP, 1)), 400_000)
    worker = make_partitioned_store(engine, count=COUNT)
    placed = [(await worker.orders.place(new_order((mugs, 1), customer=name))).order.id for name in (often, seldom)]
    listed, before = await worker.orders.list(OrdersQuery.model_validate({"status": "completed"}))
    assert {order.id for order in listed} >= set(placed)
    while before is not None:
        page, before = await worker.orders.list(OrdersQuery.model_validate({"before": str(before)}))
        listed += page
    assert [order.id for order in listed] == sorted([*placed, first], reverse=True)
    [skipped] = [found async for found in worker.partitions[2].skipped.ranges()]
    assert first < int(skipped.first) < int(skipped.last) < placed[1]
    assert (await audit_whole_shop(worker, SHOP)).findings == []
    for each in (store, worker):
        await each.all.exchange.close()


async def test_partitions_do_not_follow_one_that_has_nearly_no_ids_left(engine: CommandSender) -> None:
    store = make_partitioned_store(engine, count=COUNT)
    mugs = await add_mugs(store)
    await engine.send("SET", keys.order_ids(keys.partition(SHOP, 1)), MAX_ID - 300)
    placed = [
        (await store.orders.place(new_order((mugs, 1), customer=customer_of(store, number)))).order.id
        for number in (1, 2)
    ]
    assert placed[0] > MAX_ID - 300
    assert placed[1] < COUNT * ID_BLOCK_SIZE
    await store.all.exchange.close()

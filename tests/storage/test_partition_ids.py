"""The order ids of a shop with partitions, if somebody has set their counters."""

import pytest

from service.domain.requests import OrdersQuery
from service.storage import keys
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

"""Reads of orders: which commands they send to Redis, and in which sequence."""

from service.domain.requests import OrdersQuery
from service.storage.engine_check import EngineCheck
from service.storage.sender import CommandSender
from tests.support.shop import SHOP, add_mugs, make_store, new_order
from tests.support.ways import Way


async def test_the_time_is_read_before_the_orders_even_if_redis_must_be_checked_first(engine: CommandSender) -> None:
    """Otherwise, an order that is completed between the two reads, shortly before its hold ends, would look overdue."""
    way, check = Way(engine), EngineCheck(SHOP, "none")
    store = make_store(way, engine_check=check)
    mugs = await add_mugs(store)
    for _ in range(2):
        await store.orders.place(new_order((mugs, 1)))
    await store.orders.list(OrdersQuery())  # from now on, the engine knows the script
    for must_be_checked in (False, True):
        if must_be_checked:
            check.begin_anew()  # as after the shop has moved to another node of a cluster
        way.ran.clear()
        page, _ = await store.orders.list(OrdersQuery.model_validate({"before": "3"}))
        assert [order.id for order in page] == [2, 1]
        assert way.ran.index("TIME") < way.ran.index("read_hashes")
        assert way.ran.count("check_rights") == must_be_checked


async def test_a_page_below_the_ids_of_this_worker_does_not_ask_for_the_counter(engine: CommandSender) -> None:
    way = Way(engine)
    store = make_store(way)
    mugs = await add_mugs(store)
    ids = [(await store.orders.place(new_order((mugs, 1)))).order.id for _ in range(3)]
    await store.orders.list(OrdersQuery())
    way.ran.clear()
    page, _ = await store.orders.list(OrdersQuery.model_validate({"before": str(ids[2])}))
    assert [order.id for order in page] == [ids[1], ids[0]]
    assert way.ran == ["TIME", "read_hashes"]


async def test_a_single_order_is_read_without_a_script(engine: CommandSender) -> None:
    way = Way(engine)
    store = make_store(way)
    placed = (await store.orders.place(new_order((await add_mugs(store), 1)))).order
    way.ran.clear()
    assert await store.orders.get(placed.id) == placed
    assert way.ran == ["HMGET"]

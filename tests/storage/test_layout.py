"""Data of an older schema version: who refuses them, and how orders get what they lack."""

import pytest

from service.domain.errors.storage import UnsupportedRedis
from service.ops import upgrade as upgrade_module
from service.ops.upgrade import UpgradeReport, upgrade
from service.storage import keys
from service.storage.engine_check import EngineCheck
from service.storage.requirements import SCHEMA_VERSION, check_schema_version
from service.storage.sender import CommandSender
from service.storage.store import Store
from tests.support.redis_content import dump, hash_at
from tests.support.scripts import run_upgrade_orders
from tests.support.shop import SHOP, make_store, new_mug, new_order

META = keys.meta(SHOP)


class Stopped(Exception):
    """The upgrade is killed."""


def upgrading_store(redis: CommandSender) -> Store:
    """Return a Store that may use data of an older schema version."""
    return make_store(redis, engine_check=EngineCheck(SHOP, "none", upgrades=True))


async def make_old_shop(redis: CommandSender, orders: int = 5) -> list[int]:
    """Complete orders that were pending, and remove what schema version 1 did not have. Return their ids."""
    store = make_store(redis)
    await store.products.add(new_mug(id=1, stock=100))
    ids = [(await store.orders.place(new_order((1, 2), status="pending"))).order.id for _ in range(orders)]
    for order_id in ids:
        await store.holds.complete(order_id)
        await redis.send("HDEL", keys.order(SHOP, order_id), "completed_at")
    await redis.send("HSET", META, "layout", "1")
    return ids


async def test_each_completed_order_gets_the_moment_of_its_event(redis: CommandSender) -> None:
    ids = await make_old_shop(redis)
    store = upgrading_store(redis)
    completed = [event for event in await store.events.read("0-0") if event.fields["event"] == "order_completed"]
    assert await upgrade(store) == UpgradeReport(before=1, moments=len(ids))
    for event in completed:
        order = await hash_at(redis, keys.order(SHOP, int(event.fields["order"])))
        assert order["completed_at"] == event.id.partition("-")[0]
    assert {"layout": str(SCHEMA_VERSION)}.items() <= (await hash_at(redis, META)).items()
    await make_store(redis).check()


async def test_an_upgraded_shop_is_not_upgraded_again(redis: CommandSender) -> None:
    await make_old_shop(redis)
    await upgrade(upgrading_store(redis))
    before = await dump(redis)
    assert await upgrade(upgrading_store(redis)) is None
    assert await dump(redis) == before


@pytest.mark.parametrize("stop_after", [1, 2, 3])
async def test_a_stopped_upgrade_continues_and_no_service_runs_meanwhile(
    redis: CommandSender, monkeypatch: pytest.MonkeyPatch, stop_after: int
) -> None:
    ids = await make_old_shop(redis)
    monkeypatch.setattr(upgrade_module, "EVENTS_PER_STEP", 3)
    steps = []

    def stop(count: int) -> None:
        steps.append(count)
        if len(steps) == stop_after:
            raise Stopped

    with pytest.raises(Stopped):
        await upgrade(upgrading_store(redis), stop)
    with pytest.raises(UnsupportedRedis, match="run `holdfast upgrade` again"):
        await make_store(redis).check()
    assert (await hash_at(redis, META))["layout"] == str(SCHEMA_VERSION)  # older programs refuse it, too
    report = await upgrade(upgrading_store(redis), steps.append)
    assert report is not None
    assert max(steps) == 3
    assert sum(steps) == 11  # the product, and two events of each order: no step is made twice
    for order_id in ids:
        assert "completed_at" in await hash_at(redis, keys.order(SHOP, order_id))
    await make_store(redis).check()


async def test_no_service_runs_between_the_beginning_and_the_first_step(redis: CommandSender) -> None:
    await make_old_shop(redis)
    await upgrading_store(redis).layout.begin_upgrade()
    with pytest.raises(UnsupportedRedis, match="run `holdfast upgrade` again"):
        await make_store(redis).check()
    assert await upgrade(upgrading_store(redis)) == UpgradeReport(before=SCHEMA_VERSION, moments=5)
    await make_store(redis).check()


async def test_a_service_refuses_older_data_and_names_the_command(redis: CommandSender) -> None:
    await make_old_shop(redis)
    before = await dump(redis)
    with pytest.raises(UnsupportedRedis, match=r"schema version 1, .* run `holdfast upgrade`"):
        await make_store(redis).check()
    assert await dump(redis) == before


async def test_an_order_keeps_the_moment_that_it_has(redis: CommandSender) -> None:
    [order_id] = await make_old_shop(redis, 1)
    name = keys.order(SHOP, order_id)
    await redis.send("HSET", name, "completed_at", 5)
    assert await run_upgrade_orders(redis, (order_id, "completed_at", 7)) == ["upgraded", "0"]
    assert (await hash_at(redis, name))["completed_at"] == "5"


async def test_the_latest_return_counts(redis: CommandSender) -> None:
    [order_id] = await make_old_shop(redis, 1)
    name = keys.order(SHOP, order_id)
    assert await run_upgrade_orders(redis, (order_id, "returned_at", 7)) == ["upgraded", "0"]  # nothing came back
    await redis.send("HSET", name, "returned", "1: 1")
    for moment in (7, 9, 8):
        await run_upgrade_orders(redis, (order_id, "returned_at", moment))
    assert (await hash_at(redis, name))["returned_at"] == "9"


async def test_damaged_and_absent_orders_stay_as_they_are(redis: CommandSender) -> None:
    await make_old_shop(redis, 1)
    await redis.send("SET", keys.order(SHOP, 7), "damaged")
    before = await dump(redis)
    moments = [(order_id, "completed_at", 5) for order_id in (7, 8)]
    assert await run_upgrade_orders(redis, *moments, position="9-9") == ["upgraded", "0"]
    del before[META]
    assert before.items() <= (await dump(redis)).items()
    assert (await hash_at(redis, META))["upgrade"] == "9-9"


def test_data_of_a_newer_schema_version_are_not_upgraded() -> None:
    check_schema_version("1", older_is_usable=True)
    with pytest.raises(UnsupportedRedis, match="use the newer Holdfast"):
        check_schema_version(str(SCHEMA_VERSION + 1), older_is_usable=True)

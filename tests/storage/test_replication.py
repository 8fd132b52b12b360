"""HOLDFAST_WAIT_REPLICAS: no change is answered before enough replicas have it, and what is not waited for goes on."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import structlog

from service.domain.errors.storage import OutcomeUnknown, StorageError, StorageUnavailable, UnsupportedRedis
from service.domain.requests import HoldExtension, NewReturn, StockChange
from service.settings import Settings
from service.storage.opening import open_store
from service.storage.store import Store
from tests.support.replicas import ReplicatedEngines, replicated_engines
from tests.support.shop import SHOP, http_client, new_mug, new_order
from tests.support.waiting import eventually

pytestmark = pytest.mark.engine

TIMEOUT = 0.8


@pytest.fixture(scope="module")
def all_engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReplicatedEngines]:
    with replicated_engines(tmp_path_factory.mktemp("replicas"), replicas=1) as engines:
        yield engines


@pytest.fixture
def engines(all_engines: ReplicatedEngines) -> Iterator[ReplicatedEngines]:
    """A primary and a replica, which are empty."""
    all_engines.engines[0].replies("FLUSHALL")
    yield all_engines
    all_engines.engines[1].unfreeze()
    for name, value in (("maxmemory", 0), ("min-replicas-to-write", 0)):
        all_engines.engines[0].replies("CONFIG", "SET", name, value)


@asynccontextmanager
async def opened(engines: ReplicatedEngines, wait_replicas: int = 1, **settings: Any) -> AsyncIterator[Store]:
    """Give a Store as the service opens it."""
    url = settings.pop("redis_url", f"redis://127.0.0.1:{engines.engines[0].port}")
    chosen = {"durability": "everysec", "redis_timeout": TIMEOUT, "wait_replicas": wait_replicas, **settings}
    async with open_store(replace(Settings(), redis_url=url, shop=SHOP, **chosen)) as store:
        assert isinstance(store, Store)
        yield store


async def test_a_change_is_answered_when_the_replica_has_it(engines: ReplicatedEngines) -> None:
    async with opened(engines) as store:
        await store.products.add(new_mug(id=1, stock=1000))
        placed = await asyncio.gather(*(store.orders.place(new_order((1, 1))) for _ in range(100)))
        ids = {str(each.order.id) for each in placed}
        replica = engines.engines[1]
        assert {replica.replies("HGET", f"{{{SHOP}}}:order:{order_id}", "id") for order_id in ids} == ids


async def test_the_outcome_of_a_change_that_the_replica_does_not_have_is_unknown(engines: ReplicatedEngines) -> None:
    async with opened(engines) as store:
        await store.products.add(new_mug(id=1, stock=1000))
        engines.engines[1].freeze()
        with structlog.testing.capture_logs() as logs:
            for _ in range(2):
                with pytest.raises(OutcomeUnknown, match="0 of 1 replicas have the change"):
                    await store.orders.place(new_order((1, 1)), "key")
            engines.engines[1].unfreeze()
            await eventually(lambda: answers(store.orders.place(new_order((1, 1)), "key")), "an answer")
        assert [entry["event"] for entry in logs] == ["too_few_replicas", "replicas_suffice"]
        assert (await store.stock.levels(1)).sold == 1


async def answers(verb: Any) -> bool:
    """Return whether a verb of the Store returns."""
    try:
        await verb
    except StorageError:
        return False
    return True


async def test_a_replayed_order_of_another_worker_is_answered_only_when_the_replica_has_it(
    engines: ReplicatedEngines,
) -> None:
    """WAIT covers only what its own connection wrote, and these calls find that everything is done already."""
    async with opened(engines, wait_replicas=0) as other, opened(engines) as store:
        await other.products.add(new_mug(id=1, stock=1000))
        to_cancel, to_complete, to_extend = [
            (await other.orders.place(new_order((1, 1), status="pending"))).order.id for _ in range(3)
        ]
        bought = (await other.orders.place(new_order((1, 3)))).order.id
        new_return = NewReturn.model_validate({"products": [{"product_id": 1, "quantity": 1}]})
        change = StockChange.model_validate({"change": 5, "reason": "found"})
        await store.orders.place(new_order((1, 1)))  # now its connection has ids, and its replica everything
        engines.engines[1].freeze()
        await other.orders.place(new_order((1, 1)), "order")
        await other.holds.cancel(to_cancel)
        await other.holds.complete(to_complete)
        await other.returns.make(bought, new_return, "return")
        await other.stock.change(1, change, "stock")
        await other.products.add(new_mug(id=2, stock=1))
        await other.products.withdraw(2)
        for verb in (
            store.orders.place(new_order((1, 1)), "order"),
            store.holds.cancel(to_cancel),
            store.holds.complete(to_complete),
            store.returns.make(bought, new_return, "return"),
            store.stock.change(1, change, "stock"),
            store.products.withdraw(2),
            store.holds.extend(to_extend, HoldExtension(hold_seconds=60)),
        ):
            with pytest.raises(OutcomeUnknown):
                await verb
        engines.engines[1].unfreeze()
        await eventually(lambda: answers(store.holds.cancel(to_cancel)), "an answer")
        assert (await store.orders.place(new_order((1, 1)), "order")).replayed


async def test_a_replay_of_a_known_order_waits_for_the_replica(
    engines: ReplicatedEngines,
) -> None:
    async with opened(engines, wait_replicas=0) as other, opened(engines) as store:
        await store.products.add(new_mug(id=1, stock=1000))
        placed = (await store.orders.place(new_order((1, 2)), "order")).order
        engines.engines[1].freeze()
        new_return = NewReturn.model_validate({"products": [{"product_id": 1, "quantity": 1}]})
        await other.returns.make(placed.id, new_return)
        with pytest.raises(OutcomeUnknown):
            await store.orders.place(new_order((1, 2)), "order")
        engines.engines[1].unfreeze()
        await eventually(lambda: answers(store.orders.place(new_order((1, 2)), "order")), "an answer")
        again = await store.orders.place(new_order((1, 2)), "order")
        assert again.replayed
        assert [line.returned for line in again.order.lines] == [1]


async def test_reads_are_answered_while_replicas_are_too_few_and_readiness_says_so(engines: ReplicatedEngines) -> None:
    async with opened(engines) as store, http_client(store) as client:
        await store.products.add(new_mug(id=1, stock=1000))
        assert (await client.get("/readyz")).status_code == 200
        engines.engines[1].freeze()
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()["type"]) == (503, "/problems/storage-unavailable")
        order = await client.post("/orders", json={"products": [{"product_id": 1, "quantity": 1}]})
        assert (order.status_code, order.json()["type"]) == (503, "/problems/outcome-unknown")
        assert (await client.get("/products/1")).status_code == 200
        engines.engines[1].unfreeze()
        await eventually(lambda: is_ready(client), "readiness")


async def is_ready(client: Any) -> bool:
    return bool((await client.get("/readyz")).status_code == 200)


async def test_a_lost_connection_during_the_wait_leaves_the_outcome_unknown(engines: ReplicatedEngines) -> None:
    primary, replica = engines.engines
    async with opened(engines, redis_timeout=20) as store:
        await store.products.add(new_mug(id=1, stock=1000))
        await store.orders.place(new_order((1, 1)))
        replica.freeze()
        order = asyncio.create_task(store.orders.place(new_order((1, 1))))
        await eventually(lambda: primary.replies("HGET", f"{{{SHOP}}}:product:1", "sold") == "2", "the order")
        primary.replies("CLIENT", "KILL", "TYPE", "normal")
        with pytest.raises(OutcomeUnknown):
            await order
        replica.unfreeze()
        assert (await store.orders.place(new_order((1, 1)))).order.id


async def test_an_order_that_redis_refuses_for_lack_of_replicas_is_certain_not_to_be_placed(
    engines: ReplicatedEngines,
) -> None:
    async with opened(engines) as store:
        await store.products.add(new_mug(id=1, stock=1000))
        await store.orders.place(new_order((1, 1)))
        engines.engines[0].replies("CONFIG", "SET", "min-replicas-to-write", 2)
        with pytest.raises(StorageUnavailable, match="NOREPLICAS"):
            await store.orders.place(new_order((1, 1)))
        assert (await store.stock.levels(1)).sold == 1


async def test_a_hold_is_completed_although_the_memory_is_full(engines: ReplicatedEngines) -> None:
    async with opened(engines) as store:
        await store.products.add(new_mug(id=1, stock=1000))
        held = (await store.orders.place(new_order((1, 1), status="pending"))).order.id
        engines.engines[0].replies("CONFIG", "SET", "maxmemory", 1)
        assert (await store.holds.complete(held)).status == "completed"


async def test_without_the_setting_nothing_is_sent_for_replicas(engines: ReplicatedEngines) -> None:
    primary = engines.engines[0]
    primary.replies("CONFIG", "RESETSTAT")
    async with opened(engines, wait_replicas=0) as store:
        await store.products.add(new_mug(id=1, stock=1000))
        await store.orders.place(new_order((1, 1)))
    assert "cmdstat_wait" not in primary.replies("INFO", "commandstats")
    assert primary.replies("HGET", f"{{{SHOP}}}:meta", "mark") is None


async def test_reads_do_not_wait_for_replicas(engines: ReplicatedEngines) -> None:
    primary = engines.engines[0]
    async with opened(engines) as store:
        await store.products.add(new_mug(id=1, stock=1000))
        primary.replies("CONFIG", "RESETSTAT")
        await store.products.get(1)
        await store.stock.levels(1)
    assert "cmdstat_wait" not in primary.replies("INFO", "commandstats")


async def test_a_user_who_may_not_wait_is_refused(engines: ReplicatedEngines) -> None:
    primary = engines.engines[0]
    primary.replies("ACL", "SETUSER", "clerk", "on", ">pass", "~*", "+@all", "-wait")
    url = f"redis://clerk:pass@127.0.0.1:{primary.port}"
    async with opened(engines, redis_url=url) as store:
        with pytest.raises(UnsupportedRedis, match="HOLDFAST_WAIT_REPLICAS needs the command WAIT"):
            await store.check()
    async with opened(engines, redis_url=url, wait_replicas=0) as store:
        await store.check()


async def test_changes_are_answered_again_after_the_primary_was_frozen_during_a_wait(
    engines: ReplicatedEngines,
) -> None:
    primary, replica = engines.engines
    async with opened(engines) as store:
        await store.products.add(new_mug(id=1, stock=1000))
        await store.orders.place(new_order((1, 1)))
        replica.freeze()
        orders = [asyncio.create_task(store.orders.place(new_order((1, 1)), f"key-{n}")) for n in range(100)]
        await eventually(lambda: primary.replies("HGET", f"{{{SHOP}}}:product:1", "sold") == "101", "the orders")
        primary.freeze()
        outcomes = await asyncio.gather(*orders, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {OutcomeUnknown}
        replica.unfreeze()
        primary.unfreeze()
        await eventually(lambda: answers(store.orders.place(new_order((1, 1)), "key-0")), "an answer")
        repeated = await asyncio.gather(*(store.orders.place(new_order((1, 1)), f"key-{n}") for n in range(100)))
        assert all(each.replayed for each in repeated)


async def test_a_caller_who_goes_away_during_a_wait_does_not_harm_the_others(engines: ReplicatedEngines) -> None:
    primary, replica = engines.engines
    async with opened(engines, redis_timeout=20) as store:
        await store.products.add(new_mug(id=1, stock=1000))
        await store.orders.place(new_order((1, 1)))
        replica.freeze()
        orders = [asyncio.create_task(store.orders.place(new_order((1, 1)))) for _ in range(10)]
        await eventually(lambda: primary.replies("HGET", f"{{{SHOP}}}:product:1", "sold") == "11", "the orders")
        orders[0].cancel()
        replica.unfreeze()
        assert len({(await order).order.id for order in orders[1:]}) == 9

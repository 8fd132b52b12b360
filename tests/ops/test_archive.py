"""service/ops/archive.py: orders that ended long ago are in the file and not in Redis, and all numbers still agree."""

from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from service.domain.errors.order_refusals import CustomerLimitExceeded
from service.domain.errors.refusals import OrderArchived, OrderNotFound
from service.domain.requests import HoldExtension, OrdersQuery, ProductChange
from service.domain.times import Milliseconds
from service.ops.archive import ArchiveReport
from service.storage import keys
from tests.support.archive import LATER, ids_in, lines_of, live_ids, run
from tests.support.audited_shop import (
    EVENTS,
    MUG,
    POT,
    AuditedShop,
    SmallPages,
    assert_no_findings,
    new_return,
    open_shop,
    order,
    order_key,
    product,
)
from tests.support.balance import assert_balanced
from tests.support.fake_redis import FakeRedis
from tests.support.redis_content import hash_at, nothing_changes, scores_at
from tests.support.shop import SHOP, make_store

ANNA: dict[str, Any] = {"customer": "anna", "reference": "cart 1"}
ARCHIVED = keys.archived(SHOP)


async def test_ended_orders_are_moved_to_the_file_and_all_numbers_stay(shop: AuditedShop, tmp_path: Path) -> None:
    await shop.place((1, 1), hold=900, **ANNA)
    units = (await assert_balanced(shop.redis)).units
    shop.clock.forward(LATER)
    report = await run(shop, tmp_path / "a", keep_days=0)
    assert report == ArchiveReport(archived=4)
    assert ids_in(tmp_path / "a") == [1, 3, 4, 5]
    assert await live_ids(shop) == {2, 6}
    assert (await assert_balanced(shop.redis)).units == units
    found = await shop.audit()
    assert_no_findings(found)
    assert (found.orders, found.archived) == (2, 4)
    assert await scores_at(shop.redis, ARCHIVED) == {"1": 1, "3": 5}
    assert (await hash_at(shop.redis, MUG))["archived"] == "2"
    assert (await hash_at(shop.redis, POT))["archived"] == "1"


async def test_a_line_has_everything_that_redis_had(shop: AuditedShop, tmp_path: Path) -> None:
    await shop.store.orders.place(order((1, 2), (2, 1), hold=900, **ANNA), "key-1")
    shop.clock.forward(1)
    await shop.store.holds.complete(6)
    shop.clock.forward(1)
    await shop.store.returns.make(6, new_return((1, 1), restock=False), "key-2")
    await shop.store.returns.make(6, new_return((2, 1)), "key-3")
    await shop.redis.send("HSET", order_key(6), "gift", 'of "another" Holdfast')
    shop.clock.forward(1)
    await run(shop, tmp_path / "a", keep_days=0)
    assert lines_of(tmp_path / "a")[-1] == {
        "shop": "test",
        "id": 6,
        "products": [
            {"product_id": 1, "quantity": 2, "price": Decimal("19.99"), "returned": 1},
            {"product_id": 2, "quantity": 1, "price": Decimal("5.00"), "returned": 1},
        ],
        "total_price": Decimal("44.98"),
        "status": "completed",
        "created_at": "2023-11-14T22:13:21.000Z",
        "completed_at": "2023-11-14T22:13:22.000Z",
        "reference": "cart 1",
        "customer": "anna",
        "refunded": Decimal("24.99"),
        "written_off": [{"product_id": 1, "quantity": 1}],
        "returned_at": "2023-11-14T22:13:23.000Z",
        "idempotency_key": "key-1",
        "return_keys": ["key-2", "key-3"],
        "gift": 'of "another" Holdfast',
    }
    assert (await hash_at(shop.redis, MUG))["archived_written_off"] == "1"
    assert_no_findings(await shop.audit())


async def test_idempotency_keys_of_api_keys_go_with_their_order(shop: AuditedShop, tmp_path: Path) -> None:
    await shop.store.orders.place(order((1, 2), **ANNA), "same", by="web")
    await shop.store.orders.place(order((1, 2), **ANNA), "same", by="till")
    await shop.store.returns.make(7, new_return((1, 1)), "back", by="desk")
    shop.clock.forward(1)
    names = [str(name) for name in await shop.redis.send("KEYS", "*:idempotency@*")]
    assert sorted(name.partition("@")[2] for name in names) == ["desk:back anna", "till:same anna", "web:same anna"]
    await run(shop, tmp_path / "a", keep_days=0)
    assert await shop.redis.send("KEYS", "*:idempotency@*") == []
    found = {line["id"]: line for line in lines_of(tmp_path / "a")}
    assert (found[6]["by"], found[7]["by"], found[7]["return_keys"]) == ("web", "till", ["back desk"])
    assert_no_findings(await shop.audit())


async def test_an_order_is_archived_only_long_after_its_last_change(shop: AuditedShop, tmp_path: Path) -> None:
    returned = await shop.place((1, 1))
    shop.clock.forward(29 * 86_400)
    await shop.store.returns.make(returned, new_return((1, 1)))
    young = await shop.place((1, 1))
    shop.clock.forward(2 * 86_400)
    await shop.store.expired_holds.expire_due(10)
    assert (await run(shop, tmp_path / "a")).young == 2
    assert await live_ids(shop) == {returned, young}
    shop.clock.forward(29 * 86_400)
    assert await run(shop, tmp_path / "a", ago_days=58) == ArchiveReport()
    assert (await run(shop, tmp_path / "a")).archived == 2
    assert ids_in(tmp_path / "a") == [1, 2, 3, 4, 5, returned, young]


async def test_keys_of_archived_orders_and_returns_are_removed_and_others_stay(
    shop: AuditedShop, tmp_path: Path
) -> None:
    store, new = shop.store, order((1, 1), **ANNA)
    bought = (await store.orders.place(new, "order")).order
    await store.returns.make(bought.id, new_return((1, 1)), "return")
    shop.clock.forward(LATER)
    held = (await store.orders.place(order((1, 1), hold=900, **ANNA), "held")).order
    await run(shop, tmp_path / "a", keep_days=0)
    assert await shop.redis.send("KEYS", keys.idempotency(SHOP, "*")) == [keys.idempotency(SHOP, "held", "anna")]
    assert (await store.orders.place(order((1, 1), hold=900, **ANNA), "held")).order == held
    again = await store.orders.place(new, "order")
    assert not again.replayed
    assert again.order.id > bought.id
    assert await scores_at(shop.redis, keys.customer_orders(SHOP, "anna")) == {
        str(held.id): held.id,
        str(again.order.id): again.order.id,
    }


async def test_a_key_that_belongs_to_another_order_stays(shop: AuditedShop, tmp_path: Path) -> None:
    await shop.redis.send("HSET", order_key(1), "idempotency_key", "stolen")
    await shop.redis.send("HSET", keys.idempotency(SHOP, "stolen"), "fingerprint", "f", "order", 2)
    shop.clock.forward(LATER)
    await run(shop, tmp_path / "a", keep_days=0)
    assert await shop.redis.send("EXISTS", keys.idempotency(SHOP, "stolen")) == 1


async def test_a_limit_per_customer_counts_archived_orders(shop: AuditedShop, tmp_path: Path) -> None:
    await shop.store.products.change(1, ProductChange.model_validate({"limit_per_customer": 3}))
    await shop.place((1, 2), (2, 1), **ANNA)
    shop.clock.forward(LATER)
    await run(shop, tmp_path / "a", keep_days=0)
    with pytest.raises(CustomerLimitExceeded):
        await shop.place((1, 2), **ANNA)
    await shop.place((1, 1), **ANNA)
    assert await hash_at(shop.redis, keys.customer(SHOP, "anna")) == {"1": "3", "archived:1": "2"}
    assert_no_findings(await shop.audit())


@pytest.mark.parametrize("rule", ["no limit", "withdrawn"])
async def test_what_a_customer_has_is_forgotten_if_no_limit_needs_it(
    shop: AuditedShop, tmp_path: Path, rule: str
) -> None:
    await shop.place((1, 2), (2, 1), **ANNA)
    if rule == "withdrawn":
        await shop.store.products.change(1, ProductChange.model_validate({"limit_per_customer": 3}))
        await shop.store.products.withdraw(1)
    shop.clock.forward(LATER)
    await run(shop, tmp_path / "a", keep_days=0)
    assert await shop.redis.send("EXISTS", keys.customer(SHOP, "anna")) == 0
    assert_no_findings(await shop.audit())


async def test_an_archived_order_can_neither_be_read_nor_changed(shop: AuditedShop, tmp_path: Path) -> None:
    shop.clock.forward(LATER)
    await run(shop, tmp_path / "a", keep_days=0)
    store = shop.store
    calls: list[Callable[[int], Awaitable[object]]] = [
        store.orders.get,
        store.holds.complete,
        store.holds.cancel,
        lambda order_id: store.holds.extend(order_id, HoldExtension(hold_seconds=60)),
        lambda order_id: store.returns.make(order_id, new_return((1, 1)), "key"),
    ]
    async with nothing_changes(shop.redis):
        for call in calls:
            for order_id in (1, 3, 5):
                with pytest.raises(OrderArchived):
                    await call(order_id)
            for order_id in (6, 300):
                with pytest.raises(OrderNotFound):
                    await call(order_id)


async def test_an_order_that_is_archived_between_its_read_and_its_script_is_archived(
    shop: AuditedShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = shop.store.orders.get_in_any_status

    async def read_and_archive(order_id: int) -> object:
        found = await read(order_id)
        shop.clock.forward(LATER)
        await run(shop, tmp_path / "a", keep_days=0)
        return found

    calls: list[Callable[[int], Awaitable[object]]] = [
        shop.store.holds.complete,
        shop.store.holds.cancel,
        lambda order_id: shop.store.holds.extend(order_id, HoldExtension(hold_seconds=60)),
        lambda order_id: shop.store.returns.make(order_id, new_return((1, 1))),
    ]
    for call in calls:
        sold = await shop.place((1, 1))
        with monkeypatch.context() as patch:
            patch.setattr(shop.store.orders, "get_in_any_status", read_and_archive)
            with pytest.raises(OrderArchived):
                await call(sold)


async def test_an_order_that_changes_while_it_is_archived_stays_and_is_not_in_the_file(
    shop: AuditedShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove = shop.store.archive.remove

    async def return_first(*args: Any) -> list[str]:
        await shop.store.returns.make(1, new_return((1, 1)))
        return await remove(*args)

    shop.clock.forward(LATER)
    with monkeypatch.context() as patch:
        patch.setattr(shop.store.archive, "remove", return_first)
        assert await run(shop, tmp_path / "a", keep_days=0) == ArchiveReport(archived=3, changed=1)
    assert ids_in(tmp_path / "a") == [3, 4, 5]
    assert not (tmp_path / "a.new").exists()
    assert_no_findings(await shop.audit())
    shop.clock.forward(LATER)
    assert (await run(shop, tmp_path / "a", keep_days=0)).archived == 1
    assert ids_in(tmp_path / "a") == [3, 4, 5, 1]
    assert lines_of(tmp_path / "a")[-1]["products"][0]["returned"] == 1


DAMAGES = {
    "an order has no lines": ("HSET", order_key(1), "products", "two mugs"),
    "an order has no id": ("HDEL", order_key(1), "id"),
    "an order has no time": ("HSET", order_key(1), "created_at", "noon"),
    "an order has an unknown status": ("HSET", order_key(1), "status", "lost"),
    "more came back than was bought": ("HSET", order_key(1), "returned", "1: 3"),
    "another product was written off": ("HSET", order_key(1), "written_off", "9: 1"),
    "a product has no counter": ("HDEL", MUG, "sold"),
    "a product is a text": ("SET", MUG, "text"),
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_order_stays_and_the_others_are_archived(
    shop: AuditedShop, tmp_path: Path, damage: str
) -> None:
    await shop.redis.send(*DAMAGES[damage])
    shop.clock.forward(LATER)
    report = await run(shop, tmp_path / "a", keep_days=0)
    assert (report.archived, report.damaged) == (3, 1)
    assert ids_in(tmp_path / "a") == [3, 4, 5]
    assert await shop.redis.send("EXISTS", order_key(1)) == 1


async def test_old_events_are_removed_but_never_the_newest(shop: AuditedShop, tmp_path: Path) -> None:
    for number in range(2000):
        await shop.redis.send("XADD", EVENTS, "*", "event", "product_withdrawn", "product", number)
    newest = await shop.store.events.last_id()
    far = Milliseconds(int(newest.split("-")[0]) + 1000)
    assert await shop.store.events.trim(Milliseconds(0)) == 0
    assert await shop.store.events.trim(far) >= 1900
    assert await shop.store.events.last_id() == newest


async def test_a_list_of_orders_skips_the_archived_ones_in_one_step(tmp_path: Path) -> None:
    shop = open_shop(FakeRedis())
    await shop.store.products.add(product(1, stock=1000))
    for _ in range(300):
        await shop.place((1, 1))
    shop.clock.forward(LATER)
    await run(shop, tmp_path / "a", keep_days=0)
    kept = await shop.place((1, 1))
    counting = SmallPages(shop.redis)
    query = OrdersQuery.model_validate({"limit": "1", "before": str(kept)})
    assert await make_store(counting, clock=shop.clock).orders.list(query) == ([], None)
    assert counting.sent < 12


async def test_a_new_worker_never_reuses_the_id_of_an_archived_order(shop: AuditedShop, tmp_path: Path) -> None:
    shop.clock.forward(LATER)
    await shop.store.expired_holds.expire_due(10)
    await run(shop, tmp_path / "a", keep_days=0)
    await shop.redis.send("DEL", keys.order_ids(SHOP))
    worker = AuditedShop(shop.redis, shop.clock, make_store(shop.redis, clock=shop.clock))
    assert await worker.place((1, 1)) > 5

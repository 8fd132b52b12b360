"""The audit of a shop at rest: balanced shops have no findings, and each key is counted once."""

from collections.abc import AsyncIterator, Callable

import pytest

from service.ops.audit_report import AuditInconclusive
from service.storage.sender import CommandSender
from tests.support.audited_shop import (
    CANCELLED,
    COUNTER,
    EVENTS,
    HOLDS,
    MUG,
    PENDING_ORDER,
    POT,
    SPOON,
    AuditedShop,
    RedisCommand,
    assert_no_findings,
    open_shop,
    order,
    product,
)
from tests.support.shop import SHOP, make_store


async def test_a_shop_with_orders_in_every_status_has_no_findings(shop: AuditedShop) -> None:
    report = await shop.audit()
    assert_no_findings(report)
    assert (report.products, report.orders, report.pending, report.events_followed) == (4, 5, 1, 0)


async def test_an_empty_shop_is_not_called_balanced(redis: CommandSender) -> None:
    with pytest.raises(AuditInconclusive, match="the shop 'test' is empty: it has no product and no order"):
        await open_shop(redis).audit()


async def test_the_report_of_a_shop_without_orders(redis: CommandSender) -> None:
    shop = open_shop(redis)
    await shop.store.products.add(product(1))
    assert (await shop.audit()).as_dict() == {
        "balanced": True,
        "products": 1,
        "orders": 0,
        "pending": 0,
        "archived": 0,
        "events_followed": 0,
        "findings": [],
    }


async def test_an_overdue_order_that_is_still_pending_is_not_a_finding(shop: AuditedShop) -> None:
    shop.clock.forward(3600)
    report = await shop.audit()
    assert_no_findings(report)
    assert report.pending == 1


async def test_a_missing_event_stream_is_not_a_finding(shop: AuditedShop) -> None:
    await shop.redis.send("DEL", EVENTS)
    assert_no_findings(await shop.audit())


async def test_the_audit_ignores_another_shop_on_the_same_redis(shop: AuditedShop) -> None:
    await shop.redis.send("HSET", "{other}:product:1", "stock", "-1")
    await shop.redis.send("SET", "{other}:holds", "no sorted set")
    assert_no_findings(await shop.audit())


@pytest.mark.parametrize("ids", [64, 100_000, 2**52])
async def test_reserved_ids_without_orders_are_not_a_finding(shop: AuditedShop, ids: int) -> None:
    await shop.redis.send("INCRBY", COUNTER, ids)
    await make_store(shop.redis, clock=shop.clock).orders.place(order((1, 1)))
    assert_no_findings(await shop.audit())


@pytest.mark.parametrize("batch", [1, 2, 500])
async def test_progress_adds_up_to_the_number_of_keys_read(
    shop: AuditedShop, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.ops.audit_steps.BATCH", batch)
    steps: list[int] = []
    report = await shop.audit(steps.append)
    assert sum(steps) == report.products + report.orders == 9
    assert 0 < max(steps) <= batch


async def test_all_findings_are_reported_together(shop: AuditedShop) -> None:
    await shop.redis.send("HSET", MUG, "stock", -1)
    await shop.redis.send("HSET", POT, "price", "free")
    await shop.redis.send("ZREM", HOLDS, 2)
    report = await shop.audit()
    assert {finding.key for finding in report.findings} == {MUG, POT, PENDING_ORDER}
    assert report.as_dict()["balanced"] is False


async def test_a_finding_is_reported_once(shop: AuditedShop) -> None:
    await shop.redis.send("HSET", SPOON, "received", 1)
    report = await shop.audit()
    assert len(report.findings) == 1


@pytest.mark.parametrize(
    ("corruption", "keys"),
    [
        (None, []),
        (("HSET", CANCELLED, "id", "9"), [CANCELLED]),
        (("HSET", CANCELLED, "status", "lost"), [CANCELLED]),
        (("ZADD", HOLDS, "5", "60"), [HOLDS]),
        (("HSET", f"{{{SHOP}}}:order:old", "id", "1"), [f"{{{SHOP}}}:order:old"]),
    ],
)
async def test_a_key_that_a_scan_returns_twice_is_counted_once(
    shop: AuditedShop, corruption: RedisCommand | None, keys: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def repeat_pages(scan: Callable[..., AsyncIterator[list[str]]]) -> Callable[..., AsyncIterator[list[str]]]:
        async def scan_twice(*args: str) -> AsyncIterator[list[str]]:
            async for page in scan(*args):
                yield page
                yield page

        return scan_twice

    if corruption is not None:
        await shop.redis.send(*corruption)
    monkeypatch.setattr(shop.store.inspection, "scan_keys", repeat_pages(shop.store.inspection.scan_keys))
    monkeypatch.setattr(shop.store.inspection, "scan_index", repeat_pages(shop.store.inspection.scan_index))
    report = await shop.audit()
    assert (report.products, report.orders, report.pending) == (4, 5, 1)
    assert [finding.key for finding in report.findings] == keys

"""The audit follows the events since its start. If events are missing, the audit is inconclusive."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from service.ops.audit import AuditInconclusive
from service.storage.inspection import ProductRow, Unreadable
from service.storage.store import Store
from tests.support.audited_shop import (
    EVENTS,
    AuditedShop,
    RedisCommand,
    assert_no_findings,
    order,
    stock_change,
)
from tests.support.shop import make_store

Change = Callable[[], Awaitable[object]]


def change_before_products_are_read(store: Store, change: Change, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the Store call `change` once: after the audit has read the orders, and before it reads a product."""
    read, changes = store.inspection.audit_products, [change]

    async def audit_products(product_ids: list[int]) -> tuple[str, list[ProductRow | Unreadable]]:
        if changes:
            await changes.pop()()
        return await read(product_ids)

    monkeypatch.setattr(store.inspection, "audit_products", audit_products)


async def _place_more_orders_than_the_stream_keeps(shop: AuditedShop) -> None:
    """Place 300 orders with HOLDFAST_EVENTS_MAX=1. Redis trims a stream in blocks of about 100 entries."""
    store = make_store(shop.redis, clock=shop.clock, events_max=1)
    await store.stock.change(2, stock_change(300))
    for _ in range(300):
        await store.orders.place(order((2, 1)))


async def test_the_audit_follows_many_events_if_the_stream_keeps_them(
    shop: AuditedShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def change() -> None:
        await shop.store.stock.change(2, stock_change(1200))
        await asyncio.gather(*(shop.store.orders.place(order((2, 1))) for _ in range(1200)))

    change_before_products_are_read(shop.store, change, monkeypatch)
    report = await shop.audit()
    assert_no_findings(report)
    assert report.events_followed == 1201


async def test_the_audit_is_inconclusive_if_the_stream_was_trimmed_during_it(
    shop: AuditedShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_before_products_are_read(shop.store, lambda: _place_more_orders_than_the_stream_keeps(shop), monkeypatch)
    with pytest.raises(AuditInconclusive, match="HOLDFAST_EVENTS_MAX"):
        await shop.audit()


async def test_the_audit_is_inconclusive_if_a_new_stream_was_trimmed_during_it(
    shop: AuditedShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shop.redis.send("DEL", EVENTS)
    change_before_products_are_read(shop.store, lambda: _place_more_orders_than_the_stream_keeps(shop), monkeypatch)
    with pytest.raises(AuditInconclusive):
        await shop.audit()


@pytest.mark.parametrize("command", [("DEL", EVENTS), ("XTRIM", EVENTS, "MAXLEN", 0)], ids=["deleted", "emptied"])
async def test_the_audit_is_inconclusive_if_the_stream_lost_all_events_during_it(
    shop: AuditedShop, command: RedisCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def change() -> None:
        await shop.place((2, 1))
        await shop.redis.send(*command)

    change_before_products_are_read(shop.store, change, monkeypatch)
    with pytest.raises(AuditInconclusive):
        await shop.audit()


async def test_a_stream_that_was_trimmed_before_the_audit_is_not_a_finding(shop: AuditedShop) -> None:
    await _place_more_orders_than_the_stream_keeps(shop)
    assert await shop.redis.send("XLEN", EVENTS) < 300
    assert_no_findings(await shop.audit())


async def test_a_stream_entry_that_is_not_an_event_is_ignored(
    shop: AuditedShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def change() -> None:
        await shop.redis.send("XADD", EVENTS, "*", "note", "hello")
        await shop.place((2, 1))

    change_before_products_are_read(shop.store, change, monkeypatch)
    assert_no_findings(await shop.audit())

"""The audit follows the events since its start. If events are missing, the audit is inconclusive."""

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal

import pytest

from service.domain.event import EVENT_FIELDS
from service.domain.requests import HoldExtension, NewReturn, ProductChange
from service.ops.audit_report import AuditInconclusive, Finding
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


FOREIGN_ENTRIES = {
    "other fields": ("note", "hello"),
    "no type": ("order", "1", "products", "1: 1 x 5"),
    "an unknown type": ("event", "order_paid", "order", "1"),
    "an order that is not a number": ("event", "order_expired", "order", "many", "products", "1: 1 x 5"),
    "unreadable lines": ("event", "order_completed", "order", "1", "products", "two mugs"),
    "a missing field": ("event", "order_placed", "order", "1", "status", "completed", "products", "1: 1 x 5"),
    "a further field": ("event", "product_withdrawn", "product", "1", "note", "hello"),
    "only a type": ("event", "product_changed"),
}


@pytest.mark.parametrize("entry", FOREIGN_ENTRIES)
@pytest.mark.parametrize("when", ["before the audit", "during the audit"])
async def test_a_stream_entry_that_holdfast_did_not_write_is_found(
    shop: AuditedShop, monkeypatch: pytest.MonkeyPatch, entry: str, when: str
) -> None:
    ids: list[str] = []

    async def change() -> None:
        ids.append(await shop.redis.send("XADD", EVENTS, "*", *FOREIGN_ENTRIES[entry]))
        await shop.place((2, 1))

    if when == "before the audit":
        await change()
    else:
        change_before_products_are_read(shop.store, change, monkeypatch)
    report = await shop.audit()
    assert report.findings == [Finding(EVENTS, f"has the entry {ids[0]}, which Holdfast did not write")]


async def test_every_event_that_holdfast_writes_is_known(shop: AuditedShop) -> None:
    await shop.store.products.change(2, ProductChange.model_validate({"price": Decimal(4)}))
    await shop.store.products.change(2, ProductChange.model_validate({"name": "Jug", "description": "x"}))
    order_id = await shop.place((2, 1), hold=900, customer="anna", reference="cart 1")
    await shop.store.holds.extend(order_id, HoldExtension(hold_seconds=60))
    await shop.store.holds.complete(order_id)
    for restock, reason in ((False, None), (True, "damaged")):
        new = NewReturn.model_validate(
            {"products": [{"product_id": 2, "quantity": 1}], "restock": restock, "reason": reason}
        )
        bought = await shop.place((2, 2))
        await shop.store.returns.make(bought, new)
        await shop.store.returns.make(bought, new)
    for rules in ({"limit_per_customer": 2}, {"limit_per_customer": None}):
        await shop.store.products.change(2, ProductChange.model_validate(rules))
    [ended] = await shop.store.archive.read([order_id])
    assert ended is not None
    assert await shop.store.archive.remove([ended], 0) == ["removed"]
    await shop.store.restored.mark()
    events = await shop.store.events.read("0-0")
    assert {event.fields["event"] for event in events} == EVENT_FIELDS.keys()
    assert all(event.is_known() for event in events)
    assert_no_findings(await shop.audit())

"""The messages of type `summary`, which the live board shows."""

from typing import Any

import pytest

from service.api import sales_summary
from service.domain.errors.order_refusals import InsufficientStock
from service.storage.store import Store
from tests.api.test_events import Listeners, Stream
from tests.support.shop import add_mugs, new_mug, new_order
from tests.support.waiting import eventually


@pytest.fixture(autouse=True)
def _short_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sales_summary, "INTERVAL_SECONDS", 0.02)


@pytest.fixture
def listeners(store: Store) -> Listeners:
    return Listeners(store)


def rows(stream: Stream) -> dict[int, list[object]]:
    """Return the products as a client has them after all messages."""
    found: dict[int, list[object]] = {}
    for message in stream.data("products"):
        if message["first"]:
            found.clear()
        for product_id in message.get("withdrawn", ()):
            del found[product_id]
        found |= {row[0]: row[1:] for row in message["products"]}
    return found


def total(stream: Stream, name: str) -> int:
    return sum(message["orders"][name] for message in stream.data("summary"))


async def test_a_new_client_gets_all_products_and_then_what_changes(store: Store, listeners: Listeners) -> None:
    await add_mugs(store, stock=10)
    await add_mugs(store, stock=5, name="Pot")
    async with listeners.listen("type=summary") as stream:
        await eventually(lambda: len(rows(stream)) == 2, "the products")
        assert rows(stream) == {1: ["Mug", 19.99, 10, 0, 0], 2: ["Pot", 19.99, 5, 0, 0]}
        await store.orders.place(new_order((1, 3)))
        pending = (await store.orders.place(new_order((2, 2), status="pending"))).order.id
        await eventually(lambda: rows(stream) == {1: ["Mug", 19.99, 7, 0, 3], 2: ["Pot", 19.99, 3, 2, 0]}, "the units")
        await store.holds.complete(pending)
        await store.products.add(new_mug(name="Cup", stock=1))
        await store.products.withdraw(1)
        await eventually(lambda: rows(stream) == {2: ["Pot", 19.99, 3, 0, 2], 3: ["Cup", 19.99, 1, 0, 0]}, "the rest")
        assert stream.ids() == []
        assert stream.messages("order_placed") == []


async def test_orders_units_and_revenue_are_added_up_exactly(store: Store, listeners: Listeners) -> None:
    await add_mugs(store, stock=1000)
    async with listeners.listen("type=summary") as stream:
        await eventually(lambda: len(stream.data("summary")) > 0, "the first summary")
        for _ in range(3):
            await store.orders.place(new_order((1, 1)))
        ids = [(await store.orders.place(new_order((1, 2), status="pending"))).order.id for _ in range(3)]
        await store.holds.complete(ids[0])
        await store.holds.cancel(ids[1])
        await eventually(lambda: total(stream, "cancelled") == 1, "the cancellation")
        totals = {name: total(stream, name) for name in stream.data("summary")[0]["orders"]}
        assert totals == {"placed": 3, "pending": 3, "completed": 1, "cancelled": 1, "expired": 0, "returned": 0}
        assert sum(message["units"] for message in stream.data("summary")) == 5
        assert round(sum(message["revenue"] for message in stream.data("summary")), 2) == 99.95
        await eventually(lambda: stream.data("summary")[-1]["holds"]["count"] == 1, "the holds")
        [hold] = stream.data("summary")[-1]["holds"]["next"]
        assert hold["order"] == ids[2]


async def test_refused_orders_are_counted_by_reason(store: Store, listeners: Listeners) -> None:
    await add_mugs(store, stock=1)
    with pytest.raises(InsufficientStock):
        await store.orders.place(new_order((1, 5)))  # before anybody listens
    async with listeners.listen("type=summary") as stream:
        await eventually(lambda: len(stream.data("summary")) > 0, "the first summary")
        for _ in range(4):
            with pytest.raises(InsufficientStock):
                await store.orders.place(new_order((1, 5)))
        await eventually(lambda: any(message["refused"] for message in stream.data("summary")), "the refusals")
        await eventually(
            lambda: sum(each["refused"].get("insufficient-stock", 0) for each in stream.data("summary")) == 4,
            "all of them",
        )


async def test_two_clients_share_one_summary_and_many_products_come_in_parts(
    store: Store, listeners: Listeners, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sales_summary, "MAX_PRODUCTS", 1200)
    monkeypatch.setattr(sales_summary, "_BATCH", 100)
    for _ in range(1250):
        await store.products.add(new_mug())
    reads: list[int] = []
    read = store.board.products

    async def counting(ids: list[int]) -> Any:
        reads.append(len(ids))
        return await read(ids)

    monkeypatch.setattr(store.board, "products", counting)
    async with listeners.listen("type=summary") as first, listeners.listen("type=summary") as second:
        await eventually(lambda: len(rows(first)) == len(rows(second)) == 1200, "the products")
        sizes = [len(message["products"]) for message in first.data("products")]
        assert sizes[:2] == [1000, 200]
        assert first.data("products")[0]["left_out"] == 50
        assert reads == [100] * 12
        await store.orders.place(new_order((7, 3)))
        await eventually(lambda: rows(first)[7][2] == rows(second)[7][2] == 7, "the sale")
        assert reads[12:] == [1]

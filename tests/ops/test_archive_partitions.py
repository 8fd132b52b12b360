"""A shop with partitions: one archive of all its orders, sales of all, and ids after a restore."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from service.domain.errors.refusals import OrderArchived, OrderNotFound
from service.domain.requests import OrdersQuery
from service.domain.times import Milliseconds
from service.ops.archive import DAY_MS, ArchiveReport, archive
from service.ops.archive_file import ArchiveFile, read_archive
from service.ops.audit_partitions import audit_whole_shop
from service.ops.export import export
from service.ops.sales import add_up_sales
from service.storage.archive import EndedOrder
from service.storage.partitioned import PartitionedStore
from service.storage.sender import CommandSender
from tests.support.archive import ids_in
from tests.support.audited_shop import NOON, assert_no_findings, new_return, order, product
from tests.support.clock import Clock
from tests.support.partitions import make_partitioned_store
from tests.support.shop import SHOP

COUNT = 4
ORDERS = 30


async def fill(redis: CommandSender, clock: Clock) -> tuple[PartitionedStore, list[int]]:
    """Return a shop, and the ids of its orders: some of each partition, with returns. One is pending."""
    store = make_partitioned_store(redis, count=COUNT, clock=clock)
    for product_id in (1, 2):
        await store.products.add(product(product_id, price=100, stock=100))
    ids = []
    for number in range(ORDERS):
        new = order((1, 2), (2, 1), customer=f"customer-{number % 7}")
        ids.append((await store.orders.place(new, f"key-{number}")).order.id)
    await store.returns.make(ids[3], new_return((1, 1)))
    ids.append((await store.orders.place(order((1, 1), hold=900), "pending")).order.id)
    assert {order_id % COUNT for order_id in ids} == set(range(COUNT))
    return store, ids


async def run(store: PartitionedStore, path: Path, clock: Clock) -> ArchiveReport:
    with ArchiveFile(path, SHOP) as file:
        return await archive(store, SHOP, file, Milliseconds(int(clock.now)), DAY_MS)


async def live_ids(store: PartitionedStore) -> list[int]:
    return sorted([order_id async for order_id in store.orders.scan_ids()])


@pytest.fixture
def clock() -> Clock:
    return Clock(NOON)


async def test_orders_of_all_partitions_are_archived_in_one_file_sorted_by_id(
    redis: CommandSender, clock: Clock, tmp_path: Path
) -> None:
    store, ids = await fill(redis, clock)
    clock.forward(2 * 24 * 3600)
    report = await run(store, tmp_path / "old.jsonl", clock)
    assert report.archived == ORDERS
    assert ids_in(tmp_path / "old.jsonl") == sorted(ids[:-1])
    assert await live_ids(store) == ids[-1:]
    audited = await audit_whole_shop(store, SHOP)
    assert_no_findings(audited)
    assert (audited.orders, audited.pending, audited.archived) == (1, 1, ORDERS)
    for order_id in ids[:-1]:
        with pytest.raises(OrderArchived):
            await store.orders.get(order_id)
    with pytest.raises(OrderNotFound):
        await store.orders.get(max(ids) + COUNT)


async def test_a_repeated_archive_adds_nothing(redis: CommandSender, clock: Clock, tmp_path: Path) -> None:
    store, _ = await fill(redis, clock)
    clock.forward(2 * 24 * 3600)
    await run(store, tmp_path / "old.jsonl", clock)
    before = (tmp_path / "old.jsonl").read_text()
    assert (await run(store, tmp_path / "old.jsonl", clock)).archived == 0
    assert (tmp_path / "old.jsonl").read_text() == before


@pytest.mark.parametrize("failing", range(COUNT))
async def test_an_archive_that_a_partition_interrupts_can_be_repeated(
    redis: CommandSender, clock: Clock, tmp_path: Path, failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, ids = await fill(redis, clock)
    clock.forward(2 * 24 * 3600)

    async def fail(orders: Sequence[EndedOrder], keep_ms: int) -> list[str]:
        raise ConnectionError

    with monkeypatch.context() as broken:
        broken.setattr(store.partitions[failing].archive, "remove", fail)
        with pytest.raises(ConnectionError):
            await run(store, tmp_path / "old.jsonl", clock)
    assert {order_id % COUNT for order_id in await live_ids(store)} >= {failing}
    assert (await run(store, tmp_path / "old.jsonl", clock)).archived > 0
    assert sorted(ids_in(tmp_path / "old.jsonl")) == sorted(ids[:-1])
    assert await live_ids(store) == ids[-1:]
    assert_no_findings(await audit_whole_shop(store, SHOP))


async def test_sales_are_the_same_before_and_after_an_archive(
    redis: CommandSender, clock: Clock, tmp_path: Path
) -> None:
    store, _ = await fill(redis, clock)
    before = await add_up_sales(store, "product")
    assert (before.total.orders, before.total.units, before.total.returned) == (ORDERS, 3 * ORDERS, 1)
    assert before.names == {1: "Mug", 2: "Mug"}
    clock.forward(2 * 24 * 3600)
    await run(store, tmp_path / "old.jsonl", clock)
    assert await store.archive.count() == ORDERS
    after = await add_up_sales(store, "product", archived=read_archive(tmp_path / "old.jsonl", SHOP))
    assert (after.total, after.groups) == (before.total, before.groups)


async def test_exported_orders_are_sorted_by_id(redis: CommandSender, clock: Clock) -> None:
    store, ids = await fill(redis, clock)
    lines = [line async for line in export(store, "orders", "csv")]
    assert list(dict.fromkeys(int(line.split(",")[0]) for text in lines for line in text.splitlines())) == sorted(
        ids, reverse=True
    )


@pytest.mark.parametrize("count", [3, COUNT])
async def test_a_restored_shop_gives_no_id_of_any_partition_away_again(
    redis: CommandSender, clock: Clock, count: int
) -> None:
    store = make_partitioned_store(redis, count=count, clock=clock)
    await store.products.add(product(1, stock=100))
    old = [(await store.orders.place(order((1, 1)), f"old-{number}")).order.id for number in range(20)]
    marks = [await partition.restored.mark() for partition in store.partitions]
    for number, mark in enumerate(marks):
        assert mark.first_skipped % count == mark.last_skipped % count == number
        assert mark.first_skipped > max([0, *[order_id for order_id in old if order_id % count == number]])
    assert_no_findings(await audit_whole_shop(store, SHOP))
    store = make_partitioned_store(redis, count=count, clock=clock)
    new = [(await store.orders.place(order((1, 1)), f"new-{number}")).order.id for number in range(20)]
    for order_id in new:
        assert marks[order_id % count].last_skipped < order_id < marks[order_id % count].last_skipped + 300 * count
    assert_no_findings(await audit_whole_shop(store, SHOP))
    found: list[int] = []
    before: int | None = None
    for _ in range(40):
        page, before = await store.orders.list(
            OrdersQuery.model_validate({"limit": "7", "before": str(before or 2**52)})
        )
        found += [each.id for each in page]
        if before is None:
            break
    assert found == sorted([*old, *new], reverse=True)
    for mark in marks:
        with pytest.raises(OrderNotFound):
            await store.orders.get(mark.last_skipped)
    second = [await partition.restored.mark() for partition in store.partitions]
    assert all(mark.first_skipped > earlier.last_skipped for mark, earlier in zip(second, marks, strict=True))
    assert_no_findings(await audit_whole_shop(store, SHOP))

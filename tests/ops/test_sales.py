"""What was sold: which orders count, when, and for which product; and damaged orders."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain.limits import MAX_ID, MAX_PRICE, MAX_STOCK
from service.domain.money import Cents
from service.domain.order import Order, OrderLine
from service.domain.requests import NewReturn, ProductChange
from service.domain.times import Milliseconds, parse_timestamp
from service.ops.audit import audit
from service.ops.sales import Grouping, SalesReport, Sums, add_up_sales
from service.storage.sender import CommandSender, ErrorReply
from service.storage.store import Store
from tests.support.clock import Clock
from tests.support.fake_redis import FakeRedis
from tests.support.orders import ids, order_hash
from tests.support.redis_content import nothing_changes
from tests.support.shop import SHOP, add_mugs, expire_all_due, make_store, new_order

NOON = parse_timestamp("2026-11-26T12:00:00Z")
HOUR_MS = 3_600_000


@pytest.fixture
def clock() -> Clock:
    """Noon. For a module's own `store`, as in tests/conftest.py."""
    return Clock(NOON)


@pytest.fixture
def store(redis: CommandSender, clock: Clock) -> Store:
    return make_store(redis, clock=clock)


async def write_order(sender: CommandSender, order_id: int, **fields: object) -> None:
    """Write the hash of an order of two mugs that was placed as completed at noon, with these fields replaced."""
    order = Order(order_id, (OrderLine(1, 2, Cents(1999)),), Cents(3998), "completed", NOON)
    pairs = [text for pair in order_hash(order, **fields).items() for text in pair]
    await sender.send("HSET", f"{{{SHOP}}}:order:{order_id}", *pairs)


async def give_back(store: Store, order_id: int, *lines: tuple[int, int]) -> None:
    products = [{"product_id": product_id, "quantity": quantity} for product_id, quantity in lines]
    await store.returns.make(order_id, NewReturn.model_validate({"products": products}))


async def rows(store: Store, by: Grouping) -> dict[object, Sums]:
    """Return the sums of each row, by its product id or period."""
    report = await add_up_sales(store, by)
    assert (report.unreadable, report.nameless) == (0, 0)
    return {next(iter(labels.values())): sums for labels, sums in report.rows()}


# Which orders count, and when


async def test_only_completed_orders_count(store: Store, clock: Clock) -> None:
    await add_mugs(store, id=1)
    await store.orders.place(new_order((1, 1)))
    placed = [(await store.orders.place(new_order((1, 10), status="pending"))).order.id for _ in range(4)]
    await store.holds.complete(placed[0])
    await store.holds.cancel(placed[1])
    clock.forward(900)
    await expire_all_due(store)
    await store.orders.place(new_order((1, 100), status="pending"))
    assert await rows(store, "total") == {"total": Sums(orders=2, units=11, revenue=11 * 1999)}


async def test_an_order_is_sold_when_it_is_completed(store: Store, clock: Clock) -> None:
    await add_mugs(store, id=1)
    held = (await store.orders.place(new_order((1, 2), status="pending", hold_seconds=7200))).order.id
    clock.forward(3600)
    await store.holds.complete(held)
    await store.orders.place(new_order((1, 3)))
    clock.forward(11 * 3600)
    await store.orders.place(new_order((1, 4)))
    assert await rows(store, "hour") == {
        "2026-11-26T13:00Z": Sums(orders=2, units=5, revenue=5 * 1999),
        "2026-11-27T00:00Z": Sums(orders=1, units=4, revenue=4 * 1999),
    }
    assert list(await rows(store, "day")) == ["2026-11-26", "2026-11-27"]


async def test_the_first_moment_of_the_time_belongs_to_it_and_its_end_does_not(
    store: Store, redis: CommandSender
) -> None:
    for order_id, moment in enumerate((NOON - 1, NOON, NOON + HOUR_MS - 1, NOON + HOUR_MS), 1):
        await write_order(redis, order_id, created_at=moment)
    hour_later = Milliseconds(NOON + HOUR_MS)
    for start, end, orders in (
        (None, None, 4),
        (NOON, None, 3),
        (None, hour_later, 3),
        (NOON, hour_later, 2),
        (Milliseconds(0), Milliseconds(NOON - 1), 0),
    ):
        assert (await add_up_sales(store, "total", start, end)).total.orders == orders, (start, end)


async def test_a_return_counts_at_the_time_of_the_sale(store: Store, clock: Clock) -> None:
    await add_mugs(store, id=1)
    order_id = (await store.orders.place(new_order((1, 3)))).order.id
    clock.forward(86_400)
    await give_back(store, order_id, (1, 1))
    await give_back(store, order_id, (1, 1))
    assert await rows(store, "day") == {"2026-11-26": Sums(1, 3, 3 * 1999, returned=2, refunded=2 * 1999)}


async def test_an_order_counts_once_for_each_of_its_products(store: Store) -> None:
    await add_mugs(store, id=2)
    await add_mugs(store, id=10, price=0.07)
    order_id = (await store.orders.place(new_order((10, 5), (2, 1)))).order.id
    await store.orders.place(new_order((10, 1)))
    await give_back(store, order_id, (10, 2))
    report = await add_up_sales(store, "product")
    assert list(report.rows()) == [
        ({"product_id": 2, "name": "Mug"}, Sums(1, 1, 1999)),
        ({"product_id": 10, "name": "Mug"}, Sums(2, 6, 42, 2, 14)),
    ]
    assert report.total == Sums(2, 7, 2041, 2, 14)


async def test_products_have_their_name_of_today_also_if_they_are_withdrawn(store: Store) -> None:
    for product_id in (1, 2):
        await add_mugs(store, id=product_id)
        await store.orders.place(new_order((product_id, 1)))
    await store.products.change(1, ProductChange.model_validate({"name": "Cup", "price": Decimal(1)}))
    await store.products.withdraw(2)
    report = await add_up_sales(store, "product")
    assert report.names == {1: "Cup", 2: "Mug"}
    assert report.groups[1].revenue == 1999


async def test_the_report_changes_nothing(store: Store, redis: CommandSender) -> None:
    await add_mugs(store, id=1)
    await store.orders.place(new_order((1, 1)))
    async with nothing_changes(redis):
        await add_up_sales(store, "product")


# Large and damaged shops


async def test_each_order_counts_once_though_its_id_comes_twice(
    fake_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.ops.order_rows.BATCH", 2)
    await add_mugs(fake_store, id=1)
    for _ in range(3):
        await fake_store.orders.place(new_order((1, 1)))

    async def scan_ids() -> AsyncIterator[int]:
        for order_id in (3, 1, 3, 2, 2, 1, 3):
            yield order_id

    monkeypatch.setattr(fake_store.orders, "scan_ids", scan_ids)
    batches: list[int] = []
    report = await add_up_sales(fake_store, progress=batches.append)
    assert report.total.orders == 3
    assert batches == [2, 1]


async def test_orders_with_any_id_count(store: Store, redis: CommandSender) -> None:
    for order_id in (1, 65_535, 65_536, 2**40, MAX_ID):
        await write_order(redis, order_id)
    assert (await add_up_sales(store)).total.orders == 5


@pytest.mark.parametrize(
    "fields",
    [
        {"status": "odd"},
        {"status": None},
        {"created_at": None},
        {"created_at": "noon"},
        {"completed_at": ""},
        {"completed_at": -1},
        {"products": None},
        {"products": "1: 2"},
        {"products": "1: 2 x 1e3"},
        {"returned": "1"},
        {"returned": "1: 3", "refunded": "59.97"},
        {"returned": "2: 1", "refunded": "19.99"},
    ],
    ids=str,
)
async def test_a_damaged_order_is_counted_as_unreadable_and_the_audit_names_it(
    store: Store, redis: CommandSender, fields: dict[str, object]
) -> None:
    await write_order(redis, 1)
    await write_order(redis, 2, **fields)
    report = await add_up_sales(store)
    assert (report.unreadable, report.total.orders) == (1, 1)
    assert f"{{{SHOP}}}:order:2" in [finding.key for finding in (await audit(store, SHOP)).findings]


async def test_keys_of_another_type_hide_no_other_order(store: Store, redis: CommandSender) -> None:
    for order_id in range(1, 21):
        if order_id in (3, 4, 20):
            await redis.send("SADD", f"{{{SHOP}}}:order:{order_id}", "x")
        else:
            await write_order(redis, order_id)
    report = await add_up_sales(store)
    assert (report.unreadable, report.total.orders) == (3, 17)


async def test_a_damaged_product_has_no_name(store: Store, redis: CommandSender) -> None:
    for product_id in range(1, 8):
        await add_mugs(store, id=product_id)
        await store.orders.place(new_order((product_id, 1)))
    await redis.send("HSET", f"{{{SHOP}}}:product:2", "price", "odd")
    await redis.send("HDEL", f"{{{SHOP}}}:product:4", "stock")
    await redis.send("DEL", f"{{{SHOP}}}:product:5", f"{{{SHOP}}}:product:7")
    await redis.send("SADD", f"{{{SHOP}}}:product:7", "x")
    report = await add_up_sales(store, "product")
    assert report.names == dict.fromkeys((1, 3, 6), "Mug")
    assert report.nameless == 4
    assert len(report.groups) == 7


async def test_an_error_that_is_not_about_one_key_is_raised(fake_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    await add_mugs(fake_store, id=1)
    await fake_store.orders.place(new_order((1, 1)))

    async def refuse(*args: object) -> None:
        raise ErrorReply("NOPERM no permissions")

    monkeypatch.setattr(fake_store.orders, "read_fields", refuse)
    with pytest.raises(ErrorReply, match="NOPERM"):
        await add_up_sales(fake_store)


# Random orders


class RandomOrder:
    """An order with what came back of each line."""

    def __init__(self, order: Order, returned: dict[int, int]) -> None:
        self.order = order
        self.returned = returned

    @property
    def moment(self) -> int:
        return self.order.created_at if self.order.completed_at is None else self.order.completed_at


@st.composite
def random_orders(draw: st.DrawFn) -> RandomOrder:
    status = draw(st.sampled_from(["completed", "completed", "pending", "cancelled", "expired"]))
    quantity, price = st.integers(1, MAX_STOCK), st.integers(0, MAX_PRICE)
    bought = draw(st.dictionaries(st.integers(1, 4), st.tuples(quantity, price), min_size=1))
    lines = tuple(OrderLine(product_id, number, Cents(cents)) for product_id, (number, cents) in bought.items())
    times = st.integers(NOON, NOON + 5 * HOUR_MS).map(Milliseconds)
    order = Order(draw(ids), lines, Cents(0), status, draw(times))
    if status != "completed":
        return RandomOrder(order, {})
    returned = {line.product_id: draw(st.integers(1, line.quantity)) for line in lines if draw(st.booleans())}
    return RandomOrder(order._replace(completed_at=draw(st.none() | times)), returned)


def expected_rows(sold: Sequence[RandomOrder], by: Grouping) -> dict[object, Sums]:
    """Return the sums of each row, added up line by line."""
    found: dict[object, Sums] = {}
    for one in sold:
        hour = (one.moment - NOON) // HOUR_MS + 12
        period = {"hour": f"2026-11-26T{hour}:00Z", "day": "2026-11-26", "total": "total"}.get(by)
        counted = set()
        for line in one.order.lines:
            key = line.product_id if by == "product" else period
            sums = found.setdefault(key, Sums())
            sums.orders += key not in counted
            counted.add(key)
            back = one.returned.get(line.product_id, 0)
            sums.units += line.quantity
            sums.revenue += line.quantity * line.price
            sums.returned += back
            sums.refunded += back * line.price
    return dict(sorted(found.items(), key=str))


@settings(deadline=None, max_examples=50)
@given(
    st.lists(random_orders(), max_size=12, unique_by=lambda one: one.order.id),
    st.sampled_from(["total", "product", "day", "hour"]),
    st.none() | st.integers(NOON, NOON + 5 * HOUR_MS),
    st.none() | st.integers(NOON, NOON + 5 * HOUR_MS),
)
def test_the_report_is_the_sum_over_all_orders(
    orders: list[RandomOrder], by: Grouping, start: Milliseconds | None, end: Milliseconds | None
) -> None:
    async def report() -> SalesReport:
        redis = FakeRedis()
        for one in orders:
            text = "\n".join(f"{product_id}: {units}" for product_id, units in one.returned.items())
            fields = order_hash(one.order, returned=text or None)
            pairs = [text for pair in fields.items() for text in pair]
            await redis.send("HSET", f"{{{SHOP}}}:order:{one.order.id}", *pairs)
        return await add_up_sales(make_store(redis), by, start, end)

    sold = [
        one
        for one in orders
        if one.order.status == "completed"
        and (start is None or one.moment >= start)
        and (end is None or one.moment < end)
    ]
    found = asyncio.run(report())
    assert {next(iter(labels.values())): sums for labels, sums in found.rows()} == expected_rows(sold, by)
    assert {"total": found.total} == (expected_rows(sold, "total") or {"total": Sums()})
    assert found.unreadable == 0

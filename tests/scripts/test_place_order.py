"""lua/place_order.lua: an order, its hold, its stock and its event; exact totals."""

from decimal import Decimal

import pytest

from service.domain.money import Cents
from service.domain.order import Order, OrderLine
from service.domain.times import Milliseconds
from service.storage import keys
from service.storage.sender import CommandSender
from tests.support.balance import assert_balanced
from tests.support.orders import order_hash
from tests.support.redis_content import dump, events_at, hash_at, scores_at
from tests.support.scripts import NOW_MS, run_add_product, run_place_order
from tests.support.shop import SHOP

EVENTS, HOLDS, PENDING, PRODUCTS = keys.events(SHOP), keys.holds(SHOP), keys.pending(SHOP), keys.products(SHOP)


async def test_a_completed_order_is_written_in_plain_values(redis: CommandSender) -> None:
    await run_add_product(redis, 7)
    await run_add_product(redis, 9, stock=5, price="7.00")
    names = (await dump(redis)).keys()
    before = await hash_at(redis, keys.product(SHOP, 7))
    assert await run_place_order(redis, (9, 1), (7, 2)) == ["placed", "46.98", str(NOW_MS), "", "7.00", "19.99"]
    lines = (OrderLine(9, 1, Cents(700)), OrderLine(7, 2, Cents(1999)))
    order = Order(41, lines, Cents(4698), "completed", Milliseconds(NOW_MS))
    assert await hash_at(redis, keys.order(SHOP, 41)) == order_hash(order, products="9: 1 x 7.00\n7: 2 x 19.99")
    assert (await events_at(redis, EVENTS))[2:] == [
        {
            "event": "order_placed",
            "order": "41",
            "status": "completed",
            "total_price": "46.98",
            "products": "9: 1 x 7.00\n7: 2 x 19.99",
        }
    ]
    assert await hash_at(redis, keys.product(SHOP, 7)) == {**before, "stock": "8", "sold": "2"}
    assert (await dump(redis)).keys() == {*names, keys.order(SHOP, 41)}
    await assert_balanced(redis)


async def test_a_pending_order_holds_its_stock_until_its_deadline(redis: CommandSender) -> None:
    await run_add_product(redis, 7)
    before = await hash_at(redis, keys.product(SHOP, 7))
    deadline = Milliseconds(NOW_MS + 900_000)
    assert await run_place_order(redis, (7, 3), hold_ms=900_000) == [
        *("placed", "59.97", str(NOW_MS), str(deadline), "19.99")
    ]
    lines = (OrderLine(7, 3, Cents(1999)),)
    order = Order(41, lines, Cents(5997), "pending", Milliseconds(NOW_MS), deadline)
    assert await hash_at(redis, keys.order(SHOP, 41)) == order_hash(order)
    assert await scores_at(redis, HOLDS) == {"41": deadline}
    assert await scores_at(redis, PENDING) == {"41": 41}
    assert await hash_at(redis, keys.product(SHOP, 7)) == {**before, "stock": "7", "held": "3"}
    assert (await events_at(redis, EVENTS))[-1]["status"] == "pending"
    await assert_balanced(redis)


async def test_an_order_and_its_idempotency_key_refer_to_each_other_for_ever(redis: CommandSender) -> None:
    await run_add_product(redis, 7)
    assert (await run_place_order(redis, (7, 1), key="k-1"))[0] == "placed"
    assert (await hash_at(redis, keys.order(SHOP, 41)))["idempotency_key"] == "k-1"
    assert await hash_at(redis, keys.idempotency(SHOP, "k-1")) == {"fingerprint": "f1", "order": "41"}
    for name in (keys.idempotency(SHOP, "k-1"), keys.order(SHOP, 41)):
        assert await redis.send("PTTL", name) == -1
    await assert_balanced(redis)


async def test_without_a_test_clock_the_script_uses_the_time_of_redis(redis: CommandSender) -> None:
    await run_add_product(redis, 7)
    before = await redis.send("TIME")
    _, _, created_at, expires_at, _ = await run_place_order(redis, (7, 1), hold_ms=5000, now_ms=None)
    after = await redis.send("TIME")
    first, last = (int(seconds) * 1000 + int(microseconds) // 1000 for seconds, microseconds in (before, after))
    assert first <= int(created_at) <= last
    assert int(expires_at) == int(created_at) + 5000


@pytest.mark.parametrize(("hold", "counter"), [(None, "sold"), (900_000, "held")])
async def test_counters_above_ten_to_the_fifteenth_stay_plain_and_exact(
    redis: CommandSender, hold: int | None, counter: str
) -> None:
    await run_add_product(redis, 7)
    large = 2 * 10**15 + 1
    await redis.send("HSET", keys.product(SHOP, 7), counter, large)
    assert (await run_place_order(redis, (7, 2), hold_ms=hold))[0] == "placed"
    product = await hash_at(redis, keys.product(SHOP, 7))
    assert (product["stock"], product[counter]) == ("8", "2000000000000003")


@pytest.mark.parametrize(
    ("last_price", "reply"),
    [
        ("992548310.61", ["placed", "90071992547409.90"]),
        ("992548310.62", ["placed", "90071992547409.91"]),  # 2^53 - 1 cents
        ("992548310.63", ["too_large"]),  # 2^53
        ("992548310.64", ["too_large"]),  # 2^53 + 1: as a double it is 2^53
        ("999999999.99", ["too_large"]),
    ],
)
async def test_a_total_is_exact_up_to_the_maximum_and_refused_above_it(
    redis: CommandSender, last_price: str, reply: list[str]
) -> None:
    await run_add_product(redis, 7, stock=1_000_000, price="999999999.99")
    await run_add_product(redis, 9, price=last_price)
    assert (await run_place_order(redis, (7, 90_071), (9, 1)))[:2] == reply
    if reply[0] == "placed":
        assert (await hash_at(redis, keys.order(SHOP, 41)))["total_price"] == reply[1]


async def test_a_hundred_lines_of_maximum_price_and_quantity_are_too_large(redis: CommandSender) -> None:
    product_ids = range(1, 101)
    for product_id in product_ids:
        await run_add_product(redis, product_id, stock=1_000_000_000, price="999999999.99")
    lines = [(product_id, 1_000_000) for product_id in product_ids]
    before = await dump(redis)
    assert await run_place_order(redis, *lines) == ["too_large"]
    assert await dump(redis) == before


@pytest.mark.parametrize("expected", [9_007_199_254_740_990, 9_007_199_254_740_991])
async def test_the_maximum_expected_total_is_compared_exactly(redis: CommandSender, expected: int) -> None:
    await run_add_product(redis, 7, stock=1_000_000, price="999999999.99")
    await run_add_product(redis, 9, price="992548310.62")
    reply = await run_place_order(redis, (7, 90_071), (9, 1), expected_cents=expected)
    assert reply[0] == ("placed" if expected == 9_007_199_254_740_991 else "price_changed")


@pytest.mark.parametrize("price", ["0.00", "0.01", "0.07", "0.29", "1.10", "1.15", "4.35", "19.99", "999999999.99"])
@pytest.mark.parametrize("quantity", [1, 3, 90_071])
async def test_a_total_is_exact_for_prices_that_a_double_cannot_hold_exactly(
    redis: CommandSender, price: str, quantity: int
) -> None:
    await run_add_product(redis, 7, stock=1_000_000, price=price)
    total = Decimal(price) * quantity
    assert (await run_place_order(redis, (7, quantity), expected_cents=int(total * 100)))[:2] == ["placed", str(total)]


@pytest.mark.parametrize(
    ("stock", "quantity", "reply"),
    [(9, 10, ["short", "7 10 9"]), (10, 9, ["placed"]), (100, 20, ["placed"]), (20, 100, ["short", "7 100 20"])],
)
async def test_stock_is_compared_as_numbers_not_as_text(
    redis: CommandSender, stock: int, quantity: int, reply: list[str]
) -> None:
    await run_add_product(redis, 7, stock=stock)
    assert (await run_place_order(redis, (7, quantity)))[: len(reply)] == reply


async def test_the_last_unit_can_be_ordered_only_once(redis: CommandSender) -> None:
    await run_add_product(redis, 7, stock=1)
    assert (await run_place_order(redis, (7, 1), order_id=1))[0] == "placed"
    assert await run_place_order(redis, (7, 1), order_id=2) == ["short", "7 1 0"]
    assert (await hash_at(redis, keys.product(SHOP, 7)))["stock"] == "0"


async def test_a_free_order_matches_an_expected_total_of_zero(redis: CommandSender) -> None:
    await run_add_product(redis, 7, price="0.00")
    assert (await run_place_order(redis, (7, 1), expected_cents=0))[:2] == ["placed", "0.00"]

"""What the audit finds about returns, customers, references and the rules of a sale."""

from typing import NamedTuple

import pytest

from service.storage import keys
from service.storage.sender import CommandSender
from tests.support.audited_shop import (
    MUG,
    POT,
    AuditedShop,
    RedisCommand,
    assert_no_findings,
    fill,
    new_return,
    open_shop,
    order_key,
    product_key,
)
from tests.support.shop import SHOP

SOLD, HELD = order_key(6), order_key(7)
ANNA, ANNAS_ORDERS = keys.customer(SHOP, "anna"), keys.customer_orders(SHOP, "anna")
CART = keys.reference_orders(SHOP, "cart 1")


@pytest.fixture
async def shop(redis: CommandSender) -> AuditedShop:
    """Return a shop in which anna has bought 3 mugs and 2 pots, and has returned 2 mugs, one of them damaged."""
    shop = await fill(open_shop(redis))
    assert await shop.place((1, 3), (2, 2), customer="anna", reference="cart 1") == 6
    await shop.store.returns.make(6, new_return((1, 1)))
    await shop.store.returns.make(6, new_return((1, 1), restock=False))
    assert await shop.place((1, 1), hold=900, customer="anna") == 7
    assert await shop.place((2, 1), hold=900, customer="anna", reference="cart 1") == 8
    await shop.store.holds.cancel(8)
    return shop


async def test_a_shop_with_returns_customers_and_references_is_balanced(shop: AuditedShop) -> None:
    assert_no_findings(await shop.audit())
    assert await shop.redis.send("HGETALL", ANNA) == ["1", "2", "2", "2"]


class Corruption(NamedTuple):
    """Commands that corrupt the shop, and the expected findings: for each key, a part of the message."""

    commands: list[RedisCommand]
    findings: dict[str, str]


CORRUPTIONS: dict[str, Corruption] = {
    "a return is forgotten": Corruption(
        [("HDEL", SOLD, "returned", "refunded", "written_off")],
        {MUG: "has sold 3, but its orders add up to 5", ANNA: "has 2 units of 1, but its orders add up to 4"},
    ),
    "a return is counted twice": Corruption(
        [("HSET", SOLD, "returned", "1: 3", "refunded", "59.97")],
        {MUG: "has sold 3, but its orders add up to 2", ANNA: "has 2 units of 1, but its orders add up to 1"},
    ),
    "more came back than was bought": Corruption(
        [("HSET", SOLD, "returned", "1: 2\n2: 3", "refunded", "54.98")],
        {SOLD: "has returned 3 units of 2, but 2 were bought", POT: "has sold", ANNA: "units of 2"},
    ),
    "another product came back": Corruption(
        [("HSET", SOLD, "returned", "1: 2\n4: 1")],
        {
            SOLD: "has returned 1 units of 4, but 0 were bought",
            product_key(4): "has sold 0, but its orders add up to -1",
        },
    ),
    "more was written off than came back": Corruption(
        [("HSET", SOLD, "written_off", "1: 3")],
        {SOLD: "has written off 3 units of 1, but 2 came back", MUG: "has written_off 1, but its orders add up to 3"},
    ),
    "refunded is wrong": Corruption(
        [("HSET", SOLD, "refunded", "39.99")], {SOLD: "has refunded '39.99', expected 39.98"}
    ),
    "refunded is missing": Corruption([("HDEL", SOLD, "refunded")], {SOLD: "has no field refunded"}),
    "returned is unreadable": Corruption(
        [("HSET", SOLD, "returned", "two mugs")],
        {
            SOLD: "has returned 'two mugs', expected product and units, like 7: 2",
            MUG: "has sold 3",
            ANNA: "has 2 units of 1",
        },
    ),
    "written_off is unreadable": Corruption(
        [("HSET", SOLD, "written_off", "one mug")],
        {
            SOLD: "has written_off 'one mug', expected product and units, like 7: 2",
            MUG: "has sold 3",
            ANNA: "has 2 units of 1",
        },
    ),
    "refunded of an order that did not come back": Corruption(
        [("HDEL", SOLD, "returned", "written_off")],
        {
            SOLD: "has a field refunded or written_off, but no field returned",
            MUG: "has sold 3",
            ANNA: "has 2 units of 1",
        },
    ),
    "a pending order came back": Corruption(
        [("HSET", HELD, "returned", "1: 1", "refunded", "19.99")], {HELD: "is pending, but units of it came back"}
    ),
    "written_off of a product is wrong": Corruption(
        [("HSET", MUG, "written_off", "2")], {MUG: "has written_off 2, but its orders add up to 1"}
    ),
    "written_off of a product is missing": Corruption(
        [("HDEL", MUG, "written_off")], {MUG: "has written_off 0, but its orders add up to 1"}
    ),
    "completed_at is no number": Corruption(
        [("HSET", SOLD, "completed_at", "noon")], {SOLD: "has completed_at 'noon', expected"}
    ),
    "a pending order has completed_at": Corruption(
        [("HSET", HELD, "completed_at", "5")], {HELD: "is pending, but has completed_at 5"}
    ),
    "a count is too high": Corruption(
        [("HINCRBY", ANNA, "1", "1")], {ANNA: "has 3 units of 1, but its orders add up to 2"}
    ),
    "a count is too low": Corruption(
        [("HINCRBY", ANNA, "2", "-1")], {ANNA: "has 1 units of 2, but its orders add up to 2"}
    ),
    "a count is missing": Corruption([("HDEL", ANNA, "2")], {ANNA: "has no units of 2, but its orders add up to 2"}),
    "a count of nothing is left": Corruption(
        [("HSET", ANNA, "4", "0")], {ANNA: "has 0 units of 4, but its orders add up to 0"}
    ),
    "a count is no number": Corruption(
        [("HSET", ANNA, "1", "two")], {ANNA: "has two units of 1, but its orders add up to 2"}
    ),
    "all counts are missing": Corruption([("DEL", ANNA)], {ANNA: "has no units of"}),
    "the counts are of another type": Corruption([("DEL", ANNA), ("SET", ANNA, "2")], {ANNA: "cannot be read"}),
    "counts of somebody without orders": Corruption(
        [("HSET", keys.customer(SHOP, "ben"), "1", "1")],
        {keys.customer(SHOP, "ben"): "counts units, but this customer has no orders"},
    ),
    "an order is not in the index of its customer": Corruption(
        [("ZREM", ANNAS_ORDERS, "7")], {HELD: f"is not in {ANNAS_ORDERS}", ANNA: "has 2 units of 1"}
    ),
    "an order has another place in the index": Corruption(
        [("ZADD", ANNAS_ORDERS, "70", "7")], {HELD: f"has the score 70 in {ANNAS_ORDERS}, expected 7"}
    ),
    "an order of nobody is in the index": Corruption(
        [("ZADD", ANNAS_ORDERS, "1", "1")], {ANNAS_ORDERS: "has the member 1, which is no order of this customer"}
    ),
    "an order that does not exist is in the index": Corruption(
        [("ZADD", ANNAS_ORDERS, "99", "99")], {ANNAS_ORDERS: "has the member 99, but there is no such order"}
    ),
    "something else is in the index": Corruption(
        [("ZADD", ANNAS_ORDERS, "5", "seven")], {ANNAS_ORDERS: "has the member 'seven', which is not an id"}
    ),
    "the index is of another type": Corruption([("DEL", CART), ("SET", CART, "6")], {CART: "cannot be read"}),
    "an order is not in the index of its reference": Corruption([("ZREM", CART, "6")], {SOLD: f"is not in {CART}"}),
    "another order is in the index of a reference": Corruption(
        [("ZADD", CART, "7", "7")], {CART: "has the member 7, which is no order with this reference"}
    ),
    "an order has lost its customer": Corruption(
        [("HDEL", HELD, "customer")],
        {ANNAS_ORDERS: "has the member 7, which is no order of this customer", ANNA: "has 2 units of 1"},
    ),
    "rules are unreadable": Corruption(
        [("HSET", MUG, "sale_rules", "two each")], {MUG: "has sale_rules 'two each', expected rows like"}
    ),
}


@pytest.mark.parametrize("name", CORRUPTIONS)
async def test_each_corruption_is_reported_under_its_keys(shop: AuditedShop, name: str) -> None:
    commands, expected = CORRUPTIONS[name]
    for command in commands:
        await shop.redis.send(*command)
    findings = (await shop.audit()).findings
    assert {finding.key for finding in findings} == set(expected), findings
    for key, part in expected.items():
        assert any(part in finding.what for finding in findings if finding.key == key), findings

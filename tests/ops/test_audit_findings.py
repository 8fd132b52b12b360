"""Each corruption of a shop is reported under its keys, and under no other key."""

from typing import NamedTuple

import pytest

from service.ops.audit_keys import counters
from service.storage.order_ids import ID_BLOCK_SIZE
from tests.support.audited_shop import (
    CANCELLED,
    COMPLETED,
    COUNTER,
    CUP,
    EVENTS,
    EXPIRED,
    HOLDS,
    INDEX,
    MUG,
    NOON,
    OF_WITHDRAWN,
    PENDING,
    PENDING_ORDER,
    POT,
    SPOON,
    AuditedShop,
    RedisCommand,
    order_key,
    product_key,
)
from tests.support.shop import SHOP


class Corruption(NamedTuple):
    """Commands that corrupt the shop, and the expected findings: for each key, a part of the message."""

    commands: list[RedisCommand]
    findings: dict[str, str]


def _set_or_delete(key: str, field: str, value: str | None) -> RedisCommand:
    return ("HDEL", key, field) if value is None else ("HSET", key, field, value)


def _replace_by_string(key: str) -> list[RedisCommand]:
    return [("DEL", key), ("SET", key, "nonsense")]


NOT_NUMBERS = ["-1", None, "many", "", "1.5", "1e3", " 7", "0x10", "\N{ARABIC-INDIC DIGIT SEVEN}", "9" * 19, "nan"]


def wrong_field(field: str, value: str | None) -> str:
    """Return the beginning of the message about a field with this value, or without a value."""
    return f"has no field {field}" if value is None else f"has {field} {value!r}, expected "


CORRUPTIONS: dict[str, Corruption] = {
    **{
        f"{field} of a product is {value!r}": Corruption(
            [_set_or_delete(MUG, field, value)], {MUG: wrong_field(field, value)}
        )
        for field in ("stock", "held", "sold", "received")
        for value in NOT_NUMBERS
    },
    "stock is wrong": Corruption(
        [("HSET", MUG, "stock", 3)], {MUG: "has received 15, but stock 3 + held 3 + sold 2 is 8"}
    ),
    "received is wrong": Corruption(
        [("HSET", MUG, "received", 99)], {MUG: "has received 99, but stock 10 + held 3 + sold 2 is 15"}
    ),
    "held is wrong": Corruption([("HSET", MUG, "held", 4)], {MUG: "has held 4, but its orders add up to 3"}),
    "sold is wrong": Corruption([("HSET", MUG, "sold", 1)], {MUG: "has sold 1, but its orders add up to 2"}),
    "a unit was moved from stock to held": Corruption(
        [("HINCRBY", MUG, "stock", -1), ("HINCRBY", MUG, "held", 1)], {MUG: "has held 4, but its orders add up to 3"}
    ),
    "a unit was moved from held to sold": Corruption(
        [("HINCRBY", MUG, "held", -1), ("HINCRBY", MUG, "sold", 1)], {MUG: "has sold 3, but its orders add up to 2"}
    ),
    "sold and received of a product without orders are wrong": Corruption(
        [("HSET", SPOON, "sold", 1, "received", 1)], {SPOON: "has sold 1, but its orders add up to 0"}
    ),
    "held of a withdrawn product is wrong": Corruption(
        [("HSET", CUP, "held", 0, "stock", 2)], {CUP: "has held 0, but its orders add up to 1"}
    ),
    **{
        f"price is {value!r}": Corruption([_set_or_delete(POT, "price", value)], {POT: wrong_field("price", value)})
        for value in ("free", "-1.00", "1.005", "", None, "1e3", "NaN", "5,00")
    },
    **{
        f"withdrawn is {value!r}": Corruption(
            [_set_or_delete(POT, "withdrawn", value)], {POT: wrong_field("withdrawn", value)}
        )
        for value in ("2", "yes", None, "-1", "00")
    },
    "withdrawn, but in the index": Corruption(
        [("HSET", POT, "withdrawn", "1")], {POT: f"is withdrawn, but is in {INDEX}"}
    ),
    "withdrawn, but again in the index": Corruption([("ZADD", INDEX, 3, 3)], {CUP: f"is withdrawn, but is in {INDEX}"}),
    "on sale again, but not in the index": Corruption(
        [("HSET", CUP, "withdrawn", "0")], {CUP: f"is on sale, but is not in {INDEX}"}
    ),
    "on sale, but not in the index": Corruption([("ZREM", INDEX, 2)], {POT: f"is on sale, but is not in {INDEX}"}),
    **{
        f"score in the index is {score}": Corruption(
            [("ZADD", INDEX, score, 2)], {POT: f"is on sale, but its score in {INDEX} is {score}, expected 2"}
        )
        for score in ("3", "2.5", "inf", "-2")
    },
    "in the index, but never added": Corruption(
        [("ZADD", INDEX, 99, 99)], {INDEX: "has the member 99, but there is no such product"}
    ),
    "product in the index was deleted": Corruption(
        [("DEL", SPOON)], {INDEX: "has the member 4, but there is no such product"}
    ),
    "a member of the index is not an id": Corruption(
        [("ZADD", INDEX, 7, "seven")], {INDEX: "has the member 'seven', which is not an id"}
    ),
    "a member of the index is an id with a leading zero": Corruption(
        [("ZADD", INDEX, 1, "01")], {INDEX: "has the member '01', which is not an id"}
    ),
    "product and its index member were deleted": Corruption(
        [("DEL", POT), ("ZREM", INDEX, 2)], {POT: "does not exist"}
    ),
    "withdrawn product with orders was deleted": Corruption([("DEL", CUP)], {CUP: "does not exist"}),
    "id of a product is wrong": Corruption([("HSET", MUG, "id", "2")], {MUG: "has id '2', expected 1"}),
    "id of a product is missing": Corruption([("HDEL", MUG, "id")], {MUG: "has no field id"}),
    "id of a withdrawn product is missing": Corruption([("HDEL", CUP, "id")], {CUP: "has no field id"}),
    "product of another type": Corruption(_replace_by_string(SPOON), {SPOON: "cannot be read: "}),
    "product with orders of another type": Corruption(_replace_by_string(MUG), {MUG: "cannot be read: "}),
    **{
        f"key that ends in {end!r}": Corruption(
            [("HSET", f"{{{SHOP}}}:{kind}:{end}", "id", "7")], {f"{{{SHOP}}}:{kind}:{end}": "does not end in an id"}
        )
        for kind, end in [("product", "mug"), ("product", "0"), ("order", "007"), ("order", ""), ("order", "1:old")]
    },
    "status is unknown": Corruption(
        [("HSET", COMPLETED, "status", "lost")],
        {COMPLETED: "has status 'lost', expected one of pending", MUG: "has sold 2", POT: "has sold 1"},
    ),
    "status is missing": Corruption(
        [("HDEL", COMPLETED, "status")], {COMPLETED: "has no field status", MUG: "has sold 2", POT: "has sold 1"}
    ),
    "status of a pending order is missing": Corruption(
        [("HDEL", PENDING_ORDER, "status")],
        {
            PENDING_ORDER: "has no field status",
            MUG: "has held 3, but its orders add up to 0",
            CUP: "has held 1, but its orders add up to 0",
        },
    ),
    "status of a completed order is cancelled": Corruption(
        [("HSET", COMPLETED, "status", "cancelled")],
        {MUG: "has sold 2, but its orders add up to 0", POT: "has sold 1, but its orders add up to 0"},
    ),
    "status of a cancelled order is completed": Corruption(
        [("HSET", CANCELLED, "status", "completed")], {POT: "has sold 1, but its orders add up to 3"}
    ),
    "status of a pending order is completed": Corruption(
        [("HSET", PENDING_ORDER, "status", "completed")],
        {PENDING_ORDER: f"is completed, but is in {HOLDS}", MUG: "has held 3", CUP: "has held 1"},
    ),
    "status of an expired order is pending": Corruption(
        [("HSET", EXPIRED, "status", "pending")],
        {EXPIRED: f"is pending, but is not in {HOLDS}", POT: "has held 0, but its orders add up to 1"},
    ),
    "total is wrong": Corruption(
        [("HSET", COMPLETED, "total_price", "44.97")],
        {COMPLETED: "has total_price 44.97, but the sum of its lines is 44.98"},
    ),
    **{
        f"total is {value!r}": Corruption(
            [_set_or_delete(COMPLETED, "total_price", value)], {COMPLETED: wrong_field("total_price", value)}
        )
        for value in ("much", None, "-44.98", "44.980")
    },
    "total of a cancelled order is wrong": Corruption(
        [("HSET", CANCELLED, "total_price", "0")], {CANCELLED: "has total_price 0, but the sum of its lines is 10.00"}
    ),
    "price of a line is wrong": Corruption(
        [("HSET", COMPLETED, "products", "1: 2 x 19.98\n2: 1 x 5.00")],
        {COMPLETED: "has total_price 44.98, but the sum of its lines is 44.96"},
    ),
    "quantity of a line is wrong": Corruption(
        [("HSET", COMPLETED, "products", "1: 2 x 19.99\n2: 2 x 5.00")],
        {COMPLETED: "but the sum of its lines is 49.98", POT: "has sold 1, but its orders add up to 2"},
    ),
    "quantity and total are wrong": Corruption(
        [("HSET", COMPLETED, "products", "1: 2 x 19.99\n2: 2 x 5.00", "total_price", "49.98")],
        {POT: "has sold 1, but its orders add up to 2"},
    ),
    "a line names another product": Corruption(
        [("HSET", COMPLETED, "products", "4: 2 x 19.99\n2: 1 x 5.00")],
        {MUG: "has sold 2, but its orders add up to 0", SPOON: "has sold 0, but its orders add up to 2"},
    ),
    "a line names a product that does not exist": Corruption(
        [("HSET", COMPLETED, "products", "1: 2 x 19.99\n2: 1 x 4.00\n77: 1 x 1.00")],
        {product_key(77): "does not exist"},
    ),
    **{
        f"lines are {value!r}": Corruption(
            [_set_or_delete(COMPLETED, "products", value)],
            {COMPLETED: wrong_field("products", value), MUG: "has sold 2", POT: "has sold 1"},
        )
        for value in ("two mugs", None, "", "1: 2 x 19.99\n2: 1 x 5.00\n", "1: -2 x 19.99")
    },
    "id of an order is wrong": Corruption([("HSET", COMPLETED, "id", "3")], {COMPLETED: "has id '3', expected 1"}),
    "id of an order is missing": Corruption([("HDEL", COMPLETED, "id")], {COMPLETED: "has no field id"}),
    **{
        f"expires_at is {value!r}": Corruption(
            [_set_or_delete(PENDING_ORDER, "expires_at", value)], {PENDING_ORDER: wrong_field("expires_at", value)}
        )
        for value in ("soon", None, "-1", "1.5")
    },
    "expires_at differs from the score in holds": Corruption(
        [("HSET", PENDING_ORDER, "expires_at", NOON)],
        {PENDING_ORDER: f"has expires_at {NOON}, but its score in {HOLDS} is"},
    ),
    **{
        f"score in holds is {score}": Corruption(
            [("ZADD", HOLDS, score, 2)], {PENDING_ORDER: f"but its score in {HOLDS} is {score}"}
        )
        for score in ("5", str(NOON + 900_001), f"{NOON + 900_000}.5", "inf", "-inf")
    },
    "pending, but not in holds": Corruption(
        [("ZREM", HOLDS, 2)], {PENDING_ORDER: f"is not in {HOLDS}: it would never expire"}
    ),
    "pending, but not in pending": Corruption([("ZREM", PENDING, 2)], {PENDING_ORDER: f"but is not in {PENDING}"}),
    **{
        f"score in pending is {score}": Corruption(
            [("ZADD", PENDING, score, 2)],
            {PENDING_ORDER: f"is pending, but its score in {PENDING} is {score}, expected 2"},
        )
        for score in ("3", "2.5", "inf")
    },
    **{
        f"{status}, but in {name}": Corruption(
            [("ZADD", index, 5, order_id)], {order_key(order_id): f"is {status}, but is in {index}"}
        )
        for order_id, status in [(1, "completed"), (3, "cancelled"), (4, "expired")]
        for name, index in [("holds", HOLDS), ("pending", PENDING)]
    },
    **{
        f"{name} has a member without an order": Corruption(
            [("ZADD", index, 5, 60)], {index: "has the member 60, but there is no such order"}
        )
        for name, index in [("holds", HOLDS), ("pending", PENDING)]
    },
    **{
        f"a member of {name} is not an id": Corruption(
            [("ZADD", index, 5, "five")], {index: "has the member 'five', which is not an id"}
        )
        for name, index in [("holds", HOLDS), ("pending", PENDING)]
    },
    "order id is above the counter": Corruption(
        [
            (
                "HSET",
                order_key(1000),
                "id",
                1000,
                "status",
                "cancelled",
                "products",
                "1: 1 x 1.00",
                "total_price",
                "1.00",
            )
        ],
        {order_key(1000): f"is not listed by GET /orders: {COUNTER} is only {ID_BLOCK_SIZE}"},
    ),
    "counter was set back": Corruption(
        [("SET", COUNTER, 4)],
        {OF_WITHDRAWN: f"is not listed by GET /orders: {COUNTER} is only 4"},
    ),
    "completed order was deleted": Corruption(
        [("DEL", COMPLETED)],
        {MUG: "has sold 2, but its orders add up to 0", POT: "has sold 1, but its orders add up to 0"},
    ),
    "pending order was deleted": Corruption(
        [("DEL", PENDING_ORDER)],
        {
            MUG: "has held 3, but its orders add up to 0",
            CUP: "has held 1, but its orders add up to 0",
            HOLDS: "has the member 2, but there is no such order",
            PENDING: "has the member 2, but there is no such order",
        },
    ),
    "cancelled order of another type": Corruption(_replace_by_string(CANCELLED), {CANCELLED: "cannot be read: "}),
    "pending order of another type": Corruption(
        _replace_by_string(PENDING_ORDER), {PENDING_ORDER: "cannot be read: ", MUG: "has held 3", CUP: "has held 1"}
    ),
    **{
        f"{name} is a string": Corruption(_replace_by_string(key), {key: "is a string, not a sorted set"})
        for name, key in [("holds", HOLDS), ("pending", PENDING), ("products", INDEX)]
    },
    "events is a string": Corruption(_replace_by_string(EVENTS), {EVENTS: "is a string, not a stream"}),
    **{
        f"{key} is not a number": Corruption([("SET", key, "many")], {key: "is 'many', not a number"})
        for key in counters(SHOP)
    },
    **{
        f"{key} is a list": Corruption([("DEL", key), ("RPUSH", key, "1")], {key: "is a list, not a number"})
        for key in counters(SHOP)
    },
}


@pytest.mark.parametrize("corruption", CORRUPTIONS.values(), ids=CORRUPTIONS)
async def test_a_corruption_is_reported_under_its_keys_only(shop: AuditedShop, corruption: Corruption) -> None:
    for command in corruption.commands:
        await shop.redis.send(*command)
    report = await shop.audit()
    assert not report.balanced
    assert {finding.key for finding in report.findings} == set(corruption.findings), report.findings
    for key, message in corruption.findings.items():
        assert any(finding.key == key and message in finding.what for finding in report.findings), report.findings

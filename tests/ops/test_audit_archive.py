"""What the audit finds about archived orders."""

from pathlib import Path

import pytest

from service.ops.audit_report import Finding
from service.storage import keys
from tests.support.archive import LATER, run
from tests.support.audited_shop import MUG, AuditedShop, order_key
from tests.support.shop import SHOP

ARCHIVED = keys.archived(SHOP)

TAMPERINGS: dict[str, tuple[tuple[str | int, ...], str, str]] = {
    "archived units are added": (
        ("HINCRBY", MUG, "archived", 1),
        MUG,
        "has sold 2, but its orders add up to 0, and archived to 3",
    ),
    "archived units are no number": (
        ("HSET", MUG, "archived", "many"),
        MUG,
        "has archived 'many', expected a whole number, 0 or more",
    ),
    "archived units are lost": (
        ("HDEL", MUG, "archived"),
        MUG,
        "has sold 2, but its orders add up to 0",
    ),
    "written off": (
        ("HSET", MUG, "archived_written_off", 1),
        MUG,
        "has written_off 0, but its orders add up to 0, and archived_written_off to 1",
    ),
    "an archived order is back": (
        ("HSET", order_key(4), "id", 4, "status", "expired"),
        order_key(4),
        f"exists, but {ARCHIVED} says that this order was archived",
    ),
    "a range is too high": (
        ("ZADD", ARCHIVED, 9000, 9000),
        ARCHIVED,
        f"has ids up to 9000, but {keys.order_ids(SHOP)} is only 256",
    ),
    "ranges overlap": (
        ("ZADD", ARCHIVED, 9, 4),
        ARCHIVED,
        "has the range 4 to 9, which overlaps the range that ends at 5",
    ),
    "a range has no id": (
        ("ZADD", ARCHIVED, 9, "first"),
        ARCHIVED,
        "has the range 'first' to 9, which is no range of ids",
    ),
    "the ranges are gone": (("DEL", ARCHIVED), ARCHIVED, "has no id, but products count units of archived orders"),
    "the ranges are a text": (("SET", ARCHIVED, "text"), ARCHIVED, "is a string, not a sorted set"),
}


@pytest.mark.parametrize("tampering", TAMPERINGS)
async def test_the_audit_finds_what_is_wrong_with_archived_orders(
    shop: AuditedShop, tmp_path: Path, tampering: str
) -> None:
    command, key, what = TAMPERINGS[tampering]
    shop.clock.forward(LATER)
    await run(shop, tmp_path / "a", keep_days=0)
    await shop.redis.send(*command)
    assert Finding(key, what) in (await shop.audit()).findings

"""lua/archive_orders.lua: what it refuses to remove, and the ranges of archived ids."""

import pytest

from service.storage import keys
from service.storage.sender import CommandSender, ErrorReply
from tests.support.redis_content import dump, hash_at, nothing_changes, scores_at
from tests.support.scripts import (
    NOW_MS,
    run_add_product,
    run_archive_orders,
    run_cancel_order,
    run_place_order,
    run_return_order,
)
from tests.support.shop import SHOP

ARCHIVED, MUG = keys.archived(SHOP), keys.product(SHOP, 7)
SOLD = (7, 1, 0)


async def sell(redis: CommandSender, *order_ids: int, key: str = "") -> None:
    """Add a product with the id 7, and sell one unit with each order."""
    await run_add_product(redis, 7, stock=1000)
    for order_id in order_ids:
        assert (await run_place_order(redis, (7, 1), order_id=order_id, key=key))[0] == "placed"


async def test_an_order_that_is_not_as_in_the_file_stays(redis: CommandSender) -> None:
    await sell(redis, 1)
    filed = await hash_at(redis, keys.order(SHOP, 1))
    await run_return_order(redis, 1, (7, 1, 1, "19.99"))
    async with nothing_changes(redis):
        assert await run_archive_orders(redis, [1], SOLD, fields_of={1: filed}) == ["removed", "changed"]
    changed = {**await hash_at(redis, keys.order(SHOP, 1)), "refunded": "0.00"}
    async with nothing_changes(redis):
        assert await run_archive_orders(redis, [1], SOLD, fields_of={1: changed}) == ["removed", "changed"]


async def test_a_pending_order_stays_though_it_is_in_the_file(redis: CommandSender) -> None:
    await sell(redis)
    await run_place_order(redis, (7, 1), order_id=1, hold_ms=1)
    async with nothing_changes(redis):
        assert await run_archive_orders(redis, [1], SOLD, now_ms=NOW_MS + 10**9) == ["removed", "early"]


@pytest.mark.parametrize(("age_ms", "word"), [(999, "early"), (1000, "removed")])
async def test_an_order_stays_until_it_is_old_enough(redis: CommandSender, age_ms: int, word: str) -> None:
    await sell(redis, 1)
    assert await run_archive_orders(redis, [1], SOLD, keep_ms=1000, now_ms=NOW_MS + age_ms) == ["removed", word]


@pytest.mark.parametrize("change", ["cancelled", "returned"])
async def test_the_age_of_an_order_begins_with_its_last_change(redis: CommandSender, change: str) -> None:
    await sell(redis, 1)
    if change == "returned":
        await run_return_order(redis, 1, (7, 1, 1, "19.99"), now_ms=NOW_MS + 500)
        order_id, lines = 1, [(7, 0, 0)]
    else:
        await run_place_order(redis, (7, 1), order_id=2, hold_ms=500)
        await run_cancel_order(redis, 2, (7, 1), now_ms=NOW_MS + 100)
        order_id, lines = 2, []
    assert await run_archive_orders(redis, [order_id], *lines, now_ms=NOW_MS + 1499) == ["removed", "early"]
    assert await run_archive_orders(redis, [order_id], *lines, now_ms=NOW_MS + 1500) == ["removed", "removed"]


async def test_the_clock_of_redis_decides_if_no_time_is_given(redis: CommandSender) -> None:
    await sell(redis)
    await run_place_order(redis, (7, 1), order_id=1, now_ms=None)
    assert await run_archive_orders(redis, [1], SOLD, now_ms=None, keep_ms=60_000) == ["removed", "early"]
    assert await run_archive_orders(redis, [1], SOLD, now_ms=None, keep_ms=0) == ["removed", "removed"]


async def test_orders_that_are_gone_or_changed_do_not_keep_the_others(redis: CommandSender) -> None:
    await sell(redis, 1, 3)
    filed = {number: await hash_at(redis, keys.order(SHOP, number)) for number in (1, 3)}
    filed = {**filed, 2: filed[1], 3: {**filed[3], "id": "4"}}
    reply = await run_archive_orders(redis, [1, 2, 3], SOLD, fields_of=filed)
    assert reply == ["removed", "removed", "absent", "changed"]
    assert (await hash_at(redis, MUG))["archived"] == "1"


async def test_consecutive_ids_become_one_range(redis: CommandSender) -> None:
    await sell(redis, *range(1, 10))
    for order_ids, ranges in (
        ([2], {"2": 2}),
        ([4, 5], {"2": 2, "4": 5}),
        ([7, 9], {"2": 2, "4": 5, "7": 7, "9": 9}),
        ([3], {"2": 5, "7": 7, "9": 9}),
        ([1, 6], {"1": 7, "9": 9}),
        ([8], {"1": 9}),
    ):
        await run_archive_orders(redis, order_ids, SOLD)
        assert await scores_at(redis, ARCHIVED) == ranges


async def test_a_key_of_another_request_stays(redis: CommandSender) -> None:
    await sell(redis, 1, key="k-1")
    outcome = keys.idempotency(SHOP, "k-1")
    await redis.send("HSET", outcome, "order", 2)
    await run_archive_orders(redis, [1], SOLD, key="k-1")
    assert await hash_at(redis, outcome) == {"fingerprint": "f1", "order": "2"}


async def test_the_key_of_the_order_is_removed(redis: CommandSender) -> None:
    await sell(redis, 1, key="k-1")
    await run_archive_orders(redis, [1], SOLD, key="k-1")
    assert await redis.send("EXISTS", keys.idempotency(SHOP, "k-1")) == 0


async def test_unsorted_orders_are_refused(redis: CommandSender) -> None:
    await sell(redis, 1, 2)
    before = await dump(redis)
    with pytest.raises(ErrorReply, match="not sorted"):
        await run_archive_orders(redis, [2, 1], SOLD)
    assert await dump(redis) == before

"""Replies of the scripts that refuse or replay: Redis is unchanged, except for what an Idempotency-Key remembers."""

from collections.abc import Awaitable, Callable

import pytest

from service.storage import keys
from service.storage.sender import CommandSender, ErrorReply
from tests.support.products import product_reply
from tests.support.redis_content import dump
from tests.support.scripts import (
    run_add_product,
    run_change_product,
    run_move_stock,
    run_place_order,
    run_withdraw_product,
)
from tests.support.shop import SHOP

RUNS_WITHOUT_EFFECT: list[tuple[Callable[[CommandSender], Awaitable[list[str]]], list[str]]] = [
    (lambda redis: run_add_product(redis, 7, stock=99), ["taken"]),
    (lambda redis: run_add_product(redis, 8, stock=99), ["taken"]),
    (lambda redis: run_change_product(redis, 7), product_reply("changed")),
    (lambda redis: run_change_product(redis, 7, "price", "19.99"), product_reply("changed")),
    (lambda redis: run_change_product(redis, 8, "price", "5.00"), ["absent"]),
    (lambda redis: run_change_product(redis, 99, "price", "5.00"), ["absent"]),
    (lambda redis: run_withdraw_product(redis, 8), ["withdrawn"]),
    (lambda redis: run_withdraw_product(redis, 99), ["absent"]),
    (lambda redis: run_place_order(redis, (7, 1), order_id=40), ["exists"]),
    (lambda redis: run_place_order(redis, (7, 2), (99, 1), order_id=40, key="new"), ["exists"]),
    (lambda redis: run_place_order(redis, (7, 1), order_id=40, key="placed-40"), ["exists"]),
    (lambda redis: run_place_order(redis, (7, 1), key="placed-40"), ["replayed", "40"]),
    (lambda redis: run_place_order(redis, (7, 99), key="placed-40", fingerprint="f1"), ["replayed", "40"]),
    (lambda redis: run_place_order(redis, (7, 1), key="placed-40", fingerprint="f2"), ["reused"]),
    (lambda redis: run_place_order(redis, (7, 1), key="refused", fingerprint="f2"), ["reused"]),
    (lambda redis: run_place_order(redis, (7, 1), key="refused"), ["refused", "short\n10\n5"]),
    (lambda redis: run_place_order(redis, (7, 11), (9, 5)), ["short", "7 11 10"]),
    (lambda redis: run_place_order(redis, (7, 11), (9, 6)), ["short", "7 11 10", "9 6 5"]),
    (lambda redis: run_place_order(redis, (9, 1), (8, 1)), ["unknown", "8 1 unknown"]),
    (
        lambda redis: run_place_order(redis, (7, 11), (9, 5), (99, 1000000)),
        ["unknown", "7 11 10", "99 1000000 unknown"],
    ),
    (lambda redis: run_place_order(redis, (99, 1), (7, 11)), ["unknown", "99 1 unknown", "7 11 10"]),
    (
        lambda redis: run_place_order(redis, (7, 2), (9, 1), expected_cents=4697),
        ["price_changed", "46.98", "7 19.99", "9 7.00"],
    ),
    (
        lambda redis: run_place_order(redis, (9, 1), (7, 1), hold_ms=1, expected_cents=0),
        ["price_changed", "26.99", "9 7.00", "7 19.99"],
    ),
    (lambda redis: run_place_order(redis, (7, 11), expected_cents=1), ["short", "7 11 10"]),
    (lambda redis: run_place_order(redis, (10, 1_000_000)), ["too_large"]),
]


@pytest.mark.parametrize(
    ("run", "reply"), RUNS_WITHOUT_EFFECT, ids=lambda value: value[0] if isinstance(value, list) else ""
)
async def test_a_refusal_or_a_replay_changes_nothing_in_redis(
    redis: CommandSender, run: Callable[[CommandSender], Awaitable[list[str]]], reply: list[str]
) -> None:
    await run_add_product(redis, 7, stock=11)
    await run_add_product(redis, 8)
    await run_withdraw_product(redis, 8)
    await run_add_product(redis, 9, stock=5, price="7.00")
    await run_add_product(redis, 10, stock=1_000_000, price="999999999.99")
    assert (await run_place_order(redis, (7, 1), order_id=40, key="placed-40"))[0] == "placed"
    assert (await run_place_order(redis, (7, 11), (9, 6), key="refused"))[0] == "short"
    before = await dump(redis)
    assert await run(redis) == reply
    assert await dump(redis) == before


@pytest.mark.parametrize("hold", [None, 900_000], ids=["completed", "pending"])
@pytest.mark.parametrize("key", ["", "k-1"], ids=["no key", "key"])
async def test_a_script_that_runs_again_with_the_same_order_id_changes_nothing(
    redis: CommandSender, hold: int | None, key: str
) -> None:
    await run_add_product(redis, 7)
    assert (await run_place_order(redis, (7, 3), hold_ms=hold, key=key))[0] == "placed"
    before = await dump(redis)
    assert await run_place_order(redis, (7, 3), hold_ms=hold, key=key) == ["exists"]
    assert await dump(redis) == before


@pytest.mark.parametrize(
    ("lines", "expected", "reply", "remembered"),
    [
        ([(7, 11)], None, ["short", "7 11 10"], "short\n10"),
        ([(99, 1), (7, 11)], None, ["unknown", "99 1 unknown", "7 11 10"], "unknown\n10\nu"),
        ([(100, 1), (99, 2), (7, 1)], None, ["unknown", "100 1 unknown", "99 2 unknown"], "unknown\n\nu*2"),
        ([(7, 1)], 1, ["price_changed", "19.99", "7 19.99"], "price_changed\n19.99\n19.99"),
        (
            [(10, 1), (7, 1)],
            1,
            ["price_changed", "1000000019.98", "10 999999999.99", "7 19.99"],
            "price_changed\n1000000019.98\n19.99\n999999999.99",
        ),
        ([(10, 1_000_000)], None, ["too_large"], "too_large"),
        ([(7, 1), (10, 1_000_000)], None, ["too_large"], "too_large"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) and isinstance(value[0], str) else "",
)
async def test_a_key_remembers_its_refusal_for_some_time_and_nothing_else_changes(
    redis: CommandSender, lines: list[tuple[int, int]], expected: int | None, reply: list[str], remembered: str
) -> None:
    await run_add_product(redis, 7)
    await run_add_product(redis, 10, stock=1_000_000, price="999999999.99")
    before, name = await dump(redis), keys.idempotency(SHOP, "k-1")
    assert await run_place_order(redis, *lines, expected_cents=expected, key="k-1", refusal_ms=60_000) == reply
    assert await dump(redis) == {
        **before,
        name: ("hash", {"fingerprint": "f1", "refusal": remembered}, True),
        keys.refusals(SHOP): ("string", "1", True),
    }
    assert 0 < await redis.send("PTTL", name) <= 60_000
    assert await run_place_order(redis, *lines, expected_cents=expected, key="k-1") == ["refused", remembered]


async def test_a_repeated_request_does_not_extend_the_time_for_which_its_refusal_is_remembered(
    redis: CommandSender,
) -> None:
    await run_add_product(redis, 7)
    await run_place_order(redis, (7, 11), key="k-1", refusal_ms=60_000)
    assert (await run_place_order(redis, (7, 11), key="k-1", refusal_ms=86_400_000))[0] == "refused"
    assert 0 < await redis.send("PTTL", keys.idempotency(SHOP, "k-1")) <= 60_000


async def test_a_key_can_place_an_order_after_its_refusal_is_forgotten_and_is_then_kept_for_ever(
    redis: CommandSender,
) -> None:
    await run_add_product(redis, 7)
    await run_place_order(redis, (7, 11), key="k-1")
    await redis.send("PEXPIRE", keys.idempotency(SHOP, "k-1"), 0)
    assert (await run_place_order(redis, (7, 1), key="k-1"))[0] == "placed"
    assert await redis.send("PTTL", keys.idempotency(SHOP, "k-1")) == -1


async def test_a_remembered_refusal_is_replayed_after_new_stock_has_arrived(redis: CommandSender) -> None:
    await run_add_product(redis, 7)
    await run_place_order(redis, (7, 11), key="k-1")
    await redis.send("HSET", keys.product(SHOP, 7), "stock", 11, "received", 11)
    before = await dump(redis)
    assert await run_place_order(redis, (7, 11), key="k-1") == ["refused", "short\n10"]
    assert await dump(redis) == before


async def test_after_many_refusals_further_ones_are_remembered_for_a_short_time(redis: CommandSender) -> None:
    await run_add_product(redis, 7)
    for number in range(3):
        reply = await run_place_order(redis, (7, 11), key=f"order-{number}", refusals_max=4)
        assert reply == ["short", "7 11 10"]
    assert await run_move_stock(redis, 7, -11, key="stock-1", refusals_max=4) == ["short", "10"]
    assert await run_place_order(redis, (7, 11), key="order-4", refusals_max=4) == ["short", "7 11 10"]
    assert await run_move_stock(redis, 7, -11, key="stock-2", refusals_max=4) == ["short", "10"]
    long = ("order-0", "order-1", "order-2", "stock-1")
    for key in (*long, "order-4", "stock-2"):
        left = await redis.send("PTTL", keys.idempotency(SHOP, key))
        assert 1000 < left <= 60_000 if key in long else 0 < left <= 1000
    assert 1000 < await redis.send("PTTL", keys.refusals(SHOP)) <= 60_000
    # The refusal is replayed, and an order that is placed is remembered for ever.
    assert await run_place_order(redis, (7, 11), key="order-0", refusals_max=4) == ["refused", "short\n10"]
    assert (await run_place_order(redis, (7, 1), key="order-5", refusals_max=4))[0] == "placed"
    assert await redis.send("PTTL", keys.idempotency(SHOP, "order-5")) == -1


@pytest.mark.parametrize("run", [run_place_order, run_move_stock])
@pytest.mark.parametrize("command", [("SET", "many"), ("SET", "1.5"), ("HSET", "a", "b")])
async def test_a_damaged_number_of_refusals_fails_before_anything_is_written(
    redis: CommandSender, run: Callable[..., Awaitable[list[str]]], command: tuple[str, ...]
) -> None:
    await run_add_product(redis, 7)
    await redis.send(command[0], keys.refusals(SHOP), *command[1:])
    before = await dump(redis)
    arguments = ((7, 11),) if run is run_place_order else (7, -11)
    with pytest.raises(ErrorReply):
        await run(redis, *arguments, key="k-1")
    assert await dump(redis) == before
    assert (await run_place_order(redis, (7, 1), key="k-2"))[0] == "placed"

"""Rules for all scripts: a failed script writes nothing, the event stream stays short, no global variable is left.

A new script that writes needs entries in EXAMPLES, and in the tables of what its examples read and need.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import pytest

from service.storage import keys
from service.storage.connection import MultiplexedConnection
from service.storage.sender import CommandSender, ErrorReply
from tests.support.engine_memory import full_memory
from tests.support.partition_scripts import (
    SENT,
    TAKEN,
    UNPROPAGATED,
    put_outgoing,
    run_claim_units,
    run_give_units,
    run_note_propagated,
    run_push_product,
    run_refuse,
    run_settle_units,
    run_take_units,
)
from tests.support.redis_content import dump, events_at
from tests.support.scripts import (
    NOW_MS,
    SCRIPTS,
    run_add_product,
    run_archive_orders,
    run_cancel_order,
    run_change_product,
    run_complete_order,
    run_expire_orders,
    run_extend_hold,
    run_mark_batch,
    run_mark_restored,
    run_move_counter,
    run_move_stock,
    run_place_order,
    run_return_order,
    run_script,
    run_upgrade_orders,
    run_withdraw_product,
)
from tests.support.shop import SHOP

EVENTS, HOLDS, PENDING, PRODUCTS = keys.events(SHOP), keys.holds(SHOP), keys.pending(SHOP), keys.products(SHOP)
MUG, POT = keys.product(SHOP, 7), keys.product(SHOP, 9)
IDEMPOTENCY, ARCHIVED = keys.idempotency(SHOP, "k-1"), keys.archived(SHOP)
OUTGOING = keys.outgoing(SHOP, 1)
PARTITIONS = 4

HOLD_MS = 900_000
LINES = ((7, 1), (9, 1))
TO_COMPLETE, TO_CANCEL, TO_EXPIRE, TO_EXPIRE_TOO = 31, 32, 33, 34
"""The pending orders of `fill`, each with LINES."""
TO_RETURN = 35
"""A completed order of `fill`, with two units of each product."""
NAMED_TO_CANCEL, NAMED_TO_EXPIRE, NAMED_TO_RETURN = 36, 37, 38
"""Orders of `fill` with LINES that have a customer: two pending ones, and a completed one."""
SOLD = ((7, 2, 0), (9, 2, 0))
"""The lines of TO_RETURN as an archive counts them."""
NAMES: dict[str, Any] = {"customer": "anna", "reference": "cart 1"}
ANNA, ANNAS_ORDERS, CART = (
    keys.customer(SHOP, "anna"),
    keys.customer_orders(SHOP, "anna"),
    keys.reference_orders(SHOP, "cart 1"),
)


def _filed(order_id: int, quantity: int, total: str, **names: str) -> dict[str, str]:
    """Return the hash of a completed order of `fill`, as an archive has it."""
    products = f"7: {quantity} x 19.99\n9: {quantity} x 19.99"
    fields = {"id": str(order_id), "status": "completed", "total_price": total, "products": products}
    return {**fields, "created_at": str(NOW_MS), **names}


FILED = {
    TO_RETURN: _filed(TO_RETURN, 2, "79.96"),
    NAMED_TO_RETURN: _filed(NAMED_TO_RETURN, 1, "39.98", **NAMES),
}


async def fill(redis: CommandSender) -> None:
    """Add the products 7 and 9, and place orders: for each script that ends a hold, and for returns.

    Two transfers are on their way to partition 1, and one has come from partition 2.
    """
    await run_add_product(redis, 7, stock=19)
    await run_add_product(redis, 9, stock=19)
    for order_id in (TO_COMPLETE, TO_CANCEL, TO_EXPIRE, TO_EXPIRE_TOO):
        assert (await run_place_order(redis, *LINES, order_id=order_id, hold_ms=HOLD_MS))[0] == "placed"
    await run_place_order(redis, (7, 2), (9, 2), order_id=TO_RETURN)
    for order_id, hold_ms in ((NAMED_TO_CANCEL, HOLD_MS), (NAMED_TO_EXPIRE, HOLD_MS), (NAMED_TO_RETURN, None)):
        reply = await run_place_order(redis, *LINES, order_id=order_id, hold_ms=hold_ms, **NAMES)
        assert reply[0] == "placed"
    await put_outgoing(redis, 1, ["11 7 1", "12 9 2"])
    await redis.send("HSET", SENT, 1, 12)
    await redis.send("HSET", TAKEN, 2, 5)
    await redis.send("ZADD", UNPROPAGATED, 21, 7)
    for product in (MUG, POT):
        await redis.send("HSET", product, "version", 21)


class ScriptExample(NamedTuple):
    """A run of a script that changes something after `fill`."""

    script: str
    run: Callable[..., Awaitable[list[str]]]
    """Takes a CommandSender, and options of the function that runs the script."""
    reads: tuple[str, ...]
    """The Redis keys that must have the right type, except those of which the script only asks whether they exist."""
    needs: tuple[tuple[str, str], ...] = ()
    """Keys and fields without which the script must fail. Without others it replies that something is absent."""
    events: int = 1
    """The number of events that it writes."""


RETURNED = ((7, 1, 2, "19.99"), (9, 1, 2, "19.99"))
"""Lines of a return of the order TO_RETURN."""

_PLACED = (EVENTS, MUG, POT)
_SOLD_FIELDS = tuple((product, field) for product in (MUG, POT) for field in ("sold", "price"))
_HELD_FIELDS = tuple((product, field) for product in (MUG, POT) for field in ("held", "price"))


def _ended(order_id: int, *fields: str) -> dict[str, Any]:
    """Return what a script reads and needs that ends this order. `fields`: the counters that it changes."""
    order = keys.order(SHOP, order_id)
    return {
        "reads": (order, EVENTS, HOLDS, PENDING, MUG, POT),
        "needs": (
            *((order, field) for field in ("expires_at", "products")),
            *((product, field) for product in (MUG, POT) for field in fields),
        ),
    }


EXAMPLES = {
    "counter": ScriptExample(
        "move_counter",
        lambda redis, **options: run_move_counter(redis, expected="", step=5, **options),
        (),
        events=0,
    ),
    "mark": ScriptExample("mark_batch", run_mark_batch, (keys.meta(SHOP),), events=0),
    "mark_restored": ScriptExample(
        "mark_restored",
        run_mark_restored,
        (keys.skipped(SHOP), keys.meta(SHOP), EVENTS),
    ),
    "upgrade": ScriptExample(
        "upgrade_orders",
        lambda redis, **options: run_upgrade_orders(redis, (TO_RETURN, "completed_at", NOW_MS), **options),
        (keys.meta(SHOP),),
        events=0,
    ),
    "add": ScriptExample(
        "add_product",
        lambda redis, **options: run_add_product(redis, 8, **options),
        (PRODUCTS, EVENTS),
    ),
    "change": ScriptExample(
        "change_product",
        lambda redis, **options: run_change_product(redis, 7, "price", "5.00", **options),
        (MUG, EVENTS),
    ),
    "withdraw": ScriptExample(
        "withdraw_product",
        lambda redis, **options: run_withdraw_product(redis, 7, **options),
        (MUG, PRODUCTS, EVENTS),
    ),
    "stock_change": ScriptExample(
        "move_stock",
        lambda redis, **options: run_move_stock(redis, 7, 5, **options),
        (MUG, EVENTS),
        ((MUG, "held"), (MUG, "received")),
    ),
    "stock_change_keyed": ScriptExample(
        "move_stock",
        lambda redis, **options: run_move_stock(redis, 7, 5, key="k-1", **options),
        (MUG, EVENTS, IDEMPOTENCY),
        ((MUG, "held"), (MUG, "received")),
    ),
    "stock_change_refused": ScriptExample(
        "move_stock",
        lambda redis, **options: run_move_stock(redis, 7, -11, key="k-1", **options),
        (MUG, EVENTS, IDEMPOTENCY),
        ((MUG, "received"),),
        events=0,
    ),
    "sell": ScriptExample(
        "place_order",
        lambda redis, **options: run_place_order(redis, *LINES, **options),
        _PLACED,
        _SOLD_FIELDS,
    ),
    "sell_keyed": ScriptExample(
        "place_order",
        lambda redis, **options: run_place_order(redis, *LINES, key="k-1", **options),
        (*_PLACED, IDEMPOTENCY),
        _SOLD_FIELDS,
    ),
    "hold": ScriptExample(
        "place_order",
        lambda redis, **options: run_place_order(redis, *LINES, hold_ms=HOLD_MS, **options),
        (*_PLACED, HOLDS, PENDING),
        _HELD_FIELDS,
    ),
    "hold_keyed": ScriptExample(
        "place_order",
        lambda redis, **options: run_place_order(redis, *LINES, hold_ms=HOLD_MS, key="k-1", **options),
        (*_PLACED, HOLDS, PENDING, IDEMPOTENCY),
        _HELD_FIELDS,
    ),
    "place_refused": ScriptExample(
        "place_order",
        lambda redis, **options: run_place_order(redis, (7, 11), (9, 1), key="k-1", **options),
        (MUG, POT, IDEMPOTENCY),
        events=0,
    ),
    "sell_to_a_customer": ScriptExample(
        "place_order",
        lambda redis, **options: run_place_order(redis, *LINES, **NAMES, **options),
        (*_PLACED, ANNA, ANNAS_ORDERS, CART),
        _SOLD_FIELDS,
    ),
    "extend": ScriptExample(
        "extend_hold",
        lambda redis, **options: run_extend_hold(redis, TO_COMPLETE, 2 * HOLD_MS, **options),
        (keys.order(SHOP, TO_COMPLETE), EVENTS, HOLDS),
        tuple((keys.order(SHOP, TO_COMPLETE), field) for field in ("created_at", "expires_at")),
    ),
    "return": ScriptExample(
        "return_order",
        lambda redis, **options: run_return_order(redis, TO_RETURN, *RETURNED, **options),
        (keys.order(SHOP, TO_RETURN), EVENTS, MUG, POT),
        tuple((product, field) for product in (MUG, POT) for field in ("stock", "held", "sold")),
    ),
    "return_damaged_keyed": ScriptExample(
        "return_order",
        lambda redis, **options: run_return_order(
            redis, TO_RETURN, *RETURNED, restock=False, reason="damaged", key="k-1", **options
        ),
        (keys.order(SHOP, TO_RETURN), EVENTS, MUG, POT, IDEMPOTENCY),
        tuple((product, field) for product in (MUG, POT) for field in ("received", "sold")),
    ),
    "return_of_a_customer": ScriptExample(
        "return_order",
        lambda redis, **options: run_return_order(
            redis, NAMED_TO_RETURN, *[(id_, 1, 1, price) for id_, _, _, price in RETURNED], customer="anna", **options
        ),
        (keys.order(SHOP, NAMED_TO_RETURN), EVENTS, MUG, POT, ANNA),
    ),
    "return_refused": ScriptExample(
        "return_order",
        lambda redis, **options: run_return_order(redis, TO_RETURN, (7, 3, 2, "19.99"), key="k-1", **options),
        (keys.order(SHOP, TO_RETURN), EVENTS, IDEMPOTENCY),
        events=0,
    ),
    "count_stock": ScriptExample(
        "move_stock",
        lambda redis, **options: run_move_stock(redis, 7, "", count=40, **options),
        (MUG, EVENTS),
        ((MUG, "held"), (MUG, "received")),
    ),
    "set_rules": ScriptExample(
        "change_product",
        lambda redis, **options: run_change_product(redis, 7, "limit_per_customer", "2", **options),
        (MUG, EVENTS),
    ),
    "cancel_of_a_customer": ScriptExample(
        "cancel_order",
        lambda redis, **options: run_cancel_order(redis, NAMED_TO_CANCEL, *LINES, customer="anna", **options),
        (keys.order(SHOP, NAMED_TO_CANCEL), EVENTS, HOLDS, PENDING, MUG, POT, ANNA),
    ),
    "expire_of_a_customer": ScriptExample(
        "expire_orders",
        lambda redis, **options: run_expire_orders(
            redis, [NAMED_TO_EXPIRE], *LINES, customer="anna", now_ms=NOW_MS + HOLD_MS, **options
        ),
        (keys.order(SHOP, NAMED_TO_EXPIRE), EVENTS, HOLDS, PENDING, MUG, POT, ANNA),
    ),
    "archive": ScriptExample(
        "archive_orders",
        lambda redis, **options: run_archive_orders(redis, [TO_RETURN], *SOLD, fields_of=FILED, **options),
        (EVENTS, ARCHIVED, MUG, POT, keys.order(SHOP, TO_RETURN)),
        tuple((product, "sold") for product in (MUG, POT)),
    ),
    "archive_of_a_customer": ScriptExample(
        "archive_orders",
        lambda redis, **options: run_archive_orders(
            redis, [NAMED_TO_RETURN], (7, 1, 0), (9, 1, 0), fields_of=FILED, **NAMES, **options
        ),
        (EVENTS, ARCHIVED, MUG, POT, keys.order(SHOP, NAMED_TO_RETURN), ANNA, ANNAS_ORDERS, CART),
        tuple((product, "sold") for product in (MUG, POT)),
    ),
    "complete": ScriptExample(
        "complete_order",
        lambda redis, **options: run_complete_order(redis, TO_COMPLETE, *LINES, **options),
        **_ended(TO_COMPLETE, "held", "sold"),
    ),
    "cancel": ScriptExample(
        "cancel_order",
        lambda redis, **options: run_cancel_order(redis, TO_CANCEL, *LINES, **options),
        **_ended(TO_CANCEL, "held", "stock"),
    ),
    "cancel_overdue": ScriptExample(
        "cancel_order",
        lambda redis, **options: run_cancel_order(redis, TO_CANCEL, *LINES, now_ms=NOW_MS + HOLD_MS, **options),
        **_ended(TO_CANCEL, "held", "stock"),
    ),
    "expire": ScriptExample(
        "expire_orders",
        lambda redis, **options: run_expire_orders(redis, [TO_EXPIRE], *LINES, now_ms=NOW_MS + HOLD_MS, **options),
        **_ended(TO_EXPIRE, "held", "stock"),
    ),
    "add_in_partitions": ScriptExample(
        "add_product",
        lambda redis, **options: run_add_product(redis, 8, partitions=PARTITIONS, **options),
        (PRODUCTS, EVENTS, UNPROPAGATED),
    ),
    "change_in_partitions": ScriptExample(
        "change_product",
        lambda redis, **options: run_change_product(redis, 7, "price", "5.00", partitions=PARTITIONS, **options),
        (MUG, EVENTS, UNPROPAGATED),
        ((MUG, "version"),),
    ),
    "withdraw_in_partitions": ScriptExample(
        "withdraw_product",
        lambda redis, **options: run_withdraw_product(redis, 7, partitions=PARTITIONS, **options),
        (MUG, PRODUCTS, EVENTS, UNPROPAGATED),
        ((MUG, "version"),),
    ),
    "give": ScriptExample(
        "give_units",
        lambda redis, **options: run_give_units(redis, 1, (7, 1, 0, 0), (9, 1, 0, 0), settled="11", **options),
        (SENT, OUTGOING, MUG, POT),
        ((MUG, "received"), (POT, "received")),
        events=0,
    ),
    "take": ScriptExample(
        "take_units",
        lambda redis, **options: run_take_units(redis, 2, "5 7 1", "6 7 1", "8 9 3", **options),
        (TAKEN, MUG, POT),
        events=0,
    ),
    "settle": ScriptExample(
        "settle_units",
        lambda redis, **options: run_settle_units(redis, 1, "11", **options),
        (OUTGOING,),
        events=0,
    ),
    "claim": ScriptExample(
        "claim_units",
        lambda redis, **options: run_claim_units(redis, 7, 9, **options),
        (MUG, POT),
        events=0,
    ),
    "push": ScriptExample(
        "push_product",
        lambda redis, **options: run_push_product(redis, 7, 22, "name", "Cup", **options),
        (MUG, PRODUCTS),
        events=0,
    ),
    "propagated": ScriptExample(
        "note_propagated",
        lambda redis, **options: run_note_propagated(redis, 7, 21, **options),
        (MUG, UNPROPAGATED),
        events=0,
    ),
    "refuse": ScriptExample(
        "refuse",
        lambda redis, **options: run_refuse(redis, "k-1", **options),
        (IDEMPOTENCY,),
        events=0,
    ),
    "expire_two": ScriptExample(
        "expire_orders",
        lambda redis, **options: run_expire_orders(
            redis, [TO_EXPIRE_TOO, TO_EXPIRE], *LINES, now_ms=NOW_MS + HOLD_MS, **options
        ),
        **_ended(TO_EXPIRE, "held", "stock"),
        events=2,
    ),
}

ALLOWED_WITHOUT_MEMORY = {"complete_order", "cancel_order", "expire_orders", "archive_orders", "mark_batch"}
"""The scripts that must work with full memory: they write little, and end holds or empty it, or come after those."""


def flags_of(script: str) -> list[str]:
    """Return the flags in the first line of a script."""
    match = re.match(r"#!lua(?: flags=(\S+))?\n", SCRIPTS[script].source)
    assert match
    return (match[1] or "").split(",")


def test_every_script_that_writes_has_an_example_here() -> None:
    assert {example.script for example in EXAMPLES.values()} == {
        name for name in SCRIPTS if "no-writes" not in flags_of(name)
    }


@pytest.mark.parametrize("name", EXAMPLES)
async def test_every_example_changes_something_and_writes_the_event_of_the_change(
    redis: CommandSender, name: str
) -> None:
    await fill(redis)
    before, events = await dump(redis), await events_at(redis, EVENTS)
    await EXAMPLES[name].run(redis)
    assert await dump(redis) != before
    assert len(await events_at(redis, EVENTS)) == len(events) + EXAMPLES[name].events


async def assert_fails_and_writes_nothing(
    redis: CommandSender, run: Awaitable[object], match: str | None = None
) -> None:
    before = await dump(redis)
    with pytest.raises(ErrorReply, match=match):
        await run
    assert await dump(redis) == before


# A key of Redis that has another type, or too few fields


@pytest.mark.parametrize("name", EXAMPLES)
async def test_a_script_fails_and_changes_nothing_when_a_redis_key_has_another_type(
    redis: CommandSender, name: str
) -> None:
    await fill(redis)
    for key in EXAMPLES[name].reads:
        exists = await redis.send("EXISTS", key)
        if exists:
            await redis.send("RENAME", key, "kept")
        await redis.send("SET", key, "of another type")
        await assert_fails_and_writes_nothing(redis, EXAMPLES[name].run(redis), "WRONGTYPE")
        await redis.send("DEL", key)
        if exists:
            await redis.send("RENAME", "kept", key)
    await EXAMPLES[name].run(redis)


@pytest.mark.parametrize("name", [name for name, example in EXAMPLES.items() if example.needs])
async def test_a_script_fails_and_changes_nothing_when_a_needed_field_is_missing(
    redis: CommandSender, name: str
) -> None:
    await fill(redis)
    for key, field in EXAMPLES[name].needs:
        value = await redis.send("HGET", key, field)
        assert await redis.send("HDEL", key, field) == 1
        await assert_fails_and_writes_nothing(redis, EXAMPLES[name].run(redis))
        await redis.send("HSET", key, field, value)
    await EXAMPLES[name].run(redis)


@pytest.mark.parametrize("name", [name for name, example in EXAMPLES.items() if example.script == "place_order"])
async def test_an_order_key_of_another_type_counts_as_an_order(redis: CommandSender, name: str) -> None:
    await fill(redis)
    await redis.send("SET", keys.order(SHOP, 41), "of another type")
    before = await dump(redis)
    assert await EXAMPLES[name].run(redis) == ["exists"]
    assert await dump(redis) == before


async def test_a_product_key_of_another_type_counts_as_a_product(redis: CommandSender) -> None:
    await redis.send("SET", keys.product(SHOP, 8), "of another type")
    before = await dump(redis)
    assert await run_add_product(redis, 8) == ["taken"]
    assert await dump(redis) == before


@pytest.mark.parametrize("name", [name for name, example in EXAMPLES.items() if example.events])
async def test_scripts_change_nothing_when_the_event_stream_has_no_id_left(redis: CommandSender, name: str) -> None:
    # XADD can fail although the key has the right type. So it must be the first write of each script.
    await fill(redis)
    await redis.send("XADD", EVENTS, f"{2**64 - 1}-{2**64 - 1}", "event", "last")
    await assert_fails_and_writes_nothing(redis, EXAMPLES[name].run(redis))


# Wrong keys and arguments


class Recorder:
    """A CommandSender that sends nothing, and keeps the last command."""

    async def send(self, *command: Any, safe_to_repeat: bool = False) -> list[str]:
        self.command = command
        return []


async def keys_and_args(example: ScriptExample) -> tuple[list[str], list[str | int]]:
    """Return KEYS and ARGV of an example."""
    recorder = Recorder()
    await example.run(recorder)
    _, _, count, *rest = recorder.command
    return rest[:count], rest[count:]


@pytest.mark.parametrize("name", EXAMPLES)
async def test_a_script_without_its_keys_or_arguments_fails_and_writes_nothing(redis: CommandSender, name: str) -> None:
    await fill(redis)
    names, args = await keys_and_args(EXAMPLES[name])
    await assert_fails_and_writes_nothing(redis, run_script(redis, EXAMPLES[name].script, [], args))
    if args:
        await assert_fails_and_writes_nothing(redis, run_script(redis, EXAMPLES[name].script, names, []))


@pytest.mark.parametrize("pairs", [[], [7, 1], [7, 1, 9], [7, 1, 9, 1, 8, 1]])
@pytest.mark.parametrize("name", ["complete", "cancel"])
async def test_the_end_of_a_hold_needs_one_quantity_for_each_product(
    redis: CommandSender, name: str, pairs: list[int]
) -> None:
    await fill(redis)
    run = EXAMPLES[name].run(redis, pairs=pairs)
    await assert_fails_and_writes_nothing(redis, run, "each product needs a quantity")


@pytest.mark.parametrize("change", [-2, -1, 1, 2])
async def test_orders_expire_only_with_the_lines_of_each(redis: CommandSender, change: int) -> None:
    await fill(redis)
    names, args = await keys_and_args(EXAMPLES["expire_two"])
    args = args[:change] if change < 0 else [*args, *[1] * change]
    await assert_fails_and_writes_nothing(redis, run_script(redis, "expire_orders", names, args))


# What a script leaves behind


@pytest.mark.parametrize("name", [name for name, example in EXAMPLES.items() if example.events])
async def test_every_script_limits_the_length_of_the_event_stream(redis: CommandSender, name: str) -> None:
    await fill(redis)
    await asyncio.gather(*(redis.send("XADD", EVENTS, "*", "event", f"old_{number}") for number in range(250)))
    await EXAMPLES[name].run(redis, events_max=10)
    events = await events_at(redis, EVENTS)
    # The real engine removes whole blocks of 100 entries, so more than 10 may be left.
    assert 10 <= len(events) <= 110
    written = EXAMPLES[name].events
    assert events[-written - 1]["event"] == "old_249"
    assert not any(event["event"].startswith("old_") for event in events[-written:])


async def test_scripts_leave_no_global_variables(redis: CommandSender) -> None:
    names = "local names = {} for name in pairs(_G) do names[#names + 1] = name end table.sort(names) return names"
    await redis.send("EVAL", names, 0)  # fakeredis sets global variables of its own at the first script
    before = await redis.send("EVAL", names, 0)
    for example in EXAMPLES.values():
        await redis.send("FLUSHALL")
        await fill(redis)
        await example.run(redis)
    assert before
    assert await redis.send("EVAL", names, 0) == before


# Full memory, on the real engine only: fakeredis has no maxmemory and does not know `#!lua`


@pytest.mark.parametrize(
    "name", [name for name, example in EXAMPLES.items() if example.script not in ALLOWED_WITHOUT_MEMORY]
)
async def test_an_engine_out_of_memory_refuses_a_script_before_it_starts(
    engine: MultiplexedConnection, name: str
) -> None:
    await fill(engine)
    async with full_memory(engine):
        await assert_fails_and_writes_nothing(engine, EXAMPLES[name].run(engine), "OOM")
    await EXAMPLES[name].run(engine)


@pytest.mark.parametrize(
    "name", [name for name, example in EXAMPLES.items() if example.script in ALLOWED_WITHOUT_MEMORY]
)
async def test_an_engine_out_of_memory_runs_a_script_that_ends_a_hold_or_archives(
    engine: MultiplexedConnection, name: str
) -> None:
    await fill(engine)
    before = await dump(engine)
    async with full_memory(engine):
        assert (await EXAMPLES[name].run(engine))[0] in ("completed", "released", "ended", "removed", "marked")
        assert await dump(engine) != before

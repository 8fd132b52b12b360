"""Rules for all scripts: a failed script writes nothing, the event stream stays short, no global variable is left."""

from collections.abc import Awaitable, Callable

import pytest

from service.storage import keys
from service.storage.connection import MultiplexedConnection
from service.storage.sender import CommandSender, ErrorReply
from tests.support.engine_memory import full_memory
from tests.support.redis_content import dump, events_at
from tests.support.scripts import run_add_product, run_change_product, run_place_order, run_withdraw_product
from tests.support.shop import SHOP

EVENTS, HOLDS, PENDING, PRODUCTS = keys.events(SHOP), keys.holds(SHOP), keys.pending(SHOP), keys.products(SHOP)

# A key of Redis that has another type, or too few fields

ORDER = ((7, 1), (9, 1))
ScriptCall = Callable[[CommandSender], Awaitable[list[str]]]
CALLS: dict[str, ScriptCall] = {
    "add": lambda redis: run_add_product(redis, 8),
    "change": lambda redis: run_change_product(redis, 7, "price", "5.00"),
    "withdraw": lambda redis: run_withdraw_product(redis, 7),
    "complete": lambda redis: run_place_order(redis, *ORDER),
    "complete_keyed": lambda redis: run_place_order(redis, *ORDER, key="k-1"),
    "hold": lambda redis: run_place_order(redis, *ORDER, hold_ms=900_000),
    "hold_keyed": lambda redis: run_place_order(redis, *ORDER, hold_ms=900_000, key="k-1"),
    "refuse_keyed": lambda redis: run_place_order(redis, (7, 11), (9, 1), key="k-1"),
}
_IDEMPOTENCY = keys.idempotency(SHOP, "k-1")
_ORDER_KEYS = [EVENTS, keys.product(SHOP, 7), keys.product(SHOP, 9)]
WRONG_TYPES = [
    *(("add", name) for name in (PRODUCTS, EVENTS)),
    *(("change", name) for name in (keys.product(SHOP, 7), EVENTS)),
    *(("withdraw", name) for name in (keys.product(SHOP, 7), PRODUCTS, EVENTS)),
    *(("complete", name) for name in _ORDER_KEYS),
    *(("complete_keyed", name) for name in (*_ORDER_KEYS, _IDEMPOTENCY)),
    *(("hold", name) for name in (*_ORDER_KEYS, HOLDS, PENDING)),
    *(("hold_keyed", name) for name in (*_ORDER_KEYS, HOLDS, PENDING, _IDEMPOTENCY)),
    *(("refuse_keyed", name) for name in (*_ORDER_KEYS, _IDEMPOTENCY)),
]


@pytest.mark.parametrize(("call", "name"), WRONG_TYPES)
async def test_a_script_fails_and_changes_nothing_when_a_redis_key_has_another_type(
    redis: CommandSender, call: str, name: str
) -> None:
    await run_add_product(redis, 7)
    await run_add_product(redis, 9)
    await redis.send("SET", name, "of another type")
    before = await dump(redis)
    with pytest.raises(ErrorReply, match="WRONGTYPE"):
        await CALLS[call](redis)
    assert await dump(redis) == before


@pytest.mark.parametrize("call", ["complete", "hold_keyed", "refuse_keyed"])
async def test_an_order_key_of_another_type_counts_as_an_order(redis: CommandSender, call: str) -> None:
    await run_add_product(redis, 7)
    await run_add_product(redis, 9)
    await redis.send("SET", keys.order(SHOP, 41), "of another type")
    before = await dump(redis)
    assert await CALLS[call](redis) == ["exists"]
    assert await dump(redis) == before


async def test_a_product_key_of_another_type_counts_as_a_product(redis: CommandSender) -> None:
    await redis.send("SET", keys.product(SHOP, 8), "of another type")
    before = await dump(redis)
    assert await run_add_product(redis, 8) == ["taken"]
    assert await dump(redis) == before


@pytest.mark.parametrize("field", ["sold", "price"])
@pytest.mark.parametrize("product_id", [7, 9])
@pytest.mark.parametrize("call", ["complete", "complete_keyed"])
async def test_an_order_of_a_product_without_a_needed_field_fails_and_writes_nothing(
    redis: CommandSender, call: str, product_id: int, field: str
) -> None:
    await run_add_product(redis, 7)
    await run_add_product(redis, 9)
    await redis.send("HDEL", keys.product(SHOP, product_id), field)
    before = await dump(redis)
    with pytest.raises(ErrorReply):
        await CALLS[call](redis)
    assert await dump(redis) == before


async def test_a_hold_of_a_product_without_its_held_field_fails_and_writes_nothing(redis: CommandSender) -> None:
    await run_add_product(redis, 7)
    await run_add_product(redis, 9)
    await redis.send("HDEL", keys.product(SHOP, 9), "held")
    before = await dump(redis)
    with pytest.raises(ErrorReply):
        await CALLS["hold_keyed"](redis)
    assert await dump(redis) == before


async def test_scripts_change_nothing_when_the_event_stream_has_no_id_left(redis: CommandSender) -> None:
    # XADD can fail although the key has the right type. So it must be the first write of each script.
    await run_add_product(redis, 7)
    await redis.send("XADD", EVENTS, f"{2**64 - 1}-{2**64 - 1}", "event", "last")
    before = await dump(redis)
    for call in ("change", "withdraw"):
        with pytest.raises(ErrorReply):
            await CALLS[call](redis)
    for hold in (None, 900_000):
        with pytest.raises(ErrorReply):
            await run_place_order(redis, (7, 1), hold_ms=hold, key="k-1")
    assert await dump(redis) == before


@pytest.mark.parametrize("call", ["add", "change", "withdraw", "complete", "hold"])
async def test_every_script_limits_the_length_of_the_event_stream(redis: CommandSender, call: str) -> None:
    await run_add_product(redis, 7)
    await run_add_product(redis, 9)
    for number in range(250):
        await redis.send("XADD", EVENTS, "*", "event", f"old_{number}")
    calls: dict[str, ScriptCall] = {
        "add": lambda redis: run_add_product(redis, 8, events_max=10),
        "change": lambda redis: run_change_product(redis, 7, "price", "5.00", events_max=10),
        "withdraw": lambda redis: run_withdraw_product(redis, 7, events_max=10),
        "complete": lambda redis: run_place_order(redis, *ORDER, events_max=10),
        "hold": lambda redis: run_place_order(redis, *ORDER, hold_ms=900_000, events_max=10),
    }
    await calls[call](redis)
    events = await events_at(redis, EVENTS)
    # The real engine removes whole blocks of 100 entries, so more than 10 may be left.
    assert 10 <= len(events) <= 110
    assert events[-2]["event"] == "old_249"
    assert events[-1]["event"].startswith(("product_", "order_"))


async def test_scripts_leave_no_global_variables(redis: CommandSender) -> None:
    names = "local names = {} for name in pairs(_G) do names[#names + 1] = name end table.sort(names) return names"
    await redis.send("EVAL", names, 0)  # fakeredis sets global variables of its own at the first script
    before = await redis.send("EVAL", names, 0)
    await run_add_product(redis, 7)
    await run_add_product(redis, 9)
    for call in CALLS.values():
        await call(redis)
    assert before
    assert await redis.send("EVAL", names, 0) == before


# Full memory, on the real engine only: fakeredis has no maxmemory and does not know `#!lua`


@pytest.fixture
async def stocked_shop(engine: MultiplexedConnection) -> MultiplexedConnection:
    """The products 7 and 9 on the real engine."""
    await run_add_product(engine, 7)
    await run_add_product(engine, 9)
    return engine


@pytest.mark.parametrize("call", CALLS)
async def test_an_engine_out_of_memory_refuses_a_script_before_it_starts(
    stocked_shop: MultiplexedConnection, call: str
) -> None:
    before = await dump(stocked_shop)
    async with full_memory(stocked_shop):
        with pytest.raises(ErrorReply):
            await CALLS[call](stocked_shop)
        assert await dump(stocked_shop) == before
    await CALLS[call](stocked_shop)
    assert await dump(stocked_shop) != before

"""lua/*.lua, called without the Store between: each reply, each field written, and nothing written on failure."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import pytest

from service.domain.errors.refusals import InsufficientStock
from service.domain.errors.storage import StorageUnavailable
from service.domain.limits import MAX_ID
from service.domain.requests import NewOrder, NewProduct, OrdersQuery
from service.storage import keys
from service.storage.connection import MultiplexedConnection
from service.storage.idempotency import REFUSAL_MS
from service.storage.order_ids import BLOCK as ORDER_ID_BLOCK
from service.storage.sender import CommandSender, ErrorReply
from service.storage.store import Store
from tests.support.books import assert_books_balance
from tests.support.products import as_text, product_added, product_answer, product_hash
from tests.support.redis_content import dump, events_at, hash_at, scores_at
from tests.support.scripts import NOW, SCRIPTS, add, change, place, run_script, withdraw
from tests.support.shop import SHOP, make_store, new_mug, new_order

EVENTS, HOLDS, PENDING, PRODUCTS = keys.events(SHOP), keys.holds(SHOP), keys.pending(SHOP), keys.products(SHOP)


# What is written.


async def test_a_product_is_added_in_plain_values(link: CommandSender) -> None:
    assert await add(link, 7) == ["added"]
    assert await hash_at(link, keys.product(SHOP, 7)) == product_hash(7)
    assert await scores_at(link, PRODUCTS) == {"7": 7}
    assert await events_at(link, EVENTS) == [as_text(product_added(7))]
    assert (await dump(link)).keys() == {keys.product(SHOP, 7), PRODUCTS, EVENTS}


async def test_the_largest_ids_are_listed_in_their_order(link: CommandSender) -> None:
    for product_id in (MAX_ID, MAX_ID - 1, MAX_ID - 2):
        assert await add(link, product_id) == ["added"]
    listed = await link.send("ZRANGEBYSCORE", PRODUCTS, f"({MAX_ID - 2}", "+inf")
    assert listed == [str(MAX_ID - 1), str(MAX_ID)]


async def test_a_change_writes_and_announces_only_what_differs(link: CommandSender) -> None:
    await add(link, 7)
    before = await hash_at(link, keys.product(SHOP, 7))
    reply = await change(link, 7, "name", "Mug", "price", "5.00")
    assert reply == product_answer("changed", price="5.00")
    assert await hash_at(link, keys.product(SHOP, 7)) == {**before, "price": "5.00"}
    assert (await events_at(link, EVENTS))[1:] == [{"event": "product_changed", "product": "7", "price": "5.00"}]


async def test_all_members_of_a_product_change_at_once(link: CommandSender) -> None:
    await add(link, 7)
    pairs = ("name", "Cup", "description", "Hält Tee.\n☕", "price", "0.00")
    changed = dict(zip(pairs[::2], pairs[1::2], strict=True))
    assert await change(link, 7, *pairs) == product_answer("changed", **changed)
    assert (await hash_at(link, keys.product(SHOP, 7))).items() >= changed.items()
    assert (await events_at(link, EVENTS))[-1] == {"event": "product_changed", "product": "7", **changed}


async def test_a_withdrawn_product_keeps_its_hash_and_leaves_the_list(link: CommandSender) -> None:
    await add(link, 7)
    before = await hash_at(link, keys.product(SHOP, 7))
    assert await withdraw(link, 7) == ["withdrawn"]
    assert await hash_at(link, keys.product(SHOP, 7)) == {**before, "withdrawn": "1"}
    assert await scores_at(link, PRODUCTS) == {}
    assert (await events_at(link, EVENTS))[1:] == [{"event": "product_withdrawn", "product": "7"}]


async def test_a_completed_order_is_written_in_plain_values(link: CommandSender) -> None:
    await add(link, 7)
    await add(link, 9, stock=5, price="7.00")
    names = (await dump(link)).keys()
    before = await hash_at(link, keys.product(SHOP, 7))
    assert await place(link, (9, 1), (7, 2)) == ["placed", "46.98", str(NOW), "", "7.00", "19.99"]
    assert await hash_at(link, keys.order(SHOP, 41)) == {
        "id": "41",
        "status": "completed",
        "total_price": "46.98",
        "products": "9: 1 x 7.00\n7: 2 x 19.99",
        "created_at": str(NOW),
    }
    assert (await events_at(link, EVENTS))[2:] == [
        {
            "event": "order_placed",
            "order": "41",
            "status": "completed",
            "total_price": "46.98",
            "products": "9: 1 x 7.00\n7: 2 x 19.99",
        }
    ]
    assert await hash_at(link, keys.product(SHOP, 7)) == {**before, "stock": "8", "sold": "2"}
    assert (await dump(link)).keys() == {*names, keys.order(SHOP, 41)}
    await assert_books_balance(link)


async def test_a_pending_order_holds_its_stock_until_its_deadline(link: CommandSender) -> None:
    await add(link, 7)
    before = await hash_at(link, keys.product(SHOP, 7))
    deadline = str(NOW + 900_000)
    assert await place(link, (7, 3), hold=900_000) == ["placed", "59.97", str(NOW), deadline, "19.99"]
    assert await hash_at(link, keys.order(SHOP, 41)) == {
        "id": "41",
        "status": "pending",
        "total_price": "59.97",
        "products": "7: 3 x 19.99",
        "created_at": str(NOW),
        "expires_at": deadline,
    }
    assert await scores_at(link, HOLDS) == {"41": int(deadline)}
    assert await scores_at(link, PENDING) == {"41": 41}
    assert await hash_at(link, keys.product(SHOP, 7)) == {**before, "stock": "7", "held": "3"}
    assert (await events_at(link, EVENTS))[-1]["status"] == "pending"
    await assert_books_balance(link)


async def test_a_keyed_order_and_its_key_point_at_each_other_for_good(link: CommandSender) -> None:
    await add(link, 7)
    assert (await place(link, (7, 1), key="k-1"))[0] == "placed"
    assert (await hash_at(link, keys.order(SHOP, 41)))["idempotency_key"] == "k-1"
    assert await hash_at(link, keys.idempotency(SHOP, "k-1")) == {"fingerprint": "f1", "order": "41"}
    for name in (keys.idempotency(SHOP, "k-1"), keys.order(SHOP, 41)):
        assert await link.send("PTTL", name) == -1
    await assert_books_balance(link)


async def test_without_a_test_clock_the_time_is_that_of_redis(link: CommandSender) -> None:
    await add(link, 7)
    before = await link.send("TIME")
    _, _, created_at, expires_at, _ = await place(link, (7, 1), hold=5000, now=None)
    after = await link.send("TIME")
    first, last = (int(seconds) * 1000 + int(micros) // 1000 for seconds, micros in (before, after))
    assert first <= int(created_at) <= last
    assert int(expires_at) == int(created_at) + 5000


# Replies that change nothing.


NOTHING_CHANGES: list[tuple[Callable[[CommandSender], Awaitable[list[str]]], list[str]]] = [
    (lambda link: add(link, 7, stock=99), ["taken"]),
    (lambda link: add(link, 8, stock=99), ["taken"]),
    (lambda link: change(link, 7), product_answer("changed")),
    (lambda link: change(link, 7, "price", "19.99"), product_answer("changed")),
    (lambda link: change(link, 8, "price", "5.00"), ["absent"]),
    (lambda link: change(link, 99, "price", "5.00"), ["absent"]),
    (lambda link: withdraw(link, 8), ["withdrawn"]),
    (lambda link: withdraw(link, 99), ["absent"]),
    (lambda link: place(link, (7, 1), order_id=40), ["exists"]),
    (lambda link: place(link, (7, 2), (99, 1), order_id=40, key="new"), ["exists"]),
    (lambda link: place(link, (7, 1), order_id=40, key="made-40"), ["exists"]),
    (lambda link: place(link, (7, 1), key="made-40"), ["replayed", "40"]),
    (lambda link: place(link, (7, 99), key="made-40", fingerprint="f1"), ["replayed", "40"]),
    (lambda link: place(link, (7, 1), key="made-40", fingerprint="f2"), ["reused"]),
    (lambda link: place(link, (7, 1), key="refused", fingerprint="f2"), ["reused"]),
    (lambda link: place(link, (7, 1), key="refused"), ["refused", "short\n7 11 10\n9 6 5"]),
    (lambda link: place(link, (7, 11), (9, 5)), ["short", "7 11 10"]),
    (lambda link: place(link, (7, 11), (9, 6)), ["short", "7 11 10", "9 6 5"]),
    (lambda link: place(link, (9, 1), (8, 1)), ["unknown", "8 1 unknown"]),
    (lambda link: place(link, (7, 11), (9, 5), (99, 1000000)), ["unknown", "7 11 10", "99 1000000 unknown"]),
    (lambda link: place(link, (99, 1), (7, 11)), ["unknown", "99 1 unknown", "7 11 10"]),
    (lambda link: place(link, (7, 2), (9, 1), expected=4697), ["price_changed", "46.98", "7 19.99", "9 7.00"]),
    (lambda link: place(link, (9, 1), (7, 1), hold=1, expected=0), ["price_changed", "26.99", "9 7.00", "7 19.99"]),
    (lambda link: place(link, (7, 11), expected=1), ["short", "7 11 10"]),
    (lambda link: place(link, (10, 1_000_000)), ["too_large"]),
]


@pytest.mark.parametrize(
    ("call", "reply"), NOTHING_CHANGES, ids=lambda value: value[0] if isinstance(value, list) else ""
)
async def test_a_refusal_changes_nothing_anywhere(
    link: CommandSender, call: Callable[[CommandSender], Awaitable[list[str]]], reply: list[str]
) -> None:
    await add(link, 7, stock=11)
    await add(link, 8)
    await withdraw(link, 8)
    await add(link, 9, stock=5, price="7.00")
    await add(link, 10, stock=1_000_000, price="999999999.99")
    assert (await place(link, (7, 1), order_id=40, key="made-40"))[0] == "placed"
    assert (await place(link, (7, 11), (9, 6), key="refused"))[0] == "short"
    before = await dump(link)
    assert await call(link) == reply
    assert await dump(link) == before


@pytest.mark.parametrize("hold", [None, 900_000], ids=["completed", "pending"])
@pytest.mark.parametrize("key", ["", "k-1"], ids=["bare", "keyed"])
async def test_a_call_repeated_with_its_order_id_is_harmless(link: CommandSender, hold: int | None, key: str) -> None:
    await add(link, 7)
    assert (await place(link, (7, 3), hold=hold, key=key))[0] == "placed"
    before = await dump(link)
    assert await place(link, (7, 3), hold=hold, key=key) == ["exists"]
    assert await dump(link) == before


@pytest.mark.parametrize(
    ("lines", "expected", "reply"),
    [
        ([(7, 11)], None, ["short", "7 11 10"]),
        ([(7, 11), (99, 1)], None, ["unknown", "7 11 10", "99 1 unknown"]),
        ([(7, 1)], 1, ["price_changed", "19.99", "7 19.99"]),
        ([(10, 1_000_000)], None, ["too_large"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) and isinstance(value[0], str) else "",
)
async def test_a_key_remembers_its_refusal_for_a_time_and_nothing_else_changes(
    link: CommandSender, lines: list[tuple[int, int]], expected: int | None, reply: list[str]
) -> None:
    await add(link, 7)
    await add(link, 10, stock=1_000_000, price="999999999.99")
    before, name = await dump(link), keys.idempotency(SHOP, "k-1")
    assert await place(link, *lines, expected=expected, key="k-1", refusal_lifetime=60_000) == reply
    remembered = {"fingerprint": "f1", "refusal": "\n".join(reply)}
    assert await dump(link) == {**before, name: ("hash", remembered, True)}
    assert 0 < await link.send("PTTL", name) <= 60_000
    assert await place(link, *lines, expected=expected, key="k-1") == ["refused", "\n".join(reply)]


async def test_repeating_a_refused_key_does_not_lengthen_its_memory(link: CommandSender) -> None:
    await add(link, 7)
    await place(link, (7, 11), key="k-1", refusal_lifetime=60_000)
    assert (await place(link, (7, 11), key="k-1", refusal_lifetime=86_400_000))[0] == "refused"
    assert 0 < await link.send("PTTL", keys.idempotency(SHOP, "k-1")) <= 60_000


async def test_a_key_whose_refusal_is_forgotten_may_order_and_then_lasts(link: CommandSender) -> None:
    await add(link, 7)
    await place(link, (7, 11), key="k-1")
    await link.send("PEXPIRE", keys.idempotency(SHOP, "k-1"), 0)
    assert (await place(link, (7, 1), key="k-1"))[0] == "placed"
    assert await link.send("PTTL", keys.idempotency(SHOP, "k-1")) == -1


async def test_a_refused_key_stays_refused_after_a_restock(link: CommandSender) -> None:
    await add(link, 7)
    await place(link, (7, 11), key="k-1")
    await link.send("HSET", keys.product(SHOP, 7), "stock", 11, "received", 11)
    before = await dump(link)
    assert await place(link, (7, 11), key="k-1") == ["refused", "short\n7 11 10"]
    assert await dump(link) == before


# Failures.

ORDER = ((7, 1), (9, 1))
Call = Callable[[CommandSender], Awaitable[list[str]]]
CALLS: dict[str, Call] = {
    "add": lambda link: add(link, 8),
    "change": lambda link: change(link, 7, "price", "5.00"),
    "withdraw": lambda link: withdraw(link, 7),
    "complete": lambda link: place(link, *ORDER),
    "complete_keyed": lambda link: place(link, *ORDER, key="k-1"),
    "hold": lambda link: place(link, *ORDER, hold=900_000),
    "hold_keyed": lambda link: place(link, *ORDER, hold=900_000, key="k-1"),
    "refuse_keyed": lambda link: place(link, (7, 11), (9, 1), key="k-1"),
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
async def test_a_key_of_another_type_fails_the_script_with_nothing_changed(
    link: CommandSender, call: str, name: str
) -> None:
    await add(link, 7)
    await add(link, 9)
    await link.send("SET", name, "of another type")
    before = await dump(link)
    with pytest.raises(ErrorReply, match="WRONGTYPE"):
        await CALLS[call](link)
    assert await dump(link) == before


@pytest.mark.parametrize("call", ["complete", "hold_keyed", "refuse_keyed"])
async def test_an_order_key_of_another_type_counts_as_an_order(link: CommandSender, call: str) -> None:
    await add(link, 7)
    await add(link, 9)
    await link.send("SET", keys.order(SHOP, 41), "of another type")
    before = await dump(link)
    assert await CALLS[call](link) == ["exists"]
    assert await dump(link) == before


async def test_a_product_key_of_another_type_counts_as_taken(link: CommandSender) -> None:
    await link.send("SET", keys.product(SHOP, 8), "of another type")
    before = await dump(link)
    assert await add(link, 8) == ["taken"]
    assert await dump(link) == before


@pytest.mark.parametrize("field", ["sold", "price"])
@pytest.mark.parametrize("product_id", [7, 9])
@pytest.mark.parametrize("call", ["complete", "complete_keyed"])
async def test_a_product_that_lost_a_field_fails_the_order_with_nothing_written(
    link: CommandSender, call: str, product_id: int, field: str
) -> None:
    await add(link, 7)
    await add(link, 9)
    await link.send("HDEL", keys.product(SHOP, product_id), field)
    before = await dump(link)
    with pytest.raises(ErrorReply):
        await CALLS[call](link)
    assert await dump(link) == before


async def test_a_product_that_lost_its_held_field_fails_a_hold_with_nothing_written(link: CommandSender) -> None:
    await add(link, 7)
    await add(link, 9)
    await link.send("HDEL", keys.product(SHOP, 9), "held")
    before = await dump(link)
    with pytest.raises(ErrorReply):
        await CALLS["hold_keyed"](link)
    assert await dump(link) == before


@pytest.mark.parametrize("field", ["id", "stock", "held", "sold", "received", "withdrawn"])
async def test_a_field_that_scripts_count_cannot_be_changed(link: CommandSender, field: str) -> None:
    await add(link, 7)
    before = await dump(link)
    with pytest.raises(ErrorReply, match="field cannot be changed"):
        await change(link, 7, "price", "5.00", field, "1")
    assert await dump(link) == before


@pytest.mark.parametrize("name", ["add_product", "change_product"])
async def test_a_field_without_a_value_is_refused_before_anything_is_written(link: CommandSender, name: str) -> None:
    await add(link, 7)
    before = await dump(link)
    calls: dict[str, tuple[list[str], list[str | int]]] = {
        "add_product": ([keys.product(SHOP, 8), PRODUCTS, EVENTS], [8, 10, 1000, "name"]),
        "change_product": ([keys.product(SHOP, 7), EVENTS], [7, 1000, 1, "name", "price"]),
    }
    with pytest.raises(ErrorReply, match="each field needs a value"):
        await run_script(link, name, *calls[name])
    assert await dump(link) == before


@pytest.mark.parametrize("name", ["change_product", "move_stock"])
async def test_a_call_that_asks_for_no_field_is_refused_before_anything_is_written(
    link: CommandSender, name: str
) -> None:
    await add(link, 7)
    before = await dump(link)
    args: dict[str, list[str | int]] = {
        "change_product": [7, 1000, 0, "price", "5.00"],
        "move_stock": [7, 1, "found", 1000, "", "", 60_000, 1000],
    }
    with pytest.raises(ErrorReply, match="no field to answer"):
        await run_script(link, name, [keys.product(SHOP, 7), EVENTS], args[name])
    assert await dump(link) == before


async def test_a_field_that_no_script_knows_is_kept_announced_and_answered(link: CommandSender) -> None:
    names = [keys.product(SHOP, 7), PRODUCTS, EVENTS]
    assert await run_script(
        link, "add_product", names, [7, 10, 1000, "name", "Mug", "sku", "M-1", "price", "5.00"]
    ) == ["added"]
    assert list(await hash_at(link, keys.product(SHOP, 7))) == [
        *("id", "name", "sku", "price", "stock", "held", "sold", "received", "withdrawn")
    ]
    [event] = await events_at(link, EVENTS)
    assert list(event.items()) == [
        *(("event", "product_added"), ("product", "7"), ("name", "Mug"), ("sku", "M-1")),
        *(("price", "5.00"), ("stock", "10")),
    ]
    changed = await run_script(link, "change_product", [names[0], EVENTS], [7, 1000, 2, "stock", "sku", "sku", "M-2"])
    assert changed == ["changed", "10", "M-2"]
    args: list[str | int] = [7, 1, "found", 1000, "", "", 60_000, 1000, "sku", "stock", "gone"]
    assert await run_script(link, "move_stock", [names[0], EVENTS], args) == ["moved", "M-2", "11", "None"]


async def test_a_stream_at_its_last_id_fails_the_order_with_nothing_changed(link: CommandSender) -> None:
    # An XADD that fails although the type is right: why it is the first of the writes.
    await add(link, 7)
    await link.send("XADD", EVENTS, f"{2**64 - 1}-{2**64 - 1}", "event", "last")
    before = await dump(link)
    for call in ("change", "withdraw"):
        with pytest.raises(ErrorReply):
            await CALLS[call](link)
    for hold in (None, 900_000):
        with pytest.raises(ErrorReply):
            await place(link, (7, 1), hold=hold, key="k-1")
    assert await dump(link) == before


# Numbers.


@pytest.mark.parametrize(("hold", "taken"), [(None, "sold"), (900_000, "held")])
async def test_counts_past_ten_to_the_fifteenth_stay_plain_and_exact(
    link: CommandSender, hold: int | None, taken: str
) -> None:
    await add(link, 7)
    many = 2 * 10**15 + 1
    await link.send("HSET", keys.product(SHOP, 7), taken, many)
    assert (await place(link, (7, 2), hold=hold))[0] == "placed"
    product = await hash_at(link, keys.product(SHOP, 7))
    assert (product["stock"], product[taken]) == ("8", "2000000000000003")


@pytest.mark.parametrize(
    ("last_price", "reply"),
    [
        ("992548310.61", ["placed", "90071992547409.90"]),
        ("992548310.62", ["placed", "90071992547409.91"]),  # 2^53 - 1 cents
        ("992548310.63", ["too_large"]),  # 2^53
        ("992548310.64", ["too_large"]),  # 2^53 + 1, which a double takes for 2^53
        ("999999999.99", ["too_large"]),
    ],
)
async def test_a_total_is_exact_below_two_to_the_53rd_cents_and_refused_from_there(
    link: CommandSender, last_price: str, reply: list[str]
) -> None:
    await add(link, 7, stock=1_000_000, price="999999999.99")
    await add(link, 9, price=last_price)
    assert (await place(link, (7, 90_071), (9, 1)))[:2] == reply
    if reply[0] == "placed":
        assert (await hash_at(link, keys.order(SHOP, 41)))["total_price"] == reply[1]


async def test_a_hundred_lines_of_the_largest_orders_are_too_large(link: CommandSender) -> None:
    product_ids = range(1, 101)
    for product_id in product_ids:
        await add(link, product_id, stock=1_000_000_000, price="999999999.99")
    lines = [(product_id, 1_000_000) for product_id in product_ids]
    before = await dump(link)
    assert await place(link, *lines) == ["too_large"]
    assert await dump(link) == before


@pytest.mark.parametrize("expected", [9_007_199_254_740_990, 9_007_199_254_740_991])
async def test_the_largest_expected_total_is_compared_to_the_cent(link: CommandSender, expected: int) -> None:
    await add(link, 7, stock=1_000_000, price="999999999.99")
    await add(link, 9, price="992548310.62")
    reply = await place(link, (7, 90_071), (9, 1), expected=expected)
    assert reply[0] == ("placed" if expected == 9_007_199_254_740_991 else "price_changed")


@pytest.mark.parametrize("price", ["0.00", "0.01", "0.07", "0.29", "1.10", "1.15", "4.35", "19.99", "999999999.99"])
@pytest.mark.parametrize("quantity", [1, 3, 90_071])
async def test_a_total_is_exact_whatever_doubles_make_of_the_price(
    link: CommandSender, price: str, quantity: int
) -> None:
    await add(link, 7, stock=1_000_000, price=price)
    total = Decimal(price) * quantity
    assert (await place(link, (7, quantity), expected=int(total * 100)))[:2] == ["placed", str(total)]


@pytest.mark.parametrize(
    ("stock", "quantity", "reply"),
    [(9, 10, ["short", "7 10 9"]), (10, 9, ["placed"]), (100, 20, ["placed"]), (20, 100, ["short", "7 100 20"])],
)
async def test_stock_is_compared_as_numbers_not_as_text(
    link: CommandSender, stock: int, quantity: int, reply: list[str]
) -> None:
    await add(link, 7, stock=stock)
    assert (await place(link, (7, quantity)))[: len(reply)] == reply


async def test_the_last_unit_can_be_taken_and_not_one_more(link: CommandSender) -> None:
    await add(link, 7, stock=1)
    assert (await place(link, (7, 1), order_id=1))[0] == "placed"
    assert await place(link, (7, 1), order_id=2) == ["short", "7 1 0"]
    assert (await hash_at(link, keys.product(SHOP, 7)))["stock"] == "0"


async def test_a_free_order_matches_an_expected_total_of_zero(link: CommandSender) -> None:
    await add(link, 7, price="0.00")
    assert (await place(link, (7, 1), expected=0))[:2] == ["placed", "0.00"]


# The stream.


@pytest.mark.parametrize("call", ["add", "change", "withdraw", "complete", "hold"])
async def test_the_event_stream_is_capped_by_every_script(link: CommandSender, call: str) -> None:
    await add(link, 7)
    await add(link, 9)
    for number in range(250):
        await link.send("XADD", EVENTS, "*", "event", f"old_{number}")
    capped: dict[str, Call] = {
        "add": lambda link: add(link, 8, events_max=10),
        "change": lambda link: change(link, 7, "price", "5.00", events_max=10),
        "withdraw": lambda link: withdraw(link, 7, events_max=10),
        "complete": lambda link: place(link, *ORDER, events_max=10),
        "hold": lambda link: place(link, *ORDER, hold=900_000, events_max=10),
    }
    await capped[call](link)
    events = await events_at(link, EVENTS)
    # About 10: the real engine drops whole blocks of 100.
    assert 10 <= len(events) <= 110
    assert events[-2]["event"] == "old_249"
    assert events[-1]["event"].startswith(("product_", "order_"))


# The sources.


async def test_scripts_leave_no_globals(link: CommandSender) -> None:
    names = "local names = {} for name in pairs(_G) do names[#names + 1] = name end table.sort(names) return names"
    await link.send("EVAL", names, 0)  # fakeredis sets some of its own at the first script
    before = await link.send("EVAL", names, 0)
    await add(link, 7)
    await add(link, 9)
    for call in CALLS.values():
        await call(link)
    assert before
    assert await link.send("EVAL", names, 0) == before


# What the Store makes of it.


def order_of(*lines: tuple[int, int], **members: Any) -> NewOrder:
    return new_order(*lines, **members)


def new_product(**members: Any) -> NewProduct:
    return new_mug(**{"price": 5, "stock": 1000, **members})


async def test_the_id_of_a_refused_order_is_used_for_the_next(store: Store) -> None:
    product = await store.products.add(new_product())
    first = await store.orders.place(order_of((product.id, 1)))
    for key in (None, "k-1", "k-1"):
        with pytest.raises(InsufficientStock):
            await store.orders.place(order_of((product.id, 1001)), key)
    second = await store.orders.place(order_of((product.id, 1)))
    assert second.order.id == first.order.id + 1


async def test_a_replay_uses_up_no_order_id(store: Store) -> None:
    product = await store.products.add(new_product())
    first = await store.orders.place(order_of((product.id, 1)), "k-1")
    assert await store.orders.place(order_of((product.id, 1)), "k-1") == (first.order, True)
    assert (await store.orders.place(order_of((product.id, 1)))).order.id == first.order.id + 1


async def test_order_ids_are_taken_from_the_counter_in_blocks(link: CommandSender) -> None:
    one, other = make_store(link), make_store(link)
    product = await one.products.add(new_product())
    ids = [
        (await store.orders.place(order_of((product.id, 1)))).order.id
        for store in (one, other, one, other, *(one for _ in range(ORDER_ID_BLOCK)))
    ]
    block = ORDER_ID_BLOCK
    assert ids[:4] == [1, block + 1, 2, block + 2]
    assert ids[4:] == [*range(3, block + 1), 2 * block + 1, 2 * block + 2]
    assert int(await link.send("GET", keys.order_ids(SHOP))) == 3 * block


class OnceOnlyCounter:
    """A link on which the counter of order ids answers once, and never again: each order has to do without it."""

    def __init__(self, link: CommandSender) -> None:
        self.link = link
        self.asked = 0

    def send(self, *command: bytes | str | int, idempotent: bool = False) -> Awaitable[Any]:
        if command[0] == "INCRBY" and command[1] == keys.order_ids(SHOP):
            self.asked += 1
            if self.asked > 1:
                return refuse()
        return self.link.send(*command, idempotent=idempotent)


async def test_orders_that_wait_for_ids_get_them_together(wire: MultiplexedConnection) -> None:
    product = await make_store(wire).products.add(new_product(stock=5000))
    store = make_store(wire)
    before = await wire.send("INFO", "commandstats")
    placed = await asyncio.gather(*(store.orders.place(order_of((product.id, 1))) for _ in range(4000)))
    after = await wire.send("INFO", "commandstats")
    calls = [
        int(found[1]) if (found := re.search(r"cmdstat_incrby:calls=(\d+)", text)) else 0 for text in (before, after)
    ]
    assert calls[1] - calls[0] <= 3
    assert len({order.id for order, _ in placed}) == 4000


async def refuse() -> Any:
    raise StorageUnavailable("not now")


async def test_no_order_waits_for_the_counter_while_there_are_ids_left(link: CommandSender) -> None:
    product = await make_store(link).products.add(new_product())
    counter = OnceOnlyCounter(link)
    store = make_store(counter)
    ids = [(await store.orders.place(order_of((product.id, 1)))).order.id for _ in range(ORDER_ID_BLOCK)]
    assert ids == list(range(1, ORDER_ID_BLOCK + 1))
    assert counter.asked > 1  # for the next ones, in good time
    with pytest.raises(StorageUnavailable):
        await store.orders.place(order_of((product.id, 1)))
    counter.asked = 0
    assert (await store.orders.place(order_of((product.id, 1)))).order.id == ORDER_ID_BLOCK + 1


async def test_the_store_has_a_refusal_remembered_for_a_day(link: CommandSender) -> None:
    store = make_store(link)
    product = await store.products.add(new_product())
    with pytest.raises(InsufficientStock):
        await store.orders.place(order_of((product.id, 1001)), "k-1")
    left = await link.send("PTTL", keys.idempotency(SHOP, "k-1"))
    assert REFUSAL_MS - 60_000 < left <= REFUSAL_MS == 86_400_000


@pytest.mark.parametrize("set_back_to", [None, 1, ORDER_ID_BLOCK])
async def test_orders_survive_that_their_counter_is_lost(link: CommandSender, set_back_to: int | None) -> None:
    store = make_store(link)
    product = await store.products.add(new_product())
    for _ in range(2 * ORDER_ID_BLOCK + 3):
        await store.orders.place(order_of((product.id, 1)))
    before = await assert_books_balance(link)
    if set_back_to is None:
        await link.send("DEL", keys.order_ids(SHOP))
    else:
        await link.send("SET", keys.order_ids(SHOP), set_back_to)
    restarted = make_store(link)
    placed = [(await restarted.orders.place(order_of((product.id, 1)))).order for _ in range(3)]
    after = await assert_books_balance(link)
    assert len(after.orders) == len(before.orders) + 3
    assert after.orders.items() >= before.orders.items()
    assert (await restarted.orders.list(OrdersQuery.model_validate({"limit": "3"})))[0] == placed[::-1]


async def test_assigned_product_ids_pass_those_that_clients_took(link: CommandSender) -> None:
    store = make_store(link)
    for product_id in range(1, 101):
        await store.products.add(new_product(id=product_id))
    before = await assert_books_balance(link)
    assigned = [(await store.products.add(new_product(name="Assigned"))).id for _ in range(3)]
    after = await assert_books_balance(link)
    assert after.products.items() >= before.products.items()
    assert after.products.keys() - before.products.keys() == set(assigned)
    assert len(set(assigned)) == 3


# Memory, on the real engine only: fakeredis has no maxmemory and does not know `#!lua`.


@pytest.fixture
async def stocked(wire: MultiplexedConnection) -> MultiplexedConnection:
    await add(wire, 7)
    await add(wire, 9)
    return wire


async def fill(wire: MultiplexedConnection) -> None:
    await wire.send("CONFIG", "SET", "maxmemory", 1)


async def make_room(wire: MultiplexedConnection) -> None:
    await wire.send("CONFIG", "SET", "maxmemory", 0)


@pytest.mark.parametrize("call", CALLS)
async def test_an_engine_out_of_memory_refuses_a_script_before_it_starts(
    stocked: MultiplexedConnection, call: str
) -> None:
    before = await dump(stocked)
    await fill(stocked)
    try:
        with pytest.raises(ErrorReply):
            await CALLS[call](stocked)
        assert await dump(stocked) == before
    finally:
        await make_room(stocked)
    await CALLS[call](stocked)
    assert await dump(stocked) != before


async def test_an_engine_out_of_memory_is_unavailable_and_leaves_the_key_and_the_id_unused(
    stocked: MultiplexedConnection,
) -> None:
    store = make_store(stocked)
    first = await store.orders.place(order_of((7, 1)))
    before = await dump(stocked)
    await fill(stocked)
    try:
        with pytest.raises(StorageUnavailable, match="OOM"):
            await store.orders.place(order_of((7, 1)), "k-1")
        assert await dump(stocked) == before
        assert (await store.orders.get(first.order.id)) == first.order
    finally:
        await make_room(stocked)
    second = await store.orders.place(order_of((7, 1)), "k-1")
    assert (second.order.id, second.replayed) == (first.order.id + 1, False)
    await assert_books_balance(stocked)


async def test_no_script_is_known_after_a_flush_and_the_store_teaches_it_anew(stocked: MultiplexedConnection) -> None:
    store = make_store(stocked)
    for _ in range(2):
        await stocked.send("SCRIPT", "FLUSH")
        assert list(await stocked.send("SCRIPT", "EXISTS", SCRIPTS["place_order"].sha)) == [0]
        await store.orders.place(order_of((7, 1)))
        assert list(await stocked.send("SCRIPT", "EXISTS", SCRIPTS["place_order"].sha)) == [1]
    await assert_books_balance(stocked)

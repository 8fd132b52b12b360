"""lua/*_product.lua: the fields of a product, the list of products and the events. lua/move_counter.lua."""

import pytest

from service.domain.limits import MAX_ID
from service.storage import keys
from service.storage.sender import CommandSender, ErrorReply
from tests.support.products import as_text, product_added_event, product_hash, product_reply
from tests.support.redis_content import dump, events_at, hash_at, scores_at
from tests.support.scripts import (
    run_add_product,
    run_change_product,
    run_move_counter,
    run_script,
    run_withdraw_product,
)
from tests.support.shop import SHOP

EVENTS, PRODUCTS = keys.events(SHOP), keys.products(SHOP)


async def test_a_new_product_is_written_in_plain_values(redis: CommandSender) -> None:
    assert await run_add_product(redis, 7) == ["added"]
    assert await hash_at(redis, keys.product(SHOP, 7)) == product_hash(7)
    assert await scores_at(redis, PRODUCTS) == {"7": 7}
    assert await events_at(redis, EVENTS) == [as_text(product_added_event(7))]
    assert (await dump(redis)).keys() == {keys.product(SHOP, 7), PRODUCTS, EVENTS}


async def test_the_largest_product_ids_are_listed_in_order(redis: CommandSender) -> None:
    for product_id in (MAX_ID, MAX_ID - 1, MAX_ID - 2):
        assert await run_add_product(redis, product_id) == ["added"]
    listed = await redis.send("ZRANGEBYSCORE", PRODUCTS, f"({MAX_ID - 2}", "+inf")
    assert listed == [str(MAX_ID - 1), str(MAX_ID)]


async def test_a_change_and_its_event_have_only_the_fields_that_differ(redis: CommandSender) -> None:
    await run_add_product(redis, 7)
    before = await hash_at(redis, keys.product(SHOP, 7))
    reply = await run_change_product(redis, 7, "name", "Mug", "price", "5.00")
    assert reply == product_reply("changed", price="5.00")
    assert await hash_at(redis, keys.product(SHOP, 7)) == {**before, "price": "5.00"}
    assert (await events_at(redis, EVENTS))[1:] == [{"event": "product_changed", "product": "7", "price": "5.00"}]


async def test_one_script_can_change_all_fields_of_a_product(redis: CommandSender) -> None:
    await run_add_product(redis, 7)
    pairs = ("name", "Cup", "description", "Hält Tee.\n☕", "price", "0.00")
    changed = dict(zip(pairs[::2], pairs[1::2], strict=True))
    assert await run_change_product(redis, 7, *pairs) == product_reply("changed", **changed)
    assert (await hash_at(redis, keys.product(SHOP, 7))).items() >= changed.items()
    assert (await events_at(redis, EVENTS))[-1] == {"event": "product_changed", "product": "7", **changed}


async def test_a_withdrawn_product_keeps_its_hash_and_leaves_the_list(redis: CommandSender) -> None:
    await run_add_product(redis, 7)
    before = await hash_at(redis, keys.product(SHOP, 7))
    assert await run_withdraw_product(redis, 7) == ["withdrawn"]
    assert await hash_at(redis, keys.product(SHOP, 7)) == {**before, "withdrawn": "1"}
    assert await scores_at(redis, PRODUCTS) == {}
    assert (await events_at(redis, EVENTS))[1:] == [{"event": "product_withdrawn", "product": "7"}]


@pytest.mark.parametrize("field", ["id", "stock", "held", "sold", "received", "written_off", "withdrawn", "sale_rules"])
async def test_a_field_that_scripts_maintain_cannot_be_changed(redis: CommandSender, field: str) -> None:
    await run_add_product(redis, 7)
    before = await dump(redis)
    with pytest.raises(ErrorReply, match="field cannot be changed"):
        await run_change_product(redis, 7, "price", "5.00", field, "1")
    assert await dump(redis) == before


@pytest.mark.parametrize("name", ["add_product", "change_product"])
async def test_a_script_with_a_field_without_a_value_fails_before_it_writes(redis: CommandSender, name: str) -> None:
    await run_add_product(redis, 7)
    before = await dump(redis)
    runs: dict[str, tuple[list[str], list[str | int]]] = {
        "add_product": ([keys.product(SHOP, 8), PRODUCTS, EVENTS], [8, 10, 1000, "", "name"]),
        "change_product": ([keys.product(SHOP, 7), EVENTS], [7, 1000, "", 1, 1, "name", "price"]),
    }
    with pytest.raises(ErrorReply, match="each field needs a value"):
        await run_script(redis, name, *runs[name])
    assert await dump(redis) == before


@pytest.mark.parametrize("name", ["change_product", "move_stock"])
async def test_a_script_without_a_field_to_return_fails_before_it_writes(redis: CommandSender, name: str) -> None:
    await run_add_product(redis, 7)
    before = await dump(redis)
    args: dict[str, list[str | int]] = {
        "change_product": [7, 1000, "", 0, 2, "price", "5.00"],
        "move_stock": [7, 1, "", "", "found", 1000, "", "", 60_000, 1000],
    }
    with pytest.raises(ErrorReply, match="no field to return"):
        await run_script(redis, name, [keys.product(SHOP, 7), EVENTS], args[name])
    assert await dump(redis) == before


async def test_a_field_that_no_script_names_is_stored_published_and_returned(redis: CommandSender) -> None:
    names = [keys.product(SHOP, 7), PRODUCTS, EVENTS]
    assert await run_script(
        redis, "add_product", names, [7, 10, 1000, "", 0, 0, "name", "Mug", "sku", "M-1", "price", "5.00"]
    ) == ["added"]
    assert list(await hash_at(redis, keys.product(SHOP, 7))) == [
        *("id", "name", "sku", "price", "stock", "held", "sold", "received", "withdrawn")
    ]
    [event] = await events_at(redis, EVENTS)
    assert list(event.items()) == [
        *(("event", "product_added"), ("product", "7"), ("name", "Mug"), ("sku", "M-1")),
        *(("price", "5.00"), ("stock", "10")),
    ]
    changed = await run_script(
        redis, "change_product", [names[0], EVENTS], [7, 1000, "", 2, 2, "stock", "sku", "sku", "M-2"]
    )
    assert changed == ["changed", "10", "M-2"]
    args: list[str | int] = [7, 1, "", "", "found", 1000, "", "", 60_000, 1000, 1000, 1000, "", "sku", "stock", "gone"]
    assert await run_script(redis, "move_stock", [names[0], EVENTS], args) == ["moved", "M-2", "11", "None"]


@pytest.mark.parametrize(
    ("counter", "expected", "step", "after"),
    [
        (None, "", 7, "7"),
        ("5", "5", -2, "3"),
        (str(2**60 + 1), str(2**60 + 1), 1 - 2**60, "2"),  # above 2^53, Lua's numbers are not exact
        ("5", "4", 2, "5"),
        ("5", "", 2, "5"),
        (None, "0", 2, None),
    ],
)
async def test_a_counter_is_moved_only_from_the_expected_value(
    redis: CommandSender, counter: str | None, expected: str, step: int, after: str | None
) -> None:
    if counter is not None:
        await redis.send("SET", keys.product_ids(SHOP), counter)
    reply = await run_move_counter(redis, expected=expected, step=step)
    assert reply == (["changed"] if after == counter else ["moved"])
    assert await redis.send("GET", keys.product_ids(SHOP)) == after

"""The scripts of a shop with several partitions: transfers of units, refusals, and changes of the catalogue."""

import pytest

from service.storage import keys
from service.storage.sender import CommandSender, ErrorReply
from tests.support.partition_scripts import (
    SENT,
    TAKEN,
    UNPROPAGATED,
    outgoing_at,
    put_outgoing,
    run_claim_units,
    run_give_units,
    run_note_propagated,
    run_push_product,
    run_read_outgoing,
    run_refuse,
    run_settle_units,
    run_take_units,
)
from tests.support.redis_content import dump, hash_at, nothing_changes, scores_at
from tests.support.scripts import (
    run_add_product,
    run_change_product,
    run_move_stock,
    run_place_order,
    run_withdraw_product,
)
from tests.support.shop import SHOP

MUG, POT, PRODUCTS = keys.product(SHOP, 7), keys.product(SHOP, 9), keys.products(SHOP)
OUTCOME, REFUSALS = keys.idempotency(SHOP, "k-1"), keys.refusals(SHOP)
FUTURE = 2**52
"""An id or a version above the time in microseconds: as if the clock of an engine had been set back since."""


async def units_at(redis: CommandSender, name: str) -> tuple[int, ...]:
    """Return stock, received and moved of a product."""
    found = await hash_at(redis, name)
    return tuple(int(found.get(field, "0")) for field in ("stock", "received", "moved"))


async def now_us(redis: CommandSender) -> int:
    seconds, microseconds = await redis.send("TIME")
    return int(seconds) * 1_000_000 + int(microseconds)


# give_units


async def test_given_units_leave_the_partition_and_are_on_their_way(redis: CommandSender) -> None:
    await run_add_product(redis, 7)
    await run_add_product(redis, 9)
    earliest = await now_us(redis)
    word, *transfers = await run_give_units(redis, 1, (7, 3, 0, 0), (9, 2, 0, 0))
    ids = [int(transfer.split()[0]) for transfer in transfers]
    assert word == "outgoing"
    assert transfers == [f"{ids[0]} 7 3", f"{ids[1]} 9 2"]
    assert earliest <= ids[0] <= await now_us(redis)
    assert ids[1] == ids[0] + 1
    assert await units_at(redis, MUG) == (7, 7, -3)
    assert await units_at(redis, POT) == (8, 8, -2)
    assert await outgoing_at(redis, 1) == transfers
    assert await hash_at(redis, SENT) == {"1": str(ids[1])}


async def test_each_run_of_a_give_is_a_transfer_of_its_own_and_lists_those_before_it(redis: CommandSender) -> None:
    await run_add_product(redis, 7)
    _, first = await run_give_units(redis, 1, (7, 3, 0, 0))
    _, *both = await run_give_units(redis, 1, (7, 3, 0, 0))
    assert both[0] == first
    assert len(both) == 2
    assert int(both[1].split()[0]) > int(first.split()[0])
    assert await units_at(redis, MUG) == (4, 4, -6)


@pytest.mark.parametrize(
    ("need", "wish", "keep", "given"),
    [
        (3, 0, 0, 3),
        (12, 0, 0, 10),  # all that there is
        (3, 6, 0, 6),
        (3, 6, 5, 5),  # above `keep`, only the need is given
        (3, 6, 8, 3),
        (3, 6, 100, 3),
        (0, 6, 8, 2),
        (0, 6, 10, 0),
        (3, -2, 0, 5),  # half of the stock
        (3, -4, 0, 3),
        (0, -3, 0, 3),
        (0, -11, 0, 0),
        (0, 0, 0, 0),
    ],
)
async def test_a_give_covers_the_need_and_above_what_it_keeps_the_wish(
    redis: CommandSender, need: int, wish: int, keep: int, given: int
) -> None:
    await run_add_product(redis, 7)
    _, *transfers = await run_give_units(redis, 1, (7, need, wish, keep))
    assert [transfer.split()[2] for transfer in transfers] == ([str(given)] if given else [])
    assert await units_at(redis, MUG) == (10 - given, 10 - given, -given)


async def test_a_give_of_nothing_writes_nothing(redis: CommandSender) -> None:
    await run_add_product(redis, 7, stock=0)
    async with nothing_changes(redis):
        assert await run_give_units(redis, 1, (7, 3, 0, 0), (9, 1, 0, 0)) == ["outgoing"]


async def test_an_id_is_above_the_last_one_and_above_a_settled_one_even_if_the_clock_is_behind(
    redis: CommandSender,
) -> None:
    await run_add_product(redis, 7)
    await redis.send("HSET", SENT, 1, FUTURE)
    assert await run_give_units(redis, 1, (7, 1, 0, 0)) == ["outgoing", f"{FUTURE + 1} 7 1"]
    # A failover has set `sent` back. The other partition has taken more than this one knows of.
    await redis.send("DEL", SENT)
    settled = str(FUTURE + 5)
    assert await run_give_units(redis, 1, (7, 1, 0, 0), settled=settled) == ["outgoing", f"{FUTURE + 6} 7 1"]
    assert await run_give_units(redis, 2, (7, 1, 0, 0), settled=settled) == ["outgoing", f"{FUTURE + 6} 7 1"]


async def test_a_give_settles_what_was_taken(redis: CommandSender) -> None:
    await put_outgoing(redis, 1, ["11 7 1", "12 9 2", "13 7 1"])
    await put_outgoing(redis, 2, ["11 7 4"])
    assert await run_give_units(redis, 1, settled="12") == ["outgoing", "13 7 1"]
    assert await outgoing_at(redis, 1) == ["13 7 1"]
    assert await outgoing_at(redis, 2) == ["11 7 4"]


async def test_nothing_is_given_while_too_many_transfers_are_on_their_way(redis: CommandSender) -> None:
    await run_add_product(redis, 7)
    waiting = ["11 9 1", "12 9 1", "13 9 1"]
    await put_outgoing(redis, 1, waiting)
    async with nothing_changes(redis):
        assert await run_give_units(redis, 1, (7, 1, 0, 0), max_on_their_way=3) == ["outgoing", *waiting]
    # Those that it settles do not count.
    _, *left = await run_give_units(redis, 1, (7, 1, 0, 0), settled="11", max_on_their_way=3)
    assert left[:2] == waiting[1:]
    assert left[2].endswith(" 7 1")


async def test_lines_without_four_numbers_are_refused(redis: CommandSender) -> None:
    await run_add_product(redis, 7)
    async with nothing_changes(redis):
        with pytest.raises(ErrorReply, match="each line needs four numbers"):
            await run_give_units(redis, 1, (7, 1, 0))  # type: ignore[arg-type]


# claim_units


async def test_a_claimed_product_is_not_given_to_partitions_with_a_higher_number(redis: CommandSender) -> None:
    await run_add_product(redis, 7)
    await run_add_product(redis, 9)
    assert await run_claim_units(redis, 7, partition=2) == ["claimed"]
    assert await run_give_units(redis, 3, (7, 1, 1, 0)) == ["outgoing"]
    assert len(await run_give_units(redis, 1, (7, 1, 0, 0))) == 2
    assert len(await run_give_units(redis, 3, (7, 1, 0, 0), (9, 1, 0, 0))) == 2
    assert await units_at(redis, POT) == (9, 9, -1)
    assert (await run_place_order(redis, (7, 9)))[0] == "placed"


async def test_a_claim_ends_by_the_clock_of_the_engine(redis: CommandSender) -> None:
    await run_add_product(redis, 7)
    earliest = await now_us(redis) // 1000
    await run_claim_units(redis, 7, partition=2, claim_ms=5000)
    until, by = (await hash_at(redis, MUG))["claim"].split()
    assert earliest + 5000 <= int(until) <= await now_us(redis) // 1000 + 5000
    assert by == "2"
    await run_claim_units(redis, 7, partition=2, claim_ms=0)
    assert len(await run_give_units(redis, 3, (7, 1, 0, 0))) == 2


async def test_a_claim_makes_no_product(redis: CommandSender) -> None:
    async with nothing_changes(redis):
        await run_claim_units(redis, 7)


# take_units


async def test_taken_units_are_in_stock_and_counted_as_received_and_moved(redis: CommandSender) -> None:
    await run_add_product(redis, 7)
    await run_add_product(redis, 9)
    assert await run_take_units(redis, 1, "11 7 3", "12 9 1", "15 7 2") == ["taken", "15", "6"]
    assert await units_at(redis, MUG) == (15, 15, 5)
    assert await units_at(redis, POT) == (11, 11, 1)
    assert await hash_at(redis, TAKEN) == {"1": "15"}


async def test_a_transfer_is_taken_once_however_often_and_late_it_comes(redis: CommandSender) -> None:
    await run_add_product(redis, 7)
    await run_take_units(redis, 1, "11 7 3")
    async with nothing_changes(redis):
        assert await run_take_units(redis, 1, "11 7 3") == ["taken", "11", "0"]
    assert await run_take_units(redis, 1, "11 7 3", "12 7 1") == ["taken", "12", "1"]
    async with nothing_changes(redis):
        assert await run_take_units(redis, 1, "11 7 3") == ["taken", "12", "0"]
    assert await units_at(redis, MUG) == (14, 14, 4)


async def test_partitions_have_ids_of_their_own(redis: CommandSender) -> None:
    await run_add_product(redis, 7)
    await run_take_units(redis, 1, f"{FUTURE + 1} 7 3")
    await run_take_units(redis, 2, "11 7 1")
    await run_take_units(redis, 3, "11 7 1")
    assert await units_at(redis, MUG) == (15, 15, 5)
    assert await hash_at(redis, TAKEN) == {"1": str(FUTURE + 1), "2": "11", "3": "11"}


async def test_units_that_come_before_their_product_are_kept_and_not_on_sale(redis: CommandSender) -> None:
    await run_take_units(redis, 1, "11 7 3", "12 7 1")
    assert await units_at(redis, MUG) == (4, 4, 4)
    assert await run_place_order(redis, (7, 1)) == ["unknown", "7 1 unknown"]
    assert await run_move_stock(redis, 7, 1) == ["absent"]
    assert len(await run_give_units(redis, 2, (7, 1, 0, 0))) == 2
    assert await run_push_product(redis, 7, 21, "name", "Mug", "price", "19.99", share=5) == ["pushed"]
    assert await units_at(redis, MUG) == (8, 8, 3)
    assert (await run_place_order(redis, (7, 8)))[0] == "placed"


async def test_a_withdrawn_product_takes_units(redis: CommandSender) -> None:
    await run_add_product(redis, 7)
    await run_withdraw_product(redis, 7)
    await run_take_units(redis, 1, "11 7 3")
    assert await units_at(redis, MUG) == (13, 13, 3)
    assert (await hash_at(redis, MUG))["withdrawn"] == "1"


# settle_units and read_outgoing


async def test_settled_transfers_are_forgotten_and_later_ones_are_not(redis: CommandSender) -> None:
    await put_outgoing(redis, 1, ["11 7 1", "12 9 2", f"{FUTURE} 7 1"])
    await put_outgoing(redis, 2, ["11 7 4"])
    assert await run_settle_units(redis, 1, "12") == ["settled"]
    assert await outgoing_at(redis, 1) == [f"{FUTURE} 7 1"]
    assert await outgoing_at(redis, 2) == ["11 7 4"]
    async with nothing_changes(redis):
        assert await run_settle_units(redis, 1, "12") == ["settled"]


async def test_what_other_partitions_do_not_have_is_read_the_oldest_first(redis: CommandSender) -> None:
    assert await run_read_outgoing(redis, 1, 3) == ["outgoing", [], [], [], [], []]
    await put_outgoing(redis, 3, ["9 7 1", "10 9 2"])
    for product_id, version in ((7, 30), (9, 10), (8, 20)):
        await redis.send("ZADD", UNPROPAGATED, version, product_id)
    await redis.send("HSET", SENT, 3, 10)
    await redis.send("HSET", TAKEN, 1, 4)
    marks = [["3", "10"], ["1", "4"]]
    assert await run_read_outgoing(redis, 1, 3) == ["outgoing", ["9", "8", "7"], *marks, [], ["9 7 1", "10 9 2"]]
    assert await run_read_outgoing(redis, max_pushes=2) == ["outgoing", ["9", "8"], *marks]


# refuse


async def test_a_refusal_is_remembered_for_its_time_and_replayed(redis: CommandSender) -> None:
    await run_add_product(redis, 7)
    assert await run_refuse(redis, "k-1", "short\n2") == ["remembered"]
    assert await hash_at(redis, OUTCOME) == {"fingerprint": "f1", "refusal": "short\n2"}
    assert 50_000 < await redis.send("PTTL", OUTCOME) <= 60_000
    assert await run_place_order(redis, (7, 1), key="k-1") == ["refused", "short\n2"]
    async with nothing_changes(redis):
        assert await run_refuse(redis, "k-1", "short\n0") == ["refused", "short\n2"]
        assert await run_refuse(redis, "k-1", fingerprint="f2") == ["reused"]


async def test_a_refusal_never_replaces_an_order_or_a_stock_change(redis: CommandSender) -> None:
    await run_add_product(redis, 7)
    await run_place_order(redis, (7, 1), key="k-1")
    await run_move_stock(redis, 7, 1, key="k-2")
    async with nothing_changes(redis):
        assert await run_refuse(redis, "k-1") == ["replayed", "41"]
        assert await run_refuse(redis, "k-2") == ["replayed", "7"]
        assert await run_refuse(redis, "k-2", fingerprint="f2") == ["reused"]


async def test_refusals_of_all_partitions_count_in_theirs(redis: CommandSender) -> None:
    for number in range(3):
        await run_refuse(redis, f"k-{number}", refusals_max=2)
    assert await redis.send("GET", REFUSALS) == "3"
    assert 0 < await redis.send("PTTL", REFUSALS) <= 60_000
    times = [await redis.send("PTTL", keys.idempotency(SHOP, f"k-{number}")) for number in range(3)]
    assert times[0] > 1000
    assert times[1] > 1000
    assert times[2] <= 1000


async def test_what_one_partition_refuses_is_not_remembered_with_a_time_of_zero(redis: CommandSender) -> None:
    await run_add_product(redis, 7)
    async with nothing_changes(redis):
        assert (await run_place_order(redis, (7, 11), key="k-1", refusal_ms=0))[0] == "short"
        assert (await run_place_order(redis, (8, 1), key="k-1", refusal_ms=0))[0] == "unknown"
        assert await run_move_stock(redis, 7, -11, key="k-1", refusal_ms=0) == ["short", "10"]
    assert (await run_place_order(redis, (7, 1), key="k-1", refusal_ms=0))[0] == "placed"
    assert await run_place_order(redis, (7, 1), key="k-1", order_id=42, refusal_ms=0) == ["replayed", "41"]


# The catalogue


async def test_a_new_product_keeps_at_home_what_the_shares_of_the_others_leave(redis: CommandSender) -> None:
    earliest = await now_us(redis)
    assert await run_add_product(redis, 7, stock=11, partitions=4) == ["added"]
    found = await hash_at(redis, MUG)
    assert (found["stock"], found["received"], found["share"]) == ("5", "5", "2")
    assert earliest <= int(found["version"]) <= await now_us(redis)
    assert await scores_at(redis, UNPROPAGATED) == {"7": int(found["version"])}


async def test_a_shop_with_one_partition_has_no_versions(redis: CommandSender) -> None:
    await run_add_product(redis, 7)
    await run_change_product(redis, 7, "price", "5.00")
    await run_withdraw_product(redis, 7)
    assert not {"version", "share"} & (await hash_at(redis, MUG)).keys()
    assert UNPROPAGATED not in await dump(redis)


async def test_each_change_has_a_higher_version_even_if_the_clock_is_behind(redis: CommandSender) -> None:
    await run_add_product(redis, 7, partitions=4)
    for change in (
        run_change_product(redis, 7, "price", "5.00", partitions=4),
        run_change_product(redis, 7, "limit_per_customer", "2", partitions=4),
        run_withdraw_product(redis, 7, partitions=4),
    ):
        await redis.send("HSET", MUG, "version", FUTURE)
        await redis.send("DEL", UNPROPAGATED)
        await change
        assert (await hash_at(redis, MUG))["version"] == str(FUTURE + 1)
        assert await scores_at(redis, UNPROPAGATED) == {"7": FUTURE + 1}


async def test_a_change_that_changes_nothing_keeps_its_version_and_what_is_not_propagated(redis: CommandSender) -> None:
    await run_add_product(redis, 7, price=5, partitions=4)
    async with nothing_changes(redis):
        assert (await run_change_product(redis, 7, "price", "5.00", partitions=4))[0] == "changed"
    await run_withdraw_product(redis, 7, partitions=4)
    async with nothing_changes(redis):
        assert await run_withdraw_product(redis, 7, partitions=4) == ["withdrawn"]


async def test_a_pushed_product_begins_with_its_share_and_is_on_sale(redis: CommandSender) -> None:
    assert await run_push_product(redis, 7, 21, "name", "Mug", "price", "19.99", "description", "", share=2) == [
        "pushed"
    ]
    assert await hash_at(redis, MUG) == {
        "id": "7",
        "version": "21",
        "name": "Mug",
        "price": "19.99",
        "description": "",
        "withdrawn": "0",
        "stock": "2",
        "held": "0",
        "sold": "0",
        "received": "2",
    }
    assert await scores_at(redis, PRODUCTS) == {"7": 7}


@pytest.mark.parametrize("version", [20, 21])
async def test_a_push_of_a_version_that_is_there_already_changes_nothing(redis: CommandSender, version: int) -> None:
    await run_push_product(redis, 7, 21, "price", "19.99", share=2)
    async with nothing_changes(redis):
        assert await run_push_product(redis, 7, version, "price", "5.00", share=2, withdrawn=True) == ["known"]


async def test_a_newer_version_changes_the_catalogue_part_and_no_units(redis: CommandSender) -> None:
    await run_push_product(redis, 7, 21, "price", "19.99", "sale_rules", "limit_per_customer: 2", share=5)
    await run_place_order(redis, (7, 1), customer="anna")
    await run_give_units(redis, 1, (7, 1, 0, 0))
    before = await hash_at(redis, MUG)
    assert await run_push_product(redis, 7, 22, "price", "5.00", "sale_rules", "", share=5) == ["pushed"]
    del before["sale_rules"]
    assert await hash_at(redis, MUG) == {**before, "version": "22", "price": "5.00"}


async def test_a_pushed_withdrawal_ends_the_sale(redis: CommandSender) -> None:
    await run_push_product(redis, 7, 21, "price", "19.99", share=2)
    await run_push_product(redis, 7, 22, "price", "19.99", share=2, withdrawn=True)
    assert (await run_place_order(redis, (7, 1)))[0] == "unknown"
    assert await scores_at(redis, PRODUCTS) == {}
    assert (await hash_at(redis, MUG))["stock"] == "2"


async def test_a_product_that_was_withdrawn_before_it_was_pushed_has_its_share_and_is_not_on_sale(
    redis: CommandSender,
) -> None:
    await run_push_product(redis, 7, 22, "price", "19.99", share=2, withdrawn=True)
    assert await units_at(redis, MUG) == (2, 2, 0)
    assert await scores_at(redis, PRODUCTS) == {}


async def test_a_product_that_was_here_and_is_lost_does_not_begin_again(redis: CommandSender) -> None:
    async with nothing_changes(redis):
        assert await run_push_product(redis, 7, 22, "price", "19.99", share=None) == ["lost"]
    await run_take_units(redis, 1, "11 7 3")
    async with nothing_changes(redis):
        assert await run_push_product(redis, 7, 22, "price", "19.99", share=None) == ["lost"]


@pytest.mark.parametrize("version", [20, 21])
async def test_no_partition_gets_a_share_any_more_when_all_have_had_it(redis: CommandSender, version: int) -> None:
    await redis.send("HSET", MUG, "stock", 2, "version", 21, "share", 2)
    await redis.send("ZADD", UNPROPAGATED, 21, 7)
    await run_note_propagated(redis, 7, version)
    assert await hash_at(redis, MUG) == {"stock": "2", "version": "21"}


async def test_only_the_newest_version_is_noted_as_propagated(redis: CommandSender) -> None:
    await redis.send("ZADD", UNPROPAGATED, 21, 7)
    await redis.send("ZADD", UNPROPAGATED, 21, 9)
    async with nothing_changes(redis):
        assert await run_note_propagated(redis, 7, 20) == ["newer"]
    assert await run_note_propagated(redis, 7, 21) == ["propagated"]
    assert await scores_at(redis, UNPROPAGATED) == {"9": 21}
    async with nothing_changes(redis):
        assert await run_note_propagated(redis, 7, 21) == ["propagated"]

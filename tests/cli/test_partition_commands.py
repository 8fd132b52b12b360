"""The commands on a shop with partitions, each on an engine of its own: they see all of it."""

import asyncio
import json
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from service.engine.launcher import run_engines
from service.partition_url import partition_url
from service.settings import Settings
from service.storage.opening import open_store
from service.storage.partitioned import AnyStore
from tests.support.command_line import HoldfastCommand, assert_failed, next_line
from tests.support.engine_process import connect
from tests.support.shop import new_order

PARTITIONS = 3
PRODUCTS = (1, 2, 3, 4)
ORDERS = 12


@pytest.fixture
def holdfast(embedded_holdfast: HoldfastCommand) -> HoldfastCommand:
    """`holdfast` with embedded engines in ./data."""
    embedded_holdfast.env["HOLDFAST_PARTITIONS"] = str(PARTITIONS)
    return embedded_holdfast


@contextmanager
def engines(holdfast: HoldfastCommand) -> Iterator[str]:
    with run_engines(holdfast.folder / "data", PARTITIONS, "none") as url:
        yield url


async def place(url: str, numbers: Sequence[int]) -> list[int]:
    """Place an order for each number, and return their ids."""

    async def one(store: AnyStore, number: int) -> int:
        return (await store.orders.place(new_order((1, 1), (2, 1)), f"key-{number}")).order.id

    settings = Settings(redis_url=url, partitions=PARTITIONS, durability="none", redis_timeout=10)
    async with open_store(settings) as store:
        return [await one(store, number) for number in numbers]


def fill(holdfast: HoldfastCommand, url: str) -> list[int]:
    """Import products, and place orders. Return the ids of the orders."""
    (holdfast.folder / "products.jsonl").write_text(
        "".join(
            json.dumps({"id": id_, "name": "Mug", "description": "", "price": 2.5, "stock": 100}) + "\n"
            for id_ in PRODUCTS
        )
    )
    assert holdfast("import", "products.jsonl").returncode == 0
    return asyncio.run(place(url, range(ORDERS)))


def json_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_import_and_export_mean_the_whole_shop(holdfast: HoldfastCommand) -> None:
    with engines(holdfast) as url:
        ids = fill(holdfast, url)
        assert {order_id % PARTITIONS for order_id in ids} == set(range(PARTITIONS))
        again = holdfast("import", "products.jsonl")
        assert (again.returncode, again.stdout) == (
            0,
            "0 added, 0 changed, 4 already existed, 0 different, 0 bad rows.\n",
        )
        products = json_lines(holdfast("export", "products").stdout)
        assert [(row["id"], row["stock"]) for row in products] == [(1, 88), (2, 88), (3, 100), (4, 100)]
        assert [row["id"] for row in json_lines(holdfast("export", "orders").stdout)] == sorted(ids, reverse=True)


def test_a_changed_row_changes_the_product_in_all_partitions(holdfast: HoldfastCommand) -> None:
    with engines(holdfast) as url:
        fill(holdfast, url)
        (holdfast.folder / "products.jsonl").write_text(
            '{"id": 1, "name": "Cup", "description": "", "price": 2.5, "stock": 0}\n'
        )
        assert holdfast("import", "--update", "products.jsonl").stdout.startswith("0 added, 1 changed")
        for number in range(PARTITIONS):
            with connect(partition_url(url, number)) as redis:
                assert redis.hget(f"{{shop:{number}}}:product:1", "name") == b"Cup"
        assert holdfast("audit").returncode == 0


def test_the_audit_adds_up_all_partitions(holdfast: HoldfastCommand) -> None:
    with engines(holdfast) as url:
        fill(holdfast, url)
        done = holdfast("audit")
        assert (done.returncode, done.stdout) == (
            0,
            "4 products, 12 orders, 0 of them pending.\nStock numbers and orders agree.\n",
        )
        with connect(partition_url(url, 2)) as redis:
            for field in ("stock", "received", "moved"):
                redis.hincrby("{shop:2}:product:4", field, -1)
        done = holdfast("audit")
    assert (done.returncode, done.stdout.splitlines()[1:]) == (
        1,
        [
            "{shop:1}:product:4 is off by -1 units in all partitions together: "
            "more were given away than arrived or are on their way",
            "1 finding.",
        ],
    )


def test_commands_start_the_engines_of_all_partitions(holdfast: HoldfastCommand) -> None:
    with engines(holdfast) as url:
        ids = fill(holdfast, url)
    assert len(json_lines(holdfast("export", "orders").stdout)) == len(ids)
    assert holdfast("audit").returncode == 0


def test_sales_and_archives_are_of_all_partitions(holdfast: HoldfastCommand) -> None:
    with engines(holdfast) as url:
        ids = fill(holdfast, url)
        [sales] = json.loads(holdfast("sales", "--format", "json").stdout)
        assert (sales["orders"], sales["units"], sales["revenue"]) == (ORDERS, 2 * ORDERS, 5.0 * ORDERS)
        for order_id in ids:  # two months old
            with connect(partition_url(url, order_id % PARTITIONS)) as redis:
                key = f"{{shop:{order_id % PARTITIONS}}}:order:{order_id}"
                redis.hset(key, "created_at", int(redis.hget(key, "created_at")) - 5_184_000_000)
        done = holdfast("archive", "--before", "2999-01-01", "--to", "old.jsonl")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("12 orders archived in old.jsonl.")
        archived = json_lines((holdfast.folder / "old.jsonl").read_text())
        assert [(row["shop"], row["id"]) for row in archived] == [("shop", order_id) for order_id in sorted(ids)]
        assert holdfast("sales").stderr == (
            "holdfast: not in the sums: 12 archived orders (--archive FILE adds them)\n"
        )
        [again] = json.loads(holdfast("sales", "--format", "json", "--archive", "old.jsonl").stdout)
        assert again == sales
        assert "12 archived orders" in holdfast("audit").stdout


def test_events_have_their_partition_and_go_on_after_a_cursor(holdfast: HoldfastCommand) -> None:
    with engines(holdfast) as url:
        ids = fill(holdfast, url)
        events = json_lines(holdfast("events").stdout)
        assert len(events) == len(PRODUCTS) + ORDERS
        orders = [event for event in events if event["event"] == "order_placed"]
        assert sorted(event["order"] for event in orders) == sorted(ids)
        assert all(event["order"] % PARTITIONS == event["partition"] for event in orders)
        for at in (0, 7, len(events) - 1):
            rest = holdfast("events", "--after", events[at]["cursor"])
            assert (rest.returncode, rest.stderr) == (0, "")
            assert json_lines(rest.stdout) == events[at + 1 :]
        reason = "is not the cursor of an event of this shop, which has 3 streams"
        assert_failed(holdfast("events", "--after", "17-0_18-0"), 1, reason)
        assert_failed(holdfast("events", "--after", "17-0"), 1, reason)


def test_follow_prints_the_events_of_all_partitions_as_they_are_written(holdfast: HoldfastCommand) -> None:
    with engines(holdfast) as url:
        fill(holdfast, url)
        last = json_lines(holdfast("events").stdout)[-1]["cursor"]
        with holdfast.start("events", "--follow", "--after", last) as following:
            assert following.stdout is not None
            for number in range(6):
                [order_id] = asyncio.run(place(url, [100 + number]))
                assert json.loads(next_line(following.stdout))["order"] == order_id
            following.send_signal(signal.SIGINT)
            rest, _ = following.communicate(timeout=30)
        assert rest == ""


def test_there_is_nothing_to_upgrade(holdfast: HoldfastCommand) -> None:
    with engines(holdfast) as url:
        fill(holdfast, url)
    assert holdfast("upgrade").stdout == "Nothing to do: the data have layout 2.\n"


def test_an_unfinished_upgrade_of_one_partition_is_finished(holdfast: HoldfastCommand) -> None:
    with engines(holdfast) as url:
        fill(holdfast, url)
        with connect(partition_url(url, 1)) as redis:
            redis.hset("{shop:1}:meta", "upgrade", "0-0")
    assert_failed(holdfast("audit"), 3, "an upgrade of the data in Redis is not finished")
    assert holdfast("upgrade").stdout == "Upgraded to layout 2: 0 moments added to orders.\n"
    assert holdfast("audit").returncode == 0


def test_all_partitions_are_marked_as_restored(holdfast: HoldfastCommand) -> None:
    with engines(holdfast) as url:
        ids = fill(holdfast, url)
    done = holdfast("mark-restored")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line.split(": ")[0] for line in lines] == [f"shop:{number}" for number in range(PARTITIONS)]
    next_ids = {int(line.split("is ")[1].split(".")[0]) for line in lines}
    with engines(holdfast) as url:
        new = asyncio.run(place(url, range(100, 120)))
        assert min(new) > max(ids)
        assert set(new) >= next_ids
        assert len(set(new)) == 20
        assert holdfast("audit").returncode == 0


@pytest.mark.parametrize("command", [("audit",), ("export", "orders"), ("sales",), ("mark-restored",), ("upgrade",)])
def test_a_shop_that_does_not_exist_is_named(holdfast: HoldfastCommand, command: tuple[str, ...]) -> None:
    with engines(holdfast) as url:
        fill(holdfast, url)
    holdfast.env["HOLDFAST_SHOP"] = "ship"
    code = 3 if command[0] == "audit" else 1
    reason = "there is no shop 'ship' in this Redis (HOLDFAST_SHOP); the shops in it are shop\n"
    assert_failed(holdfast(*command), code, reason)

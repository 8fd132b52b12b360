"""`holdfast archive`: its output, its exit codes, and what is left when it is killed."""

import asyncio
import json
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from service.storage.connection import MultiplexedConnection
from service.storage.store import Store
from tests.support.clock import Clock
from tests.support.command_line import SharedEngineCommand, assert_failed
from tests.support.shop import make_store, new_mug, new_order
from tests.support.waiting import eventually

ARCHIVE = ("archive", "--before", "2024-01-01", "--to", "old.jsonl")
YEAR_2020 = 1_577_836_800_000


def on_shop(holdfast: SharedEngineCommand, work: Callable[[Store], Awaitable[object]]) -> None:
    """Do something in the shop of the command, with the clock in 2020."""

    async def run() -> None:
        url = holdfast.env["HOLDFAST_REDIS_URL"]
        async with MultiplexedConnection(url, timeout=10, max_in_flight=100_000) as connection:
            await work(make_store(connection, shop="cli", clock=Clock(YEAR_2020)))

    asyncio.run(run())


def place_orders(holdfast: SharedEngineCommand, count: int) -> None:
    """Add a product, and sell so many of it, each with an Idempotency-Key."""

    async def place(store: Store) -> None:
        await store.products.add(new_mug(id=1, stock=1_000_000))
        for start in range(0, count, 500):
            step = range(start, min(start + 500, count))
            await asyncio.gather(
                *[store.orders.place(new_order((1, 2), customer=f"c{number}"), f"key-{number}") for number in step]
            )

    on_shop(holdfast, place)


def ids_in(file: Path) -> list[int]:
    return [json.loads(line)["id"] for line in file.read_text().splitlines()]


def test_old_orders_are_archived_and_a_repetition_adds_nothing(holdfast: SharedEngineCommand) -> None:
    place_orders(holdfast, 3)
    first, second = holdfast(*ARCHIVE), holdfast(*ARCHIVE)
    assert (first.returncode, first.stdout, first.stderr) == (
        0,
        "3 orders archived in old.jsonl. 0 events removed.\n",
        "",
    )
    assert second.stdout == "0 orders archived in old.jsonl. 0 events removed.\n"
    assert ids_in(holdfast.folder / "old.jsonl") == [1, 2, 3]
    audit = holdfast("audit")
    assert (audit.returncode, audit.stdout.splitlines()[0]) == (
        0,
        "1 product, 0 orders, 0 of them pending. 3 archived orders.",
    )


def test_sales_name_archived_orders_and_add_those_of_given_files(holdfast: SharedEngineCommand) -> None:
    place_orders(holdfast, 3)
    before = holdfast("sales", "--format", "csv")
    assert before.stderr == ""
    holdfast(*ARCHIVE)
    without = holdfast("sales", "--format", "csv")
    assert (without.returncode, without.stderr) == (
        0,
        "holdfast: not in the sums: 3 archived orders (--archive FILE adds them)\n",
    )
    again = holdfast("sales", "--format", "csv", "--archive", "old.jsonl", "--archive", "old.jsonl")
    assert (again.stdout, again.stderr) == (before.stdout, "")


def test_orders_younger_than_keep_days_are_named_and_stay(holdfast: SharedEngineCommand) -> None:
    place_orders(holdfast, 2)
    result = holdfast("archive", "--before", "2024-01-01", "--to", "old.jsonl", "--keep-days", "36500")
    assert result.stdout.splitlines() == [
        "0 orders archived in old.jsonl. 0 events removed.",
        "2 orders stayed: the last change is less than 36500 days ago.",
    ]


def test_damaged_orders_give_exit_code_1(holdfast: SharedEngineCommand) -> None:
    place_orders(holdfast, 2)
    holdfast.redis.hset("{cli}:order:1", "products", "two mugs")
    result = holdfast(*ARCHIVE)
    assert result.returncode == 1
    assert result.stderr == "holdfast: not archived, because damaged: 1 order (`holdfast audit` names them)\n"
    assert ids_in(holdfast.folder / "old.jsonl") == [2]


LINE = '{"shop":"cli","id":1,"products":[],"created_at":"2020-01-01T00:00:00.001Z"}\n'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("notes\n", "line 1 of old.jsonl is no line of an archive"),
        ("notes", "line 1 of old.jsonl is no line of an archive"),
        ('{"id":1,"products":[]}\n', "line 1 of old.jsonl is no line of an archive"),
        (LINE.replace("cli", "other"), "line 1 of old.jsonl is of another shop: use one file for each shop"),
        (LINE, "old.jsonl has another order 1 than Redis: it is the archive of other data"),
    ],
)
def test_a_file_that_is_no_archive_of_this_shop_stays_as_it_is(
    holdfast: SharedEngineCommand, content: str, message: str
) -> None:
    place_orders(holdfast, 1)
    (holdfast.folder / "old.jsonl").write_text(content)
    assert_failed(holdfast(*ARCHIVE), 1, message)
    assert (holdfast.folder / "old.jsonl").read_text() == content
    assert holdfast.redis.exists("{cli}:order:1")


def test_a_folder_or_a_full_disk_is_reported_and_no_order_is_removed(holdfast: SharedEngineCommand) -> None:
    place_orders(holdfast, 1)
    (holdfast.folder / "old.jsonl").mkdir()
    assert_failed(holdfast(*ARCHIVE), 1, "old.jsonl is not a file")
    assert_failed(holdfast("archive", "--before", "2024-01-01", "--to", "/dev/full"), 1, "/dev/full is not a file")
    assert_failed(holdfast("archive", "--before", "2024-01-01", "--to", "absent/old.jsonl"), 1, "No such file")
    assert holdfast.redis.exists("{cli}:order:1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("archive", "--to", "old.jsonl"), "Missing option '--before'"),
        (("archive", "--before", "2024-01-01"), "Missing option '--to'"),
        (("archive", "--before", "yesterday", "--to", "old.jsonl"), "'yesterday' is not a date such as 2026-11-26"),
        ((*ARCHIVE, "--keep-days", "0"), "0 is not in the range 1<=x<=36500"),
    ],
)
def test_wrong_options_are_wrong_usage(holdfast: SharedEngineCommand, arguments: tuple[str, ...], message: str) -> None:
    result = holdfast(*arguments)
    assert result.returncode == 2
    assert message in result.stderr


def test_a_shop_that_does_not_exist_is_reported_and_no_file_is_written(holdfast: SharedEngineCommand) -> None:
    assert_failed(holdfast(*ARCHIVE), 1, "there is no shop 'cli' in this Redis")
    assert list(holdfast.folder.iterdir()) == []


def test_two_processes_do_not_write_the_same_file(holdfast: SharedEngineCommand) -> None:
    place_orders(holdfast, 2000)
    with holdfast.start(*ARCHIVE) as running:
        wait_for_bytes(holdfast.folder / "old.jsonl", 1)
        running.send_signal(signal.SIGSTOP)
        assert_failed(holdfast(*ARCHIVE), 1, "another process is writing old.jsonl")


def test_a_command_that_is_killed_again_and_again_archives_each_order_once(holdfast: SharedEngineCommand) -> None:
    place_orders(holdfast, 4000)
    file = holdfast.folder / "old.jsonl"
    size = 0
    for _ in range(3):
        with holdfast.start(*ARCHIVE) as running:
            wait_for_bytes(file, size + 1)
            running.kill()
        size = file.stat().st_size
        in_file = {json.loads(line)["id"] for line in file.read_bytes().split(b"\n")[:-1]}
        live = {int(key[len("{cli}:order:") :]) for key in holdfast.redis.keys("{cli}:order:*")}
        assert in_file | live == set(range(1, 4001))
        assert holdfast("audit").returncode == 0
    result = holdfast(*ARCHIVE)
    assert result.returncode == 0
    assert ids_in(file) == list(range(1, 4001))
    assert holdfast.redis.keys("{cli}:order:*") == holdfast.redis.keys("{cli}:idempotency:*") == []
    assert holdfast("audit").returncode == 0


def wait_for_bytes(file: Path, size: int) -> None:
    """Wait until a file has so many bytes."""

    asyncio.run(eventually(lambda: file.exists() and file.stat().st_size >= size, f"{size} bytes"))

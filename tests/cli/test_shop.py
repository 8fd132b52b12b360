"""How a command finds its engine, and the report if it cannot use that engine."""

import json
import subprocess
from pathlib import Path

import pytest

from service.storage.requirements import SCHEMA_VERSION
from tests.support.command_line import HoldfastCommand, SharedEngineCommand, assert_failed, next_line
from tests.support.processes import free_port
from tests.support.waiting import PATIENCE


@pytest.mark.process
def test_a_command_uses_the_engine_of_a_running_service(embedded_holdfast: HoldfastCommand) -> None:
    port = free_port()
    embedded_holdfast.env["HOLDFAST_PORT"] = str(port)
    with embedded_holdfast.start("serve", stderr=subprocess.STDOUT) as service:
        assert service.stdout is not None
        line = ""
        while str(port) not in line:
            line = next_line(service.stdout)
            assert line, "the service ended"
        embedded_holdfast.write_products("p.jsonl", 1)
        imported = embedded_holdfast("import", "p.jsonl")
        audited = embedded_holdfast("audit")
        events = embedded_holdfast("events")
        assert service.poll() is None
        service.terminate()
        service.communicate(timeout=PATIENCE)
    assert (imported.returncode, imported.stdout) == (
        0,
        "1 added, 0 changed, 0 already existed, 0 different, 0 bad rows.\n",
    )
    assert (audited.returncode, audited.stdout.splitlines()[0]) == (0, "1 product, 0 orders, 0 of them pending.")
    assert json.loads(events.stdout)["event"] == "product_added"
    assert embedded_holdfast("audit").stdout == audited.stdout  # this time with its own engine


@pytest.mark.parametrize(("args", "code"), [(("audit",), 3), (("events", "--follow"), 1), (("import", "p.jsonl"), 1)])
def test_an_unreachable_redis_is_reported_in_one_line(tmp_path: Path, args: tuple[str, ...], code: int) -> None:
    url = f"redis://127.0.0.1:{free_port()}"
    command = HoldfastCommand(tmp_path, HOLDFAST_REDIS_URL=url, HOLDFAST_REDIS_TIMEOUT="0.2")
    command.write_products("p.jsonl", 1)
    assert_failed(command(*args), code, "127.0.0.1")


@pytest.mark.parametrize(("args", "code"), [(("audit",), 3), (("events",), 1), (("export", "orders"), 1)])
def test_a_missing_data_directory_is_reported_and_not_created(tmp_path: Path, args: tuple[str, ...], code: int) -> None:
    command = HoldfastCommand(tmp_path)
    assert_failed(command(*args), code, "the data directory data does not exist")
    assert list(tmp_path.iterdir()) == []


READERS = [(("audit",), 3), (("audit", "--json"), 3), (("events",), 1), (("export", "orders"), 1)]


def assert_refused(result: "subprocess.CompletedProcess[str]", code: int, reason: str) -> None:
    """Assert that the command printed its reason in one line, and as JSON if it was asked to."""
    if result.stdout:
        report = json.loads(result.stdout)
        assert (report["balanced"], reason in report["reason"]) == (None, True)
        result.stdout = ""
    assert_failed(result, code, reason)


@pytest.mark.parametrize(("args", "code"), READERS)
def test_a_misspelt_shop_is_reported_with_the_other_shops_and_nothing_is_written(
    holdfast: SharedEngineCommand, args: tuple[str, ...], code: int
) -> None:
    holdfast.write_products("p.jsonl", 1)
    assert holdfast("import", "p.jsonl").returncode == 0
    before = sorted(holdfast.redis.keys())
    holdfast.env["HOLDFAST_SHOP"] = "clj"
    reason = "there is no shop 'clj' in this Redis (HOLDFAST_SHOP); the shops in it are cli"
    assert_refused(holdfast(*args), code, reason)
    assert sorted(holdfast.redis.keys()) == before


def test_a_command_that_reads_writes_nothing_into_an_empty_redis(holdfast: SharedEngineCommand) -> None:
    assert_refused(holdfast("audit"), 3, "there is no other shop in it either")
    assert holdfast.redis.keys() == []


def test_a_redis_that_has_only_a_partition_of_a_shop_is_said_to_have_one(holdfast: SharedEngineCommand) -> None:
    holdfast.redis.hset("{cli:1}:meta", "layout", SCHEMA_VERSION)
    assert_refused(holdfast("audit"), 3, "it has partition 1 of the shop cli: set HOLDFAST_PARTITIONS")


def test_a_shop_without_products_and_orders_is_said_to_be_empty(holdfast: SharedEngineCommand) -> None:
    holdfast.redis.hset("{cli}:meta", "layout", SCHEMA_VERSION)
    assert_refused(holdfast("audit", "--json"), 3, "the shop 'cli' is empty")
    assert holdfast("export", "products").returncode == 0


def test_events_that_are_followed_may_begin_later(holdfast: SharedEngineCommand) -> None:
    with holdfast.start("events", "--follow") as process:
        assert process.stdout is not None
        event_id = holdfast.add_event(1)
        assert json.loads(next_line(process.stdout))["id"] == event_id
    assert holdfast.redis.keys() == [b"{cli}:events"]


@pytest.mark.parametrize(
    ("args", "code", "kind"),
    [
        *((args, code, "a directory with other files") for args, code in READERS),
        *((("audit",), 3, kind) for kind in ("an empty directory", "a file", "a directory that was only begun")),
    ],
)
def test_a_wrong_data_directory_is_reported_and_left_as_it_is(
    tmp_path: Path, args: tuple[str, ...], code: int, kind: str
) -> None:
    data = tmp_path / "data"
    if kind == "a file":
        data.write_text("x")
    else:
        data.mkdir()
        if kind == "a directory with other files":
            (data / "holiday.jpg").write_text("x")
        elif kind == "a directory that was only begun":
            (data / "appendonlydir").mkdir()
    before = sorted(tmp_path.rglob("*"))
    reason = "data is not a directory" if kind == "a file" else "the directory data has no data of Holdfast"
    assert_refused(HoldfastCommand(tmp_path)(*args), code, reason)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(("args", "code"), READERS[1:3])
def test_meta_data_of_another_type_are_reported_in_one_line(
    holdfast: SharedEngineCommand, args: tuple[str, ...], code: int
) -> None:
    holdfast.redis.set("{cli}:meta", "x")
    assert_refused(holdfast(*args), code, "{cli}:meta is not a hash")


@pytest.mark.parametrize(("args", "code"), [(("audit", "--json"), 3), (("export", "orders"), 1)])
def test_a_user_without_a_command_that_only_readers_need_is_reported_in_one_line(
    holdfast: SharedEngineCommand, args: tuple[str, ...], code: int
) -> None:
    holdfast.add_products(1)
    holdfast.redis.acl_setuser("reader", enabled=True, passwords=["+secret"], keys=["*"], commands=["+@all", "-scan"])
    holdfast.env["HOLDFAST_REDIS_URL"] = holdfast.env["HOLDFAST_REDIS_URL"].replace("unix://", "unix://reader:secret@")
    try:
        assert_refused(holdfast(*args), code, "scan")
    finally:
        holdfast.redis.acl_deluser("reader")


def test_foreign_entries_of_the_stream_are_printed_as_text(holdfast: SharedEngineCommand) -> None:
    holdfast.add_products(1)
    holdfast.redis.xadd("{cli}:events", {"event": "order_expired", "order": "many", b"\xff": b"\xfe"})
    result = holdfast("events")
    assert (result.returncode, result.stderr) == (0, "")
    event = json.loads(result.stdout)
    del event["id"]
    assert event == {"event": "order_expired", "order": "many", "\ufffd": "\ufffd"}
    result = holdfast("audit")
    assert (result.returncode, result.stderr) == (1, "")
    assert "which Holdfast did not write" in result.stdout


def test_a_redis_with_too_little_durability_is_reported_in_one_line(holdfast: SharedEngineCommand) -> None:
    holdfast.env["HOLDFAST_DURABILITY"] = "always"
    assert_failed(holdfast("audit"), 3, "HOLDFAST_DURABILITY is 'always'")


def test_data_of_a_newer_version_is_reported_in_one_line(holdfast: SharedEngineCommand) -> None:
    holdfast.redis.hset("{cli}:meta", "layout", 3)
    assert_failed(holdfast("export", "products"), 1, "schema version 3")


def test_commands_accept_each_shop_that_fits_a_pattern(tmp_path: Path) -> None:
    command = HoldfastCommand(tmp_path, HOLDFAST_SHOPS="berlin,fair-*", HOLDFAST_DURABILITY="none")
    command.write_products("p.jsonl", 1)
    assert command("import", "--shop", "fair-may", "p.jsonl").returncode == 0
    assert command("audit", "--shop", "fair-may").returncode == 0
    refused = "is not one of HOLDFAST_SHOPS (berlin, fair-*): name one of them with --shop"
    assert_failed(command("import", "--shop", "rome", "p.jsonl"), 1, f"rome {refused}")
    assert_failed(command("audit"), 3, f"shop {refused}")
    assert_failed(command("audit", "--shop", "fair-june"), 3, "there is no shop 'fair-june' in this Redis")
    assert command("backup", "copy").returncode == 0
    command.env["HOLDFAST_SHOPS"] = "market-*"
    assert_failed(command("backup", "other"), 1, "there is no shop 'market-*' in")

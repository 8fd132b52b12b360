"""`holdfast upgrade`, on data that commit 4510fa1 wrote.

`tests/support/layout_1` is the data directory of a service of that commit: orders in every status, with and without
Idempotency-Keys, stock changes, a withdrawn product. `answers.jsonl` has what it answered.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from service.domain.times import parse_timestamp
from service.engine.launcher import run_engine
from service.storage.connection import MultiplexedConnection
from tests.support.clock import Clock
from tests.support.command_line import HoldfastCommand, assert_failed
from tests.support.redis_content import dump
from tests.support.shop import http_client, make_store

OLD_DATA = Path(__file__).parents[1] / "support" / "layout_1"
ANSWERS: list[dict[str, Any]] = [json.loads(line) for line in (OLD_DATA / "answers.jsonl").read_text().splitlines()]
THEN = parse_timestamp("2026-11-27T11:04:30Z")
"""After the answers were recorded, and before the pending orders expire."""

PLACED = {row["answer"]["id"]: row["answer"] for row in ANSWERS if row["path"] == "/orders"}
NEEDS_UPGRADE = "schema version 1, but this Holdfast needs 2: stop all services of the shop, make a backup, and run"


@pytest.fixture
def old(embedded_holdfast: HoldfastCommand) -> HoldfastCommand:
    """`holdfast` on data of commit 4510fa1."""
    shutil.copytree(OLD_DATA / "appendonlydir", embedded_holdfast.folder / "data" / "appendonlydir")
    return embedded_holdfast


def test_old_data_are_refused_until_they_are_upgraded(old: HoldfastCommand) -> None:
    assert_failed(old("export", "orders"), 1, NEEDS_UPGRADE)
    assert_failed(old("audit"), 3, NEEDS_UPGRADE)
    assert_failed(old("mark-restored"), 1, NEEDS_UPGRADE)
    doctor = old("doctor")
    assert (doctor.returncode, "bad   layout" in doctor.stdout) == (1, True)
    done = old("upgrade")
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        "Upgraded from layout 1 to layout 2: 1 moment added to orders.\n",
        "",
    )
    assert old("audit").stdout == "5 products, 8 orders, 2 of them pending.\nStock numbers and orders agree.\n"
    assert old("upgrade").stdout == "Nothing to do: the data have layout 2.\n"


async def test_after_the_upgrade_every_order_is_answered_as_before(old: HoldfastCommand) -> None:
    assert old("upgrade").returncode == 0
    with run_engine(old.folder / "data", "none") as url:
        async with (
            MultiplexedConnection(url, timeout=10, max_in_flight=1000) as connection,
            http_client(make_store(connection, shop="shop", clock=Clock(THEN))) as client,
        ):
            for row in [row for row in ANSWERS if row["method"] == "GET"]:
                response = await client.get(row["path"])
                expected = row["answer"]
                if row["status"] == 200 and PLACED.get(expected["id"], expected)["status"] != expected["status"]:
                    # It was completed while it was pending: now it has the moment.
                    assert response.json().pop("completed_at") >= expected["created_at"]
                    expected = {**expected, "completed_at": response.json()["completed_at"]}
                elif row["status"] != 200:  # a problem has an id of its request, and may have the order
                    expected = {**expected, "instance": response.json()["instance"]}
                assert response.status_code == row["status"]
                assert expected.items() <= response.json().items()


async def test_after_the_upgrade_old_keys_do_nothing_a_second_time(old: HoldfastCommand) -> None:
    assert old("upgrade").returncode == 0
    with run_engine(old.folder / "data", "none") as url:
        async with MultiplexedConnection(url, timeout=10, max_in_flight=1000) as connection:
            before = await dump(connection)
            async with http_client(make_store(connection, shop="shop", clock=Clock(THEN))) as client:
                for row in [row for row in ANSWERS if row["method"] == "POST"]:
                    headers = {"Idempotency-Key": row["key"]}
                    response = await client.post(row["path"], json=row["body"], headers=headers)
                    if response.status_code == 410:  # it has ended since: the answer has the order
                        assert response.json()["order"]["id"] == row["answer"]["id"]
                    else:
                        assert (response.status_code, response.json()["id"]) == (row["status"], row["answer"]["id"])
                        assert response.headers["idempotent-replayed"] == "true"
            after = await dump(connection)
            for content in (before, after):
                for name in ("{shop}:meta", "{shop}:ids:orders"):  # reserved ids
                    content.pop(name)
            assert after == before


def test_a_backup_of_old_data_is_verified_and_restored_as_upgraded_data(old: HoldfastCommand) -> None:
    assert old("backup", "backup").returncode == 0
    assert json.loads((old.folder / "backup" / "backup.json").read_text())["shops"]["shop"]["layout"] == 1
    assert_failed(old("audit"), 3, NEEDS_UPGRADE)  # the data themselves stay as they are
    old.env["HOLDFAST_DATA_DIR"] = "new"
    assert old("restore", "backup").returncode == 0
    assert old("audit").returncode == 0
    assert old("upgrade").stdout == "Nothing to do: the data have layout 2.\n"


def test_a_directory_in_use_is_not_upgraded(old: HoldfastCommand) -> None:
    with run_engine(old.folder / "data", "none"):
        assert_failed(old("upgrade"), 1, "data is in use: stop the service first")


def test_a_shop_that_does_not_exist_is_not_upgraded(old: HoldfastCommand) -> None:
    assert_failed(old("--shop", "other", "upgrade"), 1, "there is no shop 'other'")

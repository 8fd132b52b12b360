"""`holdfast audit`: its output, its JSON, and its exit codes."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.support.command_line import HoldfastCommand, SharedEngineCommand
from tests.support.processes import free_port


def test_the_audit_of_a_balanced_shop_exits_with_0(holdfast: SharedEngineCommand) -> None:
    holdfast.add_products(1, 2)
    result = holdfast("audit")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "2 products, 0 orders, 0 of them pending.\nStock numbers and orders agree.\n"
    result = holdfast("audit", "--json")
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout) == {
        "balanced": True,
        "products": 2,
        "orders": 0,
        "pending": 0,
        "archived": 0,
        "events_followed": 0,
        "findings": [],
    }


def test_the_audit_prints_its_findings_and_exits_with_1(holdfast: SharedEngineCommand) -> None:
    holdfast.add_products(1, 2)
    holdfast.redis.hset("{cli}:product:2", "stock", "9")
    result = holdfast("audit")
    assert (result.returncode, result.stderr) == (1, "")
    assert result.stdout.splitlines() == [
        "2 products, 0 orders, 0 of them pending.",
        "{cli}:product:2 has received 10, but stock 9 + held 0 + sold 0 is 9",
        "1 finding.",
    ]
    result = holdfast("audit", "--json")
    assert (result.returncode, result.stderr) == (1, "")
    report = json.loads(result.stdout)
    assert report["balanced"] is False
    [finding] = report["findings"]
    assert finding["key"] == "{cli}:product:2"


@pytest.mark.parametrize("key", ["products", "ids:orders"])
def test_the_audit_reports_a_key_of_another_type(holdfast: SharedEngineCommand, key: str) -> None:
    holdfast.redis.hset(f"{{cli}}:{key}", "stock", "9")
    result = holdfast("audit")
    assert result.returncode == 1
    assert f"{{cli}}:{key} " in result.stdout
    assert "Traceback" not in result.stderr


def test_an_inconclusive_audit_gives_its_reason_in_json(tmp_path: Path) -> None:
    command = HoldfastCommand(
        tmp_path, HOLDFAST_REDIS_URL=f"redis://127.0.0.1:{free_port()}", HOLDFAST_REDIS_TIMEOUT="0.2"
    )
    result = command("audit", "--json")
    assert result.returncode == 3
    report = json.loads(result.stdout)
    assert report["balanced"] is None
    assert "127.0.0.1" in report["reason"]


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_findings_give_exit_code_1_though_nobody_reads_the_output(
    holdfast: SharedEngineCommand, options: tuple[str, ...]
) -> None:
    holdfast.redis.hset("{cli}:order:1", "status", "odd")
    reader, writer = os.pipe()
    os.close(reader)
    result = holdfast("audit", *options, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (result.returncode, result.stderr) == (1, "")


def test_output_on_a_full_disk_gives_exit_code_3(holdfast: SharedEngineCommand) -> None:
    with Path("/dev/full").open("w") as full:
        result = holdfast("audit", stdout=full, stderr=subprocess.PIPE)
    assert result.returncode == 3
    assert result.stderr.count("\n") == 1

"""`holdfast import`: its output and its exit codes."""

import json
import os
import subprocess

import pytest

from tests.support.command_line import HoldfastCommand, SharedEngineCommand, assert_failed
from tests.support.shop import mug


def test_a_repeated_import_adds_nothing(embedded_holdfast: HoldfastCommand) -> None:
    embedded_holdfast.write_products("p.jsonl", 1, 2)
    first, second = embedded_holdfast("import", "p.jsonl"), embedded_holdfast("import", "p.jsonl")
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout == "2 added, 0 already existed, 0 bad rows.\n"
    assert (second.returncode, second.stderr) == (0, "")
    assert second.stdout == "0 added, 2 already existed, 0 bad rows.\n"
    exported = embedded_holdfast("export", "products")
    assert (exported.returncode, exported.stderr) == (0, "")
    assert [json.loads(line) for line in exported.stdout.splitlines()] == [{"id": number, **mug()} for number in (1, 2)]


def test_an_import_prints_each_bad_row_and_exits_with_1(holdfast: SharedEngineCommand) -> None:
    holdfast.write_products("p.jsonl", 1, more='{"id": 2}\nM\xfcg\n')
    result = holdfast("import", "p.jsonl")
    assert result.returncode == 1
    assert result.stdout == "1 added, 0 already existed, 2 bad rows.\n"
    first, second = result.stderr.splitlines()
    assert first.startswith("p.jsonl:2: #/name: Field is required; ")
    assert second.startswith("p.jsonl:3: This is not JSON")


@pytest.mark.parametrize("streams", [("stdout",), ("stdout", "stderr")])
def test_bad_rows_give_exit_code_1_though_nobody_reads_the_output(
    holdfast: SharedEngineCommand, streams: tuple[str, ...]
) -> None:
    holdfast.write_products("p.jsonl", 1, more="{}\n" * 10)
    reader, writer = os.pipe()
    os.close(reader)
    result = holdfast("import", "p.jsonl", **{"stderr": subprocess.DEVNULL, **dict.fromkeys(streams, writer)})
    os.close(writer)
    assert result.returncode == 1
    assert holdfast("export", "products").stdout.count("\n") == 1


def test_a_small_max_in_flight_does_not_limit_an_import(holdfast: SharedEngineCommand) -> None:
    holdfast.write_products("p.jsonl", *range(1, 601))
    holdfast.env["HOLDFAST_MAX_IN_FLIGHT"] = "100"
    result = holdfast("import", "p.jsonl")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("600 added")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("import", "absent.jsonl"), "absent.jsonl: "),
        (("import", "absent.txt"), "absent.txt: the name must end in .jsonl or .csv"),
    ],
)
def test_an_unreadable_file_is_reported_in_one_line(
    holdfast: SharedEngineCommand, args: tuple[str, ...], message: str
) -> None:
    assert_failed(holdfast(*args), 1, message)

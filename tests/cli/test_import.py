"""`holdfast import`: its output and its exit codes."""

import json
import os
import subprocess

import pytest

from tests.support.command_line import HOLDFAST, HoldfastCommand, SharedEngineCommand, assert_failed
from tests.support.shop import mug


def test_a_repeated_import_adds_nothing(embedded_holdfast: HoldfastCommand) -> None:
    embedded_holdfast.write_products("p.jsonl", 1, 2)
    first, second = embedded_holdfast("import", "p.jsonl"), embedded_holdfast("import", "p.jsonl")
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout == "2 added, 0 changed, 0 already existed, 0 different, 0 bad rows.\n"
    assert (second.returncode, second.stderr) == (0, "")
    assert second.stdout == "0 added, 0 changed, 2 already existed, 0 different, 0 bad rows.\n"
    exported = embedded_holdfast("export", "products")
    assert (exported.returncode, exported.stderr) == (0, "")
    assert [json.loads(line) for line in exported.stdout.splitlines()] == [{"id": number, **mug()} for number in (1, 2)]


def test_an_import_prints_each_bad_row_and_exits_with_1(holdfast: SharedEngineCommand) -> None:
    holdfast.write_products("p.jsonl", 1, more='{"id": 2}\nM\xfcg\n')
    result = holdfast("import", "p.jsonl")
    assert result.returncode == 1
    assert result.stdout == "1 added, 0 changed, 0 already existed, 0 different, 2 bad rows.\n"
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


def test_a_row_that_differs_gives_exit_code_1_and_an_update_changes_the_product(holdfast: SharedEngineCommand) -> None:
    holdfast.add_products(1, 2)
    (holdfast.folder / "p.csv").write_text("id;name;description;price;stock\n1;Mug;Holds coffee.;18,00;7\n")
    result = holdfast("import", "p.csv")
    assert result.returncode == 1
    assert result.stdout == "0 added, 0 changed, 0 already existed, 1 different, 0 bad rows.\n"
    assert result.stderr == "p.csv:2: differs from the product in the shop: price is 19.99 there, 18.00 here\n"
    result = holdfast("import", "p.csv", "--update")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "0 added, 1 changed, 0 already existed, 0 different, 0 bad rows.\n"
    assert [product["price"] for product in exported(holdfast)] == [18, 19.99]


def exported(holdfast: HoldfastCommand) -> list[dict[str, object]]:
    """Return the products that `holdfast export` prints."""
    return [json.loads(line) for line in holdfast("export", "products").stdout.splitlines()]


DRY = "1 would be added, 0 would be changed, 0 already existed, 0 different, 0 bad rows. Nothing was written.\n"


def test_a_dry_run_begins_no_shop(holdfast: SharedEngineCommand) -> None:
    holdfast.write_products("p.jsonl", 1)
    result = holdfast("import", "--dry-run", "p.jsonl")
    assert (result.returncode, result.stderr, result.stdout) == (0, "", DRY)
    assert holdfast.redis.keys() == []


@pytest.mark.parametrize("data", ["absent", "an empty directory"])
def test_a_dry_run_begins_no_data_directory(embedded_holdfast: HoldfastCommand, data: str) -> None:
    embedded_holdfast.write_products("p.jsonl", 1)
    if data == "an empty directory":
        (embedded_holdfast.folder / "data").mkdir()
    before = sorted(embedded_holdfast.folder.rglob("*"))
    result = embedded_holdfast("import", "--dry-run", "p.jsonl")
    assert (result.returncode, result.stderr, result.stdout) == (0, "", DRY)
    assert sorted(embedded_holdfast.folder.rglob("*")) == before


def test_a_dry_run_on_a_file_instead_of_a_data_directory_is_refused(embedded_holdfast: HoldfastCommand) -> None:
    embedded_holdfast.write_products("p.jsonl", 1)
    (embedded_holdfast.folder / "data").write_text("x")
    assert_failed(embedded_holdfast("import", "--dry-run", "p.jsonl"), 1, "data is not a directory")


def test_a_header_that_does_not_fit_writes_nothing(embedded_holdfast: HoldfastCommand) -> None:
    (embedded_holdfast.folder / "p.csv").write_text("Nr;Preis\n1;5\n2;6\n")
    assert_failed(embedded_holdfast("import", "p.csv"), 1, "p.csv:1: the header does not fit. Columns read: Nr, Preis")
    assert [path.name for path in embedded_holdfast.folder.iterdir()] == ["p.csv"]


@pytest.mark.parametrize(
    ("content", "options"),
    [
        ("\n\ufeffid;name;description;price;stock\n1;Mug;;5,5;1\n".removeprefix("\n"), []),
        ("id\tname\tdescription\tprice\tstock\n1\tMug\t\t5,5\t1\n", ["--delimiter", "tab", "--decimal", ","]),
        ('\ufeff\n {"id": 1, "name": "Mug", "description": "", "price": 5, "stock": 1}\n', []),
    ],
)
def test_standard_input_is_read(holdfast: SharedEngineCommand, content: str, options: list[str]) -> None:
    (holdfast.folder / "input").write_text(content)
    with (holdfast.folder / "input").open() as stdin:
        result = holdfast("import", "-", *options, stdin=stdin)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "1 added, 0 changed, 0 already existed, 0 different, 0 bad rows.\n"


def test_messages_about_standard_input_name_it(holdfast: SharedEngineCommand) -> None:
    result = subprocess.run(
        [*HOLDFAST, "import", "-"],
        input=b"id,name,description,price,stock\n1,Mug,,5 EUR,1\n",
        cwd=holdfast.folder,
        env=holdfast.env,
        capture_output=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr == (b'standard input:2: #/price: Input should be a number, such as 19.99, not "5 EUR"\n')


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (("p.jsonl", "--delimiter", ";"), "--delimiter: only for a .csv file"),
        (("p.ndjson", "--decimal", ","), "--decimal: only for a .csv file"),
        (("-", "--format", "jsonl", "--encoding", "cp1252"), "--encoding: only for a .csv file"),
        (("p.csv", "--delimiter", ";;"), "is not one character"),
        (("p.csv", "--delimiter", ""), "is not one character"),
        (("p.csv", "--delimiter", '"'), "is not one character"),
        (("p.csv", "--delimiter", "a"), "is not one character"),
        (("p.csv", "--delimiter", "\n"), "is not one character"),
        (("p.csv", "--decimal", ";"), "--decimal"),
        (("p.csv", "--encoding", "latin-99"), "is not a text encoding"),
        (("p.csv", "--encoding", "base64"), "is not a text encoding"),
        (("p.csv", "--encoding", "rot13"), "is not a text encoding"),
        (("p.csv", "--encoding", ""), "is not a text encoding"),
        (("p.csv", "--format", "xlsx"), "--format"),
    ],
)
def test_a_wrong_option_exits_with_2(embedded_holdfast: HoldfastCommand, args: tuple[str, ...], word: str) -> None:
    result = embedded_holdfast("import", *args)
    assert (result.returncode, result.stdout) == (2, "")
    assert word in result.stderr
    assert list(embedded_holdfast.folder.iterdir()) == []

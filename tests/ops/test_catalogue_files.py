"""The .jsonl and .csv files of an import: what is accepted, and how bad rows are reported."""

import json
import os
import threading
from pathlib import Path

import pytest

from service.ops.catalogue_rows import MAX_LINE, UnreadableFile
from service.ops.import_report import ImportReport
from service.storage.store import Store
from tests.support.catalogue import HEADER, import_file, jsonl_row, messages, products_on_sale, write_file
from tests.support.shop import mug


@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", ".csv", ".JSONL"])
async def test_the_suffix_of_the_file_name_decides_the_format(fake_store: Store, tmp_path: Path, suffix: str) -> None:
    content = HEADER + "1,Mug,,5,1\n" if suffix == ".csv" else jsonl_row(1)
    assert await import_file(fake_store, write_file(tmp_path, content, f"p{suffix}")) == ImportReport(added=1)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.jsonl", f"\n  \n{jsonl_row(1)}\r\n\n{jsonl_row(2)}\n"),
        ("p.jsonl", (jsonl_row(1) + jsonl_row(2)).rstrip("\n")),
        ("p.jsonl", (jsonl_row(1) + jsonl_row(2)).replace("\n", "\r\n")),
        ("p.csv", f"{HEADER}\n\n1,Mug,,5,1\n\n2,Pot,,5,1\n\n"),
        ("p.csv", f"{HEADER}1,Mug,,5,1\n2,Pot,,5,1"),
        ("p.csv", "\ufeff" + HEADER + "1,Mug,,5,1\n2,Pot,,5,1\n"),
        ("p.jsonl", "\ufeff" + jsonl_row(1) + jsonl_row(2)),
    ],
    ids=["empty lines", "no last newline", "CRLF", "empty lines, csv", "no last newline, csv", "BOM, csv", "BOM"],
)
async def test_empty_lines_line_endings_and_byte_order_marks_do_not_matter(
    fake_store: Store, tmp_path: Path, name: str, content: str
) -> None:
    assert await import_file(fake_store, write_file(tmp_path, content, name)) == ImportReport(added=2)


@pytest.mark.parametrize(("name", "content"), [("p.jsonl", ""), ("p.csv", ""), ("p.csv", HEADER), ("p.jsonl", "\n\n")])
async def test_a_file_without_rows_adds_nothing(fake_store: Store, tmp_path: Path, name: str, content: str) -> None:
    assert await import_file(fake_store, write_file(tmp_path, content, name)) == ImportReport()
    assert await products_on_sale(fake_store) == []


@pytest.mark.parametrize(
    ("text", "cents"),
    [("0.07", 7), ("0", 0), ("19.9", 1990), ("5.00", 500), ("1e2", 10_000), ("999999999.99", 99_999_999_999)],
)
@pytest.mark.parametrize("name", ["p.jsonl", "p.csv"])
async def test_prices_are_exact(fake_store: Store, tmp_path: Path, name: str, text: str, cents: int) -> None:
    line = f'{{"id": 1, "name": "Mug", "description": "", "price": {text}, "stock": 1}}\n'
    content = line if name == "p.jsonl" else f"{HEADER}1,Mug,,{text},1\n"
    assert await import_file(fake_store, write_file(tmp_path, content, name)) == ImportReport(added=1)
    assert [product.price for product in await products_on_sale(fake_store)] == [cents]


BAD_NUMBERS = {
    "price 1.005": ("price", "1.005", "two decimals"),
    "price 1e999": ("price", "1e999", "between 0 and"),
    "price -0.01": ("price", "-0.01", "between 0 and"),
    "price above the limit": ("price", "1000000000", "between 0 and"),
    "price true": ("price", "true", "a number"),
    "stock 1.5": ("stock", "1.5", "integer"),
    "stock -1": ("stock", "-1", "greater than or equal to 0"),
    "stock above the limit": ("stock", "1000000001", "less than or equal to"),
    "stock true": ("stock", "true", "integer"),
    "id 0": ("id", "0", "greater than or equal to 1"),
    "id 2^53": ("id", "9007199254740992", "less than or equal to"),
    "id true": ("id", "true", "integer"),
    "id 1e999": ("id", "1e999", "integer"),
    "id null": ("id", "null", "required"),
}


@pytest.mark.parametrize("name", ["p.jsonl", "p.csv"])
@pytest.mark.parametrize(("field", "text", "message"), BAD_NUMBERS.values(), ids=BAD_NUMBERS)
async def test_a_bad_number_is_reported_with_its_line_number(
    fake_store: Store, tmp_path: Path, name: str, field: str, text: str, message: str
) -> None:
    cells = {"id": "2", "name": '"Pot"', "description": '""', "price": "5", "stock": "1", field: text}
    if name == "p.jsonl":
        content = (
            jsonl_row(1) + "{" + ",".join(f'"{key}": {cell}' for key, cell in cells.items()) + "}\n" + jsonl_row(3)
        )
    else:
        content = HEADER + "1,Mug,,5,1\n" + ",".join(cells.values()) + "\n3,Cup,,5,1\n"
    report = await import_file(fake_store, write_file(tmp_path, content, name))
    assert report.added == 2
    [(line_number, reason)] = messages(report)
    assert line_number == (2 if name == "p.jsonl" else 3)
    assert f"#/{field}: " in reason
    assert message in reason
    assert [product.id for product in await products_on_sale(fake_store)] == [1, 3]


BAD_LINES: dict[str, tuple[bytes, str]] = {
    "not JSON": (b'{"id": 2,', "not JSON"),
    "two objects": (jsonl_row(2).strip().encode() * 2, "not JSON"),
    "NaN": (jsonl_row(2).replace("19.99", "NaN").encode(), "NaN"),
    "Infinity": (jsonl_row(2).replace("19.99", "-Infinity").encode(), "Infinity"),
    "repeated field": (b'{"id": 2, "id": 3}', "'id' is given twice"),
    "nested too deeply": (b"[" * 100_000, "nested too deeply"),
    "not UTF-8": (jsonl_row(2).encode().replace(b"Mug", b"M\xfcg"), "UTF-8"),
    "UTF-16": (jsonl_row(2).strip().encode("utf-16"), "UTF-8"),
    "lone surrogate": (jsonl_row(2, name="\ud800").encode(), "#/name: Input should be Unicode text"),
    "an array": (b"[1, 2]", "should be an object"),
    "a text": (b'"Mug"', "should be an object"),
    "null": (b"null", "should be an object"),
    "no id": (json.dumps(mug()).encode(), "#/id: Field is required: without it, a second run"),
    "no name": (b'{"id": 2, "description": "", "price": 1, "stock": 1}', "#/name: Field is required"),
    "unknown field": (jsonl_row(2, colour="red").encode(), "#/colour: Unknown field"),
    "price as text": (jsonl_row(2, price="5").encode(), "#/price: Input should be a number"),
    "id as text": (jsonl_row(2).replace('"id": 2', '"id": "2"').encode(), "#/id: "),
    "blank name": (jsonl_row(2, name=" ").encode(), "#/name: Input should not be blank"),
    "long description": (jsonl_row(2, description="x" * 5001).encode(), "#/description: "),
}


@pytest.mark.parametrize(("line", "message"), BAD_LINES.values(), ids=BAD_LINES)
async def test_a_bad_json_line_is_reported_and_the_other_lines_are_imported(
    fake_store: Store, tmp_path: Path, line: bytes, message: str
) -> None:
    content = jsonl_row(1).encode() + b"\n" + line.rstrip(b"\n") + b"\n" + jsonl_row(4).encode()
    report = await import_file(fake_store, write_file(tmp_path, content))
    assert report.added == 2
    [(line_number, reason)] = messages(report)
    assert line_number == 3
    assert message in reason
    assert [product.id for product in await products_on_sale(fake_store)] == [1, 4]


async def test_all_errors_in_a_line_are_reported(fake_store: Store, tmp_path: Path) -> None:
    content = '{"id": 0, "name": "", "price": 1.005, "stock": 1, "size": 3}\n'
    [(_, reason)] = messages(await import_file(fake_store, write_file(tmp_path, content)))
    assert [part.partition(":")[0] for part in reason.split("; ")] == [
        "#/id",
        "#/name",
        "#/description",
        "#/price",
        "#/size",
    ]


BAD_CELLS: dict[str, tuple[bytes, str]] = {
    "missing cells": (b"2,Pot\n", "#/description: Field is required; #/price: Field is required"),
    "extra cells": (b"2,Pot,,5,1,6,7\n", "The row has more cells than the header."),
    "no id": (b",Pot,,5,1\n", "#/id: Field is required: without it, a second run"),
    "empty price": (b"2,Pot,,,1\n", "#/price: Input should be a number"),
    "price in double quotes": (b'2,Pot,,"""5""",1\n', "#/price: Input should be a number"),
    "price NaN": (b"2,Pot,,NaN,1\n", "#/price: Input should be a number"),
    "price Infinity": (b"2,Pot,,Infinity,1\n", "#/price: Input should be a number"),
    "price with a currency": (b"2,Pot,,$5,1\n", "#/price: Input should be a number"),
    "stock is an array": (b'2,Pot,,5,"[1]"\n', "#/stock: "),
    "empty name": (b"2,,,5,1\n", "#/name: "),
    "not UTF-8": (b"2,P\xf6t,,5,1\n", "#/name: Input should be UTF-8: try --encoding cp1252"),
    "a number that is not UTF-8": (b"2,Pot,,5\xff,1\n", "#/price: Input should be UTF-8"),
    "very long cell": (b"2,Pot," + b"x" * 200_000 + b",5,1\n", "field larger than field limit"),
    "text after a quote": (b'2,"Pot" of gold,,5,1\n', "This is not CSV"),
}


@pytest.mark.parametrize(("cells", "message"), BAD_CELLS.values(), ids=BAD_CELLS)
async def test_a_bad_csv_row_is_reported_and_the_other_rows_are_imported(
    fake_store: Store, tmp_path: Path, cells: bytes, message: str
) -> None:
    content = HEADER.encode() + b'1,Mug,"Holds\ncoffee\n\nand tea",5,1\n' + cells + b"\n9,Cup,,5,1\n" + b"8,,,,\n"
    report = await import_file(fake_store, write_file(tmp_path, content, "p.csv"))
    assert report.added == 2
    [(line_number, reason), (last, _)] = messages(report)
    assert (line_number, last) == (6, 9)
    assert message in reason
    assert [product.id for product in await products_on_sale(fake_store)] == [1, 9]


async def test_rows_before_an_unclosed_quote_are_imported(fake_store: Store, tmp_path: Path) -> None:
    content = HEADER + '1,Mug,,5,1\n2,"Pot,,5,1\n3,Cup,,5,1\n'
    report = await import_file(fake_store, write_file(tmp_path, content, "p.csv"))
    assert report.added == 1
    reason = "A quote begins in this row and nothing ends it: nothing is read up to line 4, the last"
    assert messages(report) == [(3, reason)]


async def test_a_quote_that_a_later_row_ends_is_reported_with_both_lines(fake_store: Store, tmp_path: Path) -> None:
    content = HEADER + '1,Mug,,5,1\n2,"Pot,,5,1\n3,Cup,,5,1\n4,"Jug",,5,1\n5,Can,,5,1\n'
    report = await import_file(fake_store, write_file(tmp_path, content, "p.csv"))
    [(line_number, reason)] = messages(report)
    assert (report.added, line_number) == (2, 3)
    assert "The row ends in line 5: is a quote missing?" in reason
    assert [product.id for product in await products_on_sale(fake_store)] == [1, 5]


@pytest.mark.parametrize("name", ["p.csv", "p.jsonl"])
async def test_a_named_pipe_is_read_like_a_file(fake_store: Store, tmp_path: Path, name: str) -> None:
    content = HEADER + "1,Mug,,5,1\n2,Pot,,5,1\n" if name == "p.csv" else jsonl_row(1) + jsonl_row(2)
    os.mkfifo(tmp_path / name)
    writer = threading.Thread(target=lambda: (tmp_path / name).write_text(content))
    writer.start()
    assert await import_file(fake_store, tmp_path / name) == ImportReport(added=2)
    writer.join()


@pytest.mark.parametrize("name", ["p.csv", "p.jsonl"])
@pytest.mark.parametrize("source", ["/dev/zero", "a line without an end"])
async def test_a_line_that_does_not_end_is_refused(fake_store: Store, tmp_path: Path, name: str, source: str) -> None:
    if source == "/dev/zero":
        (tmp_path / name).symlink_to(source)
    else:
        write_file(tmp_path, "x" * (MAX_LINE + 1), name)
    with pytest.raises(UnreadableFile, match=rf"{name}:1: the line is longer than 1,000,000 characters"):
        await import_file(fake_store, tmp_path / name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("products.txt", "must end in .jsonl or .csv"),
        ("products", "must end in .jsonl or .csv"),
        ("products.jsonl.gz", "must end in .jsonl or .csv"),
        ("absent.jsonl", "No such file"),
        ("absent.csv", "No such file"),
        ("folder.jsonl", "Is a directory"),
        ("folder.csv", "Is a directory"),
    ],
)
async def test_an_unreadable_file_is_reported_with_its_name(
    fake_store: Store, tmp_path: Path, name: str, message: str
) -> None:
    for present in ("products.txt", "products", "products.jsonl.gz"):
        write_file(tmp_path, jsonl_row(1), present)
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UnreadableFile, match=message) as caught:
        await import_file(fake_store, tmp_path / name)
    assert name in str(caught.value)
    assert await products_on_sale(fake_store) == []

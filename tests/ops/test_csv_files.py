"""CSV as Excel and shops write it: delimiters, decimal commas, encodings, and a header that does not fit."""

import codecs
from pathlib import Path

import pytest

from service.ops.catalogue_rows import UnreadableFile
from service.storage.store import Store
from tests.support.catalogue import HEADER, import_file, messages, outcome, products_on_sale, write_file

EXCEL = "ID;Name;Description;Price;Stock\r\n1;Löffel, groß;;19,99;5\r\n"


async def products_of(store: Store, path: Path, **options: object) -> list[tuple[int, str, int, int]]:
    """Import a file without mistakes, and return what is on sale then."""
    report = await import_file(store, path, **options)  # type: ignore[arg-type]
    assert messages(report) == []
    return [(product.id, product.name, product.price, product.stock) for product in await products_on_sale(store)]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
async def test_the_delimiter_is_found(fake_store: Store, tmp_path: Path, delimiter: str) -> None:
    content = (HEADER + '1,"Mug, or; cup\t",,5,1\n').replace(",", delimiter)
    path = write_file(tmp_path, content.replace(f"Mug{delimiter}", "Mug,"), "p.csv")
    assert await products_of(fake_store, path) == [(1, "Mug, or; cup\t", 500, 1)]


async def test_the_delimiter_can_be_given(fake_store: Store, tmp_path: Path) -> None:
    path = write_file(tmp_path, (HEADER + "1,Mug,,5,1\n").replace(",", "|"), "p.csv")
    assert await products_of(fake_store, path, delimiter="|") == [(1, "Mug", 500, 1)]


async def test_a_delimiter_in_quotes_in_the_header_does_not_count(fake_store: Store, tmp_path: Path) -> None:
    content = 'id;"a,name,description,price,stock,b";name;description;price;stock\n1;x;Mug;;5;1\n'
    path = write_file(tmp_path, content, "p.csv")
    assert await products_of(fake_store, path, ignore_unknown=True) == [(1, "Mug", 500, 1)]


@pytest.mark.parametrize("first", ["sep=;", '"sep=;"', "SEP=;", "\ufeffsep=;"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
async def test_the_sep_line_of_excel_is_understood(fake_store: Store, tmp_path: Path, first: str, end: str) -> None:
    content = f"{first}{end}" + (HEADER + "1,Mug,,5,1\n2,Pot,,x,1\n").replace(",", ";")
    report = await import_file(fake_store, write_file(tmp_path, content, "p.csv"))
    assert outcome(report) == {"added": 1, "bad": 1}
    assert messages(report)[0][0] == 4


async def test_the_sep_line_may_name_any_delimiter_and_an_option_wins(fake_store: Store, tmp_path: Path) -> None:
    content = "sep=|\n" + (HEADER + "1,Mug,,5,1\n").replace(",", "|")
    assert outcome(await import_file(fake_store, write_file(tmp_path, content, "p.csv"))) == {"added": 1}
    content = "sep=|\n" + (HEADER + "2,Mug,,5,1\n").replace(",", ";")
    assert outcome(await import_file(fake_store, write_file(tmp_path, content, "p.csv"), delimiter=";")) == {"added": 1}


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (EXCEL.encode(), None),
        (codecs.BOM_UTF8 + EXCEL.encode(), None),
        (EXCEL.encode("utf-16"), None),
        (codecs.BOM_UTF16_BE + EXCEL.encode("utf-16-be"), None),
        (EXCEL.replace(";", "\t").encode("utf-16"), None),
        (EXCEL.encode("cp1252"), "cp1252"),
        (EXCEL.encode("cp1252"), "windows-1252"),
        (EXCEL.encode("utf-16-le"), "utf-16-le"),
        (codecs.BOM_UTF8 + EXCEL.encode(), "utf-8"),
        (EXCEL.encode("cp850"), "cp850"),
    ],
    ids=["UTF-8", "UTF-8 BOM", "UTF-16 LE", "UTF-16 BE", "Unicode text", "cp1252", "alias", "no BOM", "both", "cp850"],
)
async def test_encodings_are_found_or_can_be_given(
    fake_store: Store, tmp_path: Path, content: bytes, encoding: str | None
) -> None:
    path = write_file(tmp_path, content, "p.csv")
    assert await products_of(fake_store, path, encoding=encoding) == [(1, "Löffel, groß", 1999, 5)]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8", "cp1252", "shift_jis"])
async def test_bytes_that_the_encoding_does_not_have_make_only_their_row_bad(
    fake_store: Store, tmp_path: Path, encoding: str
) -> None:
    wrong = {"utf-16": b"\x00\xd8", "utf-8": b"\xfc", "cp1252": b"\x81", "shift_jis": b"\x81\x00"}[encoding]
    before, after = (HEADER + "1,Mug,,5,1\n2,P").encode(encoding), "t,,5,1\n3,Cup,,5,1\n".encode(encoding)
    content = before + wrong + after.removeprefix(codecs.BOM_UTF16_LE)
    path = write_file(tmp_path, content, "p.csv")
    report = await import_file(fake_store, path, encoding=encoding)
    assert outcome(report) == {"added": 2, "bad": 1}
    assert messages(report) == [(3, f"#/name: Input should be {encoding.upper()}: try another --encoding")]


async def test_a_file_that_is_not_utf_8_names_the_option(fake_store: Store, tmp_path: Path) -> None:
    report = await import_file(fake_store, write_file(tmp_path, EXCEL.encode("cp1252"), "p.csv"))
    assert messages(report) == [(2, "#/name: Input should be UTF-8: try --encoding cp1252")]


async def test_a_codec_that_cannot_be_used_is_reported(fake_store: Store, tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match=r"p\.csv:1: cannot be read with --encoding punycode: "):
        await import_file(fake_store, write_file(tmp_path, EXCEL, "p.csv"), encoding="punycode")


async def test_names_of_columns_ignore_case_and_spaces(fake_store: Store, tmp_path: Path) -> None:
    path = write_file(tmp_path, ' ID ,"Name ",description ,PRICE,Stock,,\n1,Mug,,5,1,,\n', "p.csv")
    report = await import_file(fake_store, path)
    assert outcome(report) == {"added": 1}


async def test_rows_of_empty_cells_are_empty_lines(fake_store: Store, tmp_path: Path) -> None:
    content = ";;;;\n" + (HEADER + "1,Mug,,5,1\n,,,,\n ,,,,,,\n2,Pot,,5,1\n,,,,\n").replace(",", ";")
    assert outcome(await import_file(fake_store, write_file(tmp_path, content, "p.csv"))) == {"added": 2}


async def test_a_decimal_comma_in_a_file_with_commas_must_be_in_quotes(fake_store: Store, tmp_path: Path) -> None:
    path = write_file(tmp_path, HEADER + '1,Mug,,"19,99",1\n2,Pot,,19,99,1\n', "p.csv")
    report = await import_file(fake_store, path)
    assert [product.price for product in await products_on_sale(fake_store)] == [1999]
    text = "The row has more cells than the header. A cell that contains a , must be in double quotes."
    assert messages(report) == [(3, text)]


@pytest.mark.parametrize("row", ["1,Mug,,5,1,\n", "1,Mug,,19,99,1\n", "1,Mug,,19,99,\n"])
async def test_a_row_with_more_cells_than_the_header_is_bad_though_they_are_empty(
    fake_store: Store, tmp_path: Path, row: str
) -> None:
    assert outcome(await import_file(fake_store, write_file(tmp_path, HEADER + row, "p.csv"))) == {"bad": 1}


@pytest.mark.parametrize(("ignore_unknown", "result"), [(True, {"added": 2}), (False, {"added": 1, "bad": 1})])
async def test_a_column_without_a_name_is_unknown(
    fake_store: Store, tmp_path: Path, ignore_unknown: bool, result: dict[str, int]
) -> None:
    content = "id,name,description,price,stock,,\n1,Mug,,5,1,,\n2,Pot,,5,1,,a note\n"
    path = write_file(tmp_path, content, "p.csv")
    assert outcome(await import_file(fake_store, path, ignore_unknown=ignore_unknown)) == result


@pytest.mark.parametrize(
    ("cell", "options", "message"),
    [
        ("5 EUR", {}, '#/price: Input should be a number, such as 19.99, not "5 EUR"'),
        ("x" * 100, {}, f'#/price: Input should be a number, such as 19.99, not "{"x" * 37}..."'),
        ("", {}, '#/price: Input should be a number, such as 19.99, not ""'),
        ("1.005", {}, "at most two decimals and no thousands separators (if the "),
        ("1,234", {}, "at most two decimals and no thousands separators (if the "),
        ("1,234", {"decimal": ","}, '#/price: Input should have at most two decimals, not "1,234"'),
        ("1.234,50", {"decimal": ","}, '#/price: Input should have no thousands separators, not "1.234,50"'),
        ("19.99", {"decimal": ","}, '#/price: Input should have a decimal comma, as --decimal says, not "19.99"'),
        ("-1", {}, '#/price: Input should be between 0 and 999999999.99, not "-1"'),
        ("5\x1b[31m", {}, 'not "5\ufffd[31m"'),
    ],
)
async def test_a_bad_price_is_quoted(
    fake_store: Store, tmp_path: Path, cell: str, options: dict[str, str], message: str
) -> None:
    content = HEADER.replace(",", ";") + f"1;Mug;;5;1\n2;Pot;;{cell};1\n"
    path = write_file(tmp_path, content, "p.csv")
    report = await import_file(fake_store, path, **options)  # type: ignore[arg-type]
    [(line_number, text)] = messages(report)
    assert line_number == 3
    assert message in text


EXPECTED = "Expected: id, name, description, price, stock"

HEADERS = {
    "a missing column": ("id,name,description,price\n", ["Missing: stock."]),
    "an unknown column": (
        "id,name,description,price,stock,colour\n",
        ["Columns read: id, name, description, price, stock, colour", "Unknown: colour.", "--ignore-unknown skips"],
    ),
    "other names": ("Nr;Preis\n", ['Columns read: Nr, Preis (delimiter: ";")', "must have the names of the columns"]),
    "another delimiter": ("id|name|description|price|stock\n", ["Only one column was found", "--delimiter"]),
    "a repeated column": ("id,name,description,price,Price,stock\n", ["Repeated: price."]),
    "no header": ("1,Mug,,5,1\n", ["Columns read: 1, Mug, (no name), 5, 1", "must have the names of the columns"]),
    "not UTF-8": (b"id,n\xe4me,description,price,stock\n", ["Missing: name.", "try --encoding cp1252"]),
    "UTF-16 without a BOM": (HEADER.encode("utf-16-le"), ["Is this UTF-16? Try --encoding utf-16"]),
    "many columns": (",".join(f"c{number}" for number in range(1000)) + "\n", ["c29, and 970 more"]),
    "a long name": ("id," + "x" * 1000 + "\n", ["x" * 37 + "..."]),
}


@pytest.mark.parametrize(("header", "parts"), HEADERS.values(), ids=HEADERS)
async def test_a_header_that_does_not_fit_is_one_message(
    fake_store: Store, tmp_path: Path, header: str | bytes, parts: list[str]
) -> None:
    content = header.encode() if isinstance(header, str) else header
    path = write_file(tmp_path, content + b"1,Mug,,5,1\n" * 3, "p.csv")
    with pytest.raises(UnreadableFile, match=r"p\.csv:1: the header does not fit") as caught:
        await import_file(fake_store, path)
    message = str(caught.value)
    for part in (EXPECTED, *parts):
        assert part in message
    assert message.isprintable()
    assert len(message) < 1000
    assert await products_on_sale(fake_store) == []


async def test_ignore_unknown_skips_other_columns(fake_store: Store, tmp_path: Path) -> None:
    content = 'colour,id,name,,description,price,colour,stock,note\nred,1,Mug,,,5,,1,"a\nb"\n'
    path = write_file(tmp_path, content, "p.csv")
    assert await products_of(fake_store, path, ignore_unknown=True) == [(1, "Mug", 500, 1)]


async def test_a_header_that_is_not_csv_is_reported(fake_store: Store, tmp_path: Path) -> None:
    path = write_file(tmp_path, 'id,"name" x,description,price,stock\n' + HEADER + "1,Mug,,5,1\n", "p.csv")
    with pytest.raises(UnreadableFile, match=r"p\.csv:1: the header is not CSV: "):
        await import_file(fake_store, path)


async def test_rows_before_a_line_that_does_not_end_are_imported(fake_store: Store, tmp_path: Path) -> None:
    path = write_file(tmp_path, HEADER + "1,Mug,,5,1\n" + "x" * 1_000_001, "p.csv")
    report = await import_file(fake_store, path)
    assert outcome(report) == {"added": 1}
    assert report.stopped is not None
    assert report.stopped.endswith("p.csv:3: the line is longer than 1,000,000 characters")
    assert not report.passed


@pytest.mark.parametrize("name", ["p.txt", "p.jsonl"])
async def test_the_format_can_be_given(fake_store: Store, tmp_path: Path, name: str) -> None:
    path = write_file(tmp_path, HEADER + "1,Mug,,5,1\n", name)
    assert await products_of(fake_store, path, format="csv") == [(1, "Mug", 500, 1)]


@pytest.mark.parametrize("others", [1, 30])
async def test_ignore_unknown_skips_other_members_of_json_lines(fake_store: Store, tmp_path: Path, others: int) -> None:
    more = "".join(f', "colour{number}": {{"r": 255}}' for number in range(others))
    line = f'{{"id": 1, "name": "Mug", "description": "", "price": 5, "stock": 1{more}}}\n'
    assert await products_of(fake_store, write_file(tmp_path, line), ignore_unknown=True) == [(1, "Mug", 500, 1)]

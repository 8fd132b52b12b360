"""service/ops: import and export."""

import csv
import io
import json
from collections.abc import Iterable
from contextlib import suppress
from operator import attrgetter
from pathlib import Path

import pytest
from httpx2 import AsyncClient

from service.domain.product import Product
from service.domain.requests import ProductsQuery
from service.ops.catalogue_files import NotImportableError
from service.ops.export import export
from service.ops.import_products import ImportReport, import_products
from service.storage.sender import CommandSender
from service.storage.store import Store
from tests.support.fake_redis import FakeRedis
from tests.support.shop import add_mugs, add_product, http_client, make_store, mug, new_mug, new_order, pages, place

HEADER = "id,name,description,price,stock\n"


def row(product_id: int, **members: object) -> str:
    """A good line of a .jsonl file, or what `members` make of it."""
    return json.dumps({"id": product_id, **mug(**members)}) + "\n"


def write(tmp_path: Path, content: str | bytes, name: str = "products.jsonl") -> Path:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


async def load(store: Store, path: Path) -> ImportReport:
    return await import_products(store, path, lambda size: None)


async def listing(store: Store) -> list[Product]:
    products, after = await store.products.list(ProductsQuery())
    assert after is None
    return products


async def lines_of(store: Store, what: str) -> list[str]:
    assert what in ("products", "orders")
    return [line async for line in export(store, "products" if what == "products" else "orders")]


@pytest.fixture
def fake_store() -> Store:
    """Where it is all about the file."""
    return make_store(FakeRedis())


# --- Good rows --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (
            "products.jsonl",
            '{"id": 7, "name": "Mug, \\"big\\"", "description": "Holds\\ncoffee.", "price": 19.99, "stock": 120}\n'
            '{"stock": 0, "price": 0.07, "name": "Löffel", "description": "", "id": 3}\n',
        ),
        (
            "products.csv",
            HEADER + '7,"Mug, ""big""","Holds\ncoffee.",19.99,120\n' + "3,Löffel,,0.07,0\n",
        ),
        (
            "PRODUCTS.CSV",
            'stock,price,name,description,id\r\n120,19.99,"Mug, ""big""","Holds\ncoffee.",7\r\n0,0.07,Löffel,,3\r\n',
        ),
    ],
)
async def test_good_rows_become_products(store: Store, tmp_path: Path, name: str, content: str) -> None:
    report = await load(store, write(tmp_path, content, name))
    assert report == ImportReport(added=2)
    columns = attrgetter(*HEADER.strip().split(","))
    assert [columns(product) for product in await listing(store)] == [
        (3, "Löffel", "", 7, 0),
        (7, 'Mug, "big"', "Holds\ncoffee.", 1999, 120),
    ]


@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", ".csv", ".JSONL"])
async def test_the_ending_of_the_name_says_what_is_in_the_file(fake_store: Store, tmp_path: Path, suffix: str) -> None:
    content = HEADER + "1,Mug,,5,1\n" if suffix == ".csv" else row(1)
    assert await load(fake_store, write(tmp_path, content, f"p{suffix}")) == ImportReport(added=1)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.jsonl", f"\n  \n{row(1)}\r\n\n{row(2)}\n"),
        ("p.jsonl", (row(1) + row(2)).rstrip("\n")),
        ("p.jsonl", (row(1) + row(2)).replace("\n", "\r\n")),
        ("p.csv", f"{HEADER}\n\n1,Mug,,5,1\n\n2,Pot,,5,1\n\n"),
        ("p.csv", f"{HEADER}1,Mug,,5,1\n2,Pot,,5,1"),
        ("p.csv", "\ufeff" + HEADER + "1,Mug,,5,1\n2,Pot,,5,1\n"),
        ("p.jsonl", "\ufeff" + row(1) + row(2)),
    ],
    ids=["empty lines", "no last newline", "CRLF", "empty lines, csv", "no last newline, csv", "BOM, csv", "BOM"],
)
async def test_what_editors_do_to_files_is_no_harm(fake_store: Store, tmp_path: Path, name: str, content: str) -> None:
    assert await load(fake_store, write(tmp_path, content, name)) == ImportReport(added=2)


@pytest.mark.parametrize(("name", "content"), [("p.jsonl", ""), ("p.csv", ""), ("p.csv", HEADER), ("p.jsonl", "\n\n")])
async def test_a_file_without_rows_adds_nothing(fake_store: Store, tmp_path: Path, name: str, content: str) -> None:
    assert await load(fake_store, write(tmp_path, content, name)) == ImportReport()
    assert await listing(fake_store) == []


@pytest.mark.parametrize(
    ("text", "cents"),
    [("0.07", 7), ("0", 0), ("19.9", 1990), ("5.00", 500), ("1e2", 10_000), ("999999999.99", 99_999_999_999)],
)
@pytest.mark.parametrize("name", ["p.jsonl", "p.csv"])
async def test_prices_are_exact(fake_store: Store, tmp_path: Path, name: str, text: str, cents: int) -> None:
    line = f'{{"id": 1, "name": "Mug", "description": "", "price": {text}, "stock": 1}}\n'
    content = line if name == "p.jsonl" else f"{HEADER}1,Mug,,{text},1\n"
    assert await load(fake_store, write(tmp_path, content, name)) == ImportReport(added=1)
    assert [product.price for product in await listing(fake_store)] == [cents]


# --- Bad rows ---------------------------------------------------------------------------------------------------------

BAD_NUMBERS = {
    "price 1.005": ("price", "1.005", "two decimals"),
    "price 1e999": ("price", "1e999", "between 0 and"),
    "price -0.01": ("price", "-0.01", "between 0 and"),
    "price above the most": ("price", "1000000000", "between 0 and"),
    "price true": ("price", "true", "a number"),
    "stock 1.5": ("stock", "1.5", "integer"),
    "stock -1": ("stock", "-1", "greater than or equal to 0"),
    "stock above the most": ("stock", "1000000001", "less than or equal to"),
    "stock true": ("stock", "true", "integer"),
    "id 0": ("id", "0", "greater than or equal to 1"),
    "id 2^53": ("id", "9007199254740992", "less than or equal to"),
    "id true": ("id", "true", "integer"),
    "id 1e999": ("id", "1e999", "integer"),
    "id null": ("id", "null", "required"),
}


@pytest.mark.parametrize("name", ["p.jsonl", "p.csv"])
@pytest.mark.parametrize(("member", "text", "what"), BAD_NUMBERS.values(), ids=BAD_NUMBERS)
async def test_a_bad_number_is_refused_in_its_line(
    fake_store: Store, tmp_path: Path, name: str, member: str, text: str, what: str
) -> None:
    cells = {"id": "2", "name": '"Pot"', "description": '""', "price": "5", "stock": "1", member: text}
    if name == "p.jsonl":
        content = row(1) + "{" + ",".join(f'"{key}": {cell}' for key, cell in cells.items()) + "}\n" + row(3)
    else:
        content = HEADER + "1,Mug,,5,1\n" + ",".join(cells.values()) + "\n3,Cup,,5,1\n"
    report = await load(fake_store, write(tmp_path, content, name))
    assert report.added == 2
    [(line_number, fault)] = report.bad
    assert line_number == (2 if name == "p.jsonl" else 3)
    assert f"#/{member}: " in fault
    assert what in fault
    assert [product.id for product in await listing(fake_store)] == [1, 3]


BAD_LINES: dict[str, tuple[bytes, str]] = {
    "not JSON": (b'{"id": 2,', "not JSON"),
    "two objects": (row(2).strip().encode() * 2, "not JSON"),
    "NaN": (row(2).replace("19.99", "NaN").encode(), "NaN"),
    "Infinity": (row(2).replace("19.99", "-Infinity").encode(), "Infinity"),
    "a member twice": (b'{"id": 2, "id": 3}', "'id' is given twice"),
    "nested too deeply": (b"[" * 100_000, "nested too deeply"),
    "not UTF-8": (row(2).encode().replace(b"Mug", b"M\xfcg"), "UTF-8"),
    "UTF-16": (row(2).strip().encode("utf-16"), "UTF-8"),
    "lone surrogate": (row(2, name="\ud800").encode(), "#/name: Input should be Unicode text"),
    "an array": (b"[1, 2]", "should be an object"),
    "a text": (b'"Mug"', "should be an object"),
    "null": (b"null", "should be an object"),
    "no id": (json.dumps(mug()).encode(), "#/id: Field is required: without it, a second run"),
    "no name": (b'{"id": 2, "description": "", "price": 1, "stock": 1}', "#/name: Field is required"),
    "unknown member": (row(2, colour="red").encode(), "#/colour: Unknown field"),
    "price as text": (row(2, price="5").encode(), "#/price: Input should be a number"),
    "id as text": (row(2).replace('"id": 2', '"id": "2"').encode(), "#/id: "),
    "blank name": (row(2, name=" ").encode(), "#/name: Input should not be blank"),
    "long description": (row(2, description="x" * 5001).encode(), "#/description: "),
}


@pytest.mark.parametrize(("line", "what"), BAD_LINES.values(), ids=BAD_LINES)
async def test_a_bad_line_is_told_by_its_number_and_the_others_load(
    fake_store: Store, tmp_path: Path, line: bytes, what: str
) -> None:
    content = row(1).encode() + b"\n" + line.rstrip(b"\n") + b"\n" + row(4).encode()
    report = await load(fake_store, write(tmp_path, content))
    assert report.added == 2
    [(line_number, fault)] = report.bad
    assert line_number == 3
    assert what in fault
    assert [product.id for product in await listing(fake_store)] == [1, 4]


async def test_all_that_is_wrong_with_a_line_is_told(fake_store: Store, tmp_path: Path) -> None:
    content = '{"id": 0, "name": "", "price": 1.005, "stock": 1, "size": 3}\n'
    [(_, fault)] = (await load(fake_store, write(tmp_path, content))).bad
    assert [part.partition(":")[0] for part in fault.split("; ")] == [
        "#/id",
        "#/name",
        "#/description",
        "#/price",
        "#/size",
    ]


BAD_CELLS: dict[str, tuple[bytes, str]] = {
    "missing cells": (b"2,Pot\n", "#/description: Field is required; #/price: Field is required"),
    "extra cells": (b"2,Pot,,5,1,6,7\n", "Unknown field"),
    "no id": (b",Pot,,5,1\n", "#/id: "),
    "empty price": (b"2,Pot,,,1\n", "#/price: Input should be a number"),
    "price in quotes of JSON": (b'2,Pot,,"""5""",1\n', "#/price: Input should be a number"),
    "price with a comma": (b'2,Pot,,"5,00",1\n', "#/price: Input should be a number"),
    "price NaN": (b"2,Pot,,NaN,1\n", "#/price: Input should be a number"),
    "price Infinity": (b"2,Pot,,Infinity,1\n", "#/price: Input should be a number"),
    "price with a currency": (b"2,Pot,,$5,1\n", "#/price: Input should be a number"),
    "stock is an array": (b'2,Pot,,5,"[1]"\n', "#/stock: "),
    "empty name": (b"2,,,5,1\n", "#/name: "),
    "not UTF-8": (b"2,P\xf6t,,5,1\n", "#/name: Input should be Unicode text"),
    "a number that is not UTF-8": (b"2,Pot,,5\xff,1\n", "#/price: Input should be a number"),
    "an endless cell": (b"2,Pot," + b"x" * 200_000 + b",5,1\n", "field larger than field limit"),
    "text after a quote": (b'2,"Pot" of gold,,5,1\n', "This is not CSV"),
}


@pytest.mark.parametrize(("cells", "what"), BAD_CELLS.values(), ids=BAD_CELLS)
async def test_a_bad_row_is_told_by_its_line_number_and_the_others_load(
    fake_store: Store, tmp_path: Path, cells: bytes, what: str
) -> None:
    content = HEADER.encode() + b'1,Mug,"Holds\ncoffee\n\nand tea",5,1\n' + cells + b"\n9,Cup,,5,1\n" + b"8,,,,\n"
    report = await load(fake_store, write(tmp_path, content, "p.csv"))
    assert report.added == 2
    [(line_number, fault), (last, _)] = report.bad
    assert (line_number, last) == (6, 9)
    assert what in fault
    assert [product.id for product in await listing(fake_store)] == [1, 9]


async def test_a_quote_that_is_never_closed_spares_the_rows_before_it(fake_store: Store, tmp_path: Path) -> None:
    report = await load(fake_store, write(tmp_path, HEADER + '1,Mug,,5,1\n2,"Pot,,5,1\n3,Cup,,5,1\n', "p.csv"))
    assert report.added == 1
    [(line_number, _)] = report.bad
    assert line_number in (3, 4)  # where it begins, or where the file ends


@pytest.mark.parametrize(
    ("header", "what"),
    [
        ("id,name,description,price\n", "#/stock: Field is required"),
        ("id,name,description,price,stock,colour\n", "#/colour: Unknown field"),
        ("ID,name,description,price,stock\n", "#/ID: Unknown field"),
        ("id;name;description;price;stock\n", "Unknown field"),
    ],
)
async def test_a_header_that_does_not_fit_refuses_every_row(
    fake_store: Store, tmp_path: Path, header: str, what: str
) -> None:
    cells = ",".join(["1"] * (header.count(",") + 1)) + "\n"
    report = await load(fake_store, write(tmp_path, header + 2 * cells, "p.csv"))
    assert [line_number for line_number, _ in report.bad] == [2, 3]
    assert all(what in fault for _, fault in report.bad)
    assert await listing(fake_store) == []


async def test_a_column_that_is_given_twice_is_refused(fake_store: Store, tmp_path: Path) -> None:
    content = "id,name,description,price,price,stock\n1,Mug,,5,6,1\n"
    with suppress(NotImportableError):  # or each row is
        await load(fake_store, write(tmp_path, content, "p.csv"))
    assert await listing(fake_store) == []


@pytest.mark.parametrize(
    ("name", "what"),
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
async def test_a_file_that_cannot_be_read_is_told_so(fake_store: Store, tmp_path: Path, name: str, what: str) -> None:
    for present in ("products.txt", "products", "products.jsonl.gz"):
        write(tmp_path, row(1), present)
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(NotImportableError, match=what) as caught:
        await load(fake_store, tmp_path / name)
    assert name in str(caught.value)
    assert await listing(fake_store) == []


# --- What is there already --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["p.jsonl", "p.csv"])
async def test_a_second_run_changes_nothing(store: Store, link: CommandSender, tmp_path: Path, name: str) -> None:
    content = row(1) + row(2) if name == "p.jsonl" else HEADER + "1,Mug,,5,10\n2,Pot,,5,10\n"
    path = write(tmp_path, content, name)
    assert await load(store, path) == ImportReport(added=2)
    events = await link.send("XLEN", "{test}:events")
    before = await listing(store)
    assert await load(store, path) == ImportReport(present=2)
    assert await listing(store) == before
    assert await link.send("XLEN", "{test}:events") == events


async def test_a_product_that_is_there_is_left_as_it_is(store: Store, tmp_path: Path) -> None:
    path = write(tmp_path, row(1, name="Cup", price=1, stock=99) + row(2))
    kept = await store.products.add(new_mug(id=1, stock=3))
    assert await load(store, path) == ImportReport(added=1, present=1)
    assert (await listing(store))[0] == kept


async def test_a_withdrawn_product_stays_withdrawn(store: Store, tmp_path: Path) -> None:
    path = write(tmp_path, row(1))
    await load(store, path)
    await store.products.withdraw(1)
    assert await load(store, path) == ImportReport(present=1)
    assert await listing(store) == []


async def test_of_two_rows_with_one_id_the_first_counts(store: Store, tmp_path: Path) -> None:
    assert await load(store, write(tmp_path, row(1, stock=1) + row(1, stock=2))) == ImportReport(added=1, present=1)
    assert [product.stock for product in await listing(store)] == [1]


@pytest.mark.parametrize("bad", [0, 3], ids=["good rows", "bad rows between"])
async def test_more_rows_than_a_batch_are_all_added(store: Store, tmp_path: Path, bad: int) -> None:
    rows = [row(product_id) for product_id in range(1, 1201)]
    for line in range(bad):
        rows.insert(499 + line, "{}\n")
    path = write(tmp_path, "".join(rows))
    report = await load(store, path)
    assert (report.added, report.present) == (1200, 0)
    assert [line_number for line_number, _ in report.bad] == [500 + line for line in range(bad)]
    assert await store.inspection.count_products() == 1200
    assert (await load(store, path)).present == 1200


async def test_what_was_added_before_a_run_broke_off_is_passed_over_by_the_next(store: Store, tmp_path: Path) -> None:
    rows = [row(product_id) for product_id in range(1, 701)]
    path = write(tmp_path, "".join(rows))
    await load(store, write(tmp_path, "".join(rows[:300]), "part.jsonl"))
    assert await load(store, path) == ImportReport(added=400, present=300)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.jsonl", row(1) + "\n\n" + "bad\n" + row(2)),
        ("p.csv", HEADER + '1,Mug,"a\nb",5,1\n\nbad\n2,Pot,,5,1\n'),
    ],
)
async def test_progress_adds_up_to_the_size_of_the_file(
    fake_store: Store, tmp_path: Path, name: str, content: str
) -> None:
    sizes: list[int] = []
    path = write(tmp_path, content, name)
    await import_products(fake_store, path, sizes.append)
    assert sum(sizes) == path.stat().st_size


# --- Export -----------------------------------------------------------------------------------------------------------


async def test_products_taken_to_another_shop_are_listed_alike(
    store: Store, link: CommandSender, client: AsyncClient, tmp_path: Path
) -> None:
    odd = {"name": 'Löffel "é"\u2028\U0001f944', "description": 'a\n\tb\\ "c" \x00,;'}
    for members in ({}, odd, {"price": 0.07, "stock": 0}, {"price": 999_999_999.99}, {"id": 2**53 - 1}):
        await add_product(client, **members)
    gone = await add_product(client)
    await store.products.withdraw(gone)
    content = "".join(f"{line}\n" for line in await lines_of(store, "products"))
    other = make_store(link, shop="other")
    assert await load(other, write(tmp_path, content)) == ImportReport(added=5)
    async with http_client(other) as other_client:
        assert (await other_client.get("/products")).text == (await client.get("/products")).text


async def test_an_export_turned_into_csv_can_be_imported_too(
    store: Store, link: CommandSender, client: AsyncClient, tmp_path: Path
) -> None:
    await add_product(client, name='Mug, "big"', description="a\r\nb\n")
    await add_product(client, price=0.07)
    rows = [json.loads(line) for line in await lines_of(store, "products")]
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    other = make_store(link, shop="other")
    assert await load(other, write(tmp_path, text.getvalue(), "p.csv")) == ImportReport(added=2)
    assert await listing(other) == await listing(store)


async def test_exported_products_are_those_of_the_api_in_id_order(
    store: Store, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.ops.export.MAX_PAGE", 3)
    for product_id in (9, 4, 1, 8, 2, 7, 5):
        await add_product(client, id=product_id)
    await store.products.withdraw(4)
    lines = await lines_of(store, "products")
    assert [json.loads(line)["id"] for line in lines] == [1, 2, 5, 7, 8, 9]
    assert lines == [(await client.get(f"/products/{json.loads(line)['id']}")).text.rstrip() for line in lines]


async def test_exported_orders_are_those_of_the_api_newest_first(
    store: Store, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.ops.export.MAX_PAGE", 3)
    mugs, pots = await add_product(client, stock=1000), await add_product(client, stock=1000, price=0.07)
    placed = []
    for number in range(11):
        members = {"status": "pending"} if number % 3 == 0 else {}
        placed.append((await place(client, (mugs, 1), (pots, 1 + number), **members)).json())
    cancelled, completed = placed[6], placed[3]
    await client.delete(f"/orders/{cancelled['id']}")
    await client.post(f"/orders/{completed['id']}/complete")
    expected = [order["id"] for order in reversed(placed) if order != cancelled]
    lines = await lines_of(store, "orders")
    assert [json.loads(line)["id"] for line in lines] == expected
    assert lines == [(await client.get(f"/orders/{order_id}")).text.rstrip() for order_id in expected]
    assert [page for page in await pages(client, "/orders?limit=3") if page] == _in_threes(expected)


def _in_threes(ids: list[int]) -> Iterable[list[int]]:
    return [ids[start : start + 3] for start in range(0, len(ids), 3)]


async def test_orders_on_both_sides_of_many_unused_ids_are_exported(store: Store, link: CommandSender) -> None:
    await add_mugs(store, id=1)
    orders = []
    for _ in range(2):
        orders.append((await make_store(link).orders.place(new_order((1, 1)))).order.id)
        await link.send("INCRBY", "{test}:ids:orders", 12_000)
    assert [json.loads(line)["id"] for line in await lines_of(store, "orders")] == orders[::-1]


@pytest.mark.parametrize("what", ["products", "orders"])
async def test_the_export_of_an_empty_shop_is_empty(store: Store, what: str) -> None:
    assert await lines_of(store, what) == []

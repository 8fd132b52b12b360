"""An import adds the products of a file. A second import of the same file changes nothing."""

from operator import attrgetter
from pathlib import Path

import pytest

from service.ops import import_products as import_module
from service.ops.catalogue_files import read_rows
from service.ops.import_products import Shop, import_products
from service.ops.import_report import ImportReport
from service.storage.sender import CommandSender
from service.storage.store import Store
from tests.support.catalogue import HEADER, import_file, jsonl_row, messages, products_on_sale, write_file


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
async def test_each_row_becomes_a_product(store: Store, tmp_path: Path, name: str, content: str) -> None:
    report = await import_file(store, write_file(tmp_path, content, name))
    assert report == ImportReport(added=2)
    columns = attrgetter(*HEADER.strip().split(","))
    assert [columns(product) for product in await products_on_sale(store)] == [
        (3, "Löffel", "", 7, 0),
        (7, 'Mug, "big"', "Holds\ncoffee.", 1999, 120),
    ]


@pytest.mark.parametrize("name", ["p.jsonl", "p.csv"])
async def test_a_second_import_of_a_file_changes_nothing(
    store: Store, redis: CommandSender, tmp_path: Path, name: str
) -> None:
    content = jsonl_row(1) + jsonl_row(2) if name == "p.jsonl" else HEADER + "1,Mug,,5,10\n2,Pot,,5,10\n"
    path = write_file(tmp_path, content, name)
    assert await import_file(store, path) == ImportReport(added=2)
    events = await redis.send("XLEN", "{test}:events")
    before = await products_on_sale(store)
    assert await import_file(store, path) == ImportReport(present=2)
    assert await products_on_sale(store) == before
    assert await redis.send("XLEN", "{test}:events") == events


async def test_the_first_of_two_rows_with_the_same_id_is_added(store: Store, tmp_path: Path) -> None:
    path = write_file(tmp_path, jsonl_row(1, stock=1) + jsonl_row(1, stock=2))
    assert await import_file(store, path) == ImportReport(added=1, present=1)
    assert [product.stock for product in await products_on_sale(store)] == [1]


@pytest.mark.parametrize("bad", [0, 3], ids=["good rows", "some bad rows"])
async def test_a_file_with_more_rows_than_a_batch_is_imported_completely(
    store: Store, tmp_path: Path, bad: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_module, "BATCH", 50)
    rows = [jsonl_row(product_id) for product_id in range(1, 121)]
    for line in range(bad):
        rows.insert(49 + line, "{}\n")
    path = write_file(tmp_path, "".join(rows))
    report = await import_file(store, path)
    assert (report.added, report.present) == (120, 0)
    assert [line_number for line_number, _ in messages(report)] == [50 + line for line in range(bad)]
    assert await store.inspection.count_products() == 120
    assert (await import_file(store, path)).present == 120


async def test_an_import_after_an_interrupted_import_adds_the_missing_products(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_module, "BATCH", 50)
    rows = [jsonl_row(product_id) for product_id in range(1, 71)]
    path = write_file(tmp_path, "".join(rows))
    await import_file(store, write_file(tmp_path, "".join(rows[:30]), "part.jsonl"))
    assert await import_file(store, path) == ImportReport(added=40, present=30)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.jsonl", jsonl_row(1) + "\n\n" + "bad\n" + jsonl_row(2)),
        ("p.csv", HEADER + '1,Mug,"a\nb",5,1\n\nbad\n2,Pot,,5,1\n'),
    ],
)
async def test_progress_adds_up_to_the_size_of_the_file(
    fake_store: Store, tmp_path: Path, name: str, content: str
) -> None:
    sizes: list[int] = []
    path = write_file(tmp_path, content, name)
    await import_products(Shop(fake_store), read_rows(str(path)), sizes.append)
    assert sum(sizes) == path.stat().st_size

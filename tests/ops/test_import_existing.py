"""An import of products that exist already: what differs is reported, or changed with `--update`. A dry run."""

from pathlib import Path

import pytest

from service.domain.requests import ProductChange
from service.ops import import_products as import_module
from service.ops.catalogue_files import read_rows
from service.ops.import_products import DryRun, IdSet, import_products
from service.storage.sender import CommandSender
from service.storage.store import Store
from tests.support.catalogue import HEADER, import_file, jsonl_row, messages, outcome, products_on_sale, write_file
from tests.support.redis_content import dump
from tests.support.shop import new_mug, new_order


async def test_a_row_that_differs_is_reported_and_the_product_is_not_changed(store: Store, tmp_path: Path) -> None:
    kept = await store.products.add(new_mug(id=1))
    report = await import_file(store, write_file(tmp_path, jsonl_row(1, name="Cup", price=18) + jsonl_row(2)))
    assert outcome(report) == {"added": 1, "different": 1}
    text = 'differs from the product in the shop: name is "Mug" there, "Cup" here; price is 19.99 there, 18.00 here'
    assert messages(report) == [(1, text)]
    assert not report.passed
    assert (await products_on_sale(store))[0] == kept


async def test_the_stock_is_not_compared(store: Store, tmp_path: Path) -> None:
    await store.products.add(new_mug(id=1, stock=3))
    report = await import_file(store, write_file(tmp_path, jsonl_row(1, stock=99)))
    assert (outcome(report), report.passed) == ({"present": 1}, True)
    assert [product.stock for product in await products_on_sale(store)] == [3]


async def test_an_update_changes_what_differs_but_the_stock(store: Store, redis: CommandSender, tmp_path: Path) -> None:
    for product_id in (1, 2):
        await store.products.add(new_mug(id=product_id, stock=5))
    await store.orders.place(new_order((1, 2)))
    events = int(await redis.send("XLEN", "{test}:events"))
    path = write_file(tmp_path, jsonl_row(1, description="", price=18, stock=99) + jsonl_row(2) + jsonl_row(3))
    report = await import_file(store, path, update=True)
    assert (outcome(report), report.passed) == ({"added": 1, "changed": 1, "present": 1}, True)
    first, *_ = await products_on_sale(store)
    assert (first.name, first.description, first.price, first.stock) == ("Mug", "", 1800, 3)
    assert int(await redis.send("XLEN", "{test}:events")) == events + 2
    [(_, fields)] = await redis.send("XREVRANGE", "{test}:events", "+", "-", "COUNT", 1)
    assert "product_changed" in fields
    assert "Mug" not in fields  # only what differs is written
    assert outcome(await import_file(store, path, update=True)) == {"present": 3}


@pytest.mark.parametrize("update", [False, True])
@pytest.mark.parametrize("dry_run", [False, True])
async def test_a_withdrawn_product_is_reported_and_stays_withdrawn(
    store: Store, tmp_path: Path, update: bool, dry_run: bool
) -> None:
    path = write_file(tmp_path, jsonl_row(1))
    await import_file(store, path)
    await store.products.withdraw(1)
    report = await import_file(store, path, update=update, dry_run=dry_run)
    assert outcome(report) == {"different": 1}
    text = "The product of this id was withdrawn: its id is taken, and nothing of it can be changed"
    assert messages(report) == [(1, text)]
    assert await products_on_sale(store) == []


async def test_a_product_that_is_withdrawn_during_an_update_is_reported(
    fake_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fake_store.products.add(new_mug(id=1))
    change = fake_store.products.change

    async def withdraw_first(product_id: int, fields: ProductChange) -> object:
        await fake_store.products.withdraw(product_id)
        return await change(product_id, fields)

    monkeypatch.setattr(fake_store.products, "change", withdraw_first)
    report = await import_file(fake_store, write_file(tmp_path, jsonl_row(1, price=1)), update=True)
    assert outcome(report) == {"different": 1}
    assert "was withdrawn" in messages(report)[0][1]


async def test_a_later_row_finds_what_an_earlier_row_with_the_same_id_did(fake_store: Store, tmp_path: Path) -> None:
    path = write_file(tmp_path, jsonl_row(1, price=1) + jsonl_row(1, price=2) + jsonl_row(1, price=1))
    report = await import_file(fake_store, path)
    assert outcome(report) == {"added": 1, "different": 1, "present": 1}
    assert messages(report) == [(2, "differs from the product in the shop: price is 1.00 there, 2.00 here")]
    assert outcome(await import_file(fake_store, path, update=True)) == {"present": 1, "changed": 2}
    assert [product.price for product in await products_on_sale(fake_store)] == [100]


async def test_long_texts_are_shortened_around_their_first_difference(fake_store: Store, tmp_path: Path) -> None:
    await fake_store.products.add(new_mug(id=1, name="A" * 100, description="x" * 1000 + "old" + "y" * 1000))
    row = jsonl_row(1, name="B" * 100, description="x" * 1000 + "new\n" + "y" * 1000)
    [(_, text)] = messages(await import_file(fake_store, write_file(tmp_path, row)))
    assert f'name is "{"A" * 37}..." there, "{"B" * 37}..." here' in text
    assert 'description is "...xxxxxxxxxxoldyyyy' in text
    assert '"...xxxxxxxxxxnew\ufffdyyyy' in text
    assert len(text) < 300


async def test_more_rows_than_a_batch_are_compared_and_changed(
    fake_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_module, "BATCH", 50)
    ids = range(1, 121)
    await import_file(fake_store, write_file(tmp_path, "".join(map(jsonl_row, ids))))
    path = write_file(tmp_path, "".join(jsonl_row(number, price=1) for number in ids))
    report = await import_file(fake_store, path)
    assert (outcome(report), len(report.messages)) == ({"different": 120}, 20)
    assert outcome(await import_file(fake_store, path, update=True)) == {"changed": 120}
    assert outcome(await import_file(fake_store, path)) == {"present": 120}


async def test_a_dry_run_reports_what_an_import_would_do_and_writes_nothing(
    store: Store, redis: CommandSender, tmp_path: Path
) -> None:
    await import_file(store, write_file(tmp_path, jsonl_row(1) + jsonl_row(2)))
    before = await dump(redis)
    path = write_file(tmp_path, jsonl_row(1) + jsonl_row(2, price=1) + jsonl_row(3) + "{}\n")
    for update in (False, True):
        dry = await import_file(store, path, update=update, dry_run=True)
        assert await dump(redis) == before
    assert outcome(dry) == {"added": 1, "changed": 1, "present": 1, "bad": 1}
    assert await import_file(store, path, update=True) == dry


async def test_a_dry_run_without_a_shop_would_add_all_rows(tmp_path: Path) -> None:
    rows = read_rows(str(write_file(tmp_path, HEADER + "1,Mug,,5,1\n2,Pot,,5,1\n", "p.csv")))
    assert outcome(await import_products(DryRun(None), rows, lambda size: None)) == {"added": 2}


async def test_a_dry_run_says_which_rows_it_cannot_judge(fake_store: Store, tmp_path: Path) -> None:
    await fake_store.products.add(new_mug(id=1))
    path = write_file(tmp_path, jsonl_row(1) + jsonl_row(1) + jsonl_row(2) + jsonl_row(2))
    report = await import_file(fake_store, path, dry_run=True)
    assert outcome(report) == {"present": 2, "added": 1, "bad": 1}
    [(line_number, text)] = messages(report)
    assert line_number == 4
    assert "An earlier row has the same id" in text


def test_a_set_of_ids_has_the_ids_that_were_added() -> None:
    ids = IdSet()
    added = {1, 63, 64, 65, 2**53 - 1}
    for number in added:
        ids.add(number)
    assert {number for number in (*range(1, 200), 2**53 - 2, 2**53 - 1) if number in ids} == added

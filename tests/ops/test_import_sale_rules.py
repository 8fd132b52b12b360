"""The rules about the sale of a product in an import: columns that may be missing, and cells that may be empty."""

from pathlib import Path

import pytest

from service.domain.product import Product, SaleRules
from service.domain.requests import ProductChange
from service.domain.times import parse_timestamp
from service.storage.sender import CommandSender
from service.storage.store import Store
from tests.support.catalogue import (
    HEADER,
    export_csv,
    import_file,
    jsonl_row,
    messages,
    outcome,
    products_on_sale,
    write_file,
)
from tests.support.shop import make_store, new_mug

START, END = "2026-11-27T09:00:00.000Z", "2026-12-01T00:00:00.500Z"
RULES = SaleRules(2, parse_timestamp(START), parse_timestamp(END))
COLUMNS = "limit_per_customer,on_sale_from,on_sale_until"
ROW = "1,Mug,Holds coffee.,19.99,10"


def with_rules(*cells: str) -> str:
    """Return a .csv file with one product and these cells in the columns of the rules."""
    return f"{HEADER.strip()},{COLUMNS}\n{','.join((ROW, *cells))}\n"


async def add_with_rules(store: Store) -> Product:
    rules = {"limit_per_customer": 2, "on_sale_from": START, "on_sale_until": END}
    return await store.products.add(new_mug(id=1, **rules))


@pytest.mark.parametrize(
    ("cells", "rules"),
    [
        (("2", START, END), RULES),
        (("2", "2026-11-27T10:00:00+01:00", END), RULES),
        (("", "", ""), SaleRules()),
        (("", START, " "), SaleRules(on_sale_from=RULES.on_sale_from)),
        ((), SaleRules()),
    ],
)
async def test_columns_of_rules_are_read(
    store: Store, tmp_path: Path, cells: tuple[str, ...], rules: SaleRules
) -> None:
    path = write_file(tmp_path, with_rules(*cells), "p.csv")
    assert outcome(await import_file(store, path)) == {"added": 1}
    assert [product.rules for product in await products_on_sale(store)] == [rules]
    assert outcome(await import_file(store, path)) == {"present": 1}


async def test_an_import_of_exported_rules_changes_nothing(store: Store, redis: CommandSender, tmp_path: Path) -> None:
    await add_with_rules(store)
    await store.products.add(new_mug(id=2))
    exported = await export_csv(store, "products")
    assert exported.splitlines() == [
        f"id,name,description,price,stock,{COLUMNS}",
        f"{ROW},2,{START},{END}",
        "2,Mug,Holds coffee.,19.99,10,,,",
    ]
    path = write_file(tmp_path, exported, "p.csv")
    assert outcome(await import_file(store, path)) == {"present": 2}
    other = make_store(redis, shop="other")
    assert outcome(await import_file(other, path)) == {"added": 2}
    assert await products_on_sale(other) == await products_on_sale(store)


@pytest.mark.parametrize("name", ["p.csv", "p.jsonl"])
async def test_rules_that_a_file_does_not_have_stay(store: Store, tmp_path: Path, name: str) -> None:
    await add_with_rules(store)
    content = f"{HEADER}{ROW.replace('19.99', '1')}\n" if name == "p.csv" else jsonl_row(1, price=1)
    assert outcome(await import_file(store, write_file(tmp_path, content, name), update=True)) == {"changed": 1}
    [product] = await products_on_sale(store)
    assert (product.price, product.rules) == (100, RULES)


@pytest.mark.parametrize("name", ["p.csv", "p.jsonl"])
async def test_an_empty_cell_or_null_differs_from_a_rule_and_an_update_removes_it(
    store: Store, tmp_path: Path, name: str
) -> None:
    await add_with_rules(store)
    rules = {"limit_per_customer": None, "on_sale_from": START, "on_sale_until": None}
    content = with_rules("", START, "") if name == "p.csv" else jsonl_row(1, **rules)
    path = write_file(tmp_path, content, name)
    report = await import_file(store, path)
    text = f"limit_per_customer is 2 there, not set here; on_sale_until is {END} there, not set here"
    assert [found for _, found in messages(report)] == [f"differs from the product in the shop: {text}"]
    assert outcome(await import_file(store, path, update=True)) == {"changed": 1}
    assert [product.rules for product in await products_on_sale(store)] == [SaleRules(on_sale_from=RULES.on_sale_from)]


async def test_an_update_that_would_end_a_sale_before_it_begins_is_reported(store: Store, tmp_path: Path) -> None:
    await add_with_rules(store)
    content = f"{HEADER.strip()},on_sale_from\n{ROW},2026-12-24T00:00:00Z\n"
    report = await import_file(store, write_file(tmp_path, content, "p.csv"), update=True)
    assert outcome(report) == {"different": 1}
    assert "The product would be on sale from 2026-12-24T00:00:00.000Z until" in messages(report)[0][1]
    assert [product.rules for product in await products_on_sale(store)] == [RULES]


async def test_a_dry_run_finds_a_sale_that_would_end_before_it_begins(store: Store, tmp_path: Path) -> None:
    await add_with_rules(store)
    content = f"{HEADER.strip()},on_sale_from\n{ROW},2026-12-24T00:00:00Z\n"
    path = write_file(tmp_path, content, "p.csv")
    dry = await import_file(store, path, update=True, dry_run=True)
    assert dry == await import_file(store, path, update=True)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (("0", "", ""), '#/limit_per_customer: Input should be greater than or equal to 1, not "0"'),
        (("1.000", "", ""), "#/limit_per_customer: Input should have no thousands separators"),
        (("", "27.11.2026", ""), 'not "27.11.2026"'),
        (("", END, START), '#/on_sale_until: Input should be after on_sale_from, not "2026-11-27'),
    ],
)
async def test_a_bad_rule_is_quoted(fake_store: Store, tmp_path: Path, cells: tuple[str, ...], message: str) -> None:
    [(line_number, text)] = messages(await import_file(fake_store, write_file(tmp_path, with_rules(*cells), "p.csv")))
    assert line_number == 2
    assert message in text


def test_all_fields_that_can_be_changed_are_compared() -> None:
    assert set(ProductChange.model_fields) == {"name", "description", "price", *SaleRules._fields}


@pytest.mark.parametrize("cells", ["19,99,10", "19,99,10,,,", "1,234,10,", "5,1,2"])
async def test_a_decimal_comma_without_quotes_never_shifts_the_cells_into_columns_of_rules(
    fake_store: Store, tmp_path: Path, cells: str
) -> None:
    path = write_file(tmp_path, f"{HEADER.strip()},{COLUMNS}\n1,Mug,,{cells}\n2,Pot,,5,1\n3,Cup,,5,1,,,\n", "p.csv")
    report = await import_file(fake_store, path)
    assert outcome(report) == {"added": 2, "bad": 1}
    assert messages(report)[0][0] == 2


async def test_empty_cells_may_be_missing_at_the_end_of_a_row(fake_store: Store, tmp_path: Path) -> None:
    content = f"{HEADER.strip()},{COLUMNS}\n1,Mug,,5,1\n2,Pot,,5,1,2\n".replace(",", ";")
    await add_with_rules(fake_store)
    report = await import_file(fake_store, write_file(tmp_path, content, "p.csv"), update=True)
    assert outcome(report) == {"added": 1, "changed": 1}
    assert [product.rules for product in await products_on_sale(fake_store)] == [SaleRules(), SaleRules(2)]

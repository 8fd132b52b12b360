"""Files with products for `holdfast import`, and the products and lines that a Store then has."""

import json
from pathlib import Path
from typing import Any

from service.domain.product import Product
from service.domain.requests import ProductsQuery
from service.ops.catalogue_files import read_rows
from service.ops.catalogue_input import ReadOptions
from service.ops.export import LINE_END, Content, csv_header, export
from service.ops.import_products import DryRun, ImportTarget, Shop, import_products
from service.ops.import_report import ImportReport
from service.storage.store import Store
from tests.support.shop import mug

HEADER = "id,name,description,price,stock\n"
"""The first line of a .csv file."""


def jsonl_row(product_id: int, **fields: object) -> str:
    """Return the line of a .jsonl file with `mug(**fields)`."""
    return json.dumps({"id": product_id, **mug(**fields)}) + "\n"


def write_file(folder: Path, content: str | bytes, name: str = "products.jsonl") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


async def import_file(
    store: Store, path: Path, *, update: bool = False, dry_run: bool = False, **options: Any
) -> ImportReport:
    """Import a file. `options` are those of ReadOptions."""
    rows = read_rows(str(path), ReadOptions(**options))
    target: ImportTarget = DryRun(store) if dry_run else Shop(store)
    return await import_products(target, rows, lambda size: None, update=update)


def outcome(report: ImportReport) -> dict[str, int]:
    """Return the numbers of a report that are not 0."""
    names = ("added", "changed", "present", "different", "bad")
    return {name: number for name in names if (number := getattr(report, name))}


def messages(report: ImportReport) -> list[tuple[int, str]]:
    """Return the line number and the text of each message."""
    return [(line_number, text) for line_number, text, _ in sorted(report.messages)]


async def products_on_sale(store: Store) -> list[Product]:
    """Return the first page of products. Fail if there is a second page."""
    listed, after = await store.products.list(ProductsQuery())
    assert after is None
    products = await store.products.read_many([product.id for product in listed])
    return [product for product in products if product is not None]


async def export_lines(store: Store, content: str) -> list[str]:
    """Export "products" or "orders". Return the JSON lines."""
    assert content in ("products", "orders")
    return [line async for line in export(store, "products" if content == "products" else "orders")]


async def export_csv(store: Store, content: Content) -> str:
    """Return a .csv file as `holdfast export` prints it."""
    lines = [csv_header(content), *[text async for text in export(store, content, "csv")]]
    return "".join(f"{line}{LINE_END['csv']}" for line in lines)

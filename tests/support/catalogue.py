"""Files with products for `holdfast import`, and the products and lines that a Store then has."""

import json
from pathlib import Path

from service.domain.product import Product
from service.domain.requests import ProductsQuery
from service.ops.export import export
from service.ops.import_products import ImportReport, import_products
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


async def import_file(store: Store, path: Path) -> ImportReport:
    return await import_products(store, path, lambda size: None)


async def products_on_sale(store: Store) -> list[Product]:
    """Return the first page of products. Fail if there is a second page."""
    products, after = await store.products.list(ProductsQuery())
    assert after is None
    return products


async def export_lines(store: Store, content: str) -> list[str]:
    """Export "products" or "orders". Return the JSON lines."""
    assert content in ("products", "orders")
    return [line async for line in export(store, "products" if content == "products" else "orders")]

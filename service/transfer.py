"""Catalogues in, products and orders out: what `holdfast import` and `holdfast export` do."""

import asyncio
import csv
from codecs import BOM_UTF8
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from io import TextIOWrapper
from pathlib import Path
from typing import Literal

from service.domain.decoding import read_json, validate
from service.domain.errors.refusals import ProductIdTaken
from service.domain.errors.request import FieldError, InvalidRequest, MalformedJson
from service.domain.limits import MAX_PAGE
from service.domain.requests import NewProduct, OrdersQuery, ProductsQuery
from service.storage.store import Store

_BATCH = 500


class NotImportableError(Exception):
    """The file cannot be read at all."""


@dataclass
class ImportReport:
    """How many rows were added, how many were there already, and what is wrong with the others, by line number."""

    added: int = 0
    present: int = 0
    bad: list[tuple[int, str]] = field(default_factory=list)


async def import_products(store: Store, path: Path, progress: Callable[[int], object]) -> ImportReport:
    """Adds the products of a .jsonl or .csv file. Each row needs an id, so that a second run adds nothing twice.

    A product that is there already is left as it is. `progress` hears of the bytes that were read.
    Raises NotImportableError.
    """
    rows = {".jsonl": _jsonl_rows, ".ndjson": _jsonl_rows, ".csv": _csv_rows}.get(path.suffix.lower())
    if rows is None:
        raise NotImportableError(f"{path}: the name must end in .jsonl or .csv")
    report = ImportReport()
    batch: list[NewProduct] = []
    try:
        for line_number, row, size in rows(path):
            progress(size)
            if isinstance(row, NewProduct):
                batch.append(row)
            elif row is not None:
                report.bad.append((line_number, row))
            if len(batch) == _BATCH:
                await _add(store, batch, report)
                batch.clear()
        await _add(store, batch, report)
    except (OSError, csv.Error) as error:
        raise NotImportableError(f"{path}: {error}") from error
    return report


async def _add(store: Store, batch: list[NewProduct], report: ImportReport) -> None:
    results = await asyncio.gather(*(store.products.add(product) for product in batch), return_exceptions=True)
    for result in results:
        match result:
            case ProductIdTaken():
                report.present += 1
            case BaseException():
                raise result
            case _:
                report.added += 1


_Row = tuple[int, NewProduct | str | None, int]
"""Line number, the product or what is wrong with it or None for an empty line, and bytes read."""


def _jsonl_rows(path: Path) -> Iterator[_Row]:
    with path.open("rb") as file:
        for line_number, line in enumerate(file, 1):
            text = line.removeprefix(BOM_UTF8).strip() if line_number == 1 else line.strip()
            try:
                yield line_number, _product(read_json(text)) if text else None, len(line)
            except (MalformedJson, InvalidRequest) as error:
                yield line_number, _explain(error), len(line)


def _csv_rows(path: Path) -> Iterator[_Row]:
    # Bytes that are no UTF-8 become lone surrogates, which are then refused in their row alone.
    with path.open("rb") as file, TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="") as text:
        reader = csv.DictReader(text, restkey="(cells past the header)", strict=True)
        names = reader.fieldnames or []
        if len(set(names)) < len(names):
            raise NotImportableError(f"{path}: a column of the header is given twice")
        read = 0
        while True:
            row: NewProduct | str
            try:
                cells = next(reader)
                row = _product({name: _cell(name, cell) for name, cell in cells.items() if cell is not None})
            except StopIteration:
                return
            except csv.Error as error:  # of this row alone: the reader goes on after it
                row = f"This is not CSV: {error}"
            except InvalidRequest as error:
                row = _explain(error)
            size, read = file.tell() - read, file.tell()
            yield reader.reader.line_num, row, size  # DictReader's own stays behind where a row fails


def _cell(name: str, text: str) -> object:
    """A cell as JSON would have it. In a column of numbers, what is none stays text, and is refused as such."""
    if name in ("id", "price", "stock"):
        with suppress(MalformedJson, UnicodeEncodeError):
            return read_json(text.encode())
    return text


def _product(document: object) -> NewProduct:
    product = validate(NewProduct, document, source="row")
    if product.id is None:
        detail = "Member is required: without it, a second run would add the product again"
        raise InvalidRequest("The row does not fit.", [FieldError("#/id", detail)])
    return product


def _explain(error: MalformedJson | InvalidRequest) -> str:
    if isinstance(error, InvalidRequest):
        return "; ".join(f"{fault.pointer}: {fault.detail}" for fault in error.field_errors)
    return error.explanation


async def export(store: Store, what: Literal["products", "orders"]) -> AsyncIterator[str]:
    """All products on sale in id order, or all pending and completed orders, newest first, as the API shows them."""
    if what == "products":
        after: int | None = 0
        while after is not None:
            products, after = await store.products.list(ProductsQuery.model_construct(limit=MAX_PAGE, after=after))
            for product in products:
                yield product.json()
    else:
        before: int | None = None
        while True:
            orders, before = await store.orders.list(OrdersQuery.model_construct(limit=MAX_PAGE, before=before))
            for order in orders:
                yield order.json()
            if before is None:
                return

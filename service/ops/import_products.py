"""Adds the products of a catalogue file to the shop: `holdfast import`."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from service.domain.errors.refusals import ProductIdTaken
from service.domain.requests import NewProduct
from service.ops.catalogue_files import read_rows
from service.storage.store import Store

_BATCH = 500
"""Products that are added at the same time: their commands share few network writes."""


@dataclass
class ImportReport:
    """The number of products that were added or existed already, and what is wrong with bad rows, by line number."""

    added: int = 0
    present: int = 0
    bad: list[tuple[int, str]] = field(default_factory=list)


async def import_products(store: Store, path: Path, progress: Callable[[int], object]) -> ImportReport:
    """Add the products of a .jsonl or .csv file. Each row needs an id, so that a second run adds nothing twice.

    A product that exists already is not changed. Call `progress` with the number of bytes of each row.
    Raise UnreadableFile.
    """
    report = ImportReport()
    batch: list[NewProduct] = []
    for line_number, content, size in read_rows(path):
        progress(size)
        if isinstance(content, NewProduct):
            batch.append(content)
        elif content is not None:
            report.bad.append((line_number, content))
        if len(batch) == _BATCH:
            await _add(store, batch, report)
            batch.clear()
    await _add(store, batch, report)
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

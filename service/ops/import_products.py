"""Adds the products of a catalogue file to the shop, and changes those that differ: `holdfast import`."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from service.domain.errors.refusals import ProductNotFound, Refusal
from service.domain.product import Product
from service.domain.requests import NewProduct, ProductChange
from service.ops.catalogue_rows import BadRow, ImportRow, UnreadableFile
from service.ops.import_report import ImportReport
from service.ops.product_fields import describe_differences, find_differences, find_empty_sale
from service.storage.partitioned import AnyStore

BATCH: Final = 500
"""Products that are added at the same time: their commands share few network writes."""

_WITHDRAWN: Final = BadRow(
    "The product of this id was withdrawn: its id is taken, and nothing of it can be changed", "withdrawn"
)

_REPEATED: Final = BadRow(
    "An earlier row has the same id, and would add or change the product: a dry run cannot compare the two", "repeated"
)

Batch = dict[int, tuple[int, NewProduct]]
"""Rows by the id of their product: line number and content. No id is in it twice."""


async def import_products(
    shop: "ImportTarget", rows: Iterable[ImportRow], progress: Callable[[int], object], *, update: bool = False
) -> ImportReport:
    """Add the products of a file. Each row needs an id, so that a second run adds nothing twice.

    A product that exists already keeps its stock, which orders move. With `update`, its other fields become those of
    the row; otherwise it is not changed, and a row that differs from it is reported. Call `progress` with the number
    of bytes of each row.
    """
    report = ImportReport()
    batch: Batch = {}
    try:
        for line_number, content, size in rows:
            progress(size)
            if isinstance(content, NewProduct):
                assert content.id is not None
                if len(batch) == BATCH or content.id in batch:  # a later row must see the result of an earlier one
                    await _import_batch(shop, batch, report, update=update)
                    batch = {}
                batch[content.id] = line_number, content
            elif content is not None:
                report.add_bad(line_number, content)
    except UnreadableFile as error:
        report.stopped = str(error)
    await _import_batch(shop, batch, report, update=update)
    return report


async def _import_batch(shop: "ImportTarget", batch: Batch, report: ImportReport, *, update: bool) -> None:
    not_added = await shop.add(batch, report)
    existing = await shop.read(not_added)
    changes: dict[int, ProductChange] = {}
    for product_id, product in zip(not_added, existing, strict=True):
        line_number, row = batch[product_id]
        if product is None:
            report.add_different(line_number, _WITHDRAWN)
        elif not (differences := find_differences(product, row)):
            report.present += 1
        elif update and (refusal := find_empty_sale(product, differences)):
            report.add_different(line_number, _refused(refusal))
        elif update:
            changes[product_id] = ProductChange.model_construct(**differences)
        else:
            text = f"differs from the product in the shop: {describe_differences(product, differences)}"
            report.add_different(line_number, BadRow(text, f"differs: {', '.join(differences)}"))
    for product_id, error in (await shop.change(changes)).items():
        line_number, _ = batch[product_id]
        if error is None:
            report.changed += 1
        elif isinstance(error, ProductNotFound):  # it was withdrawn at this moment
            report.add_different(line_number, _WITHDRAWN)
        else:
            report.add_different(line_number, _refused(error))


def _refused(refusal: Refusal) -> BadRow:
    return BadRow(refusal.detail(), type(refusal).__name__)


class ImportTarget(Protocol):
    """Where the products go: a shop, or a dry run."""

    async def add(self, batch: Batch, report: ImportReport) -> list[int]:
        """Add products, and count them. Return the ids that are taken already."""

    async def read(self, ids: list[int]) -> list[Product | None]:
        """Return the products of ids that are taken. None: it was withdrawn."""

    async def change(self, changes: dict[int, ProductChange]) -> dict[int, Refusal | None]:
        """Change products. Return for each why it was refused, or None."""


class Shop:
    """A shop that gets the products."""

    def __init__(self, store: AnyStore) -> None:
        self._store = store

    async def add(self, batch: Batch, report: ImportReport) -> list[int]:
        added = await self._store.products.add_many([row for _, row in batch.values()])
        report.added += sum(added)
        return [product_id for product_id, is_new in zip(batch, added, strict=True) if not is_new]

    async def read(self, ids: list[int]) -> list[Product | None]:
        return list(await self._store.products.read_many(ids)) if ids else []

    async def change(self, changes: dict[int, ProductChange]) -> dict[int, Refusal | None]:
        changing = (self._store.products.change(product_id, change) for product_id, change in changes.items())
        results: dict[int, Refusal | None] = {}
        for product_id, result in zip(changes, await asyncio.gather(*changing, return_exceptions=True), strict=True):
            if isinstance(result, BaseException) and not isinstance(result, Refusal):
                raise result
            results[product_id] = result if isinstance(result, Refusal) else None
        return results


class DryRun:
    """A shop that is only read. Without a AnyStore: a shop that does not exist yet."""

    def __init__(self, store: AnyStore | None) -> None:
        self._store = store
        self._touched = IdSet()
        """Products that would not be in the shop, or not as they are, after the rows so far."""

    async def add(self, batch: Batch, report: ImportReport) -> list[int]:
        for product_id in [product_id for product_id in batch if product_id in self._touched]:
            line_number, _ = batch.pop(product_id)
            report.add_bad(line_number, _REPEATED)
        taken = []
        for product_id, product in zip(batch, await self._read(list(batch), include_withdrawn=True), strict=True):
            if product is not None:
                taken.append(product_id)
            else:
                self._touched.add(product_id)
                report.added += 1
        return taken

    async def read(self, ids: list[int]) -> list[Product | None]:
        return await self._read(ids, include_withdrawn=False)

    async def _read(self, ids: list[int], *, include_withdrawn: bool) -> list[Product | None]:
        if self._store is None or not ids:
            return [None] * len(ids)
        return list(await self._store.products.read_many(ids, include_withdrawn=include_withdrawn))

    async def change(self, changes: dict[int, ProductChange]) -> dict[int, Refusal | None]:
        for product_id in changes:
            self._touched.add(product_id)
        return dict.fromkeys(changes)


class IdSet:
    """A set of ids. Ids that follow each other take about 2 bytes each, 66 in a `set`; scattered ids about 100."""

    def __init__(self) -> None:
        self._blocks: dict[int, int] = {}

    def add(self, number: int) -> None:
        block, bit = divmod(number, 64)
        self._blocks[block] = self._blocks.get(block, 0) | 1 << bit

    def __contains__(self, number: int) -> bool:
        block, bit = divmod(number, 64)
        return bool(self._blocks.get(block, 0) >> bit & 1)

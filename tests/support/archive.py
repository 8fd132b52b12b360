"""Archive the orders of a shop, and read the file."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from service.domain.times import Milliseconds
from service.ops.archive import DAY_MS, ArchiveReport, archive
from service.ops.archive_file import ArchiveFile
from tests.support.audited_shop import AuditedShop
from tests.support.shop import SHOP

LATER: Final = 1000
"""Seconds after which all holds of a filled shop have ended, those of cancelled orders too. Order 2 stays pending."""


async def run(shop: AuditedShop, path: Path, *, keep_days: float = 30, ago_days: float = 0) -> ArchiveReport:
    """Archive what ended before so many days ago, and at least `keep_days` ago."""
    before = Milliseconds(int(shop.clock.now - ago_days * DAY_MS))
    with ArchiveFile(path, SHOP) as file:
        return await archive(shop.store, SHOP, file, before, int(keep_days * DAY_MS))


def lines_of(path: Path) -> list[dict[str, Any]]:
    """Return the lines of an archive, with exact amounts."""
    return [json.loads(line, parse_float=Decimal) for line in path.read_text().splitlines()]


def ids_in(path: Path) -> list[int]:
    return [line["id"] for line in lines_of(path)]


async def live_ids(shop: AuditedShop) -> set[int]:
    return {order_id async for order_id in shop.store.orders.scan_ids()}

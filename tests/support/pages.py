"""Pages of products for tests, and whether products were read for them."""

import json
from typing import Any

import pytest

from service.domain.requests import ProductsQuery
from service.storage import keys
from service.storage.partitioned import AnyStore
from tests.support.engines import TestConnection
from tests.support.shop import SHOP

COUNT = 3
"""Partitions."""


def mug_in(partition: int, product_id: int = 1) -> str:
    """Return the key of a product in a partition."""
    return keys.product(keys.partition(SHOP, partition), product_id)


async def page(store: AnyStore, **query: Any) -> list[dict[str, Any]]:
    products, _ = await store.products.list(ProductsQuery.model_validate(query))
    shown = [json.loads(product.json) for product in products]
    assert [(product.id, product.stock) for product in products] == [(item["id"], item["stock"]) for item in shown]
    return shown


async def stocks(store: AnyStore) -> list[int]:
    return [item["stock"] for item in await page(store)]


async def needs_tracking(engine: TestConnection) -> None:
    """Skip the rest of the test on Redis 7.0, where Holdfast does without."""
    server = str(await engine.send("INFO", "server"))
    if "redis_version:7.0." in server and "valkey" not in server:
        pytest.skip("Redis 7.0 tracks keys of scripts too slowly")


async def hashes_read(engine: TestConnection) -> int:
    """Return how many hashes were read by HMGET since the last call."""
    info = str(await engine.send("INFO", "commandstats"))
    await engine.send("CONFIG", "RESETSTAT")
    found = [line for line in info.splitlines() if line.startswith("cmdstat_hmget:")]
    return int(found[0].partition("calls=")[2].partition(",")[0]) if found else 0

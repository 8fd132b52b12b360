"""Redis has other data under running workers: all data were deleted, or a backup was restored."""

import json

import pytest

from tests.support.command_line import HoldfastCommand
from tests.support.engine_process import connect
from tests.support.service_process import (
    STOCK,
    OrderLoad,
    ServiceProcess,
    StartService,
    assert_orders_agree_with_stock,
)
from tests.support.waiting import eventually, wait_until

pytestmark = pytest.mark.process


@pytest.mark.parametrize("change", ["all data are deleted", "a backup is restored"])
async def test_all_orders_placed_after_other_data_came_are_listed_exported_and_audited(
    start_ready_service: StartService, change: str
) -> None:
    service = start_ready_service(workers=3)
    products = [service.add_product(stock=STOCK) for _ in range(5)]
    async with OrderLoad(service, products) as in_backup:
        pass
    with connect(service.engine_url) as redis:
        backup = {key: redis.dump(key) for key in redis.scan_iter()}
        async with OrderLoad(service, products) as lost:
            await eventually(lambda: len(lost.placed) > 600, "orders that the backup does not have")
        with redis.pipeline() as pipeline:  # in one step, as a Redis that is started with a backup has all data at once
            pipeline.flushall()
            if change == "a backup is restored":
                for key, value in backup.items():
                    pipeline.restore(key, 0, value)
            pipeline.execute()
    expected = in_backup.placed if change == "a backup is restored" else {}
    if not expected:
        assert [service.add_product(stock=STOCK) for _ in range(5)] == products
    async with OrderLoad(service, products) as later:
        await eventually(lambda: len(later.placed) > 600, "orders from all workers")
    assert not later.problems
    assert not expected.keys() & later.placed.keys()
    expected = {**expected, **later.placed}
    ids = sorted(expected, reverse=True)

    wait_until(lambda: listed_ids(service) == ids, "a list of all orders")
    assert_orders_agree_with_stock(service.engine_url, expected)
    command = HoldfastCommand(service.folder)
    exported = command("export", "orders")
    assert [json.loads(line)["id"] for line in exported.stdout.splitlines()] == ids
    audit = command("audit")
    assert audit.returncode == 0, audit.stdout
    assert f"{len(ids):,} orders" in audit.stdout


def listed_ids(service: ServiceProcess) -> list[int]:
    """Return the ids of all orders that GET /orders lists, page by page."""
    ids: list[int] = []
    path: str | None = "/orders?limit=1000"
    while path:
        response = service.client.get(path)
        ids += [order["id"] for order in response.json()]
        path = response.links.get("next", {}).get("url")
    return ids

"""A backup of a service under load, and its restore."""

import asyncio
from pathlib import Path

import pytest

from tests.support.command_line import HoldfastCommand
from tests.support.service_process import STOCK, OrderLoad, StartService, assert_orders_agree_with_stock

pytestmark = pytest.mark.process


async def test_a_backup_under_load_has_every_order_that_was_confirmed_before(
    start_ready_service: StartService, tmp_path: Path
) -> None:
    service = start_ready_service()
    products = [service.add_product(stock=STOCK) for _ in range(5)]
    holdfast = HoldfastCommand(tmp_path, HOLDFAST_DATA_DIR=str(service.data_dir))
    async with OrderLoad(service, products) as load:
        before = dict(load.placed)
        done = await asyncio.to_thread(holdfast, "backup", "backup")
        during = len(load.placed)
    assert (done.returncode, done.stderr) == (0, "")
    assert during > len(before)  # the service went on
    assert not load.problems
    highest = max(load.placed)
    service.close()
    done = holdfast("restore", "backup", "--move-aside")
    assert (done.returncode, done.stderr) == (0, "")
    restored = start_ready_service()
    assert_orders_agree_with_stock(restored.logged("embedded_engine")[-1]["url"], before)
    new_id = restored.order(products[0]).json()["id"]
    assert new_id > highest + 1_000_000_000

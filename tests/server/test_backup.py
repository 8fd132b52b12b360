"""Backup and restore of a service under load, and a restore that is killed."""

import asyncio
import subprocess
from pathlib import Path

import pytest

from service.engine.launcher import run_engine
from tests.support.command_line import HOLDFAST, HoldfastCommand
from tests.support.engine_process import connect
from tests.support.processes import kill_processes_in
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


def test_a_restore_that_is_killed_at_any_moment_leaves_the_old_or_the_new_data(tmp_path: Path) -> None:
    holdfast = HoldfastCommand(tmp_path)
    data = tmp_path / "data"
    holdfast.write_products("two.jsonl", 1, 2)
    holdfast("import", "two.jsonl")
    assert holdfast("backup", "backup").returncode == 0
    new = holdfast("export", "products").stdout
    with run_engine(data, "none") as url, connect(url) as redis:
        redis.hset("{shop}:product:1", "name", "Old")
    old = holdfast("export", "products").stdout
    seen = []
    try:
        for tenth in range(3, 30):
            command = [*HOLDFAST, "restore", "backup", "--move-aside"]
            with subprocess.Popen(command, cwd=tmp_path, env=holdfast.env, stdout=subprocess.PIPE) as process:
                try:
                    process.wait(tenth / 20)  # the moment does not matter: each must do
                except subprocess.TimeoutExpired:
                    process.kill()
            kill_processes_in(tmp_path)  # the engine on the copy
            seen.append(holdfast("export", "products").stdout)
            assert seen[-1] in (old, new)
            if process.returncode == 0:
                break
        assert seen[-1] == new
    finally:
        kill_processes_in(tmp_path)

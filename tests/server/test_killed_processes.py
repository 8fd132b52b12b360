"""A parent, an engine or a worker is killed: no order is lost, and no process is left behind."""

import os
import re
import signal
import sys

import pytest
from httpx2 import get

from tests.support.processes import processes_in, wait_for_no_processes_in
from tests.support.service_process import (
    MODULE,
    NO_TLS,
    REDIS_TIMEOUT,
    STOCK,
    OrderLoad,
    ServiceProcess,
    StartService,
    assert_orders_agree_with_stock,
    engine_pid,
    workers_of,
)
from tests.support.waiting import eventually, wait_until

pytestmark = pytest.mark.process


@pytest.mark.skipif(sys.platform != "linux", reason="PDEATHSIG is Linux's")
@pytest.mark.parametrize("workers", [1, 3])
async def test_a_parent_killed_under_load_leaves_no_process_and_loses_no_order(
    start_ready_service: StartService, workers: int
) -> None:
    service = start_ready_service(workers=workers)
    products = [service.add_product(stock=STOCK) for _ in range(5)]
    async with OrderLoad(service, products) as load:
        service.process.kill()
        service.process.wait()
        await eventually(lambda: load.unanswered >= load.clients, "the end of all connections")
    wait_for_no_processes_in(service.folder)
    restarted = start_ready_service()
    assert_orders_agree_with_stock(restarted.logged("embedded_engine")[-1]["url"], load.placed)
    assert restarted.order(products[0]).json()["id"] not in load.placed


@pytest.mark.skipif(sys.platform != "linux", reason="PDEATHSIG is Linux's")
def test_a_parent_killed_while_its_workers_start_leaves_no_process(start_service: StartService) -> None:
    service = start_service(command=MODULE, workers=3)
    wait_until(lambda: "Started parent process" in service.stderr, "the workers")
    service.process.kill()
    service.process.wait()
    wait_for_no_processes_in(service.folder)


async def test_an_engine_killed_under_load_is_restarted_and_loses_no_order(start_ready_service: StartService) -> None:
    service = start_ready_service(redis_timeout=REDIS_TIMEOUT)
    products = [service.add_product(stock=STOCK) for _ in range(5)]
    async with OrderLoad(service, products) as load:
        placed_before = len(load.placed)
        os.kill(engine_pid(service), signal.SIGKILL)
        await eventually(lambda: len(load.placed) > placed_before + 200, "more orders")
    assert not load.unanswered
    unavailable = {"503 /problems/outcome-unknown", "503 /problems/storage-unavailable"}
    assert set(load.problems) <= unavailable
    assert "Traceback" not in service.stderr
    assert_orders_agree_with_stock(service.engine_url, load.placed)


@pytest.mark.parametrize("workers", [1, 3])
def test_a_killed_engine_is_restarted(start_ready_service: StartService, workers: int) -> None:
    service = start_ready_service(workers=workers, redis_timeout=REDIS_TIMEOUT)
    killed = engine_pid(service)
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: killed not in processes_in(service.data_dir), "the end of the engine")
    wait_until(lambda: service.answers("/readyz") == 200, "the new engine")
    assert service.process.poll() is None
    assert service.logged("engine_ended")[0]["level"] == "error"


async def test_a_killed_worker_is_replaced_and_the_other_workers_continue(start_ready_service: StartService) -> None:
    service = start_ready_service(workers=3)
    products = [service.add_product(stock=STOCK) for _ in range(5)]
    before = workers_of(service)
    async with OrderLoad(service, products) as load:
        await eventually(
            lambda: _counted(service, 'orders_total{result="placed"}') > 200, "the first orders in the metrics"
        )
        counted = _counted(service, 'orders_total{result="placed"}')
        os.kill(before[0], signal.SIGKILL)
        await eventually(lambda: len(set(workers_of(service)) - set(before)) == 1, "the new worker")
        placed_before = len(load.placed)
        await eventually(lambda: len(load.placed) > placed_before + 200, "more orders")
    assert not load.problems
    assert len(workers_of(service)) == 3
    # Any worker shows what all have counted, and what the killed one had counted a second before its end.
    placed = 'orders_total{result="placed"}'
    await eventually(lambda: _counted(service, placed) >= counted + 200, "the orders after that in the metrics")
    assert _counted(service, placed) <= len(load.placed) + load.unanswered
    assert _counted(service, "worker_restarts_total") == 1
    assert_orders_agree_with_stock(service.engine_url, load.placed)


def _counted(service: ServiceProcess, name: str) -> int:
    text = get(f"http://127.0.0.1:{service.port}/metrics", verify=NO_TLS).text
    [count] = re.findall(rf"^holdfast_{re.escape(name)} (\d+)", text, re.MULTILINE)
    return int(count)

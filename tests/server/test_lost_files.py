"""The files of the embedded engine are removed under a running service."""

import shutil
import signal

import pytest

from tests.support.processes import processes_in, wait_for_no_processes_in
from tests.support.service_process import StartService
from tests.support.waiting import wait_until

pytestmark = pytest.mark.process


def test_a_service_whose_data_are_removed_is_not_ready_and_confirms_no_order(
    start_ready_service: StartService,
) -> None:
    service = start_ready_service()
    mugs = service.add_product(stock=10)
    shutil.rmtree(service.data_dir)
    wait_until(lambda: service.answers("/readyz") == 503, "503")
    assert service.order(mugs).status_code == 503
    assert not processes_in(service.data_dir)
    [entry] = service.logged("data_missing")
    assert (entry["level"], entry["path"]) == ("error", str(service.data_dir))
    service.signal(signal.SIGTERM, group=False)
    assert service.wait_for_exit() == 0
    wait_for_no_processes_in(service.folder)


def test_a_removed_socket_comes_back_and_the_service_goes_on(start_ready_service: StartService) -> None:
    service = start_ready_service()
    mugs = service.add_product(stock=10)
    assert service.order(mugs).status_code == 201
    path = service.data_dir / "engine.sock"
    path.unlink()
    wait_until(lambda: service.logged("engine_socket_missing"), "the log entry")
    wait_until(path.exists, "the socket")
    wait_until(lambda: service.answers("/readyz") == 200, "200")
    assert service.order(mugs).status_code == 201
    assert service.stock(mugs) == 8

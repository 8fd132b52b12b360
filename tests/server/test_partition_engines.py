"""`holdfast serve` with partitions and embedded engines: it says how many run, and leaves none."""

import signal

import pytest

from tests.support.processes import wait_for_no_processes_in
from tests.support.service_process import StartService
from tests.support.waiting import wait_until

pytestmark = pytest.mark.process


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_a_service_says_how_many_engines_run_and_leaves_none(
    start_service: StartService, signum: signal.Signals
) -> None:
    service = start_service(partitions=3)
    wait_until(lambda: service.logged("embedded_engine"), "the engines")
    [entry] = service.logged("embedded_engine")
    assert entry["engines"] == 3
    assert "{partition}" in entry["url"]
    service.signal(signum, group=False)
    service.wait_for_exit()
    wait_for_no_processes_in(service.data_dir)


def test_a_service_without_partitions_has_one_engine_and_does_not_count_it(start_service: StartService) -> None:
    service = start_service()
    service.wait_until_ready()
    [entry] = service.logged("embedded_engine")
    assert "engines" not in entry
    assert not (service.data_dir / "partitions").exists()

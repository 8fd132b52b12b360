"""Fixtures for the tests of the server: services that end with their test."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import kill_processes_in
from tests.support.service_process import ServiceProcess, StartService, workers_of
from tests.support.waiting import wait_until


@pytest.fixture
def start_service(tmp_path: Path) -> Iterator[StartService]:
    """Start a service: `start_service(workers=3)` sets HOLDFAST_WORKERS. All services share one data directory."""
    services: list[ServiceProcess] = []

    def start(**settings: Any) -> ServiceProcess:
        folder = tmp_path / "service"
        folder.mkdir(exist_ok=True)
        service = ServiceProcess(folder, **settings)
        services.append(service)
        return service

    yield start
    for service in services:
        service.close()
    kill_processes_in(tmp_path)
    for text in sorted({service.stderr for service in services}):
        print(text[-3000:])  # pytest shows this if the test fails


@pytest.fixture
def start_ready_service(start_service: StartService) -> StartService:
    """Start a service, and wait until it is ready and has all of its workers."""

    def start(workers: int = 1, **settings: Any) -> ServiceProcess:
        service = start_service(workers=workers, **settings)
        service.wait_until_ready()
        wait_until(lambda: len(workers_of(service)) == workers, "all workers")
        return service

    return start


@pytest.fixture
def redis_dir(tmp_path: Path) -> Path:
    """The directory of the external Redis of a test."""
    return tmp_path / "redis"

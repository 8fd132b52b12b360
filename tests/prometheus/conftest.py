"""Fixtures for the tests with a real Prometheus: `make test-e2e`."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from httpx2 import Client, HTTPError

from tests.support.processes import free_port, kill_processes_in
from tests.support.service_process import ServiceProcess
from tests.support.waiting import wait_until

WORKERS = 2


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid.startswith("tests/prometheus/"):
            item.add_marker("e2e")


def required(program: str, package: str) -> str:
    """Return the path of a program. Without it the tests fail, and are not skipped: they run only on request."""
    path = shutil.which(program)
    if path is None:
        pytest.exit(f"these tests need {program} (Debian: apt install {package})", returncode=1)
    return path


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServiceProcess]:
    """A service with two workers, which is ready."""
    folder = tmp_path / "service"
    folder.mkdir()
    service = ServiceProcess(folder, workers=WORKERS)
    service.wait_until_ready()
    yield service
    service.close()
    kill_processes_in(folder)


class Prometheus:
    """A running Prometheus."""

    def __init__(self, folder: Path) -> None:
        """Start it. `folder` has prometheus.yml, and gets its data."""
        port = free_port()
        self.client = Client(base_url=f"http://127.0.0.1:{port}", timeout=10)
        with (folder / "log").open("w") as log:
            self.process = subprocess.Popen(
                [
                    required("prometheus", "prometheus"),
                    f"--config.file={folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={folder / 'tsdb'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                ],
                stdout=log,
                stderr=log,
            )
        wait_until(self._is_ready, f"Prometheus: {folder / 'log'}")

    def _is_ready(self) -> bool:
        try:
            return self.client.get("/-/ready").status_code == 200
        except HTTPError:
            return False

    def get(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer of the HTTP API. Fail if it is an error."""
        response = self.client.get(f"/api/v1/{path}", params=parameters)
        answer = response.json()
        assert answer["status"] == "success", f"{parameters}: {answer.get('error')}"
        return answer["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the series that an expression has now."""
        result: list[dict[str, Any]] = self.get("query", query=expression)["result"]
        return result

    def value(self, expression: str) -> float | None:
        """Return the value of an expression with one series, or None if there is none."""
        found = self.query(expression)
        assert len(found) <= 1, found
        return float(found[0]["value"][1]) if found else None

    def alerts(self, state: str) -> dict[str, dict[str, Any]]:
        """Return the alerts in a state, `pending` or `firing`, by name."""
        return {
            alert["labels"]["alertname"]: alert for alert in self.get("alerts")["alerts"] if alert["state"] == state
        }

    def close(self) -> None:
        self.client.close()
        self.process.kill()
        self.process.wait()


StartPrometheus = Callable[[str, str], Prometheus]


@pytest.fixture
def start_prometheus(tmp_path: Path) -> Iterator[StartPrometheus]:
    """Start a Prometheus: `start_prometheus(text of prometheus.yml, text of alerts.yml)`."""
    started: list[Prometheus] = []

    def start(config: str, rules: str) -> Prometheus:
        folder = tmp_path / "prometheus"
        folder.mkdir()
        (folder / "prometheus.yml").write_text(config)
        (folder / "alerts.yml").write_text(rules)
        started.append(Prometheus(folder))
        return started[-1]

    yield start
    for prometheus in started:
        prometheus.close()

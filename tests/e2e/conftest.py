"""Fixtures for the tests of the containers: `make test-e2e`. Each module has its own compose project."""

import subprocess
from collections.abc import Iterator

import pytest

from tests.e2e.stack import Stack, measurements


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid.startswith("tests/e2e/"):
            item.add_marker("e2e")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if measurements:
        terminalreporter.section("measured")
        for measurement in measurements:
            terminalreporter.line(measurement)


@pytest.fixture(scope="session", autouse=True)
def _docker() -> None:
    """Without docker the tests fail, and are not skipped: they run only on request."""
    try:
        done = subprocess.run(["docker", "info"], capture_output=True, text=True, timeout=30)
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        pytest.exit(f"these tests need docker: {error}", returncode=1)
    if done.returncode != 0:
        pytest.exit(f"these tests need docker: {done.stderr.strip()}", returncode=1)


@pytest.fixture(scope="module")
def stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    """Start the module's COMPOSE_FILES with its options UP, after removing what an earlier run has left."""
    stack = Stack(*request.module.COMPOSE_FILES)
    stack.down("-v", "--remove-orphans")
    try:
        stack.compose("build", timeout=400)
        seconds = stack.up(*request.module.UP)
        measurements.append(f"up {' '.join(request.module.UP)}: ready {seconds:.1f} s after the start")
        yield stack
    finally:
        stack.down("-v", "--remove-orphans", "--rmi", "local")

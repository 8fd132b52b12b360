"""Real containers: `make test-e2e`. All tests share one compose project at a time, torn down with its volumes."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.stack import Stack, facts


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker("e2e")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if facts:
        terminalreporter.section("measured")
        for fact in facts:
            terminalreporter.line(fact)


@pytest.fixture(scope="session", autouse=True)
def _engine() -> None:
    """These tests were asked for by name: without an engine they fail, they are not skipped."""
    try:
        done = subprocess.run(["docker", "info"], capture_output=True, text=True, timeout=30)
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        pytest.exit(f"these tests need a docker engine: {error}", returncode=1)
    if done.returncode != 0:
        pytest.exit(f"these tests need a docker engine: {done.stderr.strip()}", returncode=1)


@pytest.fixture(scope="module")
def stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    """A stack of the module's COMPOSE_FILES, built and up with the module's UP; what a crash left is removed first."""
    stack = Stack(*request.module.COMPOSE_FILES)
    stack.down("-v", "--remove-orphans")
    try:
        stack.compose("build", timeout=400)
        seconds = stack.up(*request.module.UP)
        facts.append(f"up {' '.join(request.module.UP)}: ready {seconds:.1f} s after the start")
        yield stack
    finally:
        stack.down("-v", "--remove-orphans", "--rmi", "local")

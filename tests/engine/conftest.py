"""Fixtures for the tests of the embedded engine."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import kill_processes_in


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    """A data directory that does not exist yet. All processes in it are killed after the test."""
    yield tmp_path / "data"
    kill_processes_in(tmp_path)

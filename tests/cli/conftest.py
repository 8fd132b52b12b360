"""Fixtures for the tests of the commands."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command_line import HoldfastCommand, SharedEngineCommand
from tests.support.processes import kill_processes_in


@pytest.fixture
def holdfast(tmp_path: Path, engine_url: str) -> Iterator[SharedEngineCommand]:
    """`holdfast` on the engine of the tests."""
    command = SharedEngineCommand(tmp_path, engine_url)
    yield command
    command.redis.close()


@pytest.fixture
def embedded_holdfast(tmp_path: Path) -> Iterator[HoldfastCommand]:
    """`holdfast` on an embedded engine in ./data."""
    yield HoldfastCommand(tmp_path)
    kill_processes_in(tmp_path)

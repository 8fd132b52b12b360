"""The short form of `make faults`. The long form has all faults, changed clocks and a full disk."""

from pathlib import Path

import pytest

from tests.faults.campaign import run
from tests.faults.world import Setup

pytestmark = [pytest.mark.process, pytest.mark.slow]


@pytest.mark.parametrize(
    ("setup", "workers", "names"),
    [
        ("own", 1, ("cut_before_reply", "cut_during_write", "late_commands", "flush_scripts")),
        ("embedded", 3, ("kill_worker", "freeze_engine", "no_memory")),
        ("partitions", 2, ("kill_worker", "freeze_engine", "kill_clients")),
        ("cluster", 2, ("fail_over", "move_slot")),
    ],
)
async def test_nothing_is_lost_or_done_twice_under_faults(
    tmp_path: Path, setup: Setup, workers: int, names: tuple[str, ...]
) -> None:
    result = await run(tmp_path, seed=1, setup=setup, workers=workers, faults=len(names), only=names, longest=0.4)
    assert not result.violations, result.violations
    assert result.summary["faults"] == len(names) + 1
    assert result.summary["outcomes"]["done"] > 100, result.summary

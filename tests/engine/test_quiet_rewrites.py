"""The append-only file is rewritten at quiet moments, and at busy ones only when it is long."""

from pathlib import Path

import pytest

from service.engine import quiet_rewrites
from service.engine.launcher import run_engine
from tests.support.engine_process import connect
from tests.support.waiting import wait_until

LONG = 64 * 2**20


def facts(**changed: int) -> dict[str, str]:
    """Return what INFO says about a quiet engine with a long file, with some changes."""
    usual = {"instantaneous_ops_per_sec": 5, "aof_current_size": LONG, "aof_base_size": 1000}
    return {name: str(value) for name, value in {**usual, **changed}.items()}


def test_a_long_file_is_due_at_a_quiet_moment() -> None:
    assert quiet_rewrites.is_due(facts())


@pytest.mark.parametrize(
    "changed",
    [
        {"aof_current_size": LONG - 1},
        {"aof_base_size": LONG // 2 + 1},
        {"instantaneous_ops_per_sec": 1000},
        {"aof_rewrite_in_progress": 1},
        {"aof_rewrite_scheduled": 1},
        {"rdb_bgsave_in_progress": 1},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_a_short_file_a_busy_engine_and_one_that_writes_already_must_wait(changed: dict[str, int]) -> None:
    assert not quiet_rewrites.is_due(facts(**changed))


def test_a_running_engine_rewrites_its_file_by_itself(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quiet_rewrites, "QUIET_BYTES", 10_000)
    monkeypatch.setattr(quiet_rewrites, "_LOOK_SECONDS", 0.05)
    with run_engine(data_dir) as url, connect(url) as redis:
        # All in one step: what is written while the engine rewrites would count as the size before the next rewrite.
        with redis.pipeline(transaction=True) as transaction:
            for number in range(200):
                transaction.set("key", f"{number:0100}")
            transaction.execute()
        wait_until(lambda: redis.info("persistence")["aof_rewrites"] >= 1, "a rewrite")
        wait_until(lambda: redis.info("persistence")["aof_current_size"] < 10_000, "a shorter file")
        assert redis.get("key") == b"%0100d" % 199


def test_a_busy_engine_rewrites_its_file_from_256_mb_on(data_dir: Path) -> None:
    with run_engine(data_dir) as url, connect(url) as redis:
        assert redis.config_get("auto-aof-rewrite-*") == {
            "auto-aof-rewrite-percentage": "100",
            "auto-aof-rewrite-min-size": str(256 * 2**20),
        }

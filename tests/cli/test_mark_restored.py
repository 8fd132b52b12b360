"""`holdfast mark-restored`: a Redis of one's own is restored as the documents say."""

import shutil
from pathlib import Path

import pytest

from service.engine.launcher import run_engine
from tests.support.command_line import HoldfastCommand, SharedEngineCommand, assert_failed
from tests.support.engine_process import connect
from tests.support.processes import kill_processes_in
from tests.support.waiting import wait_until


def test_a_restored_redis_gives_no_id_away_a_second_time(tmp_path: Path) -> None:
    holdfast = HoldfastCommand(tmp_path)
    holdfast.write_products("two.jsonl", 1, 2)
    with run_engine(tmp_path / "own", "none") as url, connect(url) as redis:
        holdfast.env["HOLDFAST_REDIS_URL"] = url
        holdfast("import", "two.jsonl")
        redis.set("{shop}:ids:orders", 256)
        redis.config_set("rdbcompression", "no")
        redis.bgsave()
        wait_until(lambda: redis.info("persistence")["rdb_bgsave_in_progress"] == 0, "the snapshot")
    restored = tmp_path / "restored" / "appendonlydir"
    restored.mkdir(parents=True)
    shutil.copy(tmp_path / "own" / "backup.rdb", restored / "appendonly.aof.1.base.rdb")
    (restored / "appendonly.aof.manifest").write_text("file appendonly.aof.1.base.rdb seq 1 type b\n")
    with run_engine(tmp_path / "restored", "none") as url, connect(url) as redis:
        holdfast.env["HOLDFAST_REDIS_URL"] = url
        done = holdfast("mark-restored", "--after", "9000000001", "--after-event", "9000000000000")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == (
            "shop: the next order id is 18000000001. The event 9000086400000-0 says that this is a restore.\n"
        )
        assert int(redis.get("{shop}:ids:orders")) == 18_000_000_000
        assert holdfast("audit").returncode == 0
        assert holdfast("mark-restored").returncode == 0
        assert int(redis.get("{shop}:ids:orders")) > 18_000_000_000
        assert holdfast("audit").returncode == 0
    kill_processes_in(tmp_path)


def test_a_shop_that_does_not_exist_is_named(holdfast: SharedEngineCommand) -> None:
    assert_failed(holdfast("mark-restored"), 1, "there is no shop 'cli'")


@pytest.mark.parametrize("option", [("--after", "-1"), ("--after", "many"), ("--after-event", "5-x")])
def test_a_wrong_id_is_wrong_usage(holdfast: SharedEngineCommand, option: tuple[str, str]) -> None:
    done = holdfast("mark-restored", *option)
    assert done.returncode == 2
    assert option[0] in done.stderr

"""`holdfast doctor`: it agrees with what the service decides, and its advice works."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.storage.requirements import SCHEMA_VERSION
from tests.support.command_line import HoldfastCommand, SharedEngineCommand, assert_failed

SAFE = {"appendonly": "yes", "appendfsync": "always", "no-appendfsync-on-rewrite": "no", "maxmemory": "0"}


@pytest.fixture
def on_engine(tmp_path: Path, engine_url: str) -> Iterator[SharedEngineCommand]:
    """Commands on the engine of the tests, with safe settings. At the end, it has its own settings again."""
    command = SharedEngineCommand(tmp_path, engine_url, HOLDFAST_DURABILITY="always")
    redis: Any = command.redis
    names = [*SAFE, "maxmemory-policy", "latency-monitor-threshold", "timeout"]
    before = {name: value for wanted in names for name, value in redis.config_get(wanted).items()}
    for name, value in SAFE.items():
        redis.config_set(name, value)
    redis.hset("{cli}:meta", "layout", SCHEMA_VERSION)
    yield command
    for name, value in before.items():
        redis.config_set(name.decode() if isinstance(name, bytes) else name, value)
    redis.execute_command("ACL", "DELUSER", "clerk")


def advice(output: str) -> list[list[str]]:
    """Return the redis-cli commands that the doctor prints, without the address."""
    lines = [line.strip().partition("   #")[0] for line in output.splitlines()]
    return [shlex.split(line)[3:] for line in lines if line.startswith("redis-cli -s ")]


def test_a_good_redis_has_only_good_findings_and_nothing_is_written(on_engine: SharedEngineCommand) -> None:
    done = on_engine("doctor")
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1].endswith("0 to mend.")
    assert on_engine.redis.dbsize() == 1
    measured = on_engine("doctor", "--write-test", "--json")
    findings = {finding["name"]: finding for finding in json.loads(measured.stdout)}
    assert "with its fsync" in findings["write"]["sentence"]
    assert on_engine.redis.dbsize() == 1


@pytest.mark.parametrize(
    ("durability", "changes", "finding"),
    [
        ("always", {"appendfsync": "everysec"}, "durability"),
        ("always", {"appendonly": "no"}, "durability"),
        ("always", {"no-appendfsync-on-rewrite": "yes"}, "durability"),
        ("everysec", {"appendfsync": "no"}, "durability"),
        ("everysec", {"appendfsync": "everysec"}, None),
        ("none", {"appendonly": "no"}, None),
        ("none", {"maxmemory": "900000000", "maxmemory-policy": "allkeys-lru"}, "eviction"),
        ("always", {"maxmemory": "900000000", "maxmemory-policy": "volatile-lru", "appendfsync": "no"}, "eviction"),
    ],
)
def test_the_doctor_agrees_with_the_service_and_its_advice_mends_it(
    on_engine: SharedEngineCommand, durability: str, changes: dict[str, str], finding: str | None
) -> None:
    on_engine.env["HOLDFAST_DURABILITY"] = durability
    redis: Any = on_engine.redis
    for name, value in changes.items():
        on_engine.redis.config_set(name, value)
    done = on_engine("doctor")
    # A command uses Redis only if the service would.
    assert (done.returncode == 0) == (on_engine("export", "products").returncode == 0), done.stdout
    if finding is None:
        assert done.returncode == 0
        return
    assert done.returncode == 1
    assert f"bad   {finding}" in done.stdout
    for words in advice(done.stdout):
        if words != ["CONFIG", "REWRITE"]:  # the engine of the tests has no file
            redis.execute_command(*words)
    mended = on_engine("doctor")
    assert mended.returncode == 0, mended.stdout
    assert on_engine("export", "products").returncode == 0


def test_missing_rights_are_named_and_the_advice_gives_them(on_engine: SharedEngineCommand, engine_url: str) -> None:
    redis: Any = on_engine.redis
    rights = "+@all -@dangerous +info +config|get -xadd -zrem -xinfo|groups"
    redis.execute_command("ACL", "SETUSER", "clerk", "on", ">s3cret", "~{cli}:*", *rights.split())
    on_engine.env["HOLDFAST_REDIS_URL"] = engine_url.replace("unix://", "unix://clerk:s3cret@")
    done = on_engine("doctor")
    assert done.returncode == 1, done.stdout
    assert "clerk may not run latency|latest, xadd, xinfo|groups, zrem" in done.stdout
    assert "s3cret" not in done.stdout + done.stderr
    assert on_engine("export", "products").returncode == 1
    [words] = [words for words in advice(done.stdout) if words[:2] == ["ACL", "SETUSER"]]
    redis.execute_command(*words)
    mended = on_engine("doctor")
    assert mended.returncode == 0, mended.stdout
    assert on_engine("export", "products").returncode == 0


def test_the_right_to_wait_for_replicas_is_needed_only_if_they_are_waited_for(
    on_engine: SharedEngineCommand, engine_url: str
) -> None:
    redis: Any = on_engine.redis
    redis.execute_command("ACL", "SETUSER", "clerk", "on", ">s3cret", "~{cli}:*", "+@all", "-wait")
    on_engine.env["HOLDFAST_REDIS_URL"] = engine_url.replace("unix://", "unix://clerk:s3cret@")
    assert "+wait" not in on_engine("doctor").stdout
    on_engine.env["HOLDFAST_WAIT_REPLICAS"] = "1"
    assert any(line[-1] == "+wait" for line in advice(on_engine("doctor").stdout))


def test_what_may_not_be_read_is_a_note(on_engine: SharedEngineCommand, engine_url: str) -> None:
    redis: Any = on_engine.redis
    redis.execute_command(
        "ACL", "SETUSER", "clerk", "on", ">s3cret", "~{cli}:*", "+@all", "-info", "-config", "-latency"
    )
    on_engine.env["HOLDFAST_REDIS_URL"] = engine_url.replace("unix://", "unix://clerk:s3cret@")
    done = on_engine("doctor")
    assert done.returncode == 0, done.stdout
    assert "note  version     Could not be checked: the user may not run info." in done.stdout


def test_a_newer_layout_is_named(on_engine: SharedEngineCommand) -> None:
    on_engine.redis.hset("{cli}:meta", "layout", 99)
    done = on_engine("doctor")
    assert done.returncode == 1
    assert "bad   layout" in done.stdout
    assert on_engine("export", "products").returncode == 1


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis://user:s3cret@127.0.0.1:1", "Redis cannot be reached"),
        ("redis://:s3#cret@127.0.0.1:1", "The Redis URL cannot be used"),
    ],
)
def test_a_redis_that_cannot_be_reached_is_reported_without_the_password(tmp_path: Path, url: str, reason: str) -> None:
    done = HoldfastCommand(tmp_path, HOLDFAST_REDIS_URL=url)("doctor")
    assert done.returncode == 3
    assert f"bad   connection  {reason}" in done.stdout
    assert "s3" not in done.stdout + done.stderr


def test_a_wrong_password_is_reported(on_engine: SharedEngineCommand, engine_url: str) -> None:
    on_engine.env["HOLDFAST_REDIS_URL"] = engine_url.replace("unix://", "unix://nobody:s3cret@")
    done = on_engine("doctor")
    assert done.returncode == 3
    assert "bad   connection" in done.stdout
    assert "s3cret" not in done.stdout


def test_without_data_there_is_nothing_to_examine(tmp_path: Path) -> None:
    assert_failed(HoldfastCommand(tmp_path)("doctor"), 3, "data")

"""The embedded engine: its end, its durability, and the report if it cannot start."""

import contextlib
import os
import signal
import sys
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from service.engine.data_dir import EngineError
from service.engine.launcher import run_engine
from service.settings import Durability
from tests.support.engine_process import connect, run_engine_in_another_process
from tests.support.processes import processes_in, wait_for_no_processes_in
from tests.support.waiting import wait_until


def test_data_survive_a_restart(data_dir: Path) -> None:
    with run_engine(data_dir) as url, connect(url) as redis:
        redis.set("key", "value")
    assert not processes_in(data_dir)
    with run_engine(data_dir) as url, connect(url) as redis:
        assert redis.get("key") == b"value"


def test_the_engine_ends_if_its_context_ends_with_an_error(data_dir: Path) -> None:
    with contextlib.suppress(ZeroDivisionError), run_engine(data_dir):
        assert 1 / len(processes_in(data_dir)) == 1
        1 / 0  # noqa: B018
    assert not processes_in(data_dir)


@pytest.mark.skipif(sys.platform != "linux", reason="PDEATHSIG is Linux's")
def test_the_engine_of_a_killed_process_ends_and_the_directory_is_free(data_dir: Path) -> None:
    with run_engine_in_another_process(data_dir) as (process, url):
        with connect(url) as redis:
            redis.set("key", "value")
        process.kill()
        process.wait()
        with run_engine(data_dir) as url, connect(url) as redis:
            assert redis.get("key") == b"value"
            assert len(processes_in(data_dir)) == 1
    wait_for_no_processes_in(data_dir)


def test_a_killed_engine_keeps_all_acknowledged_writes(data_dir: Path) -> None:
    with run_engine(data_dir) as url, connect(url) as redis:
        for _ in range(100):
            redis.incr("count")
        [engine] = processes_in(data_dir)
        os.kill(engine, signal.SIGKILL)
    with run_engine(data_dir) as url, connect(url) as redis:
        assert redis.get("count") == b"100"


def test_an_engine_that_ignores_sigterm_is_killed(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.engine.launcher.MAX_SHUTDOWN_SECONDS", 0.1)
    with run_engine(data_dir):
        [engine] = processes_in(data_dir)
        os.kill(engine, signal.SIGSTOP)
    assert not processes_in(data_dir)


def test_the_engine_does_not_receive_ctrl_c(data_dir: Path) -> None:
    with run_engine(data_dir):
        [engine] = processes_in(data_dir)
        assert os.getpgid(engine) != os.getpgid(0)


@pytest.mark.parametrize(
    ("durability", "appendfsync"), [("always", "always"), ("everysec", "everysec"), ("none", "no")]
)
def test_the_engine_is_configured_for_the_requested_durability(
    data_dir: Path, durability: Durability, appendfsync: str
) -> None:
    expected = {
        "appendonly": "yes",
        "appendfsync": appendfsync,
        "no-appendfsync-on-rewrite": "no",
        "maxmemory-policy": "noeviction",
        "save": "",
        "port": "0",
        "dir": str(data_dir),
    }
    with run_engine(data_dir, durability) as url, connect(url) as redis:
        assert redis.config_get(*expected) == expected


def test_the_default_durability_is_always(data_dir: Path) -> None:
    with run_engine(data_dir) as url, connect(url) as redis:
        assert redis.config_get("appendfsync") == {"appendfsync": "always"}


def test_a_failed_start_is_reported_with_the_log_of_the_engine(data_dir: Path) -> None:
    with run_engine(data_dir) as url, connect(url) as redis:
        redis.set("key", "value")
    [file] = data_dir.rglob("*.incr.aof")
    file.write_bytes(b"this is no append-only file\r\n" * 10)
    with pytest.raises(EngineError) as error, run_engine(data_dir):
        pytest.fail("the engine started")
    message = str(error.value)
    assert "ended with code 1" in message
    assert "Bad file format" in message
    assert not processes_in(data_dir)
    file.write_bytes(b"")
    with run_engine(data_dir):  # the directory is not locked any more
        pass


def test_a_full_disk_is_reported_in_one_line_if_the_engine_does_not_start(data_dir: Path) -> None:
    """The log of the engine may be on the same disk, and is empty then."""
    with run_engine(data_dir) as url, connect(url) as redis:
        redis.set("key", "value")
    [file] = data_dir.rglob("*.incr.aof")
    file.write_bytes(b"this is no append-only file\r\n" * 10)
    (data_dir / "write-test").symlink_to("/dev/full")
    with pytest.raises(EngineError) as error, run_engine(data_dir):
        pytest.fail("the engine started")
    assert str(error.value).startswith(f"cannot write to the data directory {data_dir}: No space left on device")
    assert "\n" not in str(error.value)


def test_a_full_disk_is_named_in_the_log_if_a_running_engine_ends(data_dir: Path) -> None:
    with capture_logs() as entries, run_engine(data_dir):
        (data_dir / "write-test").symlink_to("/dev/full")
        [engine] = processes_in(data_dir)
        os.kill(engine, signal.SIGKILL)
        wait_until(lambda: "engine_ended" in [entry["event"] for entry in entries], "the log entry")
    [entry] = [entry for entry in entries if entry["event"] == "engine_ended"]
    assert "No space left on device" in entry["reason"]

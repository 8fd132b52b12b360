"""The embedded engine: its data, its lock, its settings, and its end."""

import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from redis import Redis

from service.engine.data_dir import EngineError
from service.engine.launcher import run_engine
from service.settings import Durability
from tests.support.processes import kill_processes_in, processes_in, wait_for_no_processes_in

CHILD = """
import sys
from pathlib import Path
from service.engine.data_dir import EngineError
from service.engine.launcher import run_engine
try:
    with run_engine(Path(sys.argv[1]), "always") as url:
        print(url, flush=True)
        sys.stdin.read()
except EngineError as error:
    print("refused:", error, flush=True)
"""


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "data"
    kill_processes_in(tmp_path)


@contextmanager
def client(url: str) -> Iterator[Any]:
    with Redis(unix_socket_path=unquote(url.removeprefix("unix://"))) as redis:
        yield redis


@contextmanager
def other_process(data_dir: Path) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Another process that runs an engine on this directory, and the first line that it says."""
    command = [sys.executable, "-c", CHILD, str(data_dir)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().rstrip("\n")
        finally:
            process.kill()


def test_what_was_written_is_there_after_a_restart(data_dir: Path) -> None:
    with run_engine(data_dir) as url, client(url) as redis:
        redis.set("key", "value")
    assert not processes_in(data_dir)
    with run_engine(data_dir) as url, client(url) as redis:
        assert redis.get("key") == b"value"


def test_the_engine_ends_with_its_context_even_on_an_error(data_dir: Path) -> None:
    with contextlib.suppress(ZeroDivisionError), run_engine(data_dir):
        assert 1 / len(processes_in(data_dir)) == 1
        1 / 0  # noqa: B018
    assert not processes_in(data_dir)


def test_a_second_start_in_the_same_process_is_refused(data_dir: Path) -> None:
    with run_engine(data_dir) as url, client(url) as redis:
        with pytest.raises(EngineError) as error, run_engine(data_dir):
            pytest.fail("a second engine started")
        assert str(data_dir) in str(error.value)
        assert str(os.getpid()) in str(error.value)
        assert "HOLDFAST_DATA_DIR" in str(error.value)
        assert redis.ping()  # the first one was not disturbed
    assert not processes_in(data_dir)


def test_a_second_start_in_another_process_is_refused(data_dir: Path) -> None:
    with run_engine(data_dir) as url, client(url) as redis, other_process(data_dir) as (_, said):
        assert said.startswith("refused:")
        assert str(data_dir) in said
        assert str(os.getpid()) in said
        assert len(processes_in(data_dir)) == 1
        assert redis.ping()


def test_a_second_start_through_another_name_of_the_directory_is_refused(data_dir: Path, tmp_path: Path) -> None:
    alias = tmp_path / "alias"
    alias.symlink_to(data_dir)
    with run_engine(data_dir), pytest.raises(EngineError), run_engine(alias):
        pytest.fail("a second engine started")


@pytest.mark.parametrize("content", ["{dead}\n", "", "not a number\n"])
def test_the_lock_file_of_a_dead_process_is_no_obstacle(data_dir: Path, content: str) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    data_dir.mkdir()
    (data_dir / "lock").write_text(content.format(dead=process.pid))
    with run_engine(data_dir) as url, client(url) as redis:
        assert redis.ping()
        assert (data_dir / "lock").read_text().split() == [str(os.getpid()), url]


def test_a_socket_that_a_killed_engine_left_is_no_obstacle(data_dir: Path) -> None:
    data_dir.mkdir()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(data_dir / "engine.sock"))
    with run_engine(data_dir) as url, client(url) as redis:
        assert redis.ping()


@pytest.mark.skipif(sys.platform != "linux", reason="PDEATHSIG is Linux's")
def test_the_engine_ends_when_its_process_is_killed_and_the_directory_can_be_used_at_once(data_dir: Path) -> None:
    with other_process(data_dir) as (process, url):
        with client(url) as redis:
            redis.set("key", "value")
        process.kill()
        process.wait()
        with run_engine(data_dir) as url, client(url) as redis:
            assert redis.get("key") == b"value"
            assert len(processes_in(data_dir)) == 1
    wait_for_no_processes_in(data_dir)


def test_an_engine_that_is_killed_loses_nothing_that_it_acknowledged(data_dir: Path) -> None:
    with run_engine(data_dir) as url, client(url) as redis:
        for _ in range(100):
            redis.incr("count")
        [engine] = processes_in(data_dir)
        os.kill(engine, signal.SIGKILL)
    with run_engine(data_dir) as url, client(url) as redis:
        assert redis.get("count") == b"100"


def test_an_engine_that_ignores_sigterm_for_too_long_is_killed(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.engine.launcher.MAX_SHUTDOWN_SECONDS", 0.1)
    with run_engine(data_dir):
        [engine] = processes_in(data_dir)
        os.kill(engine, signal.SIGSTOP)
    assert not processes_in(data_dir)


def test_ctrl_c_does_not_reach_the_engine(data_dir: Path) -> None:
    with run_engine(data_dir):
        [engine] = processes_in(data_dir)
        assert os.getpgid(engine) != os.getpgid(0)


@pytest.mark.parametrize("name", ["d" * 120, "é" * 60, "with space", "100%41", "a?b#c"])
def test_any_name_of_a_directory_works_however_long(data_dir: Path, name: str) -> None:
    data_dir = data_dir / name
    with run_engine(data_dir) as url, client(url) as redis:
        redis.set("key", "value")
        path = Path(unquote(url.removeprefix("unix://")))
        assert len(os.fsencode(path)) <= 107
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert any(data_dir.rglob("*.aof"))
    assert not path.exists()
    with run_engine(data_dir) as url, client(url) as redis:
        assert redis.get("key") == b"value"


def test_a_relative_directory_is_found_again_from_elsewhere(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with run_engine(Path("data")) as url, client(url) as redis:
        assert Path(unquote(url.removeprefix("unix://"))).is_absolute()
        redis.set("key", "value")
    with run_engine(data_dir) as url, client(url) as redis:
        assert redis.get("key") == b"value"


def test_nobody_else_may_read_the_data(data_dir: Path) -> None:
    with run_engine(data_dir):
        assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("durability", "appendfsync"), [("always", "always"), ("everysec", "everysec"), ("none", "no")]
)
def test_the_engine_promises_the_durability_that_is_asked_for(
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
    with run_engine(data_dir, durability) as url, client(url) as redis:
        assert redis.config_get(*expected) == expected


def test_durability_is_always_if_nothing_else_is_said(data_dir: Path) -> None:
    with run_engine(data_dir) as url, client(url) as redis:
        assert redis.config_get("appendfsync") == {"appendfsync": "always"}


def test_an_engine_that_cannot_start_tells_its_last_words(data_dir: Path) -> None:
    with run_engine(data_dir) as url, client(url) as redis:
        redis.set("key", "value")
    [file] = data_dir.rglob("*.incr.aof")
    file.write_bytes(b"this is no append-only file\r\n" * 10)
    with pytest.raises(EngineError) as error, run_engine(data_dir):
        pytest.fail("it started")
    message = str(error.value)
    assert "ended with code 1" in message
    assert "Bad file format" in message
    assert not processes_in(data_dir)
    file.write_bytes(b"")
    with run_engine(data_dir):  # the lock was let go
        pass


@pytest.mark.parametrize("obstacle", ["a file in its place", "a file above it", "a directory of no rights"])
def test_a_directory_that_cannot_be_used_is_an_engine_error_that_names_it(
    data_dir: Path, tmp_path: Path, obstacle: str
) -> None:
    match obstacle:
        case "a file in its place":
            data_dir.write_text("")
        case "a file above it":
            data_dir.write_text("")
            data_dir = data_dir / "below"
        case _:
            if os.geteuid() == 0:
                pytest.skip("root may write everywhere")
            data_dir.mkdir(mode=0o500)
    with pytest.raises(EngineError) as error, run_engine(data_dir):
        pytest.fail("it started")
    assert str(data_dir) in str(error.value)
    assert not processes_in(tmp_path)

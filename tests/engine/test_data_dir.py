"""The data directory: one engine at a time, any name, and no access for other users."""

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

from service.engine.data_dir import EngineError
from service.engine.launcher import run_engine
from tests.support.engine_process import connect, run_engine_in_another_process
from tests.support.processes import processes_in


def test_a_second_engine_in_the_same_process_does_not_start(data_dir: Path) -> None:
    with run_engine(data_dir) as url, connect(url) as redis:
        with pytest.raises(EngineError) as error, run_engine(data_dir):
            pytest.fail("a second engine started")
        assert str(data_dir) in str(error.value)
        assert str(os.getpid()) in str(error.value)
        assert "HOLDFAST_DATA_DIR" in str(error.value)
        assert redis.ping()  # the first engine still runs
    assert not processes_in(data_dir)


def test_a_second_engine_in_another_process_does_not_start(data_dir: Path) -> None:
    with run_engine(data_dir) as url, connect(url) as redis, run_engine_in_another_process(data_dir) as (_, output):
        assert output.startswith("error:")
        assert str(data_dir) in output
        assert str(os.getpid()) in output
        assert len(processes_in(data_dir)) == 1
        assert redis.ping()


def test_a_second_engine_through_a_symbolic_link_does_not_start(data_dir: Path, tmp_path: Path) -> None:
    alias = tmp_path / "alias"
    alias.symlink_to(data_dir)
    with run_engine(data_dir), pytest.raises(EngineError), run_engine(alias):
        pytest.fail("a second engine started")


@pytest.mark.parametrize("content", ["{ended}\n", "", "not a number\n"])
def test_the_lock_file_of_an_ended_process_does_not_prevent_a_start(data_dir: Path, content: str) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    data_dir.mkdir()
    (data_dir / "lock").write_text(content.format(ended=process.pid))
    with run_engine(data_dir) as url, connect(url) as redis:
        assert redis.ping()
        assert (data_dir / "lock").read_text().split() == [str(os.getpid()), url]


def test_the_socket_of_a_killed_engine_does_not_prevent_a_start(data_dir: Path) -> None:
    data_dir.mkdir()
    with socket.socket(socket.AF_UNIX) as old_socket:
        old_socket.bind(str(data_dir / "engine.sock"))
    with run_engine(data_dir) as url, connect(url) as redis:
        assert redis.ping()


@pytest.mark.parametrize("name", ["d" * 120, "é" * 60, "with space", "100%41", "a?b#c"])
def test_a_directory_with_a_long_or_unusual_name_works(data_dir: Path, name: str) -> None:
    data_dir = data_dir / name
    with run_engine(data_dir) as url, connect(url) as redis:
        redis.set("key", "value")
        path = Path(unquote(url.removeprefix("unix://")))
        assert len(os.fsencode(path)) <= 107
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert any(data_dir.rglob("*.aof"))
    assert not path.exists()
    with run_engine(data_dir) as url, connect(url) as redis:
        assert redis.get("key") == b"value"


def test_a_relative_path_and_an_absolute_path_give_the_same_data(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with run_engine(Path("data")) as url, connect(url) as redis:
        assert Path(unquote(url.removeprefix("unix://"))).is_absolute()
        redis.set("key", "value")
    with run_engine(data_dir) as url, connect(url) as redis:
        assert redis.get("key") == b"value"


def test_only_the_owner_can_read_the_data(data_dir: Path) -> None:
    with run_engine(data_dir):
        assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700


@pytest.mark.parametrize("obstacle", ["the path is a file", "the parent is a file", "the directory is read-only"])
def test_an_unusable_directory_is_reported_with_its_name(data_dir: Path, tmp_path: Path, obstacle: str) -> None:
    match obstacle:
        case "the path is a file":
            data_dir.write_text("")
        case "the parent is a file":
            data_dir.write_text("")
            data_dir = data_dir / "below"
        case _:
            if os.geteuid() == 0:
                pytest.skip("root can write to every directory")
            data_dir.mkdir(mode=0o500)
    with pytest.raises(EngineError) as error, run_engine(data_dir):
        pytest.fail("the engine started")
    assert str(data_dir) in str(error.value)
    assert not processes_in(tmp_path)

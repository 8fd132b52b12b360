"""An engine whose files are removed or moved while it runs."""

import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis
from structlog.testing import capture_logs

from service.engine.data_dir import EngineError, running_engine
from service.engine.launcher import run_engine
from tests.support.engine_process import connect, run_engine_in_another_process
from tests.support.processes import processes_in
from tests.support.waiting import wait_until

WATCH_SECONDS = 0.02


@pytest.fixture(autouse=True)
def fast_supervisor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the supervisor look and restart ten times as often as usual."""
    monkeypatch.setattr("service.engine.launcher.WATCH_SECONDS", WATCH_SECONDS)
    monkeypatch.setattr("service.engine.launcher.RESTART_PAUSE_SECONDS", 0.1)
    monkeypatch.setattr("service.engine.engine_files._MAX_CHECKS_WITHOUT_SOCKET", 75)


def remove_lock(data_dir: Path) -> None:
    (data_dir / "lock").unlink()


def replace_lock(data_dir: Path) -> None:
    remove_lock(data_dir)
    (data_dir / "lock").touch()


def rename_lock(data_dir: Path) -> None:
    (data_dir / "lock").rename(data_dir / "lock.old")


@pytest.mark.parametrize("change", [remove_lock, replace_lock, rename_lock])
def test_a_second_engine_does_not_start_without_the_lock_file(data_dir: Path, change: Callable[[Path], None]) -> None:
    with run_engine(data_dir) as url, connect(url) as client:
        change(data_dir)
        assert running_engine(data_dir) == url
        with pytest.raises(EngineError) as error, run_engine(data_dir):
            pytest.fail("a second engine started")
        assert f"{data_dir} is in use by another Holdfast process" in str(error.value)
        with run_engine_in_another_process(data_dir) as (_, output):
            assert output.startswith("error:")
        assert len(processes_in(data_dir)) == 1
        assert client.ping()


def test_a_second_engine_does_not_start_on_a_moved_directory(data_dir: Path, tmp_path: Path) -> None:
    with run_engine(data_dir):
        data_dir.rename(tmp_path / "moved")
        with pytest.raises(EngineError), run_engine(tmp_path / "moved"):
            pytest.fail("a second engine started")


def test_an_engine_that_ends_does_not_stop_a_new_engine_in_its_old_directory(data_dir: Path, tmp_path: Path) -> None:
    with ExitStack() as first:
        assert first.enter_context(run_engine(data_dir)) == running_engine(data_dir)
        data_dir.rename(tmp_path / "moved")
        with run_engine(data_dir) as url, connect(url) as client:
            [engine] = processes_in(data_dir)
            first.close()
            assert client.ping()
            assert client.ping()
            assert processes_in(data_dir) == [engine]


def test_a_second_engine_does_not_start_on_the_same_files(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.engine.data_dir.MAX_SHUTDOWN_SECONDS", 0.5)  # nobody says who uses the files
    other = tmp_path / "other"
    other.mkdir()
    with run_engine(data_dir):
        (other / "appendonlydir").symlink_to(data_dir / "appendonlydir")
        with pytest.raises(EngineError), run_engine(other):
            pytest.fail("a second engine started")


def test_no_engine_starts_where_a_server_of_somebody_else_listens(data_dir: Path) -> None:
    with run_engine(data_dir) as url, connect(url) as client:
        elsewhere = data_dir.with_name("elsewhere")
        elsewhere.mkdir()
        (elsewhere / "engine.sock").symlink_to(data_dir / "engine.sock")
        with pytest.raises(EngineError, match="did not lock"), run_engine(elsewhere):
            pytest.fail("a second engine started")
        assert client.ping()


def remove_all(data_dir: Path) -> None:
    shutil.rmtree(data_dir)


def remove_content(data_dir: Path) -> None:
    for name in ("appendonlydir", "lock", "engine.sock", "engine.log"):
        path = data_dir / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def remove_files_dir(data_dir: Path) -> None:
    shutil.rmtree(data_dir / "appendonlydir")


def remove_data_file(data_dir: Path) -> None:
    [file] = data_dir.rglob("*.incr.aof")
    file.unlink()


def remove_manifest(data_dir: Path) -> None:
    [file] = data_dir.rglob("*.manifest")
    file.unlink()


def replace_with_copy(data_dir: Path) -> None:
    data_dir.rename(data_dir.with_name("original"))
    shutil.copytree(data_dir.with_name("original") / "appendonlydir", data_dir / "appendonlydir")


def replace_with_empty(data_dir: Path) -> None:
    shutil.rmtree(data_dir)
    data_dir.mkdir()


@pytest.mark.parametrize(
    "change",
    [
        remove_all,
        remove_content,
        remove_files_dir,
        remove_data_file,
        remove_manifest,
        replace_with_copy,
        replace_with_empty,
    ],
)
def test_an_engine_without_its_data_is_stopped_and_not_started_again(
    data_dir: Path, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    with capture_logs() as entries, run_engine(data_dir) as url, connect(url) as client:
        client.set("key", "value")
        change(data_dir)
        wait_until(lambda: "data_missing" in [entry["event"] for entry in entries], "the log entry")
        wait_until(lambda: not processes_in(tmp_path), "the end of the engine")
        with pytest.raises(redis.ConnectionError):
            client.ping()
        checked = time.monotonic()
        wait_until(lambda: time.monotonic() > checked + 7 * WATCH_SECONDS, "some more checks of the supervisor")
        assert not processes_in(tmp_path)
        [entry] = [entry for entry in entries if entry["log_level"] == "error"]
        assert entry["path"].startswith(str(data_dir))


def test_an_engine_whose_data_come_back_is_started_again(data_dir: Path, tmp_path: Path) -> None:
    with capture_logs() as entries, run_engine(data_dir) as url, connect(url) as client:
        client.set("key", "value")
        data_dir.rename(tmp_path / "moved")
        wait_until(lambda: not processes_in(tmp_path), "the end of the engine")
        (tmp_path / "moved").rename(data_dir)
        wait_until(lambda: "data_found" in [entry["event"] for entry in entries], "the log entry")
        wait_until(lambda: answers(client), "the engine")
        assert client.get("key") == b"value"


def answers(client: "redis.Redis") -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


@pytest.mark.parametrize(
    ("name", "change"),
    [
        *((name, change) for name in ("data", "d" * 120) for change in ("removed", "renamed", "replaced")),
        ("d" * 120, "its directory is removed"),  # the path of the data is too long for a socket, which is elsewhere
    ],
)
def test_a_lost_socket_comes_back_with_all_data(data_dir: Path, name: str, change: str) -> None:
    data_dir = data_dir / name
    with capture_logs() as entries, run_engine(data_dir) as url, connect(url) as client:
        path = Path(client.connection_pool.connection_kwargs["path"])
        rounds = 2 if (name, change) == ("data", "removed") else 1  # the new socket is watched, too
        for _ in range(rounds):
            client.incr("count")
            entries.clear()
            match change:
                case "removed":
                    path.unlink()
                case "renamed":
                    path.rename(path.with_name("renamed"))
                case "replaced":
                    path.unlink()
                    path.touch()
                case _:
                    shutil.rmtree(path.parent)
            wait_until(lambda: "engine_socket_missing" in [entry["event"] for entry in entries], "the log entry")
            client.close()
            wait_until(lambda: answers(client), "the engine")
        assert client.get("count") == str(rounds).encode()
        assert len(processes_in(data_dir)) == 1


def test_a_rewrite_of_the_data_files_is_no_loss(data_dir: Path) -> None:
    with capture_logs() as entries, run_engine(data_dir) as url, connect(url) as client:
        [engine] = processes_in(data_dir)
        for number in range(20):
            client.set("key", number)
            client.bgrewriteaof()
            wait_until(lambda: not client.info("persistence")["aof_rewrite_in_progress"], "the rewrite")
        assert engine in processes_in(data_dir)
        assert not [entry for entry in entries if entry["log_level"] == "error"]


def test_a_full_disk_is_reported_when_the_lock_file_is_written(data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / "lock").symlink_to("/dev/full")
    with pytest.raises(EngineError, match="No space left on device"), run_engine(data_dir):
        pytest.fail("the engine started")

"""The engines of a shop with partitions: one for each, in one data directory, which belongs to one number of them."""

import os
import shutil
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from redis import RedisError
from structlog.testing import capture_logs

from service.engine.data_dir import EngineError, EngineStopped, running_engine, socket_path
from service.engine.data_files import has_data, missing_data
from service.engine.launcher import run_engine, run_engines
from service.partition_url import partition_url
from tests.support.engine_process import connect, run_engine_in_another_process
from tests.support.processes import kill_processes_in, processes_in, wait_for_no_processes_in
from tests.support.waiting import wait_until

PARTITIONS = 3


@pytest.fixture(autouse=True)
def fast_supervisor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each supervisor look and restart ten times as often as usual."""
    monkeypatch.setattr("service.engine.launcher.WATCH_SECONDS", 0.02)
    monkeypatch.setattr("service.engine.launcher.RESTART_PAUSE_SECONDS", 0.1)


@pytest.fixture
def short_data_dir() -> Iterator[Path]:
    """A data directory whose path is so short that the sockets are in it: pytest's paths have about 90 bytes."""
    with TemporaryDirectory(prefix="h") as folder:
        yield Path(folder).resolve() / "data"
        kill_processes_in(Path(folder))


@contextmanager
def engines_on(data_dir: Path, partitions: int = PARTITIONS) -> Iterator[list[Any]]:
    """Run engines, and give a client of each."""
    with run_engines(data_dir, partitions) as url, clients_of(url, partitions) as clients:
        yield clients


@contextmanager
def clients_of(url: str, partitions: int = PARTITIONS) -> Iterator[list[Any]]:
    with ExitStack() as stack:
        yield [stack.enter_context(connect(partition_url(url, number))) for number in range(partitions)]


def answers(client: Any) -> bool:
    try:
        return bool(client.ping())
    except RedisError:
        return False


def engine_of(data_dir: Path, partition: int) -> int:
    """Return the process of the engine of a partition."""
    [engine] = processes_in(data_dir / "partitions" / str(partition))
    return engine


def test_each_partition_has_an_engine_with_data_of_its_own_that_survive_a_restart(data_dir: Path) -> None:
    with engines_on(data_dir) as clients:
        for number, client in enumerate(clients):
            client.set("number", number)
        assert len(processes_in(data_dir)) == PARTITIONS
    assert not processes_in(data_dir)
    with engines_on(data_dir) as clients:
        assert [client.get("number") for client in clients] == [b"0", b"1", b"2"]


def test_one_partition_uses_the_directory_like_a_shop_without_partitions(data_dir: Path) -> None:
    with run_engine(data_dir) as url, connect(url) as client:
        client.set("key", "value")
        files = {path.name for path in data_dir.iterdir()}
    with run_engines(data_dir, 1) as same_url, connect(same_url) as client:
        assert same_url == url
        assert client.get("key") == b"value"
        assert {path.name for path in data_dir.iterdir()} == files


def test_every_engine_is_configured_like_a_single_one(data_dir: Path) -> None:
    with run_engines(data_dir, PARTITIONS, "everysec") as url, clients_of(url) as clients:
        for client in clients:
            expected = {"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction", "port": "0"}
            assert client.config_get(*expected) == expected


def test_only_the_owner_can_read_the_data_of_the_partitions(data_dir: Path) -> None:
    with run_engines(data_dir, PARTITIONS) as url:
        folders = [data_dir, data_dir / "partitions", *(data_dir / "partitions").iterdir()]
        assert len(folders) == 2 + PARTITIONS
        for path in (*folders, socket_path(partition_url(url, 2))):
            assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_a_killed_engine_is_started_again_while_the_others_go_on(data_dir: Path) -> None:
    with capture_logs() as entries, engines_on(data_dir) as clients:
        clients[1].set("key", "value")
        others = {engine_of(data_dir, 0), engine_of(data_dir, 2)}
        os.kill(engine_of(data_dir, 1), signal.SIGKILL)
        wait_until(lambda: "engine_ended" in [entry["event"] for entry in entries], "the log entry")
        assert clients[0].ping()
        assert clients[2].ping()
        wait_until(lambda: answers(clients[1]), "the engine")
        assert clients[1].get("key") == b"value"
        assert {engine_of(data_dir, 0), engine_of(data_dir, 2)} == others
    [entry] = [entry for entry in entries if entry["event"] == "engine_ended"]
    assert str(data_dir / "partitions" / "1") in entry["reason"]


def test_only_the_engine_whose_data_are_missing_is_stopped(data_dir: Path, tmp_path: Path) -> None:
    with capture_logs() as entries, engines_on(data_dir) as clients:
        clients[2].set("key", "value")
        (data_dir / "partitions" / "2").rename(tmp_path / "moved")
        wait_until(lambda: not processes_in(tmp_path / "moved"), "the end of the engine")
        assert clients[0].ping()
        assert clients[1].ping()
        (tmp_path / "moved").rename(data_dir / "partitions" / "2")
        wait_until(lambda: answers(clients[2]), "the engine")
        assert clients[2].get("key") == b"value"
    [entry] = [entry for entry in entries if entry["log_level"] == "error"]
    assert (entry["event"], entry["path"]) == ("data_missing", str(data_dir / "partitions" / "2"))


def test_all_engines_are_stopped_if_the_data_directory_is_gone(data_dir: Path, tmp_path: Path) -> None:
    with engines_on(data_dir):
        data_dir.rename(tmp_path / "moved")
        wait_until(lambda: not processes_in(tmp_path), "the end of the engines")


def test_a_lost_socket_comes_back_with_all_data(short_data_dir: Path) -> None:
    with run_engines(short_data_dir, PARTITIONS) as url, clients_of(url) as clients:
        clients[0].set("key", "value")
        (short_data_dir / "partitions" / "0" / "engine.sock").unlink()
        clients[0].close()
        wait_until(lambda: answers(clients[0]), "the engine")
        assert clients[0].get("key") == b"value"


@pytest.mark.skipif(sys.platform != "linux", reason="PDEATHSIG is Linux's")
def test_the_engines_of_a_killed_process_end_and_the_directory_is_free(data_dir: Path) -> None:
    with run_engine_in_another_process(data_dir, PARTITIONS) as (process, url):
        with clients_of(url) as clients:
            for client in clients:
                client.set("key", "value")
        assert len(processes_in(data_dir)) == PARTITIONS
        process.kill()
        process.wait()
        with engines_on(data_dir) as clients:
            assert [client.get("key") for client in clients] == [b"value"] * PARTITIONS
            assert len(processes_in(data_dir)) == PARTITIONS
    wait_for_no_processes_in(data_dir)


@pytest.mark.skipif(sys.platform != "linux", reason="PDEATHSIG is Linux's")
def test_the_engines_of_a_killed_process_end_without_another_start(data_dir: Path) -> None:
    with run_engine_in_another_process(data_dir, PARTITIONS) as (process, _):
        assert len(processes_in(data_dir)) == PARTITIONS
        process.kill()
        wait_for_no_processes_in(data_dir)


def test_engines_that_ignore_sigterm_are_killed(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.engine.launcher.MAX_SHUTDOWN_SECONDS", 0.1)
    with run_engines(data_dir, PARTITIONS):
        os.kill(engine_of(data_dir, 0), signal.SIGSTOP)
        os.kill(engine_of(data_dir, 2), signal.SIGSTOP)
    assert not processes_in(data_dir)


def test_a_second_start_on_the_directory_is_refused(data_dir: Path) -> None:
    with engines_on(data_dir) as clients:
        with pytest.raises(EngineError, match=f"{data_dir} is in use by the Holdfast process {os.getpid()}"):
            start(data_dir, PARTITIONS)
        with run_engine_in_another_process(data_dir, PARTITIONS) as (_, output):
            assert output.startswith(f"error: {data_dir} is in use by the Holdfast process {os.getpid()}")
        assert len(processes_in(data_dir)) == PARTITIONS
        assert all(client.ping() for client in clients)


def start(data_dir: Path, partitions: int) -> None:
    with run_engines(data_dir, partitions):
        pytest.fail("engines started")


def test_a_second_start_without_the_lock_file_is_refused(short_data_dir: Path) -> None:
    data_dir = short_data_dir
    with run_engines(data_dir, PARTITIONS) as url:
        (data_dir / "lock").unlink()
        assert running_engine(data_dir) == url
        with pytest.raises(EngineError, match="is in use by another Holdfast process"):
            start(data_dir, PARTITIONS)


def test_a_partition_cannot_be_used_as_a_data_directory_meanwhile(data_dir: Path) -> None:
    with run_engines(data_dir, PARTITIONS), pytest.raises(EngineError, match="is in use"):
        start(data_dir / "partitions" / "1", 1)


def test_partitions_that_another_directory_leads_to_are_locked(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.engine.data_dir.MAX_SHUTDOWN_SECONDS", 0.5)  # nobody says who uses the files
    other = tmp_path / "other"
    other.mkdir()
    with run_engines(data_dir, PARTITIONS):
        (other / "partitions").symlink_to(data_dir / "partitions")
        with pytest.raises(EngineError, match="is in use"):
            start(other, PARTITIONS)


def test_the_engines_of_a_running_service_are_found(data_dir: Path) -> None:
    assert running_engine(data_dir) is None
    with run_engines(data_dir, PARTITIONS) as url:
        assert "{partition}" in url
        assert running_engine(data_dir) == url
    assert running_engine(data_dir) is None


def test_a_directory_with_partitions_has_data(data_dir: Path) -> None:
    with run_engines(data_dir, PARTITIONS):
        pass
    assert has_data(data_dir)
    assert missing_data(data_dir) is None
    for file in data_dir.rglob("appendonly.aof.*"):
        file.unlink()
    assert missing_data(data_dir) == f"the directory {data_dir} has no data of Holdfast"


@pytest.mark.parametrize("name", ["d" * 60, "d" * 120, "é" * 60, "with space", "100%41", "a?b#c", "{partition}"])
def test_a_directory_with_a_long_or_unusual_name_works(data_dir: Path, name: str) -> None:
    data_dir = data_dir / name
    with run_engines(data_dir, 11) as url, clients_of(url, 11) as clients:
        paths = [socket_path(partition_url(url, number)) for number in range(11)]
        assert all(len(os.fsencode(path)) <= 100 for path in paths)
        clients[10].set("key", "value")
    assert not any(path.exists() for path in paths)
    with engines_on(data_dir, 11) as clients:
        assert clients[10].get("key") == b"value"


def test_sockets_in_a_temporary_directory_come_back(data_dir: Path) -> None:
    with run_engines(data_dir / ("d" * 120), 2) as url, clients_of(url, 2) as clients:
        shutil.rmtree(socket_path(partition_url(url, 0)).parent)
        for client in clients:
            client.close()
        wait_until(lambda: all(map(answers, clients)), "the engines")


def test_a_stop_while_the_engines_start_leaves_none_of_them(data_dir: Path) -> None:
    calls = iter(range(3))
    with pytest.raises(EngineStopped), run_engines(data_dir, PARTITIONS, is_stopping=lambda: next(calls, None) is None):
        pytest.fail("the engines started")
    assert not processes_in(data_dir)
    with engines_on(data_dir) as clients:
        assert all(client.ping() for client in clients)


def test_no_engine_stays_if_one_of_them_cannot_start(data_dir: Path) -> None:
    with engines_on(data_dir) as clients:
        clients[1].set("key", "value")
    [file] = (data_dir / "partitions" / "1").rglob("*.incr.aof")
    file.write_bytes(b"this is no append-only file\r\n" * 10)
    with pytest.raises(EngineError) as error:
        start(data_dir, PARTITIONS)
    assert str(data_dir / "partitions" / "1" / "engine.log") in str(error.value)
    assert "Bad file format" in str(error.value)
    assert not processes_in(data_dir)


def test_a_full_disk_is_reported_in_one_line(data_dir: Path) -> None:
    with engines_on(data_dir) as clients:
        clients[1].set("key", "value")
    [file] = (data_dir / "partitions" / "1").rglob("*.incr.aof")
    file.write_bytes(b"this is no append-only file\r\n" * 10)
    (data_dir / "partitions" / "1" / "write-test").symlink_to("/dev/full")
    with pytest.raises(EngineError) as error:
        start(data_dir, PARTITIONS)
    assert "No space left on device" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("wrong", [1, 2])
def test_a_lower_number_of_partitions_is_refused_before_an_engine_starts(data_dir: Path, wrong: int) -> None:
    with run_engines(data_dir, PARTITIONS):
        pass
    before = sorted(data_dir.rglob("*"))
    with pytest.raises(EngineError) as error:
        start(data_dir, wrong)
    assert str(error.value) == (
        f"the directory {data_dir} has the data of 3 partitions, which cannot be divided anew: "
        "set HOLDFAST_PARTITIONS to 3, or choose another directory with HOLDFAST_DATA_DIR"
    )
    assert sorted(data_dir.rglob("*")) == before
    with engines_on(data_dir) as clients:
        assert all(client.ping() for client in clients)


def test_partitions_are_refused_for_the_data_of_a_shop_without(data_dir: Path) -> None:
    with run_engine(data_dir):
        pass
    with pytest.raises(EngineError, match=r"the data of a shop without partitions.* set HOLDFAST_PARTITIONS to 1"):
        start(data_dir, PARTITIONS)
    assert not (data_dir / "partitions").exists()


def remove_files(data_dir: Path) -> Path:
    shutil.rmtree(data_dir / "partitions" / "1" / "appendonlydir")
    return data_dir / "partitions" / "1" / "appendonlydir"


def remove_partition(data_dir: Path) -> Path:
    shutil.rmtree(data_dir / "partitions" / "1")
    return data_dir / "partitions" / "1" / "appendonlydir"


@pytest.mark.parametrize("remove", [remove_files, remove_partition])
def test_no_engine_starts_without_the_data_of_a_partition(data_dir: Path, remove: Callable[[Path], Path]) -> None:
    """An engine without its data would begin an empty partition, and the units in it would be lost."""
    with run_engines(data_dir, PARTITIONS):
        pass
    missing = remove(data_dir)
    with pytest.raises(EngineError, match=f"{missing} is missing: a shop needs the data of all its partitions"):
        start(data_dir, PARTITIONS)
    assert not missing.exists()


def test_a_higher_number_may_be_right_so_the_missing_partition_is_named(data_dir: Path) -> None:
    with run_engines(data_dir, PARTITIONS):
        pass
    (data_dir / "partitions" / "2").rename(data_dir / "moved")
    before = sorted(data_dir.rglob("*"))
    with pytest.raises(EngineError) as error:
        start(data_dir, PARTITIONS)
    assert str(error.value) == (
        f"the directory {data_dir} has the data of 2 partitions, but HOLDFAST_PARTITIONS is 3. "
        f"If the shop has 3, {data_dir / 'partitions' / '2'} is missing. Bring the data back: "
        "see docs/scale.md#if-the-data-of-a-partition-are-lost. If the shop was made with 2, set HOLDFAST_PARTITIONS "
        "to 2"
    )
    assert sorted(data_dir.rglob("*")) == before
    (data_dir / "moved").rename(data_dir / "partitions" / "2")
    with engines_on(data_dir) as clients:
        assert all(client.ping() for client in clients)


@pytest.mark.parametrize("partitions", [1, PARTITIONS])
def test_the_first_partition_alone_is_never_taken_for_a_whole_shop(data_dir: Path, partitions: int) -> None:
    with run_engines(data_dir, PARTITIONS):
        pass
    for number in (1, 2):
        shutil.rmtree(data_dir / "partitions" / str(number))
    missing = data_dir / "partitions" / "1" / "appendonlydir"
    with pytest.raises(EngineError, match=f"{missing} is missing: a shop needs the data of all its partitions"):
        start(data_dir, partitions)


@pytest.mark.parametrize("partitions", [1, PARTITIONS])
def test_data_of_both_kinds_are_refused(data_dir: Path, partitions: int) -> None:
    """An older version has begun a shop on a directory with partitions, for example."""
    with run_engines(data_dir, PARTITIONS):
        pass
    shutil.copytree(data_dir / "partitions" / "0" / "appendonlydir", data_dir / "appendonlydir")
    with pytest.raises(EngineError, match="data of two kinds, in appendonlydir and in partitions"):
        start(data_dir, partitions)


def test_what_a_killed_first_start_has_left_is_replaced(data_dir: Path) -> None:
    """Until all directories have their place together, another number can be chosen."""
    for number in range(8):
        (data_dir / "partitions.new" / str(number) / "appendonlydir").mkdir(parents=True)
    with engines_on(data_dir) as clients:
        assert all(client.ping() for client in clients)
    assert sorted(path.name for path in (data_dir / "partitions").iterdir()) == ["0", "1", "2"]
    assert not (data_dir / "partitions.new").exists()

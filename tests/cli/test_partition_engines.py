"""Commands on the engines of a shop with partitions: they find or start all of them, or refuse in one line."""

import json
import subprocess
from pathlib import Path

import pytest

from service.engine.data_dir import socket_path
from service.engine.launcher import run_engine, run_engines
from service.partition_url import partition_url
from tests.support.command_line import HoldfastCommand, assert_failed
from tests.support.engine_process import connect
from tests.support.processes import free_port, kill_processes_in, processes_in

PARTITIONS = 3


@pytest.fixture
def holdfast(embedded_holdfast: HoldfastCommand) -> HoldfastCommand:
    """`holdfast` with embedded engines in ./data."""
    embedded_holdfast.env["HOLDFAST_PARTITIONS"] = str(PARTITIONS)
    return embedded_holdfast


def with_partitions(holdfast: HoldfastCommand, partitions: int) -> HoldfastCommand:
    holdfast.env["HOLDFAST_PARTITIONS"] = str(partitions)
    return holdfast


COMMANDS = [
    (("audit",), 3),
    (("events",), 1),
    (("export", "orders"), 1),
    (("sales",), 1),
    (("doctor",), 3),
    (("import", "p.jsonl"), 1),
    (("serve",), 1),
]


@pytest.mark.parametrize(("args", "code"), COMMANDS)
@pytest.mark.parametrize("wrong", [1, 4])
def test_a_command_with_another_number_of_partitions_is_refused(
    holdfast: HoldfastCommand, args: tuple[str, ...], code: int, wrong: int
) -> None:
    data_dir = holdfast.folder / "data"
    with run_engines(data_dir, PARTITIONS, "none"):
        pass
    holdfast.write_products("p.jsonl", 1)
    assert_failed(with_partitions(holdfast, wrong)(*args), code, "has the data of 3 partitions")
    assert not processes_in(data_dir)


@pytest.mark.parametrize(("args", "code"), COMMANDS[:-1])
def test_a_running_service_with_another_number_of_partitions_is_not_used(
    holdfast: HoldfastCommand, args: tuple[str, ...], code: int
) -> None:
    holdfast.write_products("p.jsonl", 1)
    with run_engines(holdfast.folder / "data", PARTITIONS, "none"):
        assert_failed(with_partitions(holdfast, 2)(*args), code, "set HOLDFAST_PARTITIONS to 3")


@pytest.mark.parametrize(("args", "code"), COMMANDS)
def test_partitions_on_the_data_of_a_shop_without_are_refused(
    holdfast: HoldfastCommand, args: tuple[str, ...], code: int
) -> None:
    holdfast.write_products("p.jsonl", 1)
    with run_engine(holdfast.folder / "data", "none"):
        pass
    reason = "has the data of a shop without partitions, which cannot be divided anew: set HOLDFAST_PARTITIONS to 1"
    assert_failed(holdfast(*args), code, reason)


@pytest.mark.parametrize(("args", "code"), COMMANDS[:5])
def test_a_missing_data_directory_is_reported_and_not_created(
    holdfast: HoldfastCommand, args: tuple[str, ...], code: int
) -> None:
    assert_failed(holdfast(*args), code, "the data directory data does not exist")
    assert list(holdfast.folder.iterdir()) == []


@pytest.mark.parametrize(("args", "code"), [(("backup", "monday"), 1), (("restore", "monday"), 1)])
def test_backup_and_restore_say_what_to_do_instead(holdfast: HoldfastCommand, args: tuple[str, ...], code: int) -> None:
    with run_engines(holdfast.folder / "data", PARTITIONS, "none"):
        pass
    before = sorted(holdfast.folder.rglob("*"))
    refused = holdfast(*args)
    assert_failed(refused, code, "stop the service")
    assert "data directory" in refused.stderr
    assert sorted(holdfast.folder.rglob("*")) == before


@pytest.mark.parametrize("command", ["backup", "restore"])
def test_data_with_partitions_are_no_data_of_one_engine(holdfast: HoldfastCommand, command: str) -> None:
    """Without HOLDFAST_PARTITIONS, a backup or a restore would leave all partitions aside."""
    with run_engine(holdfast.folder / "other", "none"):
        pass
    other = HoldfastCommand(holdfast.folder, HOLDFAST_DATA_DIR="other")
    other.write_products("p.jsonl", 1)
    assert other("import", "p.jsonl").returncode == 0
    assert other("backup", "monday").returncode == 0
    with run_engines(holdfast.folder / "data", PARTITIONS, "none"):
        pass
    folder = "monday" if command == "restore" else "tuesday"
    assert_failed(with_partitions(holdfast, 1)(command, folder), 1, "set HOLDFAST_PARTITIONS to 3")
    assert not (holdfast.folder / "tuesday").exists()


def findings(done: "subprocess.CompletedProcess[str]") -> dict[str, list[tuple[str, str]]]:
    """Return mark and sentence of each finding of the doctor, by its name."""
    found: dict[str, list[tuple[str, str]]] = {}
    for finding in json.loads(done.stdout):
        found.setdefault(finding["name"], []).append((finding["mark"], finding["sentence"]))
    return found


@pytest.mark.parametrize("running", [True, False])
def test_the_doctor_examines_the_engine_of_each_partition(holdfast: HoldfastCommand, running: bool) -> None:
    data_dir = holdfast.folder / "data"
    with run_engines(data_dir, PARTITIONS, "none"):
        done = holdfast("doctor", "--json")
    if not running:
        done = holdfast("doctor", "--json")
    found = findings(done)
    assert done.returncode == 0, done.stdout
    assert found["partitions"] == [("ok", "3 partitions, each on an embedded engine of its own.")]
    assert [sentence for _, sentence in found["layout"]] == [
        f"Partition {number}: There is no shop 'shop:{number}' in this Redis yet." for number in range(PARTITIONS)
    ]
    assert len(found["version"]) == 1  # what is good is said of one partition
    assert not processes_in(data_dir)


def test_the_doctor_names_the_partition_that_must_be_mended(holdfast: HoldfastCommand) -> None:
    with run_engines(holdfast.folder / "data", PARTITIONS, "none") as url:
        with connect(partition_url(url, 1)) as redis:
            redis.config_set("maxmemory", "900000000")
            redis.config_set("maxmemory-policy", "allkeys-lru")
        done = holdfast("doctor", "--json")
    assert done.returncode == 1
    [bad] = [finding for finding in json.loads(done.stdout) if finding["mark"] == "bad"]
    assert bad["name"] == "eviction"
    assert bad["sentence"].startswith("Partition 1: ")
    assert f"-s {socket_path(partition_url(url, 1))} " in bad["commands"][0]


@pytest.mark.parametrize("lost", range(PARTITIONS))
def test_the_doctor_names_the_partition_whose_data_are_lost(holdfast: HoldfastCommand, lost: int) -> None:
    holdfast.write_products("p.jsonl", 1)
    with run_engines(holdfast.folder / "data", PARTITIONS, "none") as url:
        assert holdfast("import", "p.jsonl").returncode == 0
        with connect(partition_url(url, lost)) as redis:
            redis.flushall()
        done = holdfast("doctor", "--json")
    assert done.returncode == 1
    bad = [finding for finding in json.loads(done.stdout) if finding["mark"] == "bad"]
    assert {finding["name"] for finding in bad} == {"layout"}
    assert bad[0]["sentence"].startswith(f"Partition {lost}: `layout` is missing in {{shop")


def test_the_doctor_names_a_partition_from_an_older_copy(holdfast: HoldfastCommand) -> None:
    holdfast.write_products("p.jsonl", 1)
    with run_engines(holdfast.folder / "data", PARTITIONS, "none") as url:
        assert holdfast("import", "p.jsonl").returncode == 0
        with connect(partition_url(url, 0)) as first, connect(partition_url(url, 2)) as last:
            last.hset("{shop:2}:sent", "0", 17)
            first.hset("{shop:0}:taken", "2", 17)
            assert holdfast("doctor", "--json").returncode == 0
            first.hset("{shop:0}:taken", "2", 18)
        done = holdfast("doctor", "--json")
    assert done.returncode == 1
    [bad] = [finding for finding in json.loads(done.stdout) if finding["mark"] == "bad"]
    assert bad["sentence"] == (
        "Partition 2: its data are older than those of the others. Partition 0 has taken in transfer 18 from it, but "
        "the last that partition 2 gave is 17."
    )


def test_the_doctor_examines_a_redis_for_each_partition(tmp_path: Path) -> None:
    holdfast = HoldfastCommand(tmp_path, HOLDFAST_PARTITIONS="2")
    with run_engine(tmp_path / "redis-0", "none"):
        holdfast.env["HOLDFAST_REDIS_URL"] = f"unix://{tmp_path}/redis-{{partition}}/engine.sock"
        done = holdfast("doctor", "--json")
    kill_processes_in(tmp_path)
    found = findings(done)
    assert done.returncode == 1
    assert found["partitions"] == [("ok", "2 partitions, each on a Redis of its own.")]
    [(mark, sentence)] = found["connection"]
    assert mark == "bad"
    assert sentence.startswith("Partition 1: Redis cannot be reached")
    assert sentence.endswith("Check HOLDFAST_REDIS_URL.")


def test_a_url_that_does_not_fit_the_partitions_is_refused(tmp_path: Path) -> None:
    holdfast = HoldfastCommand(tmp_path, HOLDFAST_PARTITIONS="2", HOLDFAST_REDIS_URL=f"redis://127.0.0.1:{free_port()}")
    assert_failed(holdfast("serve"), 2, "HOLDFAST_REDIS_URL: must be the URL of a cluster, or have {partition} in it")
    with_partitions(holdfast, 1).env["HOLDFAST_REDIS_URL"] = "redis://engine-{partition}"
    assert_failed(holdfast("serve"), 2, "HOLDFAST_REDIS_URL: must not have {partition} in it")

"""The commands on a shop whose partitions are in a Redis Cluster."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.storage.cluster_topology import slot_of
from tests.support.cluster import EngineCluster, engine_cluster
from tests.support.command_line import HoldfastCommand

pytestmark = [pytest.mark.engine, pytest.mark.slow]

PARTITIONS = 4


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineCluster]:
    with engine_cluster(tmp_path_factory.mktemp("cluster"), primaries=2, replicas=0) as running:
        yield running


@pytest.fixture
def holdfast(tmp_path: Path, cluster: EngineCluster) -> HoldfastCommand:
    return HoldfastCommand(
        tmp_path, HOLDFAST_REDIS_URL=cluster.url, HOLDFAST_PARTITIONS=str(PARTITIONS), HOLDFAST_SHOP="commands"
    )


def test_the_doctor_says_where_each_partition_is(holdfast: HoldfastCommand, cluster: EngineCluster) -> None:
    done = holdfast("doctor", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 0, done.stdout
    [partitions] = [finding for finding in found if finding["name"] == "partitions"]
    assert partitions["lines"] == [
        f"{name} (slot {slot_of(name)}) is on 127.0.0.1:{cluster.owner(name).port}"
        for name in (f"commands:{number}" for number in range(PARTITIONS))
    ]
    assert [finding["sentence"] for finding in found if finding["name"] == "layout"] == [
        f"commands:{number}: There is no shop 'commands:{number}' in this Redis yet." for number in range(PARTITIONS)
    ]
    assert len([finding for finding in found if finding["name"] == "version"]) == 1  # what is good is said once


def test_import_audit_and_export_see_the_partitions_of_all_nodes(holdfast: HoldfastCommand) -> None:
    holdfast.write_products("p.jsonl", *range(1, 9))
    assert holdfast("import", "p.jsonl").stdout.startswith("8 added")
    done = holdfast("audit")
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "8 products, 0 orders, 0 of them pending.")
    stocks = [json.loads(line)["stock"] for line in holdfast("export", "products").stdout.splitlines()]
    assert stocks == [10] * 8
    assert len(holdfast("events").stdout.splitlines()) == 8

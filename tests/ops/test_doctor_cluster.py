"""What `holdfast doctor` says about a Redis Cluster as a whole: pure functions of what was read."""

import re
from dataclasses import replace
from typing import Any

import pytest

from service.ops.doctor_cluster import examine_cluster
from service.ops.doctor_finding import Finding
from service.settings import Settings
from service.storage.addresses import Address
from service.storage.cluster_diagnosis import ClusterDiagnosis, NodeFacts
from service.storage.cluster_topology import Node, Shard, Topology, slot_of

CONFIG = {
    "appendonly": "yes",
    "appendfsync": "always",
    "no-appendfsync-on-rewrite": "no",
    "maxmemory": "0",
    "min-replicas-to-write": "1",
    "cluster-require-full-coverage": "no",
}
SETTINGS = replace(Settings(), shops=("berlin", "paris"), redis_url="redis+cluster://x")


def address(number: int) -> Address:
    return Address("10.0.0.1", 7000 + number)


def node(number: int, *, primary: bool, health: str = "online") -> Node:
    return Node(address(number), f"id{number}", primary, health)


def facts(config: dict[str, str] | None = None, failure: str = "", **info: str) -> NodeFacts:
    if failure:
        return NodeFacts(failure=failure)
    return NodeFacts(
        {"valkey_version": "9.1.2", "master_repl_offset": "500", "slave_repl_offset": "500", **info},
        {**CONFIG, **(config or {})},
    )


SHARDS = (
    Shard(((0, 8191),), (node(2, primary=False), node(1, primary=True))),
    Shard(((8192, 16_383),), (node(3, primary=True), node(4, primary=False))),
)


def findings(
    changes: dict[int, NodeFacts] | None = None, shards: tuple[Shard, ...] = SHARDS, **settings: Any
) -> list[Finding]:
    topology = Topology(shards, 1, True)
    nodes = {each: facts() for each in topology.addresses()}
    nodes |= {address(number): changed for number, changed in (changes or {}).items()}
    return examine_cluster(ClusterDiagnosis(topology, nodes), replace(SETTINGS, **settings))


def test_a_good_cluster_is_drawn_with_its_shops_and_has_nothing_to_mend() -> None:
    cluster, durability = findings()
    assert (cluster.mark, cluster.name, durability.mark) == ("ok", "cluster", "ok")
    assert cluster.lines == (
        "10.0.0.1:7001    slots 0-8191",
        f"                 shop berlin (slot {slot_of('berlin')})",
        "└─ 10.0.0.1:7002 replica, 0 bytes behind",
        "10.0.0.1:7003    slots 8192-16383",
        f"                 shop paris (slot {slot_of('paris')})",
        "└─ 10.0.0.1:7004 replica, 0 bytes behind",
    )


@pytest.mark.parametrize(
    ("changes", "settings", "mark", "name", "text"),
    [
        ({2: facts(failure="no route")}, {}, "bad", "node", "10.0.0.1:7002 does not answer: no route"),
        ({2: facts(failure="no route")}, {}, "note", "replicas", "10.0.0.1:7001 has 0 replicas. If it is lost"),
        (
            {2: facts(failure="no route")},
            {"wait_replicas": 1},
            "bad",
            "replicas",
            "HOLDFAST_WAIT_REPLICAS is 1: no change of its shops can be confirmed",
        ),
        ({4: facts(slave_repl_offset="0", master_link_status="up")}, {}, "", "replicas", ""),
        ({3: facts(master_repl_offset="5000000")}, {}, "note", "replicas", "7004 is 4,999,500 bytes behind"),
        ({4: facts(master_link_status="down")}, {}, "note", "replicas", "7004 is not connected to its primary"),
        ({1: facts({"cluster-require-full-coverage": "yes"})}, {}, "note", "coverage", "all shops stop.*7001"),
        (
            {1: facts({"min-replicas-to-write": "0"})},
            {},
            "note",
            "failover",
            "no replica has are taken by 10.0.0.1:7001",
        ),
        ({1: facts({"min-replicas-to-write": "0"})}, {"wait_replicas": 1}, "", "failover", ""),
        ({4: facts({"appendfsync": "no"})}, {}, "bad", "durability", "10.0.0.1:7004: HOLDFAST_DURABILITY is 'always'"),
        ({4: facts({"appendfsync": "no"})}, {"durability": "none"}, "ok", "durability", "All 4 nodes"),
        ({2: facts(valkey_version="8.0.1")}, {}, "note", "version", "different versions.*Valkey 8.0.1: 10.0.0.1:7002"),
    ],
)
def test_each_weakness_is_found(
    changes: dict[int, NodeFacts], settings: dict[str, Any], mark: str, name: str, text: str
) -> None:
    found = [(finding.mark, finding.sentence) for finding in findings(changes, **settings) if finding.name == name]
    if not mark:
        assert not found
        return
    assert any(each == mark and re.search(text, sentence) for each, sentence in found), found


def test_a_cluster_that_takes_no_commands_is_bad_and_a_lost_primary_is_not_counted() -> None:
    lost = Shard(SHARDS[0].slots, (node(1, primary=True, health="fail"), node(2, primary=True)))
    assert findings(shards=(lost, SHARDS[1]))[0].sentence == "All slots have a node: 2 primaries, 1 replicas."
    topology = Topology(SHARDS, 1, False)
    found = examine_cluster(ClusterDiagnosis(topology, {each: facts() for each in topology.addresses()}), SETTINGS)
    assert (found[0].mark, "cluster_state" in found[0].sentence) == ("bad", True)


def test_slots_without_a_node_are_bad_if_a_shop_is_in_them() -> None:
    [shard, other] = SHARDS
    cluster = findings(shards=(shard,))[0]
    assert (cluster.mark, cluster.sentence) == ("bad", "8,192 slots have no node. The shops paris are in them.")
    some = Shard(((8192, 16_382),), other.nodes)
    cluster = findings(shards=(shard, some))[0]
    assert (cluster.mark, cluster.sentence) == ("note", "1 slots have no node.")
    failed = Shard(other.slots, (node(3, primary=True, health="fail"),))
    cluster = findings(shards=(shard, failed))[0]
    assert cluster.sentence == "8,192 slots have no node. The shops paris are in them."
    assert "10.0.0.1:7003    lost, was the primary" in cluster.lines


def test_what_the_user_may_not_read_is_left_out() -> None:
    unknown = NodeFacts(None, None)
    found = findings(dict.fromkeys(range(1, 5), unknown))
    assert [finding.name for finding in found] == ["cluster", "replicas", "replicas"]
    assert "└─ 10.0.0.1:7002 replica, lag unknown" in found[0].lines


def test_partitions_are_drawn_and_named_with_their_nodes() -> None:
    cluster, partitions, durability = findings(shops=("berlin",), partitions=3)
    assert (cluster.mark, partitions.mark, durability.mark) == ("ok", "ok", "ok")
    homes = {
        f"berlin:{number}": f"10.0.0.1:{7001 if slot_of(f'berlin:{number}') <= 8191 else 7003}" for number in range(3)
    }
    assert partitions.sentence == "3 partitions on 2 of 2 primaries."
    assert partitions.lines == tuple(f"{name} (slot {slot_of(name)}) is on {home}" for name, home in homes.items())
    drawn = [line.strip() for line in cluster.lines if "partition " in line]
    assert sorted(drawn) == [f"partition {name} (slot {slot_of(name)})" for name in homes]


def test_a_node_without_partitions_is_noted() -> None:
    shards = (Shard(((0, 16_383),), SHARDS[0].nodes), Shard((), SHARDS[1].nodes))
    [noted] = [finding for finding in findings(shards=shards, shops=("berlin",), partitions=3) if finding.mark != "ok"]
    assert (noted.mark, noted.name) == ("note", "partitions")
    assert noted.sentence.startswith("3 partitions on 1 of 2 primaries. Move the slots of some")


def test_a_partition_without_a_node_must_be_mended() -> None:
    missing = slot_of("berlin:1")
    shards = (Shard(((0, missing - 1), (missing + 1, 16_383)), SHARDS[0].nodes), Shard((), SHARDS[1].nodes))
    [bad] = [finding for finding in findings(shards=shards, shops=("berlin",), partitions=3) if finding.mark == "bad"]
    assert bad.sentence == "1 slots have no node. The shops berlin:1 are in them."

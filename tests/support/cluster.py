"""A Redis Cluster of engines on ports of this machine."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from service.storage.cluster_topology import SLOTS, slot_of
from tests.support.processes import free_port
from tests.support.replicas import ReplicatedEngine
from tests.support.waiting import wait_until

_OPTIONS = (
    *("--cluster-enabled", "yes", "--save", "", "--appendonly", "yes", "--repl-diskless-sync-delay", "0"),
    *("--cluster-require-full-coverage", "no", "--cluster-allow-replica-migration", "no"),
)


class ClusterNode(ReplicatedEngine):
    """A node: an engine that can be killed, frozen and started again."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.bus_port = free_port()
        super().__init__(folder, *_OPTIONS, "--cluster-port", str(self.bus_port), *options)
        self.id = str(self.replies("CLUSTER", "MYID"))

    def primary_id(self) -> str:
        """Return the id of the node whose replica this is, or `-`."""
        fields = str(self.replies("CLUSTER", "NODES") or "")
        return next((line.split()[3] for line in fields.splitlines() if "myself" in line), "-")

    def replicas_follow(self, count: int) -> bool:
        """Return whether so many replicas get each change."""
        info = self.replies("INFO", "replication") or {}
        replicas = [info[name] for name in (f"slave{number}" for number in range(count)) if name in info]
        return len(replicas) == count and all(each["state"] == "online" for each in replicas)


class EngineCluster:
    """Primaries that share all slots evenly, and replicas of them: `replicas` for each primary."""

    def __init__(
        self,
        folder: Path,
        *,
        primaries: int = 3,
        replicas: int = 0,
        timeout_ms: int = 1000,
        options: tuple[str, ...] = (),
    ) -> None:
        self.nodes: list[ClusterNode] = []
        options = ("--cluster-node-timeout", str(timeout_ms), *options)
        for number in range(primaries * (1 + replicas)):
            self.nodes.append(ClusterNode(folder / str(number), *options))
        first = self.nodes[0]
        for node in self.nodes[1:]:
            first.replies("CLUSTER", "MEET", "127.0.0.1", node.port, node.bus_port)
        share = -(-SLOTS // primaries)
        for number, node in enumerate(self.nodes[:primaries]):
            last = min(SLOTS, share * (number + 1)) - 1
            assert node.replies("CLUSTER", "ADDSLOTSRANGE", share * number, last) == "OK"
        wait_until(
            lambda: all(self.knows(node, len(self.nodes)) for node in self.nodes), "the nodes to know each other"
        )
        for number, node in enumerate(self.nodes[primaries:]):
            assert node.replies("CLUSTER", "REPLICATE", self.nodes[number % primaries].id) == "OK"
        wait_until(self.is_complete, "the cluster")

    @staticmethod
    def info(node: ClusterNode) -> dict[str, str]:
        """Return the reply to CLUSTER INFO."""
        lines = str(node.replies("CLUSTER", "INFO") or "").split("\r\n")
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def knows(self, node: ClusterNode, count: int) -> bool:
        """Return whether a node knows so many nodes, and all slots."""
        info = self.info(node)
        return (info.get("cluster_known_nodes"), info.get("cluster_slots_assigned")) == (str(count), str(SLOTS))

    def is_complete(self) -> bool:
        """Return whether all nodes take commands, and all replicas follow."""
        if not all(self.info(node).get("cluster_state") == "ok" for node in self.nodes):
            return False
        roles = [node.role() for node in self.nodes]
        replicas = sum(role == "slave" for role in roles)
        links = [node.replies("INFO", "replication") for node in self.nodes]
        following = sum(isinstance(link, dict) and link.get("master_link_status") == "up" for link in links)
        return bool(following == replicas)

    def is_settled(self) -> bool:
        """Return whether all nodes take commands, agree where the slots are, and each primary has all its replicas."""
        if not self.is_complete() or len({tuple(sorted(self.slots(node))) for node in self.nodes}) > 1:
            return False
        primaries = [node for node in self.nodes if node.role() == "master"]
        replicas = len(self.nodes) // len(primaries) - 1
        return all(primary.replicas_follow(replicas) for primary in primaries)

    def replica_of(self, primary: ClusterNode) -> ClusterNode:
        """Return the first replica of a primary."""
        return next(node for node in self.nodes if node.primary_id() == primary.id)

    def owner(self, shop: str) -> ClusterNode:
        """Return the primary with the slot of a shop, as most nodes see it."""
        slot = slot_of(shop)
        for node in self.nodes:
            for first, last, primary in self.slots(node):
                if first <= slot <= last:
                    return next(each for each in self.nodes if each.port == primary)
        raise AssertionError(f"no node has the slot of {shop}")

    @staticmethod
    def slots(node: ClusterNode) -> list[tuple[int, int, int]]:
        """Return the ranges of slots that a node knows: first, last, port of the primary."""
        return [(int(row[0]), int(row[1]), int(row[2][1])) for row in node.replies("CLUSTER", "SLOTS") or ()]

    def shard_of(self, shop: str) -> "Shard":
        """Return the nodes that have a shop."""
        return Shard(self, shop)

    def shop_at(self, number: int, name: str = "shop") -> str:
        """Return the name of a shop whose slot belongs to one of the first nodes."""
        return next(
            shop for shop in (f"{name}{suffix}" for suffix in range(1000)) if self.owner(shop) is self.nodes[number]
        )

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def close(self) -> None:
        for node in self.nodes:
            node.kill()


class Shard:
    """The nodes that have a shop, and all others, which decide about failovers as sentinels do."""

    def __init__(self, cluster: EngineCluster, shop: str) -> None:
        owner = cluster.owner(shop)
        self._cluster, self._shop = cluster, shop
        self.engines = [node for node in cluster.nodes if node is owner or node.primary_id() == owner.id]
        self.sentinels = [node for node in cluster.nodes if node not in self.engines]

    def primary(self) -> ClusterNode | None:
        """Return the node that most others call the primary, if it says so itself."""
        slot = slot_of(self._shop)
        ports = [
            port for node in self.sentinels for first, last, port in self._cluster.slots(node) if first <= slot <= last
        ]
        for engine in self.engines:
            if 2 * ports.count(engine.port) > len(self.sentinels) and engine.role() == "master":
                return engine
        return None


def move_key_by_key(
    cluster: EngineCluster, slot: int, source: ClusterNode, target: ClusterNode, keys_at_once: int = 1
) -> None:
    """Move a slot as all versions can: meanwhile, some of its keys are at one node and some at the other."""
    with source.client() as giving, target.client() as taking:
        taking.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        giving.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
        while keys := giving.execute_command("CLUSTER", "GETKEYSINSLOT", slot, keys_at_once):
            giving.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
    for node in (target, source, *[node for node in cluster.nodes if node.role() == "master"]):
        with node.client() as client:
            client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", target.id)


def begin_move(slot: int, source: ClusterNode, target: ClusterNode) -> None:
    """Begin a move as Valkey 9 can, and do not wait for its end."""
    with source.client() as client:
        client.execute_command("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", target.id)


def move_at_once(cluster: EngineCluster, slot: int, source: ClusterNode, target: ClusterNode) -> None:
    """Move a slot as Valkey 9 can: all of its keys change their node at one moment."""
    begin_move(slot, source, target)
    with source.client() as client:
        while "success" not in (state := str(client.execute_command("CLUSTER", "GETSLOTMIGRATIONS")[0])):
            assert "failed" not in state, state
            time.sleep(0.002)


@contextmanager
def engine_cluster(folder: Path, **options: Any) -> Iterator[EngineCluster]:
    """Run a cluster, until the block ends."""
    cluster = EngineCluster.__new__(EngineCluster)
    cluster.nodes = []
    try:
        cluster.__init__(folder, **options)  # type: ignore[misc]  # also what was started before an error is closed
        yield cluster
    finally:
        cluster.close()

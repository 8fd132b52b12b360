"""What Holdfast knows of Redis Cluster: its URLs, its slots, and which node owns which of them. Pure functions.

https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/
"""

from binascii import crc_hqx
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from service.storage.addresses import Address, parse_address

SLOTS: Final = 16_384
"""The number of slots of every cluster."""

_DEFAULT_PORT: Final = 6379
_PLACEHOLDER: Final = "node"


class ClusterUrl(NamedTuple):
    """What redis+cluster://user:password@host1:7001,host2:7002?option=... means."""

    seeds: tuple[Address, ...]
    """The nodes to ask first. They name all others."""
    node_url: str
    """The URL of a node, but with a host that does not exist."""
    has_tls: bool


def is_cluster_url(url: str) -> bool:
    """Return whether a URL is that of a cluster."""
    return url.partition("://")[0] in ("redis+cluster", "rediss+cluster")


def read_cluster_url(url: str) -> ClusterUrl:
    """Return what the URL of a cluster says. Raise ValueError if it is wrong."""
    scheme, _, rest = url.partition("+cluster://")
    # Not urlsplit(): since Python 3.12 it refuses several hosts if the first is an IPv6 address.
    authority, question_mark, query = rest.partition("?")
    authority = authority.removesuffix("/").removesuffix("/0")
    user, at, hosts = authority.rpartition("@")
    if "/" in authority:
        raise ValueError("a cluster has only the database 0")
    return ClusterUrl(
        tuple(parse_address(host, _DEFAULT_PORT) for host in hosts.split(",")),
        f"{scheme}://{user}{at}{_PLACEHOLDER}{question_mark}{query}",
        scheme == "rediss",
    )


def slot_of(shop: str) -> int:
    """Return the slot of all keys of a shop: they have the hash tag `{shop}`."""
    return crc_hqx(shop.encode(), 0) % SLOTS


class Node(NamedTuple):
    """A node of a cluster. `health`: online, fail or loading, if the cluster says it."""

    address: Address
    id: str
    is_primary: bool
    health: str = ""
    offset: int = 0
    """How much of its primary's changes it has, in bytes."""

    @property
    def has_failed(self) -> bool:
        """Whether the other nodes have given it up. Redis documents `failed`, and says `fail`."""
        return self.health.startswith("fail")


class Shard(NamedTuple):
    """Nodes with the same data: at most one primary, and its replicas. `slots`: first and last of each range."""

    slots: tuple[tuple[int, int], ...]
    nodes: tuple[Node, ...]

    @property
    def primary(self) -> Node | None:
        """The node that takes changes; None: there is none now."""
        return next((node for node in self.nodes if node.is_primary and not node.has_failed), None)

    def has(self, slot: int) -> bool:
        """Return whether a slot belongs to these nodes."""
        return any(first <= slot <= last for first, last in self.slots)


class Topology(NamedTuple):
    """The nodes of a cluster, as one of them sees it.

    `epoch`: grows with each failover and each move of slots. `is_ok`: that node takes commands.
    """

    shards: tuple[Shard, ...]
    epoch: int
    is_ok: bool

    def owner(self, slot: int) -> Address | None:
        """Return the address of the primary with a slot; None: no node has it now."""
        for shard in self.shards:
            if shard.has(slot) and shard.primary is not None:
                return shard.primary.address
        return None

    def missing_slots(self) -> int:
        """Return the number of slots that no node has now."""
        shards = [shard for shard in self.shards if shard.primary is not None]
        return SLOTS - sum(last - first + 1 for shard in shards for first, last in shard.slots)

    def addresses(self) -> list[Address]:
        """Return the addresses of all nodes."""
        return [node.address for shard in self.shards for node in shard.nodes]


def newest(answers: Iterable[Topology]) -> Topology | None:
    """Return the topology that counts, if nodes disagree; None without answers.

    A node that was cut off does not take commands after some time, and does not know of later failovers.
    """
    return max(answers, key=lambda answer: (answer.is_ok, answer.epoch, -answer.missing_slots()), default=None)


def read_topology(shards: Sequence[Shard], cluster_info: str) -> Topology:
    """Return a topology, by the reply to CLUSTER INFO and the shards that `read_shards` or `read_slots` returned."""
    info = dict(line.split(":", 1) for line in cluster_info.split("\r\n") if ":" in line)
    return Topology(tuple(shards), int(info.get("cluster_current_epoch", 0)), info.get("cluster_state") == "ok")


def read_shards(reply: Sequence[Sequence[Any]], asked: Address, *, has_tls: bool) -> list[Shard]:
    """Return the shards in a reply to CLUSTER SHARDS. `asked`: the node that replied; it may not know its own host."""
    shards = []
    for pairs in reply:
        shard = _pairs(pairs)
        bounds = [int(bound) for bound in shard["slots"]]
        nodes = [_read_node(_pairs(node), asked, has_tls=has_tls) for node in shard["nodes"]]
        shards.append(Shard(tuple(zip(bounds[::2], bounds[1::2], strict=True)), tuple(nodes)))
    return shards


def _read_node(node: Mapping[str, Any], asked: Address, *, has_tls: bool) -> Node:
    port = node.get("tls-port" if has_tls else "port", 0) or node.get("port") or node.get("tls-port") or 0
    host = _known(node.get("endpoint")) or _known(node.get("ip")) or asked.host
    return Node(
        Address(host, int(port)),
        str(node["id"]),
        node.get("role") == "master",
        str(node.get("health", "")),
        int(node.get("replication-offset", 0)),
    )


def read_slots(reply: Sequence[Sequence[Any]], asked: Address) -> list[Shard]:
    """Return the shards in a reply to CLUSTER SLOTS, which old versions and some services have instead of SHARDS."""
    ranges: dict[tuple[Node, ...], list[tuple[int, int]]] = {}
    for first, last, *members in reply:
        nodes = tuple(
            Node(Address(_known(host) or asked.host, int(port)), str(rest[0]) if rest else "", number == 0)
            for number, (host, port, *rest) in enumerate(members)
        )
        ranges.setdefault(nodes, []).append((int(first), int(last)))
    return [Shard(tuple(slots), nodes) for nodes, slots in ranges.items()]


def read_redirection(text: str, asked: Address) -> Address:
    """Return the address in `MOVED 3999 127.0.0.1:6381` or `ASK ...`. Without a host, it is that of `asked`."""
    host, _, port = text.split(" ")[2].rpartition(":")
    return Address(_known(host) or asked.host, int(port))


def _known(host: Any) -> str:
    """Return the name of a host, or an empty text if the node does not know it."""
    return str(host) if host not in (None, "", "?") else ""


def _pairs(reply: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(reply[::2], reply[1::2], strict=True))

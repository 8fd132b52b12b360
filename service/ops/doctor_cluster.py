"""Says what is good about a Redis Cluster, what must be mended, and draws it. Pure functions of what was read."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from service.domain.errors.storage import UnsupportedRedis
from service.ops.doctor_finding import Finding
from service.settings import Settings
from service.storage import keys
from service.storage.addresses import Address
from service.storage.cluster_diagnosis import ClusterDiagnosis, NodeFacts
from service.storage.cluster_topology import Node, Shard, slot_of
from service.storage.requirements import ENGINE_SETTINGS, check_settings

MAX_LAG_BYTES: Final = 1_000_000
"""A replica that lacks more than this many bytes of changes is behind."""


def parts_of(settings: Settings) -> list[str]:
    """Return what has a slot of its own: the shops, or the partitions of the shops."""
    if settings.partitions == 1:
        return list(settings.all_shops or (settings.shop,))
    return [keys.partition(shop, number) for shop in settings.all_shops for number in range(settings.partitions)]


def examine_cluster(found: ClusterDiagnosis, settings: Settings) -> list[Finding]:
    """Return the findings about the cluster as a whole. The first one has its drawing."""
    return [
        *_slots(found, settings),
        *_partitions(found, settings),
        *_nodes(found),
        *_replicas(found, settings),
        *_coverage(found),
        *_cut_off(found, settings),
        *_persistence(found, settings),
        *_versions(found),
    ]


def _slots(found: ClusterDiagnosis, settings: Settings) -> Iterator[Finding]:
    topology = found.topology
    kind = "shop" if settings.partitions == 1 else "partition"
    drawing = tuple(_drawing(found, parts_of(settings), kind))
    missing = topology.missing_slots()
    # The mark of a shop with partitions has a slot as well: {shop}:meta.
    homeless = [name for name in dict.fromkeys((*settings.all_shops, *parts_of(settings))) if found.home(name) is None]
    if missing or homeless:
        shops = f" The shops {', '.join(homeless)} are in them." if homeless else ""
        yield Finding(
            "bad" if homeless else "note",
            "cluster",
            f"{missing:,} slots have no node.{shops}",
            ("redis-cli --cluster fix HOST:PORT   # after you know why",),
            drawing,
        )
        return
    primaries = sum(shard.primary is not None for shard in topology.shards)
    replicas = sum(not node.is_primary for shard in topology.shards for node in shard.nodes)
    if not topology.is_ok:
        yield Finding(
            "bad", "cluster", "The nodes say that the cluster does not take commands (cluster_state).", lines=drawing
        )
        return
    yield Finding("ok", "cluster", f"All slots have a node: {primaries} primaries, {replicas} replicas.", lines=drawing)


def _partitions(found: ClusterDiagnosis, settings: Settings) -> Iterator[Finding]:
    """Say where each partition is, and whether a node that could have some has none."""
    if settings.partitions == 1:
        return
    homes = {name: found.home(name) for name in parts_of(settings)}
    lines = tuple(f"{name} (slot {slot_of(name)}) is on {home or 'no node'}" for name, home in homes.items())
    used = len(set(homes.values()) - {None})
    primaries = sum(shard.primary is not None for shard in found.topology.shards)
    text = f"{len(homes)} partitions on {used} of {primaries} primaries."
    if used < min(len(homes), primaries):
        text += " Move the slots of some to those without: docs/scale.md says how."
        yield Finding("note", "partitions", text, lines=lines)
    else:
        yield Finding("ok", "partitions", text, lines=lines)


def _drawing(found: ClusterDiagnosis, names: Sequence[str], kind: str) -> Iterator[str]:
    """Yield a line for each node: a primary with its slots and what is in them, and its replicas below it.

    `names`: what is drawn, each of this kind: shops or partitions.
    """
    width = max((len(str(address)) for address in found.nodes), default=0) + 3
    for shard in found.topology.shards:
        here = [f"{name} (slot {slot_of(name)})" for name in names if shard.has(slot_of(name))]
        ranges = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in shard.slots)
        for node in sorted(shard.nodes, key=lambda each: (not each.is_primary, each.has_failed)):
            facts = found.nodes[node.address]
            state = f"  {facts.failure}" if facts.failure else ""
            if node.is_primary and node.has_failed:
                yield f"{node.address!s:{width}} lost, was the primary{state}"
            elif node.is_primary:
                yield f"{node.address!s:{width}} slots {ranges or 'none'}{state}"
                yield from (f"{'':{width}} {kind} {name}" for name in here)
            else:
                yield f"{f'└─ {node.address}':{width}} replica, {_lag(shard, node, found.nodes)}{state}"


def _lag(shard: Shard, replica: Node, nodes: Mapping[Address, NodeFacts]) -> str:
    behind = _bytes_behind(shard, replica, nodes)
    return "lag unknown" if behind is None else f"{behind:,} bytes behind"


def _bytes_behind(shard: Shard, replica: Node, nodes: Mapping[Address, NodeFacts]) -> int | None:
    """Return how many bytes of changes a replica lacks; None: it is not known."""
    if shard.primary is None:
        return None
    ahead, own = nodes[shard.primary.address].info, nodes[replica.address].info
    if not ahead or not own or own.get("master_link_status") == "down":
        return None
    return max(0, int(ahead.get("master_repl_offset", 0)) - int(own.get("slave_repl_offset", 0)))


def _nodes(found: ClusterDiagnosis) -> Iterator[Finding]:
    for address, facts in found.nodes.items():
        if facts.failure:
            yield Finding("bad", "node", f"{address} does not answer: {facts.failure.rstrip('.')}.")


def _replicas(found: ClusterDiagnosis, settings: Settings) -> Iterator[Finding]:
    needed = max(1, settings.wait_replicas)
    for shard in found.topology.shards:
        if shard.primary is None or not shard.slots:
            continue
        replicas = [node for node in shard.nodes if not node.is_primary]
        reachable = [node for node in replicas if not found.nodes[node.address].failure]
        where = shard.primary.address
        if len(reachable) < needed:
            what = "If it is lost, its shops stop until it is back."
            if settings.wait_replicas:
                what = f"HOLDFAST_WAIT_REPLICAS is {needed}: no change of its shops can be confirmed."
            yield Finding(
                "bad" if settings.wait_replicas else "note",
                "replicas",
                f"{where} has {len(reachable)} replicas. {what}",
                ("redis-cli --cluster add-node NEW:PORT HOST:PORT --cluster-slave",),
            )
        for node in reachable:
            behind = _bytes_behind(shard, node, found.nodes)
            if behind is None or behind > MAX_LAG_BYTES:
                text = "is not connected to its primary" if behind is None else f"is {behind:,} bytes behind"
                yield Finding("note", "replicas", f"{node.address} {text}.")


def _configs(found: ClusterDiagnosis) -> dict[Address, Mapping[str, str]]:
    return {address: facts.config for address, facts in found.nodes.items() if facts.config is not None}


def _coverage(found: ClusterDiagnosis) -> Iterator[Finding]:
    strict = [
        address
        for address, config in _configs(found).items()
        if config.get("cluster-require-full-coverage", "no") == "yes"
    ]
    if strict:
        yield Finding(
            "note",
            "coverage",
            "If one node and all its replicas are lost, all shops stop, also those on other nodes "
            f"(cluster-require-full-coverage yes on {_names(strict)}).",
            tuple(_config_set(address, "cluster-require-full-coverage no") for address in strict),
        )


def _cut_off(found: ClusterDiagnosis, settings: Settings) -> Iterator[Finding]:
    with_replicas = {
        shard.primary.address for shard in found.topology.shards if shard.primary is not None and len(shard.nodes) > 1
    }
    careless = [
        address
        for address, config in _configs(found).items()
        if address in with_replicas and config.get("min-replicas-to-write") == "0"
    ]
    if careless and not settings.wait_replicas:
        yield Finding(
            "note",
            "failover",
            f"A failover may lose orders: changes that no replica has are taken by {_names(careless)}. Set "
            "HOLDFAST_WAIT_REPLICAS=1, or at least min-replicas-to-write.",
            tuple(_config_set(address, "min-replicas-to-write 1") for address in careless),
        )


def _persistence(found: ClusterDiagnosis, settings: Settings) -> Iterator[Finding]:
    """Yield a finding for each node that is less durable than it must be. A replica can become a primary."""
    configs = _configs(found)
    weak = False
    for address, config in configs.items():
        reply = [part for name in ENGINE_SETTINGS if name in config for part in (name, config[name])]
        try:
            check_settings(reply, settings.durability)
        except UnsupportedRedis as error:
            weak = True
            yield Finding("bad", "durability", f"{address}: {error.reason}.")
    if configs and not weak:
        yield Finding("ok", "durability", f"All {len(configs)} nodes are as durable as HOLDFAST_DURABILITY says.")


def _versions(found: ClusterDiagnosis) -> Iterator[Finding]:
    versions: dict[str, list[Address]] = {}
    for address, facts in found.nodes.items():
        if facts.info:
            name = "Valkey" if "valkey_version" in facts.info else "Redis"
            version = facts.info.get("valkey_version") or facts.info.get("redis_version", "of unknown version")
            versions.setdefault(f"{name} {version}", []).append(address)
    if len(versions) > 1:
        text = "; ".join(f"{version}: {_names(addresses)}" for version, addresses in versions.items())
        yield Finding("note", "version", f"The nodes have different versions. {text}.")


def _names(addresses: Sequence[Address]) -> str:
    return ", ".join(map(str, addresses))


def _config_set(address: Address, change: str) -> str:
    return f"redis-cli -h {address.host} -p {address.port} CONFIG SET {change}"

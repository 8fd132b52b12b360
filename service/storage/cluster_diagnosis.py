"""Reads everything that `holdfast doctor` wants to know of a Redis Cluster as a whole."""

import asyncio
from collections.abc import Mapping
from typing import Final, NamedTuple

from service.domain.errors.storage import UnsupportedRedis
from service.storage.addresses import Address
from service.storage.cluster_topology import Topology, slot_of
from service.storage.diagnosis import SETTINGS
from service.storage.dial import ClusterExplorer, Dialer, Execute
from service.storage.engine_status import parse_info
from service.storage.sender import ErrorReply

CLUSTER_SETTINGS: Final = (*SETTINGS, "cluster-require-full-coverage", "cluster-node-timeout")


class NodeFacts(NamedTuple):
    """What a node says. None: the user may not read it. `failure`: why it says nothing, or an empty text."""

    info: Mapping[str, str] | None = None
    config: Mapping[str, str] | None = None
    failure: str = ""


class ClusterDiagnosis(NamedTuple):
    """What the nodes of a cluster say."""

    topology: Topology
    nodes: Mapping[Address, NodeFacts]

    def home(self, shop: str) -> Address | None:
        """Return the node that has a shop; None: no node has its slot."""
        return self.topology.owner(slot_of(shop))


async def diagnose_cluster(url: str, *, timeout_seconds: float) -> ClusterDiagnosis:
    """Return what all nodes of a cluster say. Nothing is written.

    Raise UnsupportedRedis for a wrong URL, and OSError if no node answers.
    """
    topology = await ClusterExplorer(url, timeout=timeout_seconds).topology()
    addresses = list(dict.fromkeys(topology.addresses()))
    facts = await asyncio.gather(*[_read(url, address, timeout_seconds) for address in addresses])
    return ClusterDiagnosis(topology, dict(zip(addresses, facts, strict=True)))


async def _read(url: str, address: Address, timeout_seconds: float) -> NodeFacts:
    found: list[NodeFacts] = []

    async def read(execute: Execute) -> None:
        info = config = None
        try:
            info = parse_info(await execute("INFO", "everything"))
            reply = await execute("CONFIG", "GET", *CLUSTER_SETTINGS)
            config = dict(zip(reply[::2], reply[1::2], strict=True))
        except ErrorReply as error:
            if error.code != "NOPERM":
                raise
        found.append(NodeFacts(info, config))

    try:
        async with Dialer(url, timeout=timeout_seconds, node=address).connect(read):
            return found[0]
    except (OSError, UnsupportedRedis) as error:
        return NodeFacts(failure=str(getattr(error, "reason", error)))

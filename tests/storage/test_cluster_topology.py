"""The URLs and replies of Redis Cluster, as pure functions read them."""

import asyncio
import socket
import struct
import threading
import time
from contextlib import suppress

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from service.domain.errors.storage import UnsupportedRedis
from service.storage import keys
from service.storage.addresses import Address
from service.storage.cluster_topology import (
    SLOTS,
    ClusterUrl,
    Node,
    Shard,
    Topology,
    newest,
    read_cluster_url,
    read_redirection,
    read_shards,
    read_slots,
    read_topology,
    slot_of,
)
from service.storage.dial import ClusterExplorer

ONE, TWO = Address("10.0.0.1", 7001), Address("10.0.0.2", 7002)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis+cluster://one", ClusterUrl((Address("one", 6379),), "redis://node", has_tls=False)),
        (
            "rediss+cluster://clerk:a%40b@one:7001,two:7002/0?ssl_ca_certs=/ca.pem",
            ClusterUrl(
                (Address("one", 7001), Address("two", 7002)),
                "rediss://clerk:a%40b@node?ssl_ca_certs=/ca.pem",
                has_tls=True,
            ),
        ),
        (
            "redis+cluster://:pw@[::1]:7001,[::2]/",
            ClusterUrl((Address("::1", 7001), Address("::2", 6379)), "redis://:pw@node", has_tls=False),
        ),
    ],
)
def test_a_url_of_a_cluster_is_read(url: str, expected: ClusterUrl) -> None:
    assert read_cluster_url(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        *("redis+cluster://", "redis+cluster://one,,two", "redis+cluster://one/3", "redis+cluster://one:port"),
        *(
            "redis+cluster://one:99999",
            "redis+cluster://u:p#w@one",
            "redis+cluster://u:p?w@one",
            "redis+cluster://one two",
        ),
        "redis+cluster://one?socket_timeout=abc",
    ],
)
def test_a_wrong_url_of_a_cluster_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(UnsupportedRedis) as refused:
        ClusterExplorer(url, timeout=1)
    assert "p#w" not in refused.value.reason
    assert "redis+cluster://user:password@host1:6379,host2:6379" in refused.value.reason


@given(st.from_regex(r"[A-Za-z0-9_.-]{1,64}", fullmatch=True))
def test_the_slot_of_a_shop_is_that_of_all_its_keys(shop: str) -> None:
    from redis.crc import key_slot

    for key in (keys.meta(shop), keys.order(shop, 7), keys.idempotency(shop, "a{b}c", "x}y{")):
        assert key_slot(key.encode()) == slot_of(shop)


def _node(port: int, role: str, **fields: object) -> list[object]:
    pairs = {"id": f"id{port}", "port": port, "ip": "10.0.0.1", "endpoint": "10.0.0.1", "role": role, **fields}
    return [part for pair in pairs.items() for part in pair]


def test_the_reply_to_cluster_shards_is_read() -> None:
    nodes = [
        _node(7001, "master", **{"health": "fail", "replication-offset": 7}),
        _node(7002, "master", **{"tls-port": 7102, "endpoint": "db2.example.com"}),
        _node(7003, "replica", endpoint="?", ip=""),
    ]
    [shard] = read_shards([["slots", [0, 99, 200, 299], "nodes", nodes]], TWO, has_tls=True)
    assert shard.slots == ((0, 99), (200, 299))
    assert [node.address for node in shard.nodes] == [
        *(Address("10.0.0.1", 7001), Address("db2.example.com", 7102), Address("10.0.0.2", 7003))
    ]
    assert shard.primary == shard.nodes[1]
    assert (shard.nodes[0].is_primary, shard.nodes[0].health, shard.nodes[0].offset) == (True, "fail", 7)
    assert (shard.has(99), shard.has(100), shard.has(299)) == (True, False, True)


def test_the_reply_to_cluster_slots_is_read() -> None:
    primary, replica = ["10.0.0.1", 7001, "id1"], ["", 7002, "id2", ["hostname", "x"]]
    shards = read_slots(
        [[0, 99, primary, replica], [100, 16_383, ["10.0.0.3", 7003]], [200, 299, primary, replica]], TWO
    )
    assert [shard.slots for shard in shards] == [((0, 99), (200, 299)), ((100, 16_383),)]
    assert [node.address for node in shards[0].nodes] == [ONE, TWO]
    assert shards[0].primary == Node(ONE, "id1", is_primary=True)


def test_a_topology_names_the_owner_of_a_slot_and_counts_the_slots_without_one() -> None:
    shards = (
        Shard(((0, 99),), (Node(ONE, "1", is_primary=True), Node(TWO, "2", is_primary=False))),
        Shard(((100, 199),), (Node(TWO, "3", is_primary=False),)),
    )
    topology = read_topology(shards, "cluster_state:fail\r\ncluster_current_epoch:12\r\n")
    assert (topology.epoch, topology.is_ok) == (12, False)
    assert [topology.owner(slot) for slot in (0, 99, 100, 200)] == [ONE, ONE, None, None]
    assert topology.missing_slots() == SLOTS - 100
    assert topology.addresses() == [ONE, TWO, TWO]


def test_a_node_that_takes_commands_counts_more_than_one_that_was_cut_off() -> None:
    everything = (Shard(((0, SLOTS - 1),), (Node(ONE, "1", is_primary=True),)),)
    cut_off, old, new = Topology(everything, 9, False), Topology(everything, 7, True), Topology(everything, 8, True)
    assert newest([cut_off, old, new]) is new
    assert newest([cut_off]) is cut_off
    assert newest([Topology((), 8, True), new]) is new
    assert newest([]) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("MOVED 3999 10.0.0.2:7002", TWO),
        ("ASK 3999 ::1:7002", Address("::1", 7002)),
        ("MOVED 3999 :7002", Address("10.0.0.1", 7002)),
        ("MOVED 3999 db.example.com:7002", Address("db.example.com", 7002)),
    ],
)
def test_the_address_in_a_redirection_is_read(text: str, expected: Address) -> None:
    assert read_redirection(text, ONE) == expected


def test_a_node_that_resets_each_connection_says_nothing() -> None:
    """uvloop raises RuntimeError if a connection is used that was reset between two steps of the client."""

    def reset_all(listener: socket.socket) -> None:
        with suppress(OSError):  # the end of the test closes the listener
            while True:
                client, _ = listener.accept()
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.close()

    async def ask(port: int) -> None:
        explorer = ClusterExplorer(f"redis+cluster://127.0.0.1:{port}", timeout=5)
        for _ in range(50):
            # So the loop sees several events at once: the connection, and its end.
            asyncio.get_running_loop().call_soon(time.sleep, 0.002)
            found = await asyncio.gather(*[explorer.topology() for _ in range(8)], return_exceptions=True)
            assert [each for each in found if not isinstance(each, OSError)] == []

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=reset_all, args=(listener,), daemon=True)
        thread.start()
        uvloop.run(ask(listener.getsockname()[1]))
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()

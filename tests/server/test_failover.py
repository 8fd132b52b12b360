"""One failover of a service on sentinels, and one in a cluster, in the short form. The long form: `make failover`."""

from pathlib import Path

import pytest

from tests.failover.campaign import Clients, Faults, compare
from tests.support.cluster import engine_cluster
from tests.support.command_line import HoldfastCommand
from tests.support.replicas import replicated_engines
from tests.support.service_process import StartService
from tests.support.waiting import eventually

pytestmark = [pytest.mark.process, pytest.mark.slow]


async def test_no_confirmed_order_is_lost_when_the_primary_is_killed(
    start_ready_service: StartService, tmp_path: Path
) -> None:
    with replicated_engines(tmp_path / "engines", replicas=2, sentinels=3) as engines:
        settings = {"redis_url": engines.url(), "durability": "everysec", "redis_timeout": 1, "wait_replicas": 1}
        service = start_ready_service(workers=2, **settings)
        async with Clients(service.port, 8) as clients:
            placed = clients.history.placed
            await eventually(lambda: len(placed) > 300, "orders")
            await Faults(engines).kill_for_good()
            before = len(placed)
            await eventually(lambda: len(placed) > before + 300, "orders on the new primary")
        primary = engines.primary()
        assert primary is not None
        verdict = compare(clients.history, primary, "shop")
        assert verdict.confirmed > 600
        assert (verdict.lost, verdict.undone, verdict.doubled) == (0, 0, 0), verdict
        audit = HoldfastCommand(tmp_path, HOLDFAST_REDIS_URL=engines.url())("audit")
        assert audit.returncode == 0, audit.stdout
        assert "Traceback" not in service.stderr


async def test_no_confirmed_order_is_lost_when_the_node_of_the_shop_in_a_cluster_is_killed(
    start_ready_service: StartService, tmp_path: Path
) -> None:
    with engine_cluster(tmp_path / "engines", primaries=3, replicas=1, timeout_ms=500) as cluster:
        shard = cluster.shard_of("shop")
        settings = {"redis_url": cluster.url, "durability": "everysec", "redis_timeout": 1, "wait_replicas": 1}
        service = start_ready_service(workers=2, **settings)
        async with Clients(service.port, 8) as clients:
            placed = clients.history.placed
            await eventually(lambda: len(placed) > 300, "orders")
            await Faults(shard).kill()
            before = len(placed)
            await eventually(lambda: len(placed) > before + 300, "orders on the new primary")
        verdict = compare(clients.history, cluster.owner("shop"), "shop")
        assert verdict.confirmed > 600
        assert (verdict.lost, verdict.undone, verdict.doubled) == (0, 0, 0), verdict
        audit = HoldfastCommand(tmp_path, HOLDFAST_REDIS_URL=cluster.url)("audit")
        assert audit.returncode == 0, audit.stdout
        assert "Traceback" not in service.stderr

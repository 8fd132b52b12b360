"""One failover of a service on sentinels, in the short form. The long form: `make failover`."""

from pathlib import Path

import pytest

from tests.failover.campaign import Clients, Faults, compare
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

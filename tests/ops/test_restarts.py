"""Redis is killed and started again while its keys are read: its cursors mean nothing then."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator

import pytest
from redis.exceptions import RedisError

from service.domain.errors.storage import StorageUnavailable
from service.engine.launcher import run_engine
from service.ops.audit import MAX_ATTEMPTS, audit
from service.ops.audit_report import AuditInconclusive, Finding, Report
from service.ops.export import export
from service.settings import Settings
from service.storage import keys
from service.storage.inspection import MAX_SCANS
from service.storage.opening import open_store
from service.storage.store import Store
from tests.support.engine_process import connect
from tests.support.processes import kill_processes_in
from tests.support.shop import SHOP, add_mugs, new_order
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.engine, pytest.mark.process]

ORDERS = 2500
"""So many that SCAN needs several steps."""


class Restarts:
    """Kills an embedded engine; its supervisor starts it again, on the same data."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.left = 0
        """How often the engine is killed when `maybe` is called."""

    def maybe(self, _: object = None) -> None:
        if self.left:
            self.left -= 1
            before, pid = self._server()
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: self._has_restarted(before), "an engine that was started again")

    def _server(self) -> tuple[str, int]:
        with connect(self.url) as redis:
            info = redis.info("server")
        return info["run_id"], info["process_id"]

    def _has_restarted(self, before: str) -> bool:
        try:
            return self._server()[0] != before
        except (OSError, RedisError):  # it does not listen yet, or loads its data
            return False


@pytest.fixture(scope="module")
def restarts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Restarts]:
    """An engine with a shop of many orders."""
    folder = tmp_path_factory.mktemp("restarts")
    with pytest.MonkeyPatch.context() as patch, run_engine(folder / "data") as url:
        patch.setattr("service.engine.launcher.WATCH_SECONDS", 0.02)
        patch.setattr("service.engine.launcher.RESTART_PAUSE_SECONDS", 0.1)
        asyncio.run(_fill(url))
        yield Restarts(url)
    kill_processes_in(folder)


async def _fill(url: str) -> None:
    async with open_store(settings(url)) as shop:
        [store] = shop.partitions
        for _ in range(2):
            await add_mugs(store, stock=10_000)
        for _ in range(0, ORDERS, 500):
            await asyncio.gather(*(store.orders.place(new_order((1, 1), (2, 1))) for _ in range(500)))


def settings(url: str) -> Settings:
    return Settings(redis_url=url, shop=SHOP, redis_timeout=10)


@pytest.fixture
async def store(restarts: Restarts) -> AsyncIterator[Store]:
    async with open_store(settings(restarts.url), creates_shop=False) as shop:
        [store] = shop.partitions
        yield store


async def audit_with(restarts: Restarts, store: Store, count: int) -> Report:
    """Run an audit, and restart the engine after each of its first `count` batches."""
    restarts.left = count
    try:
        return await audit(store, SHOP, restarts.maybe)
    finally:
        restarts.left = 0


async def test_an_audit_during_a_restart_has_no_false_finding(restarts: Restarts, store: Store) -> None:
    report = await audit_with(restarts, store, 1)
    assert (report.findings, report.products, report.orders) == ([], 2, ORDERS)


async def test_an_audit_during_a_restart_misses_no_finding(restarts: Restarts, store: Store) -> None:
    with connect(restarts.url) as redis:
        damaged = [keys.order(SHOP, order_id) for order_id in range(1, ORDERS + 1, 50)]
        for key in damaged:
            redis.hset(key, "id", "0")
        report = await audit_with(restarts, store, 1)
        for key in damaged:
            redis.hset(key, "id", key.rpartition(":")[2])
    assert sorted(report.findings, key=lambda finding: finding.key) == sorted(
        [Finding(key, f"has id '0', expected {key.rpartition(':')[2]}") for key in damaged],
        key=lambda finding: finding.key,
    )


async def test_an_audit_during_one_restart_after_another_is_inconclusive(restarts: Restarts, store: Store) -> None:
    with pytest.raises(AuditInconclusive, match=f"restarted or replaced during each of {MAX_ATTEMPTS} attempts"):
        await audit_with(restarts, store, 4 * MAX_ATTEMPTS)  # an attempt may notice only the second one


async def test_an_export_during_a_restart_is_complete(
    restarts: Restarts, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan_ids = store.orders.scan_ids

    async def interrupted_scan() -> AsyncIterator[int]:
        async for order_id in scan_ids():
            restarts.maybe()
            yield order_id

    monkeypatch.setattr(store.orders, "scan_ids", interrupted_scan)
    restarts.left = 1
    exported = [json.loads(line)["id"] async for line in export(store, "orders")]
    assert exported == list(range(ORDERS, 0, -1))


async def test_keys_that_cannot_be_read_between_two_restarts_are_an_error(restarts: Restarts, store: Store) -> None:
    restarts.left = MAX_SCANS

    async def read_all() -> None:
        async for names in store.inspection.scan_keys():
            restarts.maybe(names)

    with pytest.raises(StorageUnavailable, match=f"restarted or replaced {MAX_SCANS} times"):
        await read_all()

"""A run of the archive that is killed can be repeated with the same file: no order is lost, and none is in it twice."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from service.storage import keys
from service.storage.archive import EndedOrder
from tests.support.archive import LATER, ids_in, lines_of, live_ids, run
from tests.support.audited_shop import AuditedShop, SmallPages, assert_no_findings, fill, new_return, open_shop
from tests.support.fake_redis import FakeRedis
from tests.support.shop import SHOP, make_store

ARCHIVED = keys.archived(SHOP)
ANNA: dict[str, Any] = {"customer": "anna", "reference": "cart 1"}


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("torn", [False, True])
async def test_a_run_that_is_killed_at_any_moment_can_be_repeated(
    tmp_path: Path, torn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.ops.archive.ORDERS_PER_SCRIPT", 2)
    monkeypatch.setattr("service.ops.archive.BATCH", 4)
    moment, ended = 0, False
    while not ended:
        moment += 1
        path = tmp_path / f"{moment}"
        shop = await fill(open_shop(FakeRedis()))
        for _ in range(5):
            await shop.place((2, 1), **ANNA)
        shop.clock.forward(LATER)
        everything = await live_ids(shop)

        async def before(sent: int, moment: int = moment) -> None:
            if sent == moment:
                raise Killed

        killed = AuditedShop(shop.redis, shop.clock, make_store(SmallPages(shop.redis, before), clock=shop.clock))
        try:
            await run(killed, path, keep_days=0)
            ended = True
        except Killed:
            pass
        in_file = ids_in(path)
        assert everything <= {*in_file, *await live_ids(shop)}
        assert_no_findings(await shop.audit())
        if torn:
            with path.open("a") as file:
                file.write('{"shop":"test","id":10,"products":[{"prod')
        await run(shop, path, keep_days=0)
        assert sorted(ids_in(path)) == sorted(everything - {2})
        assert await live_ids(shop) == {2}
        assert_no_findings(await shop.audit())
    assert moment > 20


async def test_an_order_that_changes_after_a_killed_run_is_in_the_file_once_as_it_is(tmp_path: Path) -> None:
    shop = await fill(open_shop(FakeRedis()))
    shop.clock.forward(LATER)

    class Stopped(SmallPages):
        async def _send(self, *command: bytes | str | int) -> Any:
            if command[0] == "EVALSHA" and ARCHIVED in command:
                raise Killed
            return await super()._send(*command)

    stopped = AuditedShop(shop.redis, shop.clock, make_store(Stopped(shop.redis), clock=shop.clock))
    with pytest.raises(Killed):
        await run(stopped, tmp_path / "a", keep_days=0)
    assert ids_in(tmp_path / "a") == [1, 3, 4, 5]
    await shop.store.returns.make(1, new_return((1, 1)))
    shop.clock.forward(LATER)
    assert (await run(shop, tmp_path / "a", keep_days=0)).archived == 4
    assert ids_in(tmp_path / "a") == [3, 4, 5, 1]
    assert lines_of(tmp_path / "a")[-1]["products"][0]["returned"] == 1
    assert_no_findings(await shop.audit())


async def test_an_order_is_synced_to_the_disk_before_it_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.ops.archive.BATCH", 2)
    shop = await fill(open_shop(FakeRedis()))
    shop.clock.forward(LATER)
    path, remove, fsync = tmp_path / "a", shop.store.archive.remove, os.fsync
    synced = b""

    def note_sync(descriptor: int) -> None:
        nonlocal synced
        fsync(descriptor)
        if os.path.sameopenfile(descriptor, path_descriptor):
            synced = path.read_bytes()

    async def check_first(orders: Sequence[EndedOrder], keep_ms: int) -> list[str]:
        on_disk = {json.loads(line)["id"] for line in synced.splitlines()}
        assert {order.order.id for order in orders} <= on_disk
        return await remove(orders, keep_ms)

    path.touch()
    path_descriptor = os.open(path, os.O_RDONLY)
    monkeypatch.setattr("os.fsync", note_sync)
    monkeypatch.setattr(shop.store.archive, "remove", check_first)
    assert (await run(shop, path, keep_days=0)).archived == 4
    os.close(path_descriptor)

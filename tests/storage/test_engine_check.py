"""The checks of a real engine while a Store works: after a restart, a change of settings, a failover, with an ACL."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog

from service.domain.errors.storage import StorageError, StorageUnavailable, UnsupportedRedis
from service.engine.launcher import run_engine
from service.settings import Settings
from service.storage.connection import MultiplexedConnection
from service.storage.dial import Dialer
from service.storage.engine_check import check_regularly
from service.storage.opening import open_store
from service.storage.requirements import rights_to_try
from service.storage.scripts import load_scripts
from service.storage.store import Store
from tests.support.engine_memory import full_memory
from tests.support.network import Network
from tests.support.redis_content import dump
from tests.support.shop import SHOP, new_mug, new_order
from tests.support.waiting import eventually

pytestmark = pytest.mark.engine


@asynccontextmanager
async def opened(url: str, **settings: Any) -> AsyncIterator[Store]:
    """Give a Store as the service opens it."""
    async with open_store(replace(Settings(), redis_url=url, shop=SHOP, **settings)) as store:
        assert isinstance(store, Store)
        yield store


async def place(store: Store, product_id: int = 1, quantity: int = 1, key: str | None = None) -> bool:
    """Place an order. Return whether that was possible."""
    try:
        await store.orders.place(new_order((product_id, quantity)), key)
    except StorageError:
        return False
    return True


@pytest.fixture
def safe_engine(tmp_path: Path) -> Iterator[str]:
    """An engine of this test alone, which keeps every answered order."""
    with run_engine(tmp_path / "safe", "always") as url:
        yield url


@pytest.fixture
async def admin(safe_engine: str) -> AsyncIterator[MultiplexedConnection]:
    async with MultiplexedConnection(safe_engine, timeout=10, max_in_flight=1000) as admin:
        yield admin


async def test_no_order_is_placed_over_a_new_connection_to_an_engine_that_keeps_nothing(
    safe_engine: str, admin: MultiplexedConnection
) -> None:
    """An engine may be restarted with other settings. Orders that wait for the connection must not be sent either."""
    async with Network(safe_engine) as network, opened(network.url) as store:
        await store.products.add(new_mug(id=1, stock=1000))
        assert await place(store)
        await network.close()
        waiting = [asyncio.create_task(place(store)) for _ in range(20)]
        await admin.send("CONFIG", "SET", "appendonly", "no")
        await network.open()
        assert await asyncio.gather(*waiting) == [False] * 20
        assert await admin.send("HGET", f"{{{SHOP}}}:product:1", "stock") == "999"
        assert not await place(store)
        with pytest.raises(UnsupportedRedis, match="HOLDFAST_DURABILITY"):
            await store.check()
        await admin.send("CONFIG", "SET", "appendonly", "yes")
        await eventually(lambda: place(store), "an order")


@pytest.mark.parametrize(
    ("name", "unsafe", "safe"),
    [
        ("appendonly", "no", "yes"),
        ("appendfsync", "everysec", "always"),
        ("no-appendfsync-on-rewrite", "yes", "no"),
    ],
)
async def test_orders_are_refused_after_a_setting_was_changed_until_it_is_safe_again(
    safe_engine: str, admin: MultiplexedConnection, monkeypatch: pytest.MonkeyPatch, name: str, unsafe: str, safe: str
) -> None:
    monkeypatch.setattr("service.storage.engine_check.CHECK_INTERVAL_SECONDS", 0.01)
    async with opened(safe_engine) as store:
        await store.products.add(new_mug(id=1, stock=1000))
        watch = asyncio.create_task(check_regularly(store.check))
        with structlog.testing.capture_logs() as logs:
            await admin.send("CONFIG", "SET", name, unsafe)
            await eventually(lambda: [entry for entry in logs if entry["event"] == "redis_unusable"], "a log line")
            assert not await place(store)
            await admin.send("CONFIG", "SET", name, safe)
            await eventually(lambda: [entry for entry in logs if entry["event"] == "redis_usable"], "a log line")
        assert await place(store)
        watch.cancel()
        assert [entry["event"] for entry in logs] == ["redis_unusable", "redis_usable"]


async def test_the_log_says_that_the_data_of_a_running_service_are_gone(
    safe_engine: str, admin: MultiplexedConnection
) -> None:
    async with opened(safe_engine) as store:
        await store.products.add(new_mug(id=1, stock=1000))
        with structlog.testing.capture_logs() as logs:
            await store.check()
            assert logs == []
            await admin.send("FLUSHALL")
            for _ in range(3):
                await store.check()
        assert [(entry["event"], entry["log_level"]) for entry in logs] == [("data_changed", "error")]
        assert logs[0]["reason"] == f"{{{SHOP}}}:meta is gone"


async def test_checks_at_the_same_time_that_begin_a_shop_do_not_call_it_gone(safe_engine: str) -> None:
    with structlog.testing.capture_logs() as logs:
        async with opened(safe_engine) as store:
            await asyncio.gather(*[store.check() for _ in range(4)])
    assert [entry["event"] for entry in logs] == ["redis_connected"]


async def test_after_a_failover_the_store_connects_again_and_finds_the_new_primary(
    safe_engine: str, admin: MultiplexedConnection, tmp_path: Path
) -> None:
    """A planned failover leaves the connections open. The host name leads to the new primary."""
    with run_engine(tmp_path / "other", "always") as other_url:
        async with Network(safe_engine) as network, opened(network.url) as store:
            await store.products.add(new_mug(id=1, stock=1000))
            accepted = network.accepted
            await admin.send("REPLICAOF", "127.0.0.1", 1)
            assert not await place(store)
            with pytest.raises(UnsupportedRedis, match="replica"):
                await eventually(store.check)
            network.engine_url = other_url
            await eventually(lambda: network.accepted > accepted, "another connection")
            await eventually(lambda: checked(store), "the new primary")
            await store.products.add(new_mug(id=2, stock=10))
            assert await place(store, 2)


async def checked(store: Store) -> bool:
    try:
        await store.check()
    except StorageError:
        return False
    return True


async def test_an_idle_store_notices_that_its_engine_has_become_a_replica(
    safe_engine: str, admin: MultiplexedConnection
) -> None:
    async with opened(safe_engine) as store:
        await store.check()
        await admin.send("REPLICAOF", "127.0.0.1", 1)
        with pytest.raises(UnsupportedRedis, match="replica"):
            await store.check()
        assert not await place(store)
        await admin.send("REPLICAOF", "NO", "ONE")
        await eventually(lambda: checked(store), "the primary")


async def test_a_store_is_not_writable_while_its_engine_refuses_orders(
    safe_engine: str, admin: MultiplexedConnection
) -> None:
    async with opened(safe_engine) as store:
        await store.check()
        before = await dump(admin)
        await store.check_writable()
        assert await dump(admin) == before
        async with full_memory(admin):
            with pytest.raises(StorageUnavailable, match="OOM"):
                await store.check_writable()
        await admin.send("CONFIG", "SET", "min-replicas-to-write", 1)
        with pytest.raises(StorageUnavailable, match="NOREPLICAS"):
            await store.check_writable()
        await admin.send("CONFIG", "SET", "min-replicas-to-write", 0)
        await store.check_writable()


NEEDED = sorted(
    {
        command
        for script in load_scripts().values()
        for command in re.findall(r"redis\.p?call\('([A-Z]+)'", script.source)
    }
    - {"TIME"}
)
"""The commands that the scripts run on keys."""


def test_all_commands_of_the_scripts_are_tried() -> None:
    _, calls = rights_to_try(SHOP)
    assert set(NEEDED) <= {call.split()[0] for call in calls}


@pytest.mark.parametrize("command", NEEDED)
async def test_a_user_without_a_command_of_the_scripts_cannot_be_used(
    safe_engine: str, admin: MultiplexedConnection, command: str
) -> None:
    """Otherwise a script would run half: scripts are not rolled back."""
    await admin.send("ACL", "SETUSER", "clerk", "on", ">secret", f"~{{{SHOP}}}:*", "+@all", f"-{command.lower()}")
    before = await dump(admin)
    async with opened(safe_engine.replace("://", "://clerk:secret@")) as store:
        with pytest.raises(UnsupportedRedis, match=command.lower()):
            await store.products.add(new_mug(id=1, stock=7))
        for _ in range(2):
            assert not await place(store, quantity=7, key="k")
    assert await dump(admin) == before


@pytest.mark.parametrize("pattern", ["~other:*", f"~{{{SHOP}}}:product*", f"%R~{{{SHOP}}}:*"])
async def test_a_user_without_access_to_the_keys_of_the_shop_cannot_be_used(
    safe_engine: str, admin: MultiplexedConnection, pattern: str
) -> None:
    await admin.send("ACL", "SETUSER", "clerk", "on", ">secret", pattern, "+@all")
    async with opened(safe_engine.replace("://", "://clerk:secret@")) as store:
        with pytest.raises(UnsupportedRedis, match=r"right|keys"):
            await store.products.add(new_mug(id=1, stock=7))


async def test_a_user_that_may_not_run_scripts_cannot_be_used(safe_engine: str, admin: MultiplexedConnection) -> None:
    await admin.send("ACL", "SETUSER", "clerk", "on", ">secret", "~*", "+@all", "-eval")
    async with opened(safe_engine.replace("://", "://clerk:secret@")) as store:
        with pytest.raises(UnsupportedRedis, match="cannot run scripts"):
            await store.check()


@pytest.mark.parametrize(
    "url",
    [
        "redis://:pa#ss@localhost:6379/0",
        "redis://:pa/ss@localhost:6379/0",
        "redis://:pa?ss@localhost:6379/0",
        "redis://user:pa#ss@localhost",
        "redis://:63?pass@localhost:6379/0",
        "redis://:6379?pass@localhost",
        "unix://:pa?ss@/tmp/redis.sock",
        "rediss://:pa#ss@localhost:6379/0",
        "unix://:pa#ss@/tmp/redis.sock",
        "redis://localhost/pass",
        "redis://localhost:6379/0/pass",
        "redis://localhost:6379/0#pass",
        "redis://[pass",
        "redis://localhost:pass/0",
    ],
)
def test_a_wrong_url_is_refused_without_any_part_of_it(url: str) -> None:
    with pytest.raises(UnsupportedRedis) as error:
        Dialer(url, timeout=1)
    assert "pa" not in error.value.reason.replace("path", "").replace("password", "")
    assert "%23" in error.value.reason

"""Which Redis may be used."""

import pytest

from service.domain.errors.storage import UnsupportedRedis
from service.settings import Durability
from service.storage.connection import MultiplexedConnection
from service.storage.requirements import SCHEMA_VERSION, check_schema_version, check_settings, check_version
from tests.support.shop import make_store

SAFE = {
    "appendonly": "yes",
    "appendfsync": "always",
    "no-appendfsync-on-rewrite": "no",
    "maxmemory": "0",
    "maxmemory-policy": "noeviction",
}


def reply(**changes: str | None) -> list[str]:
    """What CONFIG GET says, with changes; None leaves a setting out, as some managed ones do."""
    settings: dict[str, str | None] = {**SAFE, **{name.replace("_", "-"): value for name, value in changes.items()}}
    return [part for name, value in settings.items() if value is not None for part in (name, value)]


@pytest.mark.parametrize("info", ["redis_version:7.0.0\r\n", "redis_version:8.2.1", "redis_version:10.0.0"])
def test_redis_from_7_on_may_be_used(info: str) -> None:
    check_version(f"# Server\r\n{info}")


@pytest.mark.parametrize(
    "info", ["redis_version:6.2.14\r\n", "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:7.2.5\r\n"]
)
def test_an_older_engine_is_refused(info: str) -> None:
    with pytest.raises(UnsupportedRedis, match="needs"):
        check_version(info)


def test_an_engine_of_32_bits_is_refused() -> None:
    with pytest.raises(UnsupportedRedis, match="32 bits"):
        check_version("redis_version:7.2.4\r\narch_bits:32\r\n")


def test_valkey_8_may_be_used_whatever_redis_it_says_it_is() -> None:
    check_version("redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.0.0\r\n")


@pytest.mark.parametrize(
    ("changes", "promised"),
    [
        ({}, "always"),
        ({"appendfsync": "everysec"}, "everysec"),
        ({"appendfsync": "no"}, "none"),
        ({"appendonly": "no"}, "none"),
        ({"no_appendfsync_on_rewrite": "yes"}, "none"),
        ({"appendfsync": "everysec", "no_appendfsync_on_rewrite": "yes"}, "none"),
        ({"appendonly": None}, "none"),
        ({"no_appendfsync_on_rewrite": None}, "none"),
    ],
)
@pytest.mark.parametrize("expected", ["none", "everysec", "always"])
def test_an_engine_that_promises_less_than_is_expected_is_refused(
    changes: dict[str, str | None], promised: Durability, expected: Durability
) -> None:
    order = ["none", "everysec", "always"]
    if order.index(promised) >= order.index(expected):
        check_settings(reply(**changes), expected)
    else:
        with pytest.raises(
            UnsupportedRedis, match=f"HOLDFAST_DURABILITY is {expected}, but the engine keeps {promised}"
        ):
            check_settings(reply(**changes), expected)


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-random", "volatile-ttl", None])
def test_an_engine_that_throws_keys_away_is_refused_at_any_durability(policy: str | None) -> None:
    with pytest.raises(UnsupportedRedis, match="noeviction"):
        check_settings(reply(maxmemory="1000000", maxmemory_policy=policy), "none")


def test_an_engine_without_a_bound_of_memory_throws_nothing_away() -> None:
    check_settings(reply(maxmemory="0", maxmemory_policy="allkeys-lru"), "always")


def test_a_newer_layout_is_refused() -> None:
    check_schema_version(SCHEMA_VERSION)
    with pytest.raises(UnsupportedRedis, match=f"layout {SCHEMA_VERSION + 1}"):
        check_schema_version(SCHEMA_VERSION + 1)


async def test_a_store_refuses_an_engine_that_became_unfit_until_it_is_fit_again(wire: MultiplexedConnection) -> None:
    store = make_store(wire)
    await store.check()
    await wire.send("CONFIG", "SET", "maxmemory", "1gb", "maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(UnsupportedRedis):
            await store.check()
        with pytest.raises(UnsupportedRedis):
            await store.orders.last_id()
    finally:
        await wire.send("CONFIG", "SET", "maxmemory", "0", "maxmemory-policy", "noeviction")
    assert await store.orders.last_id() == 0


async def test_a_check_of_a_known_shop_writes_nothing_so_that_it_works_with_memory_full(
    wire: MultiplexedConnection,
) -> None:
    await make_store(wire).check()
    await wire.send("CONFIG", "SET", "maxmemory", "1")
    try:
        await make_store(wire).check()
    finally:
        await wire.send("CONFIG", "SET", "maxmemory", "0")

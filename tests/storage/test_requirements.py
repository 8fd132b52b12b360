"""Which engines may be used: by version, by settings and by the schema version of their data."""

import pytest

from service.domain.errors.storage import UnsupportedRedis
from service.settings import Durability
from service.storage.connection import MultiplexedConnection
from service.storage.requirements import SCHEMA_VERSION, check_schema_version, check_settings, check_version
from tests.support.engine_memory import full_memory
from tests.support.shop import make_store

SAFE_SETTINGS = {
    "appendonly": "yes",
    "appendfsync": "always",
    "no-appendfsync-on-rewrite": "no",
    "maxmemory": "0",
    "maxmemory-policy": "noeviction",
}


def config_reply(**changes: str | None) -> list[str]:
    """Return the reply of CONFIG GET with these changes. None leaves a setting out, as some managed services do."""
    settings: dict[str, str | None] = {
        **SAFE_SETTINGS,
        **{name.replace("_", "-"): value for name, value in changes.items()},
    }
    return [part for name, value in settings.items() if value is not None for part in (name, value)]


@pytest.mark.parametrize("info", ["redis_version:7.0.0\r\n", "redis_version:8.2.1", "redis_version:10.0.0"])
def test_redis_7_and_later_versions_may_be_used(info: str) -> None:
    check_version(f"# Server\r\n{info}")


@pytest.mark.parametrize(
    "info", ["redis_version:6.2.14\r\n", "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:7.2.5\r\n"]
)
def test_an_older_engine_is_refused(info: str) -> None:
    with pytest.raises(UnsupportedRedis, match="needs"):
        check_version(info)


def test_a_32_bit_engine_is_refused() -> None:
    with pytest.raises(UnsupportedRedis, match="32 bits"):
        check_version("redis_version:7.2.4\r\narch_bits:32\r\n")


def test_valkey_8_may_be_used_with_any_redis_version_that_it_reports() -> None:
    check_version("redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.0.0\r\n")


@pytest.mark.parametrize(
    ("changes", "actual"),
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
@pytest.mark.parametrize("required", ["none", "everysec", "always"])
def test_an_engine_that_is_less_durable_than_required_is_refused(
    changes: dict[str, str | None], actual: Durability, required: Durability
) -> None:
    order = ["none", "everysec", "always"]
    if order.index(actual) >= order.index(required):
        check_settings(config_reply(**changes), required)
    else:
        with pytest.raises(UnsupportedRedis, match=f"{required!r}, but this Redis is only configured for {actual!r}"):
            check_settings(config_reply(**changes), required)


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-random", "volatile-ttl", None])
def test_an_engine_that_evicts_keys_is_refused_at_any_durability(policy: str | None) -> None:
    with pytest.raises(UnsupportedRedis, match="noeviction"):
        check_settings(config_reply(maxmemory="1000000", maxmemory_policy=policy), "none")


def test_an_eviction_policy_without_a_memory_limit_is_accepted() -> None:
    check_settings(config_reply(maxmemory="0", maxmemory_policy="allkeys-lru"), "always")


def test_data_of_a_newer_schema_version_is_refused() -> None:
    check_schema_version(str(SCHEMA_VERSION))
    with pytest.raises(UnsupportedRedis, match=f"schema version {SCHEMA_VERSION + 1}"):
        check_schema_version(str(SCHEMA_VERSION + 1))


def test_a_schema_version_that_is_not_a_number_is_refused() -> None:
    with pytest.raises(UnsupportedRedis, match="'many', no number"):
        check_schema_version("many")


async def test_a_store_refuses_to_work_while_its_engine_is_unsupported(engine: MultiplexedConnection) -> None:
    store = make_store(engine)
    await store.check()
    await engine.send("CONFIG", "SET", "maxmemory", "1gb", "maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(UnsupportedRedis):
            await store.check()
        with pytest.raises(UnsupportedRedis):
            await store.orders.last_id()
    finally:
        await engine.send("CONFIG", "SET", "maxmemory", "0", "maxmemory-policy", "noeviction")
    assert await store.orders.last_id() == 0


async def test_an_existing_shop_can_be_checked_with_full_memory_because_nothing_is_written(
    engine: MultiplexedConnection,
) -> None:
    await make_store(engine).check()
    async with full_memory(engine):
        await make_store(engine).check()

"""What the doctor says about a Redis: pure functions of what was read."""

from typing import Any

import pytest

from service.ops.doctor import examine
from service.ops.doctor_finding import Finding
from service.settings import Settings
from service.storage.diagnosis import Diagnosis, Growth, Sizes
from service.storage.requirements import SCHEMA_VERSION

GOOD = Diagnosis(
    info={
        "redis_version": "8.0.1",
        "role": "master",
        "connected_slaves": "0",
        "used_memory": "1000000",
        "maxmemory": "0",
        "aof_enabled": "1",
        "aof_last_write_status": "ok",
        "aof_last_bgrewrite_status": "ok",
    },
    config={
        "appendonly": "yes",
        "appendfsync": "always",
        "no-appendfsync-on-rewrite": "no",
        "maxmemory": "0",
        "maxmemory-policy": "noeviction",
        "latency-monitor-threshold": "10",
        "timeout": "0",
        "maxclients": "10000",
    },
    user="holdfast",
    rights=["denied"],
    rights_error="",
    forbidden=[],
    pings=[0.0001] * 100,
    scripts=[0.0002] * 100,
    writes=[],
    slow_writes={},
    clock_ahead=0.001,
    clock_error=0.0001,
    schema_version=str(SCHEMA_VERSION),
    sizes=Sizes(3, 10, 2, 0, 20, 0, 30),
    groups={},
)


def findings(**changes: Any) -> dict[str, Finding]:
    """Return the findings about a good Redis with some changes, by name. `info`, `config`: added to the good ones."""
    for name in ("info", "config"):
        if changes.get(name):
            changes[name] = {**getattr(GOOD, name), **changes[name]}
    return {found.name: found for found in examine(GOOD._replace(**changes), Settings(), "redis-cli")}


def test_all_is_well() -> None:
    assert {found.mark for found in findings().values()} == {"ok"}


@pytest.mark.parametrize(
    ("changes", "name", "mark", "words"),
    [
        ({"info": {"redis_version": "6.2.7"}}, "version", "bad", "needs 7.0 or later"),
        ({"info": {"cluster_enabled": "1"}}, "cluster", "bad", "a node of a Redis Cluster"),
        ({"info": {"role": "slave"}}, "role", "bad", "replica"),
        ({"info": {"connected_slaves": "1", "slave0": "ip=1,lag=7"}}, "role", "ok", "the slowest 7 s behind"),
        ({"info": {"aof_last_write_status": "err"}}, "file", "bad", "disk may be full"),
        ({"info": {"aof_last_bgrewrite_status": "err"}}, "file", "bad", "rewrite"),
        ({"info": {"maxmemory": "1050000"}}, "memory", "bad", "no order can be placed"),
        ({"info": {"evicted_keys": "5"}}, "evicted", "bad", "5 keys were deleted"),
        ({"info": {"aof_delayed_fsync": "3"}}, "fsync", "note", "3 writes had to wait"),
        ({"config": {"latency-monitor-threshold": "0"}}, "fsync", "note", "monitor is off"),
        ({"slow_writes": {"aof-fsync-always": (0.02, 0.5)}}, "fsync", "note", "took 500.00 ms"),
        ({"slow_writes": {"aof-fsync-always": (0.02, 0.05)}}, "fsync", "ok", "took 50.00 ms"),
        ({"pings": [0.01] * 9}, "latency", "note", "nearer to Redis"),
        ({"clock_ahead": -30.0}, "clock", "bad", "30000 ms behind"),
        ({"clock_ahead": None}, "clock", "note", "time"),
        ({"schema_version": None}, "layout", "note", "no shop 'shop'"),
        ({"schema_version": "9"}, "layout", "bad", "newer Holdfast"),
        ({"schema_version": "1"}, "layout", "bad", "holdfast upgrade"),
        ({"unfinished_upgrade": "5-1"}, "layout", "bad", "holdfast upgrade"),
        ({"sizes": Sizes(1, 1, 1, 1, 1, 1, 1)}, "holds", "bad", "Overdue holds: 1."),
        ({"groups": {"shipping": None}}, "group", "note", "unknown number"),
        ({"groups": {"shipping": 7}}, "group", "ok", "7 events"),
        ({"config": {"timeout": "60"}}, "timeout", "note", "60 s"),
        ({"config": {"maxclients": "5"}}, "maxclients", "bad", "maxclients is 5"),
        ({"forbidden": ["xinfo|groups"]}, "rights", "note", "xinfo|groups"),
        ({"rights": ["denied", "XADD {shop}:events"]}, "rights", "bad", "xadd"),
        ({"rights": None, "rights_error": "NOPERM"}, "rights", "bad", "cannot run scripts"),
    ],
)
def test_a_fact_is_found(changes: dict[str, Any], name: str, mark: str, words: str) -> None:
    found = findings(**changes)[name]
    assert found.mark == mark
    assert words in found.sentence
    assert found.sentence.endswith(".")
    assert found.commands or mark != "bad"


@pytest.mark.parametrize(
    ("orders_per_day", "mark", "days"), [(100_000, "note", "in 9 days"), (10_000, "ok", "in 90 days")]
)
def test_the_forecast_says_when_the_memory_is_full(orders_per_day: float, mark: str, days: str) -> None:
    info = {"used_memory": "100000000", "maxmemory": "1000000000"}
    found = findings(info=info, growth=Growth(100_000, orders_per_day))["growth"]
    assert found.mark == mark
    assert days in found.sentence
    assert bool(found.commands) == (mark == "note")


@pytest.mark.parametrize("growth", [None, Growth(9_999, 1_000_000), Growth(100_000, 0)])
def test_there_is_no_forecast_without_enough_orders(growth: Growth | None) -> None:
    assert "growth" not in findings(info={"maxmemory": "1000000000"}, growth=growth)


@pytest.mark.parametrize(
    ("connected", "mark", "words"),
    [
        ("1", "bad", "HOLDFAST_WAIT_REPLICAS is 2, but connected replicas: 1"),
        ("2", "ok", "Holdfast waits for 2 of them."),
    ],
)
def test_too_few_replicas_are_found(connected: str, mark: str, words: str) -> None:
    assert GOOD.info is not None
    found = GOOD._replace(info={**GOOD.info, "connected_slaves": connected})
    [role] = [each for each in examine(found, Settings(wait_replicas=2), "redis-cli") if each.name == "role"]
    assert role.mark == mark
    assert words in role.sentence

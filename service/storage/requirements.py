"""Decides whether Holdfast may use a Redis: its version, its durability, and the schema version of its data.

Pure functions.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from service.domain.errors.storage import ReplicaRedis, UnsupportedRedis
from service.settings import Durability
from service.storage import keys
from service.storage.replies import read_map

SCHEMA_VERSION: Final = 2
"""Version of the keys in keys.py and of their content.

1: from the beginning. Programs of that time do not know customers, rules about the sale, returns, archived orders and
   skipped ids: they would sell more than a limit, and would damage counts.
2: each order has the moments of its completion and its returns. Older programs refuse such data.
"""

LAYOUT_FIELD: Final = "layout"
"""The field of `{shop}:meta` that has the schema version."""

UPGRADE_FIELD: Final = "upgrade"
"""The field of `{shop}:meta` that is there as long as an upgrade is not finished."""

PARTITIONS_FIELD: Final = "partitions"
"""The field of `{shop}:meta`, and of each `{shop:p}:meta`, that has the number of partitions, if there are several."""

ENGINE_SETTINGS: Final = ("appendonly", "appendfsync", "no-appendfsync-on-rewrite", "maxmemory", "maxmemory-policy")

_DURABILITIES: Final[tuple[Durability, ...]] = ("none", "everysec", "always")


def check_version(info: str) -> None:
    """Raise UnsupportedRedis below Redis 7.0 and Valkey 8, and on 32 bits. `info` is the reply to INFO server."""
    facts = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
    name, oldest = ("valkey_version", 8) if "valkey_version" in facts else ("redis_version", 7)
    if int(facts[name].partition(".")[0]) < oldest:
        raise UnsupportedRedis(f"this Redis has {name} {facts[name]}, Holdfast needs {oldest}.0 or later")
    if facts.get("arch_bits") == "32":
        raise UnsupportedRedis("this Redis is built for 32 bits, where its scripts cannot write numbers from 2^31 on")


def read_run_id(info: str) -> str | None:
    """Return the id of the running server, a new one after each start. `info` is the reply to INFO server."""
    match = re.search(r"^run_id:(\w+)", info, re.MULTILINE)
    return match and match[1]


def check_settings(reply: Mapping[str, str] | Sequence[str], expected: Durability) -> None:
    """Raise UnsupportedRedis if Redis is less durable than `expected`, or evicts keys.

    `reply` is the reply to CONFIG GET of ENGINE_SETTINGS. docs/operations.md, "Durability", has a table of what each
    setting preserves.
    """
    found = read_map(reply)
    if found.get("maxmemory") != "0" and found.get("maxmemory-policy") != "noeviction":
        raise UnsupportedRedis(
            f"this Redis deletes keys when its memory is full (maxmemory-policy "
            f"{found.get('maxmemory-policy', 'unknown')}), so it could delete data of the shop. "
            "Set maxmemory-policy to noeviction"
        )
    # While Redis rewrites its file, `no-appendfsync-on-rewrite yes` syncs nothing at all.
    synced = found.get("appendonly") == "yes" and found.get("no-appendfsync-on-rewrite") == "no"
    promised: Durability = "none"
    if synced and found.get("appendfsync") in ("always", "everysec"):
        promised = "always" if found["appendfsync"] == "always" else "everysec"
    if _DURABILITIES.index(promised) < _DURABILITIES.index(expected):
        settings = ", ".join(f"{name} {found.get(name, 'unknown')}" for name in ENGINE_SETTINGS[:3])
        raise UnsupportedRedis(
            f"HOLDFAST_DURABILITY is {expected!r}, but this Redis is only configured for {promised!r} ({settings}). "
            "Change the settings of Redis, or lower HOLDFAST_DURABILITY if you accept losing recent orders"
        )


def check_role(info: str) -> None:
    """Raise ReplicaRedis if this Redis is a replica. `info` is the reply to INFO replication."""
    if "role:slave" in info.split():
        raise ReplicaRedis("this Redis is a replica, which takes no writes. Use the address of the primary")


_TRIED_COMMANDS: Final = (
    "EXISTS", "TYPE", "GET", "HGET f", "HGETALL", "HMGET f",
    "XLEN", "ZCARD", "ZSCORE m", "ZMSCORE m", "ZCOUNT 0 0", "ZRANGEBYSCORE 0 0",
    # The rest would write. Redis checks the rights first, and then refuses writes of a read-only script.
    "HSET f v", "INCRBY 1", "PEXPIRE 1", "XADD * f v", "ZADD 1 m",
    "ZREM m", "HDEL f", "HSETNX f v", "XREVRANGE + - COUNT 0",
)  # fmt: skip
"""Each command that the scripts run on a key, with arguments that it accepts. A test compares it with `lua/`."""


def rights_to_try(shop: str) -> tuple[list[str], list[str]]:
    """Return KEYS and ARGV of lua/check_rights.lua: one key of each kind, and all commands that the scripts need."""
    names = [
        keys.product(shop, 0),
        keys.products(shop),
        keys.order(shop, 0),
        keys.holds(shop),
        keys.pending(shop),
        keys.customer(shop, "0"),
        keys.customer_orders(shop, "0"),
        keys.reference_orders(shop, "0"),
        keys.idempotency(shop, "0"),
        keys.events(shop),
        keys.product_ids(shop),
        keys.order_ids(shop),
        keys.meta(shop),
    ]
    return names, list(_TRIED_COMMANDS)


def check_rights(reply: list[str]) -> None:
    """Raise UnsupportedRedis if the user lacks rights. `reply` is that of lua/check_rights.lua."""
    denied = [line.split(" ", 1) for line in reply[1:]]
    if not denied:
        return
    commands = sorted({command.lower() for command, _ in denied})
    first_key = denied[0][1]
    raise UnsupportedRedis(
        f"the Redis user lacks rights: it may not run {', '.join(commands)} on {first_key}. "
        'Give it the rights that docs/operations.md lists under "Your own Redis"'
    )


def check_partitions(text: str | None, expected: int) -> None:
    """Raise UnsupportedRedis if a shop that exists has another number of partitions. `text`: of PARTITIONS_FIELD."""
    if (text or "1") != str(expected):
        missing = ""
        if text and text.isdecimal() and int(text) > expected:
            missing = ". If the data of a partition are missing, see docs/scale.md#if-the-data-of-a-partition-are-lost"
        raise UnsupportedRedis(
            f"the shop has {text or 'no'} partitions, but HOLDFAST_PARTITIONS is {expected}. The number cannot be "
            f"changed: set HOLDFAST_PARTITIONS to {text or 1}, or choose another HOLDFAST_SHOP{missing}"
        )


def lost_data(key: str) -> str:
    """Return the reason to refuse data that have lost their schema version. `key`: the key that should have it."""
    return (
        f"`{LAYOUT_FIELD}` is missing in {key}, but the shop has partitions that were begun: their data are lost, or "
        "in another Redis. A partition without its data would sell units again. Bring the data back: see "
        "docs/scale.md#if-the-data-of-a-partition-are-lost"
    )


def check_schema_version(text: str, unfinished: str | None = None, *, older_is_usable: bool = False) -> None:
    """Raise UnsupportedRedis if another version of Holdfast wrote the data, or another program.

    `text`: their schema version. `unfinished`: what UPGRADE_FIELD has. `older_is_usable`: for what upgrades the data.
    """
    try:
        version = int(text)
    except ValueError:
        raise UnsupportedRedis(f"the schema version of the data in Redis is {text[:100]!r}, no number") from None
    if version > SCHEMA_VERSION:
        raise UnsupportedRedis(
            f"the data in Redis have schema version {version}, but this Holdfast knows only {SCHEMA_VERSION}: "
            "use the newer Holdfast that wrote them"
        )
    if older_is_usable:
        return
    if version < SCHEMA_VERSION:
        raise UnsupportedRedis(
            f"the data in Redis have schema version {version}, but this Holdfast needs {SCHEMA_VERSION}: "
            "stop all services of the shop, make a backup, and run `holdfast upgrade`"
        )
    if unfinished is not None:
        raise UnsupportedRedis("an upgrade of the data in Redis is not finished: run `holdfast upgrade` again")

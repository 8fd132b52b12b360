"""Decides whether Holdfast may use a Redis: its version, its durability, and the schema version of its data.

Pure functions.
"""

from typing import Final

from service.domain.errors.storage import UnsupportedRedis
from service.settings import Durability

SCHEMA_VERSION: Final = 1
"""Version of the keys in keys.py and of their content, stored in the field `layout` of `{shop}:meta`."""

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


def check_settings(reply: list[str], expected: Durability) -> None:
    """Raise UnsupportedRedis if Redis is less durable than `expected`, or evicts keys.

    `reply` is the reply to CONFIG GET of ENGINE_SETTINGS. docs/operations.md, "Durability", has a table of what each
    setting preserves.
    """
    found = dict(zip(reply[::2], reply[1::2], strict=True))
    if found.get("maxmemory", "0") != "0" and found.get("maxmemory-policy") != "noeviction":
        raise UnsupportedRedis(
            f"this Redis deletes keys when its memory is full (maxmemory-policy {found.get('maxmemory-policy')}), "
            "so it could delete data of the shop. Set maxmemory-policy to noeviction"
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


def check_schema_version(version: int) -> None:
    """Raise UnsupportedRedis if a newer Holdfast wrote the data."""
    if version > SCHEMA_VERSION:
        raise UnsupportedRedis(
            f"the data in Redis have schema version {version}, but this Holdfast knows only {SCHEMA_VERSION}: "
            "use the newer Holdfast that wrote them"
        )

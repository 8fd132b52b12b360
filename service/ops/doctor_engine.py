"""Says what is good about the settings and the state of a Redis, what must be mended, and how."""

from collections.abc import Iterator
from typing import Final

from service.domain.errors.storage import UnsupportedRedis
from service.ops.doctor_finding import Finding, as_sentence, as_size, not_allowed
from service.settings import Settings
from service.storage.diagnosis import Diagnosis
from service.storage.requirements import ENGINE_SETTINGS, check_role, check_settings, check_version

MIN_ORDERS: Final = 10_000
"""With fewer orders, most of the memory holds other data, and the forecast would name a day that is much too early."""

FORECAST_DAYS: Final = 14
"""If the memory will be full within so many days, the doctor says how to prevent it."""


def version(found: Diagnosis, settings: Settings, redis_cli: str) -> Iterator[Finding]:
    """Say whether Redis is new enough, and whether it is a node of a cluster although the URL is not that of one."""
    if found.info is None:
        yield not_allowed("version", "info")
        return
    name, version = _engine(found)
    try:
        check_version("\n".join(f"{key}:{value}" for key, value in found.info.items()))
    except UnsupportedRedis as error:
        yield Finding("bad", "version", f"{as_sentence(error.reason)}", ("install a newer version",))
        return
    yield Finding("ok", "version", f"{name} {version} is new enough.")
    if found.info.get("cluster_enabled") == "1" and "+cluster://" not in (settings.redis_url or ""):
        sentence = "This is a node of a Redis Cluster, but HOLDFAST_REDIS_URL is that of a single Redis."
        yield Finding("bad", "cluster", sentence, ("HOLDFAST_REDIS_URL=redis+cluster://HOST:PORT",))


def _engine(found: Diagnosis) -> tuple[str, str]:
    assert found.info is not None
    if "valkey_version" in found.info:
        return "Valkey", found.info["valkey_version"]
    return "Redis", found.info.get("redis_version", "of an unknown version")


def role(found: Diagnosis, settings: Settings, redis_cli: str) -> Iterator[Finding]:
    """Say whether Redis is a primary, and how far its replicas are behind."""
    if found.info is None:
        return
    try:
        check_role(f"role:{found.info.get('role')}")
    except UnsupportedRedis as error:
        yield Finding(
            "bad", "role", as_sentence(error.reason), (f"{redis_cli} REPLICAOF NO ONE   # or use the primary",)
        )
        return
    replicas = int(found.info.get("connected_slaves", 0))
    needed = settings.wait_replicas
    if replicas < needed:
        sentence = (
            f"HOLDFAST_WAIT_REPLICAS is {needed}, but connected replicas: {replicas}. No change can be confirmed."
        )
        yield Finding("bad", "role", sentence, (f"{redis_cli} INFO replication   # connect the replicas",))
        return
    if replicas == 0:
        sentence = (
            "This is a primary without replicas: if its machine is lost, so are the orders since the last backup."
        )
    else:
        lags = [value for key, value in found.info.items() if key.startswith("slave") and "lag=" in value]
        worst = max((int(value.rpartition("lag=")[2].split(",")[0]) for value in lags), default=0)
        sentence = (
            f"This is a primary; replicas: {replicas}, the slowest {worst} s behind. "
            f"Holdfast waits for {needed or 'none'} of them."
        )
    yield Finding("ok", "role", sentence)


def durability(found: Diagnosis, settings: Settings, redis_cli: str) -> Iterator[Finding]:
    """Say what an answered order survives, and whether keys are deleted when memory is full."""
    if found.config is None:
        yield not_allowed("durability", "config|get")
        return
    reply = [part for name in ENGINE_SETTINGS if name in found.config for part in (name, found.config[name])]
    evicts = found.config.get("maxmemory") != "0" and found.config.get("maxmemory-policy") != "noeviction"
    wanted = {"appendonly": "yes", "no-appendfsync-on-rewrite": "no", "appendfsync": settings.durability}
    if evicts:
        yield Finding(
            "bad",
            "eviction",
            f"When memory is full, Redis deletes keys ({found.config.get('maxmemory-policy')}): orders would vanish.",
            (f"{redis_cli} CONFIG SET maxmemory-policy noeviction",),
        )
        reply = [*reply[:-2], "maxmemory-policy", "noeviction"]
    else:
        yield Finding("ok", "eviction", "Redis never deletes keys when memory is full.")
    try:
        check_settings(reply, settings.durability)
    except UnsupportedRedis as error:
        accepted = ("always", "everysec") if settings.durability == "everysec" else ("always",)
        commands = [
            f"{redis_cli} CONFIG SET {name} {value}"
            for name, value in wanted.items()
            if found.config.get(name) != value and not (name == "appendfsync" and found.config.get(name) in accepted)
        ]
        yield Finding("bad", "durability", as_sentence(error.reason), (*commands, f"{redis_cli} CONFIG REWRITE"))
        return
    survives = {"always": "a power cut", "everysec": "a crash of Redis; a power cut may lose the last second"}
    yield Finding(
        "ok",
        "durability",
        f"An answered order survives {survives[settings.durability]}."
        if settings.durability in survives
        else f"HOLDFAST_DURABILITY is none: an order survives what appendfsync {found.config.get('appendfsync')} and "
        f"appendonly {found.config.get('appendonly')} preserve.",
    )


def file(found: Diagnosis, settings: Settings, redis_cli: str) -> Iterator[Finding]:
    """Say whether the append-only file can be written."""
    info = found.info
    if info is None or info.get("aof_enabled") != "1":
        return
    if info.get("aof_last_write_status") != "ok":
        yield Finding("bad", "file", "The last write of the append-only file failed: the disk may be full.", ("df -h",))
    elif info.get("aof_last_bgrewrite_status") != "ok":
        command = f"{redis_cli} BGREWRITEAOF   # when there is room on the disk"
        yield Finding("bad", "file", "The last rewrite of the append-only file failed, so it grows.", (command,))
    else:
        size = as_size(int(info.get("aof_current_size", 0)))
        yield Finding("ok", "file", f"The append-only file has {size}; its last write and rewrite worked.")


def memory(found: Diagnosis, settings: Settings, redis_cli: str) -> Iterator[Finding]:
    """Say how much memory Redis uses, and when its memory will be full."""
    if found.info is None:
        return
    used, limit = int(found.info.get("used_memory", 0)), int(found.info.get("maxmemory", 0))
    if limit and used > 0.9 * limit:
        yield Finding(
            "bad",
            "memory",
            f"{as_size(used)} of maxmemory {as_size(limit)} are used: soon, no order can be placed.",
            (f"{redis_cli} CONFIG SET maxmemory {2 * limit}   # if the machine has so much",),
        )
        return
    system = int(found.info.get("total_system_memory", 0))
    of = f" of maxmemory {as_size(limit)}" if limit else f"; the machine has {as_size(system)}" if system else ""
    yield Finding("ok", "memory", f"{as_size(used)} are used{of}.")
    yield from _forecast(found, used, limit or system, redis_cli)
    if evicted := int(found.info.get("evicted_keys", 0)):
        yield Finding(
            "bad", "evicted", f"{evicted:,} keys were deleted for memory since Redis started.", ("holdfast audit",)
        )


def _forecast(found: Diagnosis, used: int, limit: int, redis_cli: str) -> Iterator[Finding]:
    """Say when the memory will be full if orders come as often as now, and each needs as much memory as the average."""
    growth = found.growth
    if growth is None or growth.orders < MIN_ORDERS or growth.orders_per_day < 1 or limit <= used:
        return
    days = (limit - used) / (growth.orders_per_day * used / growth.orders)
    sentence = f"At {growth.orders_per_day:,.0f} orders a day, as the events say, memory is full in {days:,.0f} days."
    if days > FORECAST_DAYS:
        yield Finding("ok", "growth", sentence)
        return
    commands = ("holdfast archive --before TIME --to FILE   # or more memory",)
    yield Finding("note", "growth", sentence, commands)


def limits(found: Diagnosis, settings: Settings, redis_cli: str) -> Iterator[Finding]:
    """Say whether Redis closes idle connections, and whether it allows enough connections for the workers."""
    if found.config is None:
        return
    if found.config.get("timeout", "0") != "0":
        sentence = (
            f"Redis closes connections that are idle for {found.config['timeout']} s. Holdfast opens a new one then."
        )
        yield Finding("note", "timeout", sentence, (f"{redis_cli} CONFIG SET timeout 0",))
    if int(found.config.get("maxclients", 10_000)) < settings.workers + 10:
        sentence = f"maxclients is {found.config['maxclients']}: each worker needs one connection."
        yield Finding("bad", "maxclients", sentence, (f"{redis_cli} CONFIG SET maxclients 10000",))

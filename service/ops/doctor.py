"""Says what is good about a Redis, what must be mended, and how. Pure functions of what was read."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal, NamedTuple

from service.domain.errors.storage import UnsupportedRedis
from service.settings import Settings
from service.storage.diagnosis import Diagnosis
from service.storage.requirements import (
    ENGINE_SETTINGS,
    SCHEMA_VERSION,
    check_rights,
    check_role,
    check_schema_version,
    check_settings,
    check_version,
)

SLOW_ROUND_TRIP_SECONDS = 0.005
"""A median above this: an order cannot be answered faster, and it is a typical distance to another region."""

SLOW_WRITE_SECONDS = 0.1
"""All orders wait for a write that takes this long."""

MAX_CLOCK_DIFFERENCE_SECONDS = 2.0
"""More confuses people who compare logs. Holds do not care: only the clock of Redis decides."""


MIN_ORDERS: Final = 10_000
"""With fewer orders, most of the memory holds other data, and the forecast would name a day that is much too early."""

FORECAST_DAYS: Final = 14
"""If the memory is full within so many days, something should be done."""


class Finding(NamedTuple):
    """The result of a check. `commands`: how to mend it. `lines`: what was found, drawn."""

    mark: Literal["ok", "note", "bad"]
    name: str
    sentence: str
    commands: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()


def unreachable(reason: str, settings: Settings) -> Finding:
    """Return the finding about a Redis that cannot be asked."""
    hint = "" if settings.redis_url is None else " Check HOLDFAST_REDIS_URL."
    return Finding("bad", "connection", f"Redis cannot be reached: {reason.rstrip('.')}.{hint}")


def examine(found: Diagnosis, settings: Settings, redis_cli: str) -> list[Finding]:
    """Return a finding for each check. `redis_cli`: the beginning of a command for this Redis."""
    checks: tuple[Callable[[Diagnosis, Settings, str], Iterator[Finding]], ...] = (
        *(_version, _role, _durability, _file, _memory, _rights, _latency, _writes, _clock),
        *(_layout, _sizes, _groups, _limits),
    )
    return [finding for check in checks for finding in check(found, settings, redis_cli)]


def _not_allowed(name: str, right: str) -> Finding:
    return Finding("note", name, f"Could not be checked: the user may not run {right}.", (f"give it +{right}",))


def _version(found: Diagnosis, settings: Settings, redis_cli: str) -> Iterator[Finding]:
    if found.info is None:
        yield _not_allowed("version", "info")
        return
    name, version = _engine(found)
    try:
        check_version("\n".join(f"{key}:{value}" for key, value in found.info.items()))
    except UnsupportedRedis as error:
        yield Finding("bad", "version", f"{_sentence(error.reason)}", ("install a newer version",))
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


def _role(found: Diagnosis, settings: Settings, redis_cli: str) -> Iterator[Finding]:
    if found.info is None:
        return
    try:
        check_role(f"role:{found.info.get('role')}")
    except UnsupportedRedis as error:
        yield Finding("bad", "role", _sentence(error.reason), (f"{redis_cli} REPLICAOF NO ONE   # or use the primary",))
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


def _durability(found: Diagnosis, settings: Settings, redis_cli: str) -> Iterator[Finding]:
    if found.config is None:
        yield _not_allowed("durability", "config|get")
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
        yield Finding("bad", "durability", _sentence(error.reason), (*commands, f"{redis_cli} CONFIG REWRITE"))
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


def _file(found: Diagnosis, settings: Settings, redis_cli: str) -> Iterator[Finding]:
    info = found.info
    if info is None or info.get("aof_enabled") != "1":
        return
    if info.get("aof_last_write_status") != "ok":
        yield Finding("bad", "file", "The last write of the append-only file failed: the disk may be full.", ("df -h",))
    elif info.get("aof_last_bgrewrite_status") != "ok":
        command = f"{redis_cli} BGREWRITEAOF   # when there is room on the disk"
        yield Finding("bad", "file", "The last rewrite of the append-only file failed, so it grows.", (command,))
    else:
        size = _bytes(int(info.get("aof_current_size", 0)))
        yield Finding("ok", "file", f"The append-only file has {size}; its last write and rewrite worked.")


def _memory(found: Diagnosis, settings: Settings, redis_cli: str) -> Iterator[Finding]:
    if found.info is None:
        return
    used, limit = int(found.info.get("used_memory", 0)), int(found.info.get("maxmemory", 0))
    if limit and used > 0.9 * limit:
        yield Finding(
            "bad",
            "memory",
            f"{_bytes(used)} of maxmemory {_bytes(limit)} are used: soon, no order can be placed.",
            (f"{redis_cli} CONFIG SET maxmemory {2 * limit}   # if the machine has so much",),
        )
        return
    system = int(found.info.get("total_system_memory", 0))
    of = f" of maxmemory {_bytes(limit)}" if limit else f"; the machine has {_bytes(system)}" if system else ""
    yield Finding("ok", "memory", f"{_bytes(used)} are used{of}.")
    yield from _forecast(found, used, limit or system, redis_cli)
    if evicted := int(found.info.get("evicted_keys", 0)):
        yield Finding(
            "bad", "evicted", f"{evicted:,} keys were deleted for memory since Redis started.", ("holdfast audit",)
        )


def _forecast(found: Diagnosis, used: int, limit: int, redis_cli: str) -> Iterator[Finding]:
    """Say when the memory is full if orders come as they do now, and each takes what orders took on average."""
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


def _rights(found: Diagnosis, settings: Settings, redis_cli: str) -> Iterator[Finding]:
    user = found.user or "the user"
    if found.rights is None:
        reason = f"{user} cannot run scripts on the keys of the shop: {found.rights_error}."
        yield Finding("bad", "rights", _sentence(reason), (f"{redis_cli} ACL SETUSER {user} +eval +evalsha",))
        return
    denied = [line.split(" ", 1) for line in found.rights[1:]]
    missing = sorted({command.lower() for command, _ in denied} | set(found.forbidden))
    if not missing:
        yield Finding("ok", "rights", f"{user} may run all commands that Holdfast needs, on all keys of the shop.")
        return
    commands = " ".join(f"+{command}" for command in missing)
    pattern = f" ~{{{settings.shop}}}:*" if denied else ""
    try:
        check_rights(list(found.rights))
    except UnsupportedRedis:
        what = f"{user} may not run {', '.join(missing)}, and some of them not on all keys of the shop."
        yield Finding("bad", "rights", what, (f"{redis_cli} ACL SETUSER {user}{pattern} {commands}",))
        return
    what = f"{user} may not run {', '.join(missing)}: commands, checks or metrics that need them do not work."
    yield Finding("note", "rights", what, (f"{redis_cli} ACL SETUSER {user} {commands}",))


def _latency(found: Diagnosis, settings: Settings, redis_cli: str) -> Iterator[Finding]:
    for name, times in (("latency", found.pings), ("script", found.scripts)):
        if not times:
            continue
        what = "A round trip" if name == "latency" else "A script that reads"
        text = f"{what} takes {_percentiles(times)}."
        slow = statistics.median(times) > SLOW_ROUND_TRIP_SECONDS
        yield Finding("note" if slow else "ok", name, f"{text} Put the service nearer to Redis." if slow else text)


def _writes(found: Diagnosis, settings: Settings, redis_cli: str) -> Iterator[Finding]:
    if found.writes:
        slow = statistics.median(found.writes) > SLOW_ROUND_TRIP_SECONDS * 4
        yield Finding("note" if slow else "ok", "write", f"A write takes {_percentiles(found.writes)}, with its fsync.")
    if found.info is not None and found.info.get("aof_enabled") != "1":
        return
    if found.slow_writes is None:
        yield _not_allowed("fsync", "latency|latest")
    elif found.config is not None and found.config.get("latency-monitor-threshold") == "0":
        yield Finding(
            "note",
            "fsync",
            "The latency monitor is off, so slow fsyncs are not known.",
            (f"{redis_cli} CONFIG SET latency-monitor-threshold 10",),
        )
    elif not found.slow_writes:
        yield Finding("ok", "fsync", "No write of the append-only file was slower than the threshold of the monitor.")
    else:
        kind, (_, slowest) = max(found.slow_writes.items(), key=lambda item: item[1][1])
        mark: Literal["ok", "note"] = "note" if slowest > SLOW_WRITE_SECONDS else "ok"
        yield Finding(mark, "fsync", f"The slowest write of the append-only file took {_time(slowest)} ({kind}).")
    delayed = int((found.info or {}).get("aof_delayed_fsync", 0))
    if delayed:
        yield Finding("note", "fsync", f"{delayed:,} writes had to wait for an fsync: the disk is too slow at times.")


def _clock(found: Diagnosis, settings: Settings, redis_cli: str) -> Iterator[Finding]:
    if found.clock_ahead is None:
        yield _not_allowed("clock", "time")
        return
    ahead = found.clock_ahead
    side = "ahead of" if ahead > 0 else "behind"
    words = f"{abs(ahead) * 1000:.0f} ms {side} this machine's (± {_time(found.clock_error)})"
    if abs(ahead) > MAX_CLOCK_DIFFERENCE_SECONDS:
        sentence = f"The clock of Redis is {words}. Only its clock decides about holds and sales: set it."
        yield Finding("bad", "clock", sentence, ("timedatectl set-ntp true   # on both machines",))
    else:
        yield Finding("ok", "clock", f"The clock of Redis is {words}.")


def _layout(found: Diagnosis, settings: Settings, redis_cli: str) -> Iterator[Finding]:
    if found.schema_version is None and found.lost:
        yield Finding("bad", "layout", _sentence(found.lost))
        return
    if found.schema_version is None:
        yield Finding("note", "layout", f"There is no shop {settings.shop!r} in this Redis yet.")
        return
    try:
        check_schema_version(found.schema_version, found.unfinished_upgrade)
    except UnsupportedRedis as error:
        what = "holdfast upgrade" if "holdfast upgrade" in error.reason else "install the newer Holdfast"
        yield Finding("bad", "layout", _sentence(error.reason), (what,))
    else:
        yield Finding(
            "ok",
            "layout",
            f"The data have layout {found.schema_version}, which this Holdfast ({SCHEMA_VERSION}) knows.",
        )


def _sizes(found: Diagnosis, settings: Settings, redis_cli: str) -> Iterator[Finding]:
    if found.sizes is None or found.schema_version is None:
        return
    sizes = found.sizes
    yield Finding(
        "ok",
        "sizes",
        f"Products on sale: {sizes.products:,}. Order ids reserved: {sizes.orders:,}; pending orders: {sizes.holds:,}. "
        f"Events: {sizes.events:,} of {settings.events_max:,}. Remembered refusals: {sizes.refusals:,}. "
        f"Keys of all shops: {sizes.keys_in_database:,}.",
    )
    if sizes.overdue:
        yield Finding(
            "bad",
            "holds",
            f"Overdue holds: {sizes.overdue:,}. Their stock cannot be sold while no service releases them.",
            ("holdfast serve",),
        )


def _groups(found: Diagnosis, settings: Settings, redis_cli: str) -> Iterator[Finding]:
    for name, lag in (found.groups or {}).items():
        behind = lag is None or lag > settings.events_max // 2
        text = "an unknown number of events" if lag is None else f"{lag:,} events"
        warning = " The oldest may be dropped from the stream before they are read." if behind else ""
        yield Finding("note" if behind else "ok", "group", f"The consumer group {name!r} has {text} to read.{warning}")


def _limits(found: Diagnosis, settings: Settings, redis_cli: str) -> Iterator[Finding]:
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


def _percentiles(times: Sequence[float]) -> str:
    ordered = sorted(times)
    p99 = ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
    return f"{_time(statistics.median(ordered))} (p99 {_time(p99)}, longest {_time(ordered[-1])})"


def _time(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _bytes(number: int) -> str:
    if number < 1024 * 1024:
        return f"{number / 1024:.0f} KiB"
    return f"{number / 1024 / 1024:,.0f} MiB"


def _sentence(reason: str) -> str:
    """Return the reason of an error as a sentence."""
    text = reason[0].upper() + reason[1:]
    return text if text.endswith(".") else f"{text}."

"""Says what is good about a shop and its Redis, what must be mended, and how. Pure functions of what was read."""

import statistics
from collections.abc import Callable, Iterator
from typing import Literal

from service.domain.errors.storage import UnsupportedRedis
from service.ops.doctor_engine import durability, file, limits, memory, role, version
from service.ops.doctor_finding import Finding, as_duration, as_sentence, not_allowed, percentiles
from service.settings import Settings
from service.storage.diagnosis import Diagnosis
from service.storage.requirements import SCHEMA_VERSION, check_rights, check_schema_version

SLOW_ROUND_TRIP_SECONDS = 0.005
"""A median above this: an order cannot be answered faster, and it is a typical distance to another region."""

SLOW_WRITE_SECONDS = 0.1
"""All orders wait for a write that takes this long."""

MAX_CLOCK_DIFFERENCE_SECONDS = 2.0
"""A larger difference confuses people who compare logs. Holds do not depend on it: only the clock of Redis decides."""


def unreachable(reason: str, settings: Settings) -> Finding:
    """Return the finding about a Redis that cannot be asked."""
    hint = "" if settings.redis_url is None else " Check HOLDFAST_REDIS_URL."
    return Finding("bad", "connection", f"Redis cannot be reached: {reason.rstrip('.')}.{hint}")


def examine(found: Diagnosis, settings: Settings, redis_cli: str) -> list[Finding]:
    """Return a finding for each check. `redis_cli`: the beginning of a command for this Redis."""
    checks: tuple[Callable[[Diagnosis, Settings, str], Iterator[Finding]], ...] = (
        *(version, role, durability, file, memory, _rights, _latency, _writes, _clock),
        *(_layout, _sizes, _groups, limits),
    )
    return [finding for check in checks for finding in check(found, settings, redis_cli)]


def _rights(found: Diagnosis, settings: Settings, redis_cli: str) -> Iterator[Finding]:
    user = found.user or "the user"
    if found.rights is None:
        reason = f"{user} cannot run scripts on the keys of the shop: {found.rights_error}."
        yield Finding("bad", "rights", as_sentence(reason), (f"{redis_cli} ACL SETUSER {user} +eval +evalsha",))
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
        text = f"{what} takes {percentiles(times)}."
        slow = statistics.median(times) > SLOW_ROUND_TRIP_SECONDS
        yield Finding("note" if slow else "ok", name, f"{text} Put the service nearer to Redis." if slow else text)


def _writes(found: Diagnosis, settings: Settings, redis_cli: str) -> Iterator[Finding]:
    if found.writes:
        slow = statistics.median(found.writes) > SLOW_ROUND_TRIP_SECONDS * 4
        yield Finding("note" if slow else "ok", "write", f"A write takes {percentiles(found.writes)}, with its fsync.")
    if found.info is not None and found.info.get("aof_enabled") != "1":
        return
    if found.slow_writes is None:
        yield not_allowed("fsync", "latency|latest")
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
        yield Finding(mark, "fsync", f"The slowest write of the append-only file took {as_duration(slowest)} ({kind}).")
    delayed = int((found.info or {}).get("aof_delayed_fsync", 0))
    if delayed:
        yield Finding("note", "fsync", f"{delayed:,} writes had to wait for an fsync: the disk is too slow at times.")


def _clock(found: Diagnosis, settings: Settings, redis_cli: str) -> Iterator[Finding]:
    if found.clock_ahead is None:
        yield not_allowed("clock", "time")
        return
    ahead = found.clock_ahead
    side = "ahead of" if ahead > 0 else "behind"
    words = f"{abs(ahead) * 1000:.0f} ms {side} this machine's (± {as_duration(found.clock_error)})"
    if abs(ahead) > MAX_CLOCK_DIFFERENCE_SECONDS:
        sentence = f"The clock of Redis is {words}. Only its clock decides about holds and sales: set it."
        yield Finding("bad", "clock", sentence, ("timedatectl set-ntp true   # on both machines",))
    else:
        yield Finding("ok", "clock", f"The clock of Redis is {words}.")


def _layout(found: Diagnosis, settings: Settings, redis_cli: str) -> Iterator[Finding]:
    if found.schema_version is None and found.lost:
        yield Finding("bad", "layout", as_sentence(found.lost))
        return
    if found.schema_version is None:
        yield Finding("note", "layout", f"There is no shop {settings.shop!r} in this Redis yet.")
        return
    try:
        check_schema_version(found.schema_version, found.unfinished_upgrade)
    except UnsupportedRedis as error:
        what = "holdfast upgrade" if "holdfast upgrade" in error.reason else "install the newer Holdfast"
        yield Finding("bad", "layout", as_sentence(error.reason), (what,))
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

"""Turns what was counted, and the status of the engine, into the formats that Prometheus reads.

Imported by the first GET /metrics: prometheus_client would make the start of the service 30 ms longer.
"""

import importlib.metadata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from service.metrics.counters import Metrics, Numbers
from service.metrics.families import PARTITION_FAMILIES, Family
from service.storage.engine_status import EngineStatus
from service.storage.transfers import Pending


class RedisState(NamedTuple):
    """`is_up`: Redis answers and may be used. `is_ready`: orders can be placed. `status`: None if it is not known."""

    is_up: bool
    is_ready: bool
    status: EngineStatus | None


class ShopState(NamedTuple):
    """A shop: the Redis of each partition, one for most shops, and what is on its way between them; None: not known."""

    partitions: Sequence[RedisState]
    pending: Pending | None = None


def exposition(metrics: Metrics, shops: Mapping[str, ShopState], accept: str, names_shops: bool) -> tuple[bytes, str]:
    """Return all metrics as text, and its media type: OpenMetrics if the Accept header has it.

    `shops`: by name. `names_shops`: whether each sample about a shop has the label `shop`.
    """
    encode, media_type = choose_encoder(accept)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshot(metrics, shops, names_shops))
    return encode(registry), media_type


class _Snapshot(Collector):
    """All metrics at one moment."""

    def __init__(self, metrics: Metrics, shops: Mapping[str, ShopState], names_shops: bool) -> None:
        self._names_shops = names_shops
        self._metrics = metrics
        self._shops = shops

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics. prometheus_client calls this."""
        yield InfoMetricFamily("holdfast_build", "The version of Holdfast.", {"version": _version()})
        has_partitions = any(len(shop.partitions) > 1 for shop in self._shops.values())
        for family, numbers in self._metrics.read():
            if has_partitions or family not in PARTITION_FAMILIES:
                yield _metric(family, numbers)
        yield _gauge("holdfast_workers", "Workers that the service should have.", self._metrics.workers)
        found: dict[str, Metric] = {}
        for labels, metrics in self._parts():
            for metric in metrics:
                metric.samples = [sample._replace(labels={**labels, **sample.labels}) for sample in metric.samples]
                if metric.name in found:
                    found[metric.name].samples += metric.samples
                else:
                    found[metric.name] = metric
        yield from found.values()

    def _parts(self) -> Iterator[tuple[dict[str, str], Iterator[Metric]]]:
        """Yield the metrics of each shop and each partition, with the labels that tell them apart."""
        for name, shop in self._shops.items():
            of_shop = {"shop": name} if self._names_shops else {}
            for number, state in enumerate(shop.partitions):
                of_partition = {"partition": str(number)} if len(shop.partitions) > 1 else {}
                yield {**of_shop, **of_partition}, _redis_metrics(state)
            if shop.pending is not None:
                yield of_shop, _pending_metrics(shop.pending)


def _pending_metrics(pending: Pending) -> Iterator[Metric]:
    yield _gauge("holdfast_units_on_their_way", "Units between two partitions of the shop.", pending.units)
    yield _gauge(
        "holdfast_units_on_their_way_oldest_seconds",
        "Time since the oldest units on their way were given.",
        pending.units_seconds,
    )
    yield _gauge(
        "holdfast_unpropagated_products",
        "Products with a change that some partitions of the shop do not have yet.",
        pending.products,
    )
    yield _gauge(
        "holdfast_unpropagated_products_oldest_seconds",
        "Time since the oldest change that some partitions of the shop do not have yet.",
        pending.products_seconds,
    )


def _redis_metrics(redis: RedisState) -> Iterator[Metric]:
    yield _gauge("holdfast_ready", "1: orders can be placed, as GET /readyz says. 0: not.", redis.is_ready)
    yield _gauge("holdfast_redis_up", "1: Redis answers, and may be used. 0: not.", redis.is_up)
    if redis.status is not None:
        yield from _engine_metrics(redis.status)


def _version() -> str:
    try:
        return importlib.metadata.version("holdfast")
    except importlib.metadata.PackageNotFoundError:  # run from a directory, without an installation
        return "unknown"


def _gauge(name: str, about: str, number: float) -> Metric:
    gauge = GaugeMetricFamily(name, about)
    gauge.add_metric([], float(number))
    return gauge


def _metric(family: Family, numbers: Mapping[tuple[str, ...], Numbers]) -> Metric:
    if family.kind == "histogram":
        histogram = HistogramMetricFamily(family.name, family.about, labels=family.labels)
        for labels, [*counts, total] in numbers.items():
            histogram.add_metric(labels, list(_buckets(family.bounds, counts)), total)
        return histogram
    kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    metric = kind(family.name, family.about, labels=family.labels)
    for labels, [number] in numbers.items():
        metric.add_metric(labels, number)
    return metric


def _buckets(bounds: Iterable[float], counts: Iterable[float]) -> Iterator[tuple[str, float]]:
    """Yield the upper bound of each bucket with the number of values up to it."""
    total = 0.0
    for bound, count in zip((*bounds, "+Inf"), counts, strict=True):
        total += count
        yield str(bound), total


class _Fact(NamedTuple):
    """A number of the engine. `read` returns it from the reply to INFO, and raises KeyError if it is not there."""

    name: str
    kind: Callable[..., Metric]
    about: str
    read: Callable[[Mapping[str, str]], float]


def _number(name: str, scale: float = 1) -> Callable[[Mapping[str, str]], float]:
    return lambda info: float(info[name]) * scale


def _is(name: str, text: str) -> Callable[[Mapping[str, str]], float]:
    return lambda info: float(info[name] == text)


_FACTS: Final = (
    _Fact("memory_bytes", GaugeMetricFamily, "Memory that the data use.", _number("used_memory")),
    _Fact("memory_max_bytes", GaugeMetricFamily, "maxmemory; 0: no limit.", _number("maxmemory")),
    _Fact("memory_system_bytes", GaugeMetricFamily, "Memory of the machine of Redis.", _number("total_system_memory")),
    _Fact("memory_rss_bytes", GaugeMetricFamily, "Memory of the process of Redis.", _number("used_memory_rss")),
    _Fact("clients", GaugeMetricFamily, "Open connections of Redis.", _number("connected_clients")),
    _Fact("replicas", GaugeMetricFamily, "Replicas that are connected.", _number("connected_slaves")),
    _Fact("uptime_seconds", GaugeMetricFamily, "Time since Redis started.", _number("uptime_in_seconds")),
    _Fact("commands", CounterMetricFamily, "Commands that Redis executed.", _number("total_commands_processed")),
    _Fact("evicted_keys", CounterMetricFamily, "Keys that Redis deleted for memory.", _number("evicted_keys")),
    _Fact("aof_enabled", GaugeMetricFamily, "1: Redis writes an append-only file.", _number("aof_enabled")),
    _Fact("aof_write_ok", GaugeMetricFamily, "1: its last write worked.", _is("aof_last_write_status", "ok")),
    _Fact("aof_rewrite_ok", GaugeMetricFamily, "1: its last rewrite worked.", _is("aof_last_bgrewrite_status", "ok")),
    _Fact("aof_rewriting", GaugeMetricFamily, "1: Redis rewrites it.", _number("aof_rewrite_in_progress")),
    _Fact("aof_bytes", GaugeMetricFamily, "Size of the append-only file.", _number("aof_current_size")),
    _Fact(
        "aof_delayed_fsyncs",
        CounterMetricFamily,
        "Writes that waited for an fsync (appendfsync everysec).",
        _number("aof_delayed_fsync"),
    ),
    _Fact(
        "aof_seconds",
        CounterMetricFamily,
        "Time that Redis was busy to write and sync the append-only file.",
        _number("eventloop_duration_aof_sum", 1e-6),
    ),
    _Fact(
        "busy_seconds",
        CounterMetricFamily,
        "Time that the only thread of Redis was busy, also with the append-only file.",
        _number("eventloop_duration_sum", 1e-6),
    ),
    _Fact(
        "event_loops",
        CounterMetricFamily,
        "Rounds of the event loop. aof_seconds for each round is the mean fsync delay (appendfsync always).",
        _number("eventloop_cycles"),
    ),
)


def _engine_metrics(status: EngineStatus) -> Iterator[Metric]:
    for engine in ("valkey", "redis"):  # Valkey has both versions: the other one is that of a compatible Redis
        if version := status.info.get(f"{engine}_version"):
            yield InfoMetricFamily("holdfast_engine", "Name and version.", {"engine": engine, "version": version})
            break
    for fact in _FACTS:
        try:
            value = fact.read(status.info)
        except KeyError:
            continue  # this version of Redis does not have it, or the user may not run INFO
        metric = fact.kind(f"holdfast_engine_{fact.name}", fact.about)
        metric.add_metric([], value)  # type: ignore[attr-defined]
        yield metric
    for name, about, number in (
        ("holdfast_products_on_sale", "Products on sale.", status.products),
        ("holdfast_holds", "Pending orders, which hold stock.", status.pending_orders),
        (
            "holdfast_hold_oldest_overdue_seconds",
            "For how long the hold that ended first is overdue; 0: none is.",
            status.oldest_overdue,
        ),
        ("holdfast_events", "Entries of the event stream.", status.events),
        ("holdfast_events_max", "About how many events are kept (HOLDFAST_EVENTS_MAX).", status.events_max),
    ):
        if number is not None:
            yield _gauge(name, about, number)
    lag = GaugeMetricFamily(
        "holdfast_event_group_lag", "Events that the consumer group has not read.", labels=["group"]
    )
    pending = GaugeMetricFamily(
        "holdfast_event_group_pending", "Events that the group has read, but not acknowledged.", labels=["group"]
    )
    oldest = GaugeMetricFamily(
        "holdfast_event_group_oldest_unread_seconds",
        "Age of the oldest event that the consumer group has not read; 0: none.",
        labels=["group"],
    )
    for group in status.groups:
        if group.lag is not None:
            lag.add_metric([group.name], group.lag)
        pending.add_metric([group.name], group.pending)
        oldest.add_metric([group.name], group.oldest_unread)
    yield from (lag, pending, oldest)
    slowest = GaugeMetricFamily(
        "holdfast_engine_slowest_write_seconds",
        "The slowest write or fsync of the append-only file, by kind. Needs the latency monitor of Redis.",
        labels=["kind"],
    )
    last = GaugeMetricFamily(
        "holdfast_engine_last_slow_write_seconds", "The last write that was slow, by kind.", labels=["kind"]
    )
    last_at = GaugeMetricFamily(
        "holdfast_engine_last_slow_write_timestamp_seconds", "Its moment, in seconds since 1970.", labels=["kind"]
    )
    for kind, times in status.slowest_writes.items():
        slowest.add_metric([kind], times.slowest)
        last.add_metric([kind], times.last)
        last_at.add_metric([kind], times.last_at)
    yield from (slowest, last, last_at)

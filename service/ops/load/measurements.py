"""Counts and latencies of a rehearsal, in memory that does not grow with the number of requests."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

_GROWTH: Final = math.log(1.02)
"""Each bucket of a histogram is 2 % wider than the one before: a percentile is exact to 1 %."""

_MAX_TIME_BUCKETS: Final = 300
"""Points of a plot over time. More would not be seen."""

SOLD_OUT: Final = "insufficient-stock"


class Histogram:
    """Latencies in seconds, from a microsecond on, in buckets of 2 %."""

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self.count = 0
        self.max = 0.0

    def add(self, seconds: float) -> None:
        """Add one latency."""
        self._buckets[int(math.log(max(seconds, 1e-6) * 1e6) / _GROWTH)] += 1
        self.count += 1
        self.max = max(self.max, seconds)

    def add_all(self, other: "Histogram") -> None:
        """Add the latencies of another histogram."""
        self._buckets.update(other._buckets)
        self.count += other.count
        self.max = max(self.max, other.max)

    def percentile(self, share: float) -> float:
        """Return the latency, in seconds, that this share of the latencies does not exceed. Without any, return 0."""
        rank, seen = max(math.ceil(share * self.count), 1), 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= rank:
                return min(math.exp((bucket + 0.5) * _GROWTH) / 1e6, self.max)
        return 0.0


@dataclass
class Moment:
    """What was answered in one part of the time, and how many purchases failed.

    `stock`: units in stock, or None if nobody looked.
    """

    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    latencies: Histogram = field(default_factory=Histogram)
    """Of accepted and refused orders."""
    stock: int | None = None


class Measurements:
    """All numbers of a rehearsal but the verdict. Times are seconds since the start."""

    def __init__(self, duration: float) -> None:
        self.width = max(1.0, math.ceil(duration / _MAX_TIME_BUCKETS))
        """Seconds of one moment."""
        self.moments: dict[int, Moment] = {}
        self.sent = 0
        self.dropped = 0
        """Purchases that were due, but were not sent, because too many waited for an answer."""
        self.seconds = 0.0
        """From the start to the moment when the last purchase was sent."""
        self.accepted = Histogram()
        self.refused = Histogram()
        self.endings = Histogram()
        """Completions and cancellations of pending orders."""
        self.own_delay = Histogram()
        """From the moment when a purchase was due until the client began to send it."""
        self.refusals: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        """Purchases without a final answer, by the reason of their last attempt."""
        self.repeats: Counter[str] = Counter()
        """Requests that were sent again, by the reason."""
        self.replays = 0
        """Answers with Idempotent-Replayed: an earlier request with this key had placed the order."""
        self.endings_by_kind: Counter[str] = Counter()
        """What became of the orders that were placed as pending."""
        self.cpu_share = 0.0
        """CPU that the client used, as a share of one core."""

    @property
    def achieved_rate(self) -> float:
        """Purchases that were sent per second."""
        return self.sent / self.seconds if self.seconds else 0.0

    def moment(self, now: float) -> Moment:
        """Return the part of the time to which a second since the start belongs."""
        return self.moments.setdefault(int(now / self.width), Moment())

    def add_accepted(self, now: float, latency: float) -> None:
        self.accepted.add(latency)
        moment = self.moment(now)
        moment.accepted += 1
        moment.latencies.add(latency)

    def add_refused(self, now: float, latency: float, reason: str) -> None:
        self.refused.add(latency)
        self.refusals[reason] += 1
        moment = self.moment(now)
        moment.refused[reason] += 1
        moment.latencies.add(latency)

    def add_failed(self, now: float, reason: str) -> None:
        """Count a purchase without an answer. It has no latency: a refused connection would look like a fast answer."""
        self.failures[reason] += 1
        self.moment(now).failed += 1

    def live(self, now: float) -> tuple[float, float, float, float]:
        """Return the accepted and the refused orders per second, and p50 and p99 in seconds, of about two seconds."""
        last = int(now / self.width)
        recent = [self.moments[index] for index in (last - 1, last) if index in self.moments]
        seconds = min(now, now - (last - 1) * self.width) or 1.0
        latencies = Histogram()
        for moment in recent:
            latencies.add_all(moment.latencies)
        accepted = sum(moment.accepted for moment in recent)
        refused = sum(moment.refused.total() for moment in recent)
        return accepted / seconds, refused / seconds, latencies.percentile(0.5), latencies.percentile(0.99)

    def all_moments(self) -> Iterator[tuple[float, Moment]]:
        """Yield the first second of each part of the time, without gaps, and what was answered in it."""
        for index in range(max(self.moments, default=-1) + 1):
            yield index * self.width, self.moments.get(index, Moment())

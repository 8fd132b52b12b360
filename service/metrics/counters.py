"""Counts what this worker does, and adds up what all workers have counted."""

import resource
import time
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from service.metrics.families import (
    ALARMING_STATUSES,
    CLIENTS,
    CONNECTED,
    CPU_SECONDS,
    EXCHANGES,
    IN_FLIGHT,
    LOST,
    MEMORY,
    MISSES,
    ORDER_RESULTS,
    ORDERS,
    PROBLEMS,
    PUBLISHED_AT,
    PUSHES,
    REFUSED,
    REQUEST_BOUNDS,
    REQUEST_SECONDS,
    REQUESTS,
    RESTARTS,
    REVENUE,
    ROUND_TRIP_BOUNDS,
    ROUND_TRIPS,
    ROUNDS,
    STATUSES,
    STREAMS,
    SWEEP_FAILURES,
    SWEEPER_LAG,
    SWEEPS,
    TRANSFERRED_UNITS,
    TRANSFERS,
    UNITS,
    Family,
)
from service.metrics.shared_rows import ROW_CELLS, Cells, SharedRows, private_row

PUBLISH_SECONDS: Final = 1.0
"""Pause between two updates of the gauges of a worker."""

MAX_NOTED: Final = 1000
"""Requests, orders or replies that are noted before they are added up.

Between the steps of a request, an addition takes three times as long as in a loop: 1.0 us per request, not 0.3 us.
"""

_MAX_AGE_SECONDS: Final = 5.0
"""Gauges that are older belong to a worker that has ended."""

_REQUEST_SUM: Final = len(REQUEST_BOUNDS) + 1
_ROUND_TRIP_SUM: Final = len(ROUND_TRIP_BOUNDS) + 1
"""Places of the sums in their histograms, behind the buckets."""

Numbers = Sequence[float]


class Metrics:
    """What this worker counts, and what all workers have counted."""

    def __init__(
        self,
        *,
        calls: Iterable[tuple[str, str]] = (),
        problems: Iterable[str] = (),
        refusals: Iterable[str] = (),
        shared: SharedRows | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin with zeros, or with the numbers of the worker that this one replaces.

        `calls`: method and path of all rows of the table of calls. `problems`: the names of all problems; `refusals`:
        of those of orders that are not placed. `shared`: the rows of all workers; None: this is the only one.
        `clock`: in seconds, the same for all workers.
        """
        self._clock = clock
        self._row: Cells
        self._all: Cells
        if shared is None:
            self.workers = 1
            self._row = self._all = private_row()
        else:
            self.workers = shared.workers
            self._row, self._all = shared.claim()
        self._places: dict[Family, dict[tuple[str, ...], int]] = {}
        self._next = 0
        self._unknown_call = self._request_place("", "")
        self._calls = {(method, route): self._request_place(method, route) for method, route in calls}
        heads = {("HEAD", route): places for (method, route), places in self._calls.items() if method == "GET"}
        self._calls |= heads  # the router serves HEAD as GET
        self._orders = {
            result: (
                self._place(ORDERS, result),
                0 if result == "replayed" else self._place(UNITS, result),
                self._place(REVENUE, result) if result in ("placed", "completed", "returned") else 0,
            )
            for result in ORDER_RESULTS
        }
        self._refused = {name: self._place(REFUSED, name) for name in sorted({*refusals})}
        self._problems = {name: self._place(PROBLEMS, name) for name in sorted({*problems})}
        self._round_trips = self._place(ROUND_TRIPS)
        self._single = {
            family: self._place(family)
            for family in (
                *(CONNECTED, LOST, SWEEPS, SWEEP_FAILURES, RESTARTS),
                *(MISSES, ROUNDS, EXCHANGES, TRANSFERS, TRANSFERRED_UNITS, PUSHES),
                *(SWEEPER_LAG, IN_FLIGHT, CLIENTS, STREAMS, CPU_SECONDS, MEMORY, PUBLISHED_AT),
            )
        }
        assert self._next <= ROW_CELLS
        self._cells: list[float] = self._row[: self._next].tolist()
        self._parts: dict[Family, dict[str, float]] = {}
        self._noted_requests: list[tuple[str, str, int, float]] = []
        self._noted_orders: list[tuple[str, int, int]] = []
        self.round_trips: list[float] = []
        """Times from a command to the reply of Redis, in seconds. `add_up()` empties the list."""
        if self._cells[self._single[PUBLISHED_AT]]:
            self.count(RESTARTS)  # another worker has used this row before

    def _request_place(self, method: str, route: str) -> tuple[dict[int, int], int]:
        """Return the places of a call: of each status, and of its durations."""
        statuses = {status: self._place(REQUESTS, method, route, str(status)) for status in (*STATUSES, 0)}
        return statuses, self._place(REQUEST_SECONDS, method, route)

    def _place(self, family: Family, *labels: str) -> int:
        """Return the place of a number in a row; of a histogram, the first place: buckets, then the sum."""
        place, self._next = self._next, self._next + (len(family.bounds) + 2 if family.bounds else 1)
        self._places.setdefault(family, {})[labels] = place
        return place

    def count_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request and its duration. `route`: the path of its row in the table of calls, or an empty text.

        Without a row, the method is not kept: clients can invent any number of methods.
        """
        noted = self._noted_requests
        noted.append((method, route, status, seconds))
        if len(noted) >= MAX_NOTED:
            self.add_up()

    def count_order(self, result: str, units: int = 0, cents: int = 0) -> None:
        """Count a result of ORDER_RESULTS, with the units and the price of the order."""
        noted = self._noted_orders
        noted.append((result, units, cents))
        if len(noted) >= MAX_NOTED:
            self.add_up()

    def count_refusal(self, name: str) -> None:
        """Count an order that was not placed. `name`: of the problem."""
        if name in self._refused:
            self._cells[self._refused[name]] += 1

    def count_problem(self, name: str) -> None:
        """Count an error that is sent to a client. `name`: of the problem."""
        if name in self._problems:
            self._cells[self._problems[name]] += 1

    def count(self, family: Family, number: float = 1) -> None:
        """Count one more, or so many more, of a family without labels."""
        self._cells[self._single[family]] += number

    def set(self, family: Family, value: float) -> None:
        """Set a gauge of this worker."""
        self._cells[self._single[family]] = value

    def set_part(
        self, family: Family, shop: str, value: float, combine: Callable[[Iterable[float]], float] = sum
    ) -> None:
        """Set what a shop contributes to a gauge of this worker."""
        parts = self._parts.setdefault(family, {})
        parts[shop] = value
        self.set(family, combine(parts.values()))

    def publish(self) -> None:
        """Let the other workers see the numbers of this one, how its process is, and that it lives."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        self.set(CPU_SECONDS, usage.ru_utime + usage.ru_stime)
        self.set(MEMORY, _resident_bytes())
        self.set(PUBLISHED_AT, self._clock())
        self._copy()

    def add_up(self) -> None:
        """Add what was noted to the numbers."""
        cells = self._cells
        for method, route, status, seconds in self._noted_requests:
            statuses, durations = self._calls.get((method, route), self._unknown_call)
            cells[statuses.get(status, statuses[0])] += 1
            cells[durations + bisect_left(REQUEST_BOUNDS, seconds)] += 1
            cells[durations + _REQUEST_SUM] += seconds
        self._noted_requests.clear()
        for result, units, cents in self._noted_orders:
            place, units_place, revenue_place = self._orders[result]
            cells[place] += 1
            if units_place:
                cells[units_place] += units
            if revenue_place:
                cells[revenue_place] += cents
        self._noted_orders.clear()
        place = self._round_trips
        for seconds in self.round_trips:
            cells[place + bisect_left(ROUND_TRIP_BOUNDS, seconds)] += 1
        cells[place + _ROUND_TRIP_SUM] += sum(self.round_trips)
        self.round_trips.clear()

    def _copy(self) -> None:
        """Copy the numbers into the row that the other workers see."""
        self.add_up()
        self._row[: self._next] = array("d", self._cells)

    def refused_orders(self) -> dict[str, int]:
        """Return how many orders all workers have refused, by the name of the problem."""
        self._copy()
        return {name: int(self._sum(place)) for name, place in self._refused.items()}

    def read(self) -> Iterator[tuple[Family, Mapping[tuple[str, ...], Numbers]]]:
        """Yield each family with its numbers, by labels: one number, or the buckets and the sum of a histogram.

        What is counted per worker has the number of the worker as a label, and only workers that live. Requests have
        only the calls and statuses that have occurred, and ALARMING_STATUSES. The numbers of other workers are up to
        PUBLISH_SECONDS old.
        """
        self._copy()
        living = self._living_rows()
        for family, places in self._places.items():
            if family is PUBLISHED_AT:
                continue
            if family.per_worker:
                [place] = places.values()
                yield (
                    family._replace(labels=("worker",)),
                    {(str(row),): [self._all[row * ROW_CELLS + place]] for row in living},
                )
                continue
            width = len(family.bounds) + 2 if family.bounds else 1
            numbers = {
                labels: [self._sum(at) / family.divisor for at in range(place, place + width)]
                for labels, place in places.items()
            }
            if "route" in family.labels:
                numbers = {
                    labels: found for labels, found in numbers.items() if any(found) or labels[-1] in ALARMING_STATUSES
                }
            yield family, numbers

    def _sum(self, place: int) -> float:
        return float(sum(self._all[place::ROW_CELLS]))

    def _living_rows(self) -> list[int]:
        oldest = max(0.0, self._clock() - _MAX_AGE_SECONDS)  # in the first seconds of a machine, unused rows are 0, too
        published = self._all[self._single[PUBLISHED_AT] :: ROW_CELLS]
        return [row for row, moment in enumerate(published) if moment > oldest]


def _resident_bytes() -> int:
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * resource.getpagesize()
    except OSError:  # not Linux: the largest value until now, which macOS counts in bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

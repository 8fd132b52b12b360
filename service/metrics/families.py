"""What is counted: the name, the labels and the meaning of each number in /metrics."""

from typing import Final, Literal, NamedTuple

REQUEST_BOUNDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Upper bounds of the buckets for the duration of requests, in seconds. Most requests take 0.5 to 10 ms."""

ROUND_TRIP_BOUNDS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""The same for the time from a command to the reply of Redis."""

STATUSES: Final = (
    *(200, 201, 204, 302, 303, 304, 307, 400, 401, 403, 404, 405, 406, 408, 409, 410, 412, 413, 415, 422, 429, 431),
    *(500, 503, 505),
)
"""Status codes of the service. 0 stands for all others, and for a client that has gone without a response."""

ALARMING_STATUSES: Final = ("500", "503")
"""Shown from the start, as 0. Otherwise Prometheus would take the first ones for numbers that were always there."""

ORDER_RESULTS: Final = ("placed", "pending", "replayed", "completed", "cancelled", "expired", "returned")
"""`placed`: as completed. `pending`: placed as pending. `replayed`: an Idempotency-Key repeated an earlier result.
`completed`, `cancelled`, `expired`: how a pending order ended. `returned`: one return of a completed order."""

Kind = Literal["counter", "histogram", "gauge"]


class Family(NamedTuple):
    """Numbers with the same meaning. `divisor`: of the number, to show it.

    The numbers of all workers are added up, except those `per_worker`.
    """

    name: str
    kind: Kind
    about: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    divisor: int = 1
    per_worker: bool = False


REQUESTS: Final = Family(
    "holdfast_http_requests",
    "counter",
    "Requests, by method, route and status of the response.",
    ("method", "route", "status"),
)
REQUEST_SECONDS: Final = Family(
    "holdfast_http_request_duration_seconds",
    "histogram",
    "Time from the whole request to its response.",
    ("method", "route"),
    REQUEST_BOUNDS,
)
PROBLEMS: Final = Family(
    "holdfast_http_problems", "counter", "Errors that were sent, by the name of the problem.", ("problem",)
)
ORDERS: Final = Family("holdfast_orders", "counter", "Orders, by result.", ("result",))
REFUSED: Final = Family(
    "holdfast_orders_refused", "counter", "Orders that were not placed, by the name of the problem.", ("reason",)
)
UNITS: Final = Family("holdfast_order_units", "counter", "Units of these orders, by result.", ("result",))
REVENUE: Final = Family(
    "holdfast_order_revenue", "counter", "Price of these orders, by result.", ("result",), divisor=100
)
ROUND_TRIPS: Final = Family(
    "holdfast_redis_round_trip_seconds",
    "histogram",
    "Time from a command to the reply of Redis, with its wait in this service.",
    bounds=ROUND_TRIP_BOUNDS,
)
CONNECTED: Final = Family("holdfast_redis_connections", "counter", "Connections that were opened to Redis.")
LOST: Final = Family("holdfast_redis_connections_lost", "counter", "Connections to Redis that broke.")
SWEEPS: Final = Family("holdfast_sweeps", "counter", "Searches for overdue orders.")
SWEEP_FAILURES: Final = Family("holdfast_sweep_failures", "counter", "Searches for overdue orders that failed.")
SWEEPER_LAG: Final = Family(
    "holdfast_sweeper_lag_seconds",
    "gauge",
    "How late the oldest hold was that the last search released; 0: none was left.",
    per_worker=True,
)
MISSES: Final = Family(
    "holdfast_partition_misses", "counter", "Orders that had to wait for units of other partitions of the shop."
)
ROUNDS: Final = Family(
    "holdfast_partition_rounds",
    "counter",
    "Rounds in which an order that waits for units asks other partitions for them.",
)
EXCHANGES: Final = Family(
    "holdfast_exchange_cycles", "counter", "Steps in which the waiting orders of a worker got units together."
)
TRANSFERS: Final = Family(
    "holdfast_transfers", "counter", "Requests for units from one partition of a shop to another."
)
TRANSFERRED_UNITS: Final = Family(
    "holdfast_transferred_units", "counter", "Units that arrived in another partition of the shop."
)
PUSHES: Final = Family(
    "holdfast_catalogue_pushes", "counter", "Changes of products that were brought to all partitions of the shop."
)
PARTITION_FAMILIES: Final = frozenset({MISSES, ROUNDS, EXCHANGES, TRANSFERS, TRANSFERRED_UNITS, PUSHES})
"""Shown only if a shop has several partitions."""
RESTARTS: Final = Family(
    "holdfast_worker_restarts", "counter", "Workers that took the place of one that had ended unexpectedly."
)
IN_FLIGHT: Final = Family(
    "holdfast_redis_commands_in_flight", "gauge", "Commands that wait for a reply of Redis.", per_worker=True
)
CLIENTS: Final = Family("holdfast_http_connections", "gauge", "Open connections of clients.", per_worker=True)
STREAMS: Final = Family("holdfast_event_streams", "gauge", "Clients that listen to events.", per_worker=True)
CPU_SECONDS: Final = Family("holdfast_worker_cpu_seconds", "counter", "CPU time of the process.", per_worker=True)
MEMORY: Final = Family(
    "holdfast_worker_memory_bytes", "gauge", "Memory of the process (resident set).", per_worker=True
)
PUBLISHED_AT: Final = Family(
    "", "gauge", "Moment of the last update, by the monotonic clock of the machine.", per_worker=True
)

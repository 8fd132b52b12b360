"""Expires overdue orders. Every worker runs a sweeper. No leader is needed: the script ends each hold only once."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from service.domain.errors.storage import StorageError
from service.logger import Logger, RepeatedFailures
from service.metrics.counters import Metrics
from service.metrics.families import SWEEP_FAILURES
from service.storage.expired_holds import ExpiredHolds

log = Logger()

MIN_BATCH: Final = 100
MAX_BATCH: Final = 2000
"""Bounds of the batch: the number of overdue orders that one round expires at most. 1,000 orders take about 20 ms.

lua/find_due_holds.lua could not return more than 3,900: the stack of Lua is limited.
"""

BATCH_PER_SECOND: Final = 30_000
"""Orders in the next batch, for each second that the last round took.

Under load, one round takes long because requests use the event loop. So the batch grows with the duration of the last
round: a sweeper always releases more than its worker can place in that time.
"""

MAX_BACKLOG_PAUSE_SECONDS: Final = 0.01
"""Longest pause between two rounds of a backlog: short, so that the backlog ends soon."""

MIN_PAUSE_SECONDS: Final = 0.05
"""Shortest pause after a round that left no overdue order. Larger batches take less time per order."""

MAX_IDLE_PAUSE_SECONDS: Final = 1.0
"""Longest pause between two searches for overdue orders, and the pause after an error.

While this worker sleeps, another worker can place an order with an earlier deadline.
"""


async def sweep(expired_holds: ExpiredHolds, metrics: Metrics, **facts: int | str) -> None:
    """Repeat without end: expire overdue orders, then sleep until the next deadline. Log errors and continue.

    An error that goes on is logged once a minute, with these facts.
    """
    batch = MIN_BATCH
    logged = RepeatedFailures()
    while True:
        started = time.perf_counter()
        try:
            due_in = await expired_holds.expire_due(batch)
        except StorageError as error:
            if logged.is_due(error.reason):
                log.warning("sweep_failed", reason=error.reason, **facts)
            metrics.count(SWEEP_FAILURES)
            due_in = MAX_IDLE_PAUSE_SECONDS
        except Exception:
            log.exception("sweep_failed", **facts)
            metrics.count(SWEEP_FAILURES)
            due_in = MAX_IDLE_PAUSE_SECONDS
        took = time.perf_counter() - started
        batch = min(max(MIN_BATCH, int(took * BATCH_PER_SECOND)), MAX_BATCH)
        if due_in == 0:  # a backlog: pause for as long as the batch took, so that requests get their turn
            pause = min(took, MAX_BACKLOG_PAUSE_SECONDS)
        else:
            pause = min(max(due_in, MIN_PAUSE_SECONDS), MAX_IDLE_PAUSE_SECONDS)
        await asyncio.sleep(pause)


async def deliver_regularly(deliver: Callable[[], Awaitable[None]], metrics: Metrics) -> None:
    """Repeat without end: end what was interrupted between the partitions of a shop. Log errors and continue.

    An error that goes on is logged once a minute.
    """
    logged = RepeatedFailures()
    while True:
        await asyncio.sleep(MAX_IDLE_PAUSE_SECONDS)
        try:
            await deliver()
        except StorageError as error:
            if logged.is_due(error.reason):
                log.warning("delivery_failed", reason=error.reason)
            metrics.count(SWEEP_FAILURES)
        except Exception:
            log.exception("delivery_failed")
            metrics.count(SWEEP_FAILURES)

"""Expires overdue orders. Every worker runs a sweeper. No leader is needed: the script ends each hold only once."""

import asyncio
import time
from typing import Final

import structlog

from service.domain.errors.storage import StorageError
from service.storage.holds import Holds

log = structlog.get_logger()

MIN_BATCH: Final = 20
MAX_BATCH: Final = 200
"""Bounds of the batch: the number of overdue orders that one round expires at most.

20 orders take a millisecond or two. With a MIN_BATCH of 100, the p99 of orders rose from 4 to 30 ms.

Under load, one round takes long because requests use the event loop. 20 orders per round could then be fewer than the
new holds that expire. So the batch grows with the duration of the last round.
"""

BATCH_PER_SECOND: Final = 700
"""Orders in the next batch, for each second that the last round took.

For example, if the last round took 0.1 s, the next batch has 70 orders. To release them takes about 0.01 s of the event
loop, a tenth of the last round.
"""

MAX_BACKLOG_PAUSE_SECONDS: Final = 0.01
"""Longest pause between two rounds of a backlog: short, so that the backlog ends soon."""

MAX_IDLE_PAUSE_SECONDS: Final = 1.0
"""Longest pause between two searches for overdue orders, and the pause after an error.

While this worker sleeps, another worker can place an order with an earlier deadline.
"""


async def sweep(holds: Holds) -> None:
    """Repeat without end: expire overdue orders, then sleep until the next deadline. Log errors and continue."""
    batch = MIN_BATCH
    while True:
        started = time.perf_counter()
        try:
            due_in = await holds.expire_due(batch)
        except StorageError as error:
            log.warning("sweep_failed", reason=error.reason)
            due_in = MAX_IDLE_PAUSE_SECONDS
        except Exception:
            log.exception("sweep_failed")
            due_in = MAX_IDLE_PAUSE_SECONDS
        took = time.perf_counter() - started
        batch = min(max(MIN_BATCH, int(took * BATCH_PER_SECOND)), MAX_BATCH)
        # In a backlog, pause for as long as the batch took, but at most MAX_BACKLOG_PAUSE_SECONDS, so that requests get
        # their turn.
        await asyncio.sleep(min(max(due_in, min(took, MAX_BACKLOG_PAUSE_SECONDS)), MAX_IDLE_PAUSE_SECONDS))

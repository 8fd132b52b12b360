"""Returns the stock of overdue holds. Every worker runs one, none leads: the script lets each hold end once."""

import asyncio
import time

import structlog

from service.errors import StorageError, Unfit
from service.store import Store

log = structlog.get_logger()

SMALLEST_BATCH, LARGEST_BATCH = 20, 200
"""Holds released at a time. Twenty take a millisecond or two; with a hundred, the p99 of orders rose from 4 to 30 ms.

But where the requests keep the event loop that long themselves, a small batch in each of its slow rounds would
not keep up with the holds that fall due.
"""

BATCH_PER_SECOND = 700
"""How much larger a batch may be for each second that the last one took: about a tenth of that time is ours then."""

LONGEST_REST = 0.01

LONGEST_SLEEP = 1.0
"""Seconds. Another worker may have placed an order meanwhile that is due before all that we saw."""


async def sweep(store: Store) -> None:
    """Runs for ever, sleeping until the next deadline. An error is logged, and the round after a second tries again."""
    batch = SMALLEST_BATCH
    while True:
        started = time.perf_counter()
        try:
            due_in = await store.expire_orders(batch)
        except (StorageError, Unfit) as error:
            log.warning("sweep_failed", reason=error.reason)
            due_in = LONGEST_SLEEP
        except Exception:
            log.exception("sweep_failed")
            due_in = LONGEST_SLEEP
        took = time.perf_counter() - started
        batch = min(max(SMALLEST_BATCH, int(took * BATCH_PER_SECOND)), LARGEST_BATCH)
        # In a backlog, rest as long as the batch took, but not longer than the requests need to catch up.
        await asyncio.sleep(min(max(due_in, min(took, LONGEST_REST)), LONGEST_SLEEP))

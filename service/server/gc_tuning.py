"""Set up Python's garbage collector for a server."""

import gc


def tune_gc() -> None:
    """Make the garbage collector run rarely, and never look at the objects of the start-up.

    The objects that exist now are frozen: a full collection of them would take 30 ms. The objects of hundreds of
    running requests are not garbage: with the default threshold of 700 objects, the collector took a twelfth of all
    time to look at them. Only reference cycles need the collector, and requests create none: see
    tests/server/test_http_protocol.py.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)

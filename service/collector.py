"""Python's garbage collector, set up for a server."""

import gc


def collect_less() -> None:
    """Has Python's garbage collector look at what requests leave behind, seldom, and at nothing else.

    What is there now stays for good: a full collection need not go through it each time, for 30 ms. And what
    hundreds of requests have under way is no garbage: looking for some after each 700 objects took a
    twelfth of all time. Rings of objects, which alone wait for it, requests do not leave: see
    tests/test_protocol.py.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)

"""Waiting for what is about to happen, with a deadline instead of a guess."""

import asyncio
import inspect
import time
from collections.abc import Callable

PATIENCE = 15.0
"""Seconds. Only a test that fails waits this long."""


async def eventually(happened: Callable[[], object], what: str = "it") -> None:
    """Lets the event loop turn until it has happened. What it asks may have to be awaited."""

    async def has_happened() -> object:
        answer = happened()
        return await answer if inspect.isawaitable(answer) else answer

    give_up = time.monotonic() + PATIENCE
    while not await has_happened():
        assert time.monotonic() < give_up, f"waited {PATIENCE} s in vain for {what}"
        await asyncio.sleep(0.005)


def wait_until(happened: Callable[[], object], what: str = "it") -> None:
    """Blocks until it has happened."""
    give_up = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < give_up, f"waited {PATIENCE} s in vain for {what}"
        time.sleep(0.02)

"""Wait until a condition is true, with a deadline instead of a guessed pause."""

import asyncio
import inspect
import time
from collections.abc import Callable

PATIENCE = 60.0
"""Seconds after which waiting fails. A machine may be many times slower than the one where a test was written."""


async def eventually(condition: Callable[[], object], description: str = "the condition") -> None:
    """Let the event loop run until `condition()` is true. It may return an awaitable."""

    async def is_true() -> object:
        result = condition()
        return await result if inspect.isawaitable(result) else result

    give_up = time.monotonic() + PATIENCE
    while not await is_true():
        assert time.monotonic() < give_up, f"waited {PATIENCE} s for {description}"
        await asyncio.sleep(0.005)


def wait_until(condition: Callable[[], object], description: str = "the condition") -> None:
    """Block until `condition()` is true."""
    give_up = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < give_up, f"waited {PATIENCE} s for {description}"
        time.sleep(0.02)

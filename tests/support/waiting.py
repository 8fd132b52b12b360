"""Wait for a condition, with a deadline instead of a guessed pause."""

import asyncio
import inspect
import time
from collections.abc import Callable

PATIENCE = 15.0
"""Seconds. Only a test that fails waits this long."""


async def eventually(happened: Callable[[], object], what: str = "the condition") -> None:
    """Let the event loop run until `happened()`, which may be awaitable, is true."""

    async def has_happened() -> object:
        answer = happened()
        return await answer if inspect.isawaitable(answer) else answer

    give_up = time.monotonic() + PATIENCE
    while not await has_happened():
        assert time.monotonic() < give_up, f"waited {PATIENCE} s for {what}"
        await asyncio.sleep(0.005)


def wait_until(happened: Callable[[], object], what: str = "the condition") -> None:
    """Block until `happened()` is true."""
    give_up = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < give_up, f"waited {PATIENCE} s for {what}"
        time.sleep(0.02)

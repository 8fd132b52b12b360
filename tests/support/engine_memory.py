"""An engine whose memory is full."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from service.storage.sender import CommandSender


@asynccontextmanager
async def full_memory(sender: CommandSender) -> AsyncIterator[None]:
    """Make the engine refuse every command that may need memory, until the block ends."""
    await sender.send("CONFIG", "SET", "maxmemory", 1)
    try:
        yield
    finally:
        await sender.send("CONFIG", "SET", "maxmemory", 0)

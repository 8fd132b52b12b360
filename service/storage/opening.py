"""Opens a Store with the settings."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from service.settings import Settings
from service.storage.connection import MultiplexedConnection
from service.storage.store import Store


@asynccontextmanager
async def open_store(settings: Settings) -> AsyncIterator[Store]:
    """Yield a Store with a connection of its own. The settings must have a redis_url. Raise UnsupportedRedis."""
    assert settings.redis_url is not None
    connection = MultiplexedConnection(
        settings.redis_url, timeout=settings.redis_timeout, max_in_flight=settings.max_in_flight
    )
    async with connection:
        yield Store(
            connection,
            shop=settings.shop,
            durability=settings.durability,
            events_max=settings.events_max,
            refusals_max=settings.refusals_max,
        )

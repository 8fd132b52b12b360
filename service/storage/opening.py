"""Opens a Store with the settings."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from service.settings import Settings
from service.storage.connection import MultiplexedConnection
from service.storage.engine_check import EngineCheck
from service.storage.store import Store


@asynccontextmanager
async def open_store(settings: Settings, *, creates_shop: bool = True) -> AsyncIterator[Store]:
    """Yield a Store with a connection of its own. The settings must have a redis_url. Raise UnsupportedRedis.

    `creates_shop`: false for what only reads. Then a shop that does not exist is not begun.
    """
    assert settings.redis_url is not None
    check = EngineCheck(settings.shop, settings.durability, creates_shop=creates_shop)
    connection = MultiplexedConnection(
        settings.redis_url,
        timeout=settings.redis_timeout,
        max_in_flight=settings.max_in_flight,
        verify=check.verify_connection,
    )
    check.on_replica = connection.reconnect
    async with connection:
        yield Store(
            connection,
            shop=settings.shop,
            durability=settings.durability,
            events_max=settings.events_max,
            refusals_max=settings.refusals_max,
            engine_check=check,
        )

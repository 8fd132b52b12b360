"""The call of Prometheus."""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from starlette.responses import Response

from service.api.request import Request
from service.domain.errors.storage import Overloaded, StorageError
from service.storage.partitioned import AnyStore, PartitionedStore
from service.storage.sender import ErrorReply
from service.storage.store import Store
from service.storage.transfers import Pending, read_pending

if TYPE_CHECKING:
    from service.api.exposition import RedisState, ShopState

MAX_REDIS_SECONDS: Final = 3.0
"""How long Redis is asked. Prometheus waits 10 s by default, and then it would miss the numbers of the workers, too."""


async def show_metrics(request: Request) -> Response:
    """Return the metrics of all workers of this service, and of its engine. (GET /metrics)

    If the service has several shops, those of the engine and of what is in a shop have the label `shop`. If a shop has
    several partitions, each is a sample of its own, with the label `partition`.

    If Redis cannot be asked, the metrics of the engine are missing, and `holdfast_redis_up` is 0. If only this worker
    has no room for a further command, they are missing, too, but Redis is up.
    """
    from service.api.exposition import exposition

    state = request.scope["state"]
    stores: Mapping[str, AnyStore] = dict(state["stores"])  # a copy: a shop may be opened meanwhile
    names_shops = len(stores) > 1 or "open_shop" in state  # it is only there if HOLDFAST_SHOPS has a pattern
    states = await asyncio.gather(*[_shop_state(store) for store in stores.values()])
    accept = b",".join([value for name, value in request.scope["headers"] if name == b"accept"]).decode("latin-1")
    text, media_type = exposition(state["metrics"], dict(zip(stores, states, strict=True)), accept, names_shops)
    return Response(text, headers={"Content-Type": media_type, "Cache-Control": "no-store", "Vary": "Accept"})


async def _shop_state(store: AnyStore) -> "ShopState":
    from service.api.exposition import ShopState

    states = asyncio.gather(*[_redis_state(part) for part in store.partitions])
    if isinstance(store, Store):
        return ShopState(await states)
    return ShopState(*await asyncio.gather(states, _pending(store)))


async def _pending(store: PartitionedStore) -> Pending | None:
    try:
        async with asyncio.timeout(MAX_REDIS_SECONDS):
            return await read_pending(store.all.exchange.partitions)
    except (StorageError, ErrorReply, TimeoutError, ValueError):
        return None


async def _redis_state(store: Store) -> "RedisState":
    from service.api.exposition import RedisState

    status, is_up, is_ready = None, True, False
    try:
        async with asyncio.timeout(MAX_REDIS_SECONDS):
            status = await store.engine_status.read()
            await store.check()
            await store.check_writable()
            is_ready = True
    except Overloaded:
        pass
    except (StorageError, TimeoutError):
        is_up = status is not None
    return RedisState(is_up, is_ready, status)

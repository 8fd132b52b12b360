"""The calls of an orchestrator: is the process alive, and may it get requests?"""

import asyncio
import json

from starlette.responses import Response

from service.api.request import Request
from service.api.responses import ok
from service.storage.partitioned import AnyStore


async def livez(request: Request) -> Response:
    """Return 200 while the event loop runs. (GET /livez)

    The response says nothing about Redis, because restarting this process would not repair Redis.
    """
    return ok('{"status":"alive"}')


async def readyz(request: Request) -> Response:
    """Return 200 if orders can be placed. (GET /readyz)

    Otherwise Redis is not reachable, too old, not configured safely enough, or takes no writes: then the response is
    503. A service with several shops is ready if one of them is: the others may be on another node of a cluster. As
    long as no shop is open, because HOLDFAST_SHOPS has only patterns, Redis must answer.
    """
    state = request.scope["state"]
    stores = dict(state["stores"])  # a copy: a shop may be opened meanwhile
    if not stores:
        await state["check_redis"]()
        return ok('{"status":"ready","shops":{}}')
    if len(stores) == 1 and "open_shop" not in state:
        [store] = stores.values()
        await _check(store)
        return ok('{"status":"ready"}')
    results = await asyncio.gather(*[_check(store) for store in stores.values()], return_exceptions=True)
    failures = [result for result in results if result is not None]
    if len(failures) == len(results):
        raise failures[0]
    shops = {name: "not ready" if result else "ready" for name, result in zip(stores, results, strict=True)}
    return ok(json.dumps({"status": "ready", "shops": shops}, separators=(",", ":")))


async def _check(store: AnyStore) -> None:
    """Raise StorageError if no order can be placed in this shop."""
    await store.check()
    await store.check_writable()

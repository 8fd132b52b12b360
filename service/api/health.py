"""The calls of an orchestrator: is the process alive, and may it get requests?"""

from starlette.responses import Response

from service.api.request import Request, store_of
from service.api.responses import ok


async def livez(request: Request) -> Response:
    """Return 200 while the event loop runs. (GET /livez)

    The response says nothing about Redis, because restarting this process would not repair Redis.
    """
    return ok('{"status":"alive"}')


async def readyz(request: Request) -> Response:
    """Return 200 if orders can be placed. (GET /readyz)

    Otherwise Redis is not reachable, too old, not configured safely enough, or takes no writes: then the response is
    503.
    """
    store = store_of(request)
    await store.check()
    await store.check_writable()
    return ok('{"status":"ready"}')

"""What an orchestrator asks: is the process alive, may it get requests."""

from starlette.responses import Response

from service.api.request import Request, store_of
from service.api.responses import ok


async def livez(request: Request) -> Response:
    """GET /livez: 200 while the event loop runs. It says nothing about Redis, which a restart would not bring back."""
    return ok('{"status":"alive"}')


async def readyz(request: Request) -> Response:
    """GET /readyz: 200 if orders can be placed, 503 if Redis is away or must not be used as it is set up."""
    await store_of(request).check()
    return ok('{"status":"ready"}')

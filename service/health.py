"""What an orchestrator asks: is the process alive, may it get requests."""

from starlette.responses import Response

from service.http import JsonResponse, Request


async def livez(request: Request) -> Response:
    """GET /livez: 200 while the event loop turns. Says nothing about Redis: a restart would not bring it back."""
    return JsonResponse('{"status":"alive"}')


async def readyz(request: Request) -> Response:
    """GET /readyz: 200 if orders can be placed. 503 if Redis is away or must not be used as it is set up."""
    await request.state["store"].check()
    return JsonResponse('{"status":"ready"}')

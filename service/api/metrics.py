"""The call of Prometheus."""

from starlette.responses import Response

from service.api.request import Request, store_of
from service.domain.errors.storage import StorageError


async def show_metrics(request: Request) -> Response:
    """Return the metrics of all workers of this service, and of its engine. (GET /metrics)

    If Redis cannot be asked, the metrics of the engine are missing, and `holdfast_redis_up` is 0.
    """
    from service.api.exposition import exposition

    try:
        status = await store_of(request).engine_status.read()
    except StorageError:
        status = None
    accept = b",".join([value for name, value in request.scope["headers"] if name == b"accept"]).decode("latin-1")
    text, media_type = exposition(request.scope["state"]["metrics"], status, accept)
    return Response(text, headers={"Content-Type": media_type, "Cache-Control": "no-store", "Vary": "Accept"})

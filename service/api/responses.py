"""JSON responses, and how a response is sent."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final
from urllib.parse import quote, urlencode

from starlette.responses import Response
from starlette.types import Scope, Send

from service.api.coalescing import UNKNOWN_CALLER, Caller
from service.api.request import Request, RequestInfo

SEND_WHOLE_RESPONSE: Final = "holdfast.send_whole_response"
"""ASGI extension of Holdfast's server: a function of status, header fields and body that sends a response in one call.

It returns False if the client is slow or gone. Then it has sent nothing, and send() must be used.
"""

CLIENT_STATE: Final = "holdfast.client_state"
"""ASGI extension of Holdfast's server: a function that returns the ClientState."""

REQUEST_ERROR: Final = "holdfast.request_error"
"""Entry of the ASGI scope: the HoldfastError because of which Holdfast's server could not read the request."""

_REPLAYED: Final = (b"idempotent-replayed", b"true")
"""Header field of a response that repeats the result of an earlier request with the same Idempotency-Key."""


class JsonResponse(Response):
    """A response whose body is a JSON text, and whose header fields are bytes."""

    def __init__(self, body: str, status: int = 200, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        self.status_code = status
        self.background = None
        self.body = body.encode() + b"\n"  # in a terminal, the prompt then begins on its own line
        self.raw_headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(self.body)).encode()),
            *headers,
        ]


def ok(body: str, *, replayed: bool = False) -> Response:
    """Return a 200 response."""
    return JsonResponse(body, headers=[_REPLAYED] if replayed else ())


def created(location: str, body: str, *, replayed: bool = False) -> Response:
    """Return a 201 response."""
    headers = [(b"location", location.encode())]
    if replayed:
        headers.append(_REPLAYED)
    return JsonResponse(body, 201, headers)


def no_content() -> Response:
    """Return a 204 response."""
    return Response(status_code=204)


def page_response(request: Request, items: Iterable[str], next_page: Mapping[str, int]) -> Response:
    """Return a JSON array, with a link to the next page (RFC 8288) if `next_page` has parameters for it."""
    headers = []
    if next_page:
        parameters = urlencode({**request.query_params, **next_page})
        headers.append((b"link", f'<{quote(request.scope["path"])}?{parameters}>; rel="next"'.encode()))
    return JsonResponse(f"[{','.join(items)}]", headers=headers)


async def share_page(request: Request, load: Callable[[], Awaitable[Response]]) -> Response:
    """Return the response of `load`.

    All requests for the same path and query that arrive at the same time share one response.
    """
    scope = request.scope
    key = (scope["path"], scope["query_string"])
    client_state = scope.get("extensions", {}).get(CLIENT_STATE)
    caller = UNKNOWN_CALLER
    if client_state is not None:
        caller = Caller(scope["client"][0] if scope["client"] else "", client_state)
    return await scope["state"]["list_pages"].read(key, load, caller)  # type: ignore[no-any-return]


async def send_response(response: Response, scope: Scope, send: Send) -> None:
    """Send a whole response, with the id of its request. Several requests may share one response."""
    info: RequestInfo = scope["request_info"]
    info.status = response.status_code
    headers = [*response.raw_headers, (b"x-request-id", info.id.encode())]
    send_whole = scope.get("extensions", {}).get(SEND_WHOLE_RESPONSE)
    if send_whole is None or not send_whole(response.status_code, headers, response.body):
        await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": response.body})

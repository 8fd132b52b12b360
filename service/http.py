"""What all handlers need of HTTP: to read a request and refuse what cannot be read, and to answer in JSON."""

import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, TypedDict, TypeVar
from urllib.parse import parse_qsl, quote, urlencode

from pydantic import BaseModel
from starlette.requests import ClientDisconnect
from starlette.requests import Request as StarletteRequest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.documents import pointer, read_json, validate
from service.errors import (
    BodyTooLarge,
    Fault,
    InvalidIdempotencyKey,
    InvalidRequest,
    UnsupportedMediaType,
)
from service.models import MAX_BODY_BYTES, MAX_ID, MAX_IDEMPOTENCY_KEY
from service.server.http_protocol import WHOLE_ANSWER
from service.sharing import SharedReads
from service.store import Store


class State(TypedDict):
    """What the lifespan hands to every request."""

    store: Store
    pages: SharedReads[Response]


Request = StarletteRequest[State]


class Endpoint:
    """A handler as the router's ASGI application.

    Starlette would wrap a plain function to catch its exceptions. One layer around everything does that,
    `telemetry.py`, for a tenth of a request's time.
    """

    def __init__(self, handler: Callable[[Request], Awaitable[Response]], *, reads_query: bool = False) -> None:
        """`reads_query`: the handler does. Else parameters are refused, so that a misplaced one is never ignored."""
        self.handler = handler
        self.reads_query = reads_query

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["query_string"] and not self.reads_query:
            names = dict(_parameters(scope))
            faults = [Fault(pointer((name,)), "This call takes no parameters", "query") for name in names]
            raise InvalidRequest("The query does not fit: see errors.", faults)
        await respond(await self.handler(StarletteRequest(scope, receive, send)), scope, send)


class JsonResponse(Response):
    """An answer that is JSON already, with header fields that are bytes already."""

    def __init__(self, body: str, status: int = 200, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        self.status_code = status
        self.background = None
        self.body = body.encode() + b"\n"  # white space in JSON, and a prompt of its own in a terminal
        self.raw_headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(self.body)).encode()),
            *headers,
        ]


async def respond(response: Response, scope: Scope, send: Send) -> None:
    """Sends a whole answer, with the id of its request. The answer may be shared by several requests."""
    scope["status"] = response.status_code
    headers = [*response.raw_headers, (b"x-request-id", scope["request_id"].encode())]
    answer_at_once = scope.get("extensions", {}).get(WHOLE_ANSWER)
    if answer_at_once is None or not answer_at_once(response.status_code, headers, response.body):
        await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": response.body})


REPLAYED: Final = (b"idempotent-replayed", b"true")
"""Header field of an answer that was given to the same Idempotency-Key before."""

ModelT = TypeVar("ModelT", bound=BaseModel)

JSON: Final = ("application/json",)
MERGE_PATCH: Final = ("application/json", "application/merge-patch+json")


async def read_body(request: Request, model: type[ModelT], media_types: tuple[str, ...] = JSON) -> ModelT:
    """The body as `model`. Raises UnsupportedMediaType, BodyTooLarge, MalformedJson and InvalidRequest."""
    headers = dict(request.scope["headers"])
    _check_media_type(headers, media_types)
    return validate(model, read_json(await _read_bytes(request, headers)))


def read_query(request: Request, model: type[ModelT]) -> ModelT:
    """The query parameters as `model`. Raises InvalidRequest, also for a parameter given twice."""
    pairs = _parameters(request.scope)
    repeated = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    faults = [Fault(pointer((name,)), "Parameter is given more than once", "query") for name in repeated]
    try:
        query = validate(model, dict(pairs), source="query")
    except InvalidRequest as error:
        known = {fault.pointer for fault in faults}
        raise InvalidRequest(error.detail, faults + [f for f in error.faults if f.pointer not in known]) from None
    if faults:
        raise InvalidRequest("The query does not fit: see errors.", faults)
    return query


def _parameters(scope: Scope) -> list[tuple[str, str]]:
    try:
        return parse_qsl(
            scope["query_string"].decode("latin-1"), keep_blank_values=True, max_num_fields=_MOST_PARAMETERS
        )
    except ValueError:
        raise InvalidRequest(f"The query has more than {_MOST_PARAMETERS} parameters.", []) from None


_MOST_PARAMETERS = 20


def read_id(request: Request) -> int | None:
    """The id in the path, or None where it cannot be one: `0`, `007`, `1e3`, `abc`."""
    text: str = request.path_params["id"]
    if re.fullmatch("[1-9][0-9]{0,15}", text) and int(text) <= MAX_ID:
        return int(text)
    return None


def read_idempotency_key(request: Request) -> str | None:
    """The Idempotency-Key header, or None. Raises InvalidIdempotencyKey.

    A string of RFC 9651 in quotes, as draft-ietf-httpapi-idempotency-key-header has it, or the bare
    text, as most clients send it: `"k-1"` and `k-1` are the same key.
    """
    headers = request.scope["headers"]
    value = dict(headers).get(b"idempotency-key")
    if value is None:
        return None
    if sum(name == b"idempotency-key" for name, _ in headers) > 1:
        raise InvalidIdempotencyKey("Idempotency-Key is given more than once.")
    key: str = value.decode("latin-1").strip(" \t")  # white space around a field's value is not part of it
    if key.startswith('"'):
        if not re.fullmatch(r'"(?:[^"\\]|\\["\\])*"', key):
            raise InvalidIdempotencyKey("Idempotency-Key begins with a quote, but is no quoted string (RFC 9651).")
        key = re.sub(r"\\(.)", r"\1", key[1:-1])
    if not re.fullmatch(f"[\x21-\x7e]{{1,{MAX_IDEMPOTENCY_KEY}}}", key):
        raise InvalidIdempotencyKey(f"Idempotency-Key takes 1 to {MAX_IDEMPOTENCY_KEY} visible ASCII characters.")
    return key


def page_response(request: Request, items: Iterable[str], next_page: Mapping[str, int]) -> Response:
    """A bare array, with a link to the next page (RFC 8288) if `next_page` has parameters for it."""
    headers = []
    if next_page:
        parameters = urlencode({**request.query_params, **next_page})
        headers.append((b"link", f'<{quote(request.scope["path"])}?{parameters}>; rel="next"'.encode()))
    return JsonResponse(f"[{','.join(items)}]", headers=headers)


async def share_page(request: Request, load: Callable[[Request], Awaitable[Response]]) -> Response:
    """The answer of `load`, one for all requests of the same path and query that come at the same time."""
    key = (request.scope["path"], request.scope["query_string"])
    return await request.state["pages"].read(key, lambda: load(request))


def _check_media_type(headers: Mapping[bytes, bytes], media_types: tuple[str, ...]) -> None:
    content_type = headers.get(b"content-type", b"").decode("latin-1")
    if content_type not in media_types and content_type.partition(";")[0].strip().lower() not in media_types:
        raise UnsupportedMediaType(f"Send the body with Content-Type: {media_types[0]}.", media_types)
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise UnsupportedMediaType("Send the body without Content-Encoding.", media_types)


async def _read_bytes(request: Request, headers: Mapping[bytes, bytes]) -> bytes:
    too_large = f"The body is larger than {MAX_BODY_BYTES} bytes."
    # Before the first byte is read: a client that waits for `100 Continue` then never sends it.
    declared = headers.get(b"content-length", b"0")
    if not re.fullmatch(b"[0-9]{1,18}", declared) or int(declared) > MAX_BODY_BYTES:
        raise BodyTooLarge(too_large)
    body = b""
    more = True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > MAX_BODY_BYTES:
            raise BodyTooLarge(too_large)
    return body

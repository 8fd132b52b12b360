"""JSON responses, and how a response is sent."""

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from hashlib import sha256
from typing import Any, Final
from urllib.parse import quote, urlencode

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.api.coalescing import UNKNOWN_CALLER, Caller
from service.api.event_feed import SlowReader
from service.api.request import Request, RequestInfo, parse_parameters

SEND_WHOLE_RESPONSE: Final = "holdfast.send_whole_response"
"""ASGI extension of Holdfast's server: a function of status, head and body that sends a response in one call.

The head has the header fields, each as a line that ends with CRLF.
"""

CLIENT_STATE: Final = "holdfast.client_state"
"""ASGI extension of Holdfast's server: a function that returns the ClientState."""

REQUEST_ERROR: Final = "holdfast.request_error"
"""Entry of the ASGI scope: the HoldfastError because of which Holdfast's server could not read the request."""

_NO_STORE: Final = (b"cache-control", b"no-store")
"""Header field of every response that nobody may keep: orders, health, errors, and all results of changes."""

_NO_CACHE: Final = (b"cache-control", b"no-cache")
"""Header field of a response that a cache may keep, but must check with its ETag before each use (RFC 9111, 5.2.2)."""

_NO_SNIFFING: Final = (b"x-content-type-options", b"nosniff")
"""Header field of every stream: a browser must not guess the type of a response
(https://fetch.spec.whatwg.org/#nosniff). All other responses get it from _FULL_HEAD."""

_PLAIN_QUERY: Final = re.compile(rb"\w+=[\w.-]+(?:&\w+=[\w.-]+)*")
"""A query in which no character is or must be encoded."""

_ENTITY_TAG: Final = re.compile(rb'(?:W/)?("[^"]*")')

_REPLAYED: Final = b"idempotent-replayed: true\r\n"
"""Line of the head of a response that repeats the result of an earlier request with the same Idempotency-Key."""


class JsonResponse(Response):
    """A response whose body is a JSON text, and whose header fields are bytes."""

    def __init__(
        self,
        body: str,
        headers: Iterable[tuple[bytes, bytes]] = (),
        cache_control: tuple[bytes, bytes] = _NO_STORE,
    ) -> None:
        self.status_code = 200
        self.background = None
        self.body = body.encode() + b"\n"  # in a terminal, the prompt then begins on its own line
        self.raw_headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(self.body)).encode()),
            cache_control,
            *headers,
        ]


class WrittenResponse(Response):
    """A response whose header fields are already bytes, as HTTP/1.1 sends them. The most frequent responses use it."""

    def __init__(self, status: int, head: bytes, body: bytes) -> None:
        """`head`: the header fields that only this response has, each as a line that ends with CRLF."""
        self.status_code = status
        self.background = None
        self.head = head
        self.body = body


_WRITTEN_HEAD: Final = b"content-type: %b\r\ncontent-length: %d\r\ncache-control: no-store\r\n"
_CREATED_HEAD: Final = _WRITTEN_HEAD.replace(b"%b", b"application/json") + b"location: %b\r\n"
_PROBLEM_HEAD: Final = _WRITTEN_HEAD.replace(b"%b", b"application/problem+json")


class EventStream(Response):
    """Server-sent events, as long as the client listens."""

    def __init__(self, messages: AsyncGenerator[bytes]) -> None:
        self.status_code = 200
        self.background = None
        self.messages = messages
        self.raw_headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            _NO_STORE,
            (b"x-accel-buffering", b"no"),  # nginx would collect the events
        ]


def ok(body: str, *, replayed: bool = False) -> Response:
    """Return a 200 response that nobody may keep."""
    content = body.encode() + b"\n"  # in a terminal, the prompt then begins on its own line
    head = _WRITTEN_HEAD % (b"application/json", len(content))
    return WrittenResponse(200, head + _REPLAYED if replayed else head, content)


def created(request: Request, path: str, body: str, *, replayed: bool = False) -> Response:
    """Return a 201 response with the path of what was created."""
    content = body.encode() + b"\n"
    head = _CREATED_HEAD % (len(content), f"{request.scope['root_path']}{path}".encode())
    return WrittenResponse(201, head + _REPLAYED if replayed else head, content)


def problem(body: str, status: int, headers: Mapping[str, str]) -> Response:
    """Return a response whose body is a problem (RFC 9457)."""
    content = body.encode() + b"\n"
    head = _PROBLEM_HEAD % len(content)
    if headers:
        head += "".join([f"{name.lower()}: {value}\r\n" for name, value in headers.items()]).encode()
    return WrittenResponse(status, head, content)


def no_content() -> Response:
    """Return a 204 response."""
    response = Response(status_code=204)
    response.raw_headers = [_NO_STORE]
    return response


def page_response(request: Request, items: Iterable[str], next_page: Mapping[str, int]) -> JsonResponse:
    """Return a JSON array, with a link to the next page (RFC 8288) if `next_page` has parameters for it."""
    headers = []
    if next_page:
        scope = request.scope
        parameters = _with_parameters(request, next_page)
        headers.append((b"link", f'<{scope["root_path"]}{quote(scope["path"])}?{parameters}>; rel="next"'.encode()))
    return JsonResponse(f"[{','.join(items)}]", headers=headers)


def _with_parameters(request: Request, added: Mapping[str, int]) -> str:
    """Return the query of a request with these parameters added or replaced."""
    query = request.scope["query_string"]
    if _PLAIN_QUERY.fullmatch(query):  # decoding and encoding it would give the same, and take five times as long
        pairs: dict[str, str | int] = dict([pair.split("=") for pair in query.decode().split("&")])
        return "&".join([f"{name}={value}" for name, value in {**pairs, **added}.items()])
    return urlencode({**dict(parse_parameters(query)), **added})


def cacheable(response: JsonResponse, etag: str) -> Response:
    """Let caches keep a response, if they ask before each use whether it has changed."""
    kept = [field for field in response.raw_headers if field is not _NO_STORE]
    response.raw_headers = [*kept, _NO_CACHE, (b"etag", f'"{etag}"'.encode())]
    return response


def hash_of(*parts: bytes | memoryview) -> str:
    """Return 32 hexadecimal digits that change if and only if the parts change."""
    content = sha256()
    for part in parts:
        content.update(part)
    return content.hexdigest()[:32]


def cacheable_page(response: JsonResponse) -> Response:
    """Let caches keep a page. Its ETag is a hash of the body and of the link to the next page."""
    links = [value for name, value in response.raw_headers if name == b"link"]
    return cacheable(response, hash_of(response.body, *links))


def not_modified_or(request: Request, response: Response) -> Response:
    """Return 304 if the client has this response already (If-None-Match, RFC 9110, 13.1.2), otherwise the response."""
    known = b",".join([value for name, value in request.scope["headers"] if name == b"if-none-match"])
    if not known:
        return response
    fields = [field for field in response.raw_headers if field[0] in (b"etag", b"cache-control", b"vary")]
    etag = next(value for name, value in fields if name == b"etag")
    if known.strip() != b"*" and etag not in _ENTITY_TAG.findall(known):
        return response
    not_modified = Response(status_code=304)
    not_modified.raw_headers = fields
    return not_modified


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


async def send_events(
    response: EventStream, scope: Scope, receive: Receive, send: Send, is_allowed: Callable[[], bool]
) -> None:
    """Send events until the client is gone or too slow, the server stops, or the client may not have them any more."""
    info: RequestInfo = scope["request_info"]
    info.status = response.status_code
    headers = [*response.raw_headers, _NO_SNIFFING, (b"x-request-id", info.id.encode()), *info.headers]
    try:
        await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body"})
        else:
            await _send_until_disconnected(response.messages, receive, send, is_allowed)
    finally:
        await response.messages.aclose()


async def _send_until_disconnected(
    messages: AsyncGenerator[bytes], receive: Receive, send: Send, is_allowed: Callable[[], bool]
) -> None:
    sender = asyncio.create_task(_send_messages(messages, send, is_allowed), name="event-stream")
    gone = asyncio.create_task(_wait_until_disconnected(receive), name="event-stream-client")
    try:
        await asyncio.wait((sender, gone), return_when=asyncio.FIRST_COMPLETED)
        if sender.done():
            sender.result()
        else:
            sender.cancel()
            await asyncio.wait((sender,))
            with suppress(OSError):
                await send({"type": "http.response.body"})  # the server stops
    finally:
        gone.cancel()
        sender.cancel()
        await asyncio.wait((sender,))


async def _send_messages(messages: AsyncGenerator[bytes], send: Send, is_allowed: Callable[[], bool]) -> None:
    """Send messages as they come. Return if the client is gone, or too slow: then the response has no end.

    It ends if the API key of the client is not valid any more. There is a message at least every few seconds.
    """
    try:
        async for data in messages:
            if not is_allowed():
                await send({"type": "http.response.body"})
                return
            await send({"type": "http.response.body", "body": data, "more_body": True})
    except (OSError, SlowReader):
        return


async def _wait_until_disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def send_response(response: Response, scope: Scope, send: Send) -> None:
    """Send a whole response, with the id of its request. Several requests may share one response."""
    info: RequestInfo = scope["request_info"]
    info.status = response.status_code
    head = _FULL_HEAD % (_head_of(response), info.id.encode())
    if info.headers:
        head += header_lines(info.headers)
    send_whole = scope.get("extensions", _NO_EXTENSIONS).get(SEND_WHOLE_RESPONSE)
    if send_whole is not None:
        send_whole(response.status_code, head, response.body)
        return
    fields = [tuple(line.split(b": ", 1)) for line in head.splitlines()]
    await send({"type": "http.response.start", "status": response.status_code, "headers": fields})
    await send({"type": "http.response.body", "body": response.body})


_FULL_HEAD: Final = b"%bx-content-type-options: nosniff\r\nx-request-id: %b\r\n"
_NO_EXTENSIONS: Final[Mapping[str, Any]] = {}


def _head_of(response: Response) -> bytes:
    """Return the header fields of a response as lines."""
    if response.__class__ is WrittenResponse:
        return response.head
    return header_lines(response.raw_headers)


def header_lines(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return header fields as HTTP/1.1 sends them: each as a line that ends with CRLF."""
    return b"".join([b"%b: %b\r\n" % field for field in fields])

"""What all handlers need of HTTP: to read a request and refuse what cannot be read, and to answer in JSON."""

import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, TypedDict, TypeVar
from urllib.parse import parse_qsl, urlencode

from pydantic import BaseModel
from starlette.requests import Request as StarletteRequest
from starlette.responses import Response

from service.documents import pointer, read_json, validate
from service.errors import (
    BodyTooLarge,
    Fault,
    InvalidIdempotencyKey,
    InvalidRequest,
    UnsupportedMediaType,
)
from service.models import MAX_BODY_BYTES, MAX_ID, MAX_IDEMPOTENCY_KEY
from service.sharing import SharedReads
from service.store import Store


class State(TypedDict):
    """What the lifespan hands to every request."""

    store: Store
    pages: SharedReads[Response]


Request = StarletteRequest[State]

ModelT = TypeVar("ModelT", bound=BaseModel)

JSON: Final = ("application/json",)
MERGE_PATCH: Final = ("application/json", "application/merge-patch+json")


async def read_body(request: Request, model: type[ModelT], media_types: tuple[str, ...] = JSON) -> ModelT:
    """The body as `model`. Raises UnsupportedMediaType, BodyTooLarge, MalformedJson and InvalidRequest."""
    _check_media_type(request, media_types)
    return validate(model, read_json(await _read_bytes(request)))


def read_query(request: Request, model: type[ModelT]) -> ModelT:
    """The query parameters as `model`. Raises InvalidRequest, also for a parameter given twice."""
    pairs = parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True)
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
    values = [value for name, value in request.scope["headers"] if name == b"idempotency-key"]
    if not values:
        return None
    if len(values) > 1:
        raise InvalidIdempotencyKey("Idempotency-Key is given more than once.")
    key: str = values[0].decode("latin-1")
    if key.startswith('"'):
        if not re.fullmatch(r'"(?:[^"\\]|\\["\\])*"', key):
            raise InvalidIdempotencyKey("Idempotency-Key begins with a quote, but is no quoted string (RFC 9651).")
        key = re.sub(r"\\(.)", r"\1", key[1:-1])
    if not re.fullmatch(f"[\x21-\x7e]{{1,{MAX_IDEMPOTENCY_KEY}}}", key):
        raise InvalidIdempotencyKey(f"Idempotency-Key takes 1 to {MAX_IDEMPOTENCY_KEY} visible ASCII characters.")
    return key


def json_response(body: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer whose body is JSON already."""
    return Response(body.encode(), status, headers, media_type="application/json")


def page_response(request: Request, items: Iterable[str], next_page: Mapping[str, int]) -> Response:
    """A bare array, with a link to the next page (RFC 8288) if `next_page` has parameters for it."""
    headers = {}
    if next_page:
        parameters = urlencode({**request.query_params, **next_page})
        headers["Link"] = f'<{request.scope["path"]}?{parameters}>; rel="next"'
    return json_response(f"[{','.join(items)}]", headers=headers)


async def share_page(request: Request, load: Callable[[Request], Awaitable[Response]]) -> Response:
    """The answer of `load`, one for all requests of the same path and query that come at the same time."""
    key = (request.scope["path"], request.scope["query_string"])
    return await request.state["pages"].read(key, lambda: load(request))


def _check_media_type(request: Request, media_types: tuple[str, ...]) -> None:
    content_type = request.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() not in media_types:
        raise UnsupportedMediaType(f"Send the body with Content-Type: {media_types[0]}.", media_types)
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("Send the body without Content-Encoding.", media_types)


async def _read_bytes(request: Request) -> bytes:
    too_large = BodyTooLarge(f"The body is larger than {MAX_BODY_BYTES} bytes.")
    # Before the first byte is read: a client that waits for `100 Continue` then never sends it.
    declared = request.headers.get("content-length", "0")
    if not re.fullmatch("[0-9]{1,18}", declared) or int(declared) > MAX_BODY_BYTES:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise too_large
    return bytes(body)

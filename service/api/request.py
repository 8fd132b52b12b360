"""Reads a request: the id in its path, its Idempotency-Key, its body and its query. Refuses what cannot be read."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Final, TypedDict, TypeVar
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope

from service.api.coalescing import RequestCoalescer
from service.api.event_feed import EventFeed
from service.domain.decoding import pointer, read_json, validate
from service.domain.errors.request import (
    BodyTooLarge,
    FieldError,
    InvalidIdempotencyKey,
    InvalidRequest,
    UnsupportedMediaType,
)
from service.domain.limits import MAX_BODY_BYTES, MAX_ID, MAX_IDEMPOTENCY_KEY
from service.domain.requests import RequestModel
from service.metrics.counters import Metrics
from service.storage.partitioned import AnyStore

if TYPE_CHECKING:
    from service.api.refused_orders import RefusalLog

ModelT = TypeVar("ModelT", bound=RequestModel)

JSON: Final = ("application/json",)
NO_MODELS: Final[Mapping[str, type[RequestModel]]] = {}
MERGE_PATCH: Final = ("application/json", "application/merge-patch+json")

WHOLE_BODY: Final = "holdfast.whole_body"
"""Entry of the ASGI scope: the body. Holdfast's server has read it, and has refused it if it was too large."""

TRACE: Final = "holdfast.trace"
"""Entry of the ASGI scope: the ids of the trace and the span of a request, if traces are on."""

_TRACEPARENT: Final = re.compile(
    rb"([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(-.*)?", re.DOTALL
)

_ID: Final = re.compile("[1-9][0-9]{0,15}")
_IDEMPOTENCY_KEY: Final = re.compile(f"[\x21-\x7e]{{1,{MAX_IDEMPOTENCY_KEY}}}")

_MAX_PARAMETERS: Final = 20
"""Many more than any API call has. Each unknown parameter becomes an entry in `errors`."""

_MAX_CACHED_QUERY: Final = 200
"""In bytes. Longer than any useful query."""


class State(TypedDict):
    """The objects of a shop that every request gets from the lifespan of the application.

    `stores`: by name of the shop, those that the request may be about: one, or all of this service.
    """

    store: AnyStore
    stores: Mapping[str, AnyStore]
    list_pages: RequestCoalescer[Response]
    metrics: Metrics
    event_feed: EventFeed
    refusal_log: "RefusalLog"


class RequestInfo:
    """What the middleware knows of a request. `status` of the response is 0 until the response is sent.

    `route`: the path of its row in the table of calls, such as `/orders/{id}`; an empty text if no row fits.
    `reason`: the name of the problem that it was answered with, or an empty text.
    `fields`: its header fields; of a field that is given twice, the last one. `key`: the name of its API key; an empty
    text if there are no keys. `headers`: further header fields of the answer. `shop`: the name of its shop, if the
    service has several.
    """

    __slots__ = ("fields", "headers", "id", "key", "reason", "route", "shop", "status")

    def __init__(self, request_id: str, fields: Mapping[bytes, bytes]) -> None:
        self.id = request_id
        self.fields = fields
        self.reason = ""
        self.route = ""
        self.status = 0
        self.key = ""
        self.shop = ""
        self.headers: tuple[tuple[bytes, bytes], ...] = ()


def request_facts(scope: Scope) -> dict[str, str]:
    """Return what each log line about a request says: its id, its call, and the trace that it belongs to."""
    info: RequestInfo = scope["request_info"]
    facts = {"request_id": info.id, "method": scope["method"], "route": info.route}
    if info.key:
        facts["key"] = info.key
    if info.shop:
        facts["shop"] = info.shop
    return facts | (scope[TRACE] if TRACE in scope else _read_traceparent(scope["headers"]))


def _read_traceparent(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return the ids in the header `traceparent` (https://www.w3.org/TR/trace-context/). Without a valid one: none."""
    values = [value for name, value in headers if name == b"traceparent"]
    match = _TRACEPARENT.fullmatch(values[0]) if len(values) == 1 else None
    if match is None or match[1] == b"ff" or (match[1] == b"00" and match[4]):
        return {}
    return {"trace_id": match[2].decode(), "span_id": match[3].decode()}


class Request:
    """A request as a handler gets it. `idempotency_key` is only read if the API call takes an Idempotency-Key.

    Creating a Request of Starlette takes twice as long, and no handler needs its other attributes.
    """

    __slots__ = ("idempotency_key", "scope")

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.idempotency_key: str | None = None


def store_of(request: Request) -> AnyStore:
    """Return the Store of this process."""
    store: AnyStore = request.scope["state"]["store"]
    return store


def key_name(request: Request) -> str:
    """Return the name of the API key of a request, or an empty text if there are no keys."""
    info: RequestInfo = request.scope["request_info"]
    return info.key


def read_id(text: str) -> int | None:
    """Return the id in a path, or None if the text cannot be an id: `0`, `007`, `1e3`, `abc`."""
    if _ID.fullmatch(text) and int(text) <= MAX_ID:
        return int(text)
    return None


def is_repeated(name: bytes, scope: Scope) -> bool:
    """Return whether a request has a header field more than once."""
    headers: Sequence[tuple[bytes, bytes]] = scope["headers"]
    if len(headers) == len(scope["request_info"].fields):
        return False
    return sum(field == name for field, _ in headers) > 1


def read_idempotency_key(scope: Scope) -> str | None:
    """Return the Idempotency-Key, or None. Raise InvalidIdempotencyKey.

    The header is a quoted string (RFC 9651), as draft-ietf-httpapi-idempotency-key-header says, or the bare text, as
    most clients send it: `"k-1"` and `k-1` are the same key.
    """
    value: bytes | None = scope["request_info"].fields.get(b"idempotency-key")
    if value is None:
        return None
    if is_repeated(b"idempotency-key", scope):
        raise InvalidIdempotencyKey("Idempotency-Key is given more than once.")
    key = value.decode("latin-1").strip(" \t")  # white space around the value of a header is not part of it
    if key.startswith('"'):
        if not re.fullmatch(r'"(?:[^"\\]|\\["\\])*"', key):
            raise InvalidIdempotencyKey("Idempotency-Key begins with a quote, but is no quoted string (RFC 9651).")
        key = re.sub(r"\\(.)", r"\1", key[1:-1])
    if not _IDEMPOTENCY_KEY.fullmatch(key):
        raise InvalidIdempotencyKey(f"Idempotency-Key takes 1 to {MAX_IDEMPOTENCY_KEY} visible ASCII characters.")
    return key


def read_body(body: bytes, model: type[RequestModel], model_with: Mapping[str, type[RequestModel]]) -> RequestModel:
    """Return the body as `model`, or as another model if it is an object with a member of `model_with`.

    Raise MalformedJson and InvalidRequest.
    """
    request = model.read_quickly(body)
    if request is not None:
        return request
    document = read_json(body)
    for member, other_model in model_with.items():
        if isinstance(document, dict) and member in document:
            model = other_model
    return validate(model, document)


def check_media_type(headers: Mapping[bytes, bytes], media_types: tuple[str, ...]) -> None:
    """Raise UnsupportedMediaType if the body has none of these media types."""
    # Most requests have exactly this field. The checks below take longer: they decode and compare texts.
    is_usual = headers.get(b"content-type") == b"application/json" and b"content-encoding" not in headers
    if is_usual and "application/json" in media_types:
        return
    content_type = headers.get(b"content-type", b"").decode("latin-1")
    if content_type not in media_types and content_type.partition(";")[0].strip().lower() not in media_types:
        raise UnsupportedMediaType(f"Send the body with Content-Type: {media_types[0]}.", media_types)
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise UnsupportedMediaType("Send the body without Content-Encoding.", media_types)


async def read_bytes(receive: Receive, headers: Mapping[bytes, bytes]) -> bytes:
    """Return the body, from a server that has not read it. Raise BodyTooLarge, and ClientDisconnect."""
    too_large = f"The body is larger than {MAX_BODY_BYTES} bytes."
    # Check the declared length first: a client that waits for `100 Continue` then never sends the body.
    declared = headers.get(b"content-length", b"0")
    if not re.fullmatch(b"[0-9]{1,18}", declared) or int(declared) > MAX_BODY_BYTES:
        raise BodyTooLarge(too_large)
    body = b""
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > MAX_BODY_BYTES:
            raise BodyTooLarge(too_large)
    return body


def read_query(query_string: bytes, model: type[ModelT]) -> ModelT:
    """Return the query parameters as `model`. Raise InvalidRequest, also if a parameter is given twice."""
    if len(query_string) > _MAX_CACHED_QUERY:
        return _parse_query(query_string, model)
    query = _cached_query(query_string, model)
    assert isinstance(query, model)
    return query


def _parse_query(query_string: bytes, model: type[ModelT]) -> ModelT:
    pairs = parse_parameters(query_string)
    repeated = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    errors = [FieldError(pointer((name,)), "Parameter is given more than once", "query") for name in repeated]
    try:
        query = validate(model, dict(pairs), source="query")
    except InvalidRequest as error:
        known = {field_error.pointer for field_error in errors}
        errors += [field_error for field_error in error.field_errors if field_error.pointer not in known]
        raise InvalidRequest(error.explanation, errors) from None
    if errors:
        raise InvalidRequest("The query is not valid: see errors.", errors)
    return query


@lru_cache(maxsize=1000)  # many requests ask for the same page: validating each query took 2 us
def _cached_query(query_string: bytes, model: type[RequestModel]) -> RequestModel:
    return _parse_query(query_string, model)


def refuse_parameters(query_string: bytes) -> None:
    """Raise InvalidRequest: this call takes no query parameters. So a misplaced parameter is never ignored."""
    names = dict(parse_parameters(query_string))
    errors = [FieldError(pointer((name,)), "This call takes no parameters", "query") for name in names]
    raise InvalidRequest("The query is not valid: see errors.", errors)


def parse_parameters(query_string: bytes) -> list[tuple[str, str]]:
    """Return the names and values of a query. Raise InvalidRequest if it is not UTF-8, or has too many parameters."""
    try:
        return parse_qsl(query_string.decode(), keep_blank_values=True, max_num_fields=_MAX_PARAMETERS, errors="strict")
    except UnicodeDecodeError:
        raise InvalidRequest("The query is not UTF-8.", []) from None
    except ValueError:
        raise InvalidRequest(f"The query has more than {_MAX_PARAMETERS} parameters.", []) from None

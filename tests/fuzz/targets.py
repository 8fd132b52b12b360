"""Functions of bytes that fail if a part of the service reads these bytes wrongly.

Each reads them with the service, which may refuse them with its own errors only, and with another library, which must
agree. `inputs()` has examples, with which a fuzzer begins.
"""

import asyncio
import json
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from functools import partial
from random import Random
from typing import Any, Final
from urllib.parse import parse_qsl

import h11
from pydantic_core import from_json

from service.api.api_keys import ApiKeys
from service.api.negotiation import prefers_html, weights
from service.api.preconditions import expected_stocks, expected_versions
from service.api.problems import problem_document
from service.api.request import (
    Request,
    RequestInfo,
    is_repeated,
    read_id,
    read_idempotency_key,
    read_query,
    refuse_parameters,
    request_facts,
)
from service.api.responses import REQUEST_ERROR, JsonResponse, cacheable, not_modified_or
from service.api.routes import CALLS
from service.domain.api_key import parse_keys
from service.domain.decoding import read_json, validate
from service.domain.errors.access import NotAuthenticated
from service.domain.errors.base import HoldfastError
from service.domain.errors.request import InvalidIdempotencyKey, InvalidRequest, MalformedJson
from service.domain.requests import EventsQuery, OrdersQuery, ProductsQuery, RequestModel
from tests.fuzz.bodies import FIELDS, ODD_VALUES, make_body
from tests.fuzz.grammar import BAD_FIELDS, FIELDS_OF_HEADS, PARAMETERS, make_conversation
from tests.support.fake_transport import connect, make_server, receive

_LIMITS: Final = ("is given twice", " fields, and no request has so many", "too many digits", "cannot be represented",
                  "nested too deeply")  # fmt: skip
"""Reasons to refuse JSON that other parsers accept."""

MODELS: Final = tuple(model for call in CALLS if call.body for model in (call.body, *call.body_with.values()))
_QUERIES: Final[tuple[type[RequestModel], ...]] = (ProductsQuery, OrdersQuery, EventsQuery)


def _attempt(
    refusal: type[HoldfastError], function: Callable[..., Any], *args: Any
) -> tuple[Any, HoldfastError | None]:
    """Return the result of a function, or its refusal, of which a client must be able to read the problem."""
    try:
        return function(*args), None
    except refusal as error:
        problem = json.loads(problem_document(error, "f-1", ""))
        assert problem["detail"]
        assert all(entry["pointer"].startswith("#") and entry["detail"] for entry in problem.get("errors", ()))
        return None, error


def read_body(data: bytes) -> None:
    """Read a body. The first byte says for which call."""
    model, body = MODELS[data[0] % len(MODELS) if data else 0], data[1:]
    quickly = model.read_quickly(body)
    document, refusal = _attempt(MalformedJson, read_json, body)
    if refusal is not None:
        is_known = any(limit in refusal.detail() for limit in _LIMITS)
        assert is_known or not _is_json(body), f"refused: {refusal.detail()}"
        assert quickly is None, "read_quickly accepts it, although read_json refuses it"
        return
    assert _is_json(body) or "\\u" in body.decode(), "accepted, although it is not JSON"  # lone surrogates
    assert document == json.loads(body, parse_float=Decimal, object_pairs_hook=_pairs), "read as something else"
    request, refusal = _attempt(InvalidRequest, validate, model, document)
    again = None if refusal else validate(model, read_json(_encode(document).encode()))
    assert again == request, "the same JSON is read differently"
    assert quickly in (None, request), "read_quickly and validate return different requests"


def _is_json(body: bytes) -> bool:
    """Return whether the JSON parser of pydantic, which is not the service's, can read a body."""
    try:
        body.decode()
        from_json(body, allow_inf_nan=False)
    except ValueError:
        return False
    return True


def _pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    assert len(dict(pairs)) == len(pairs), "a field that is given twice is accepted"
    return dict(pairs)


def _encode(document: object) -> str:
    if isinstance(document, dict):
        return "{" + ",".join([f"{json.dumps(name)}:{_encode(value)}" for name, value in document.items()]) + "}"
    if isinstance(document, list):
        return "[" + ",".join(map(_encode, document)) + "]"
    return str(document) if isinstance(document, Decimal) else json.dumps(document)


def read_parameters(data: bytes) -> None:
    """Read a query. The first byte says for which call."""
    model, query = _QUERIES[data[0] % len(_QUERIES) if data else 0], data[1:]
    _attempt(InvalidRequest, refuse_parameters, query)
    found, refusal = _attempt(InvalidRequest, read_query, query, model)
    if refusal is not None:
        return
    given = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    assert len(given) == len(found.model_fields_set), "a parameter is ignored"
    for name, text in given:
        value = getattr(found, name)
        if isinstance(value, bool):
            assert text == str(value).lower()
        elif isinstance(value, int):
            assert str(value) == (text.lstrip("0") or "0"), "a number is read as another one"
        else:
            assert value == (frozenset(text.split(",")) if name == "type" else text)


_KEYS: Final = ApiKeys(parse_keys(f"fuzz sha256:{'0' * 64} scopes=all"))


def read_fields(data: bytes) -> None:
    """Read header fields, one per line: those that the API looks at. The first line is an id in a path."""
    first, *lines = data.split(b"\n")
    path_id = read_id(first.decode("latin-1"))
    assert path_id is None or str(path_id).encode() == first
    headers = [(name.lower(), value.strip(b" \t")) for name, _, value in (line.partition(b":") for line in lines)]
    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": "/", "headers": headers}
    info = scope["request_info"] = RequestInfo("f-1", dict(headers))
    request = Request(scope)
    key, _ = _attempt(InvalidIdempotencyKey, read_idempotency_key, scope)
    assert key is None or (0 < len(key) < 256 and all("!" <= character <= "~" for character in key))
    given = info.fields.get(b"authorization")
    _, refusal = _attempt(
        NotAuthenticated, partial(_KEYS.find, is_repeated=is_repeated(b"authorization", scope)), given
    )
    assert refusal is not None, "an unknown key is accepted"
    trace_id = request_facts(scope).get("trace_id", "a" * 32)
    assert len(trace_id) == 32
    assert int(trace_id, 16) > 0
    assert prefers_html(headers) in (True, False)
    assert all(0 <= weight <= 1.9 for weight in weights(headers, b"accept-encoding").values())
    versions, stocks = expected_versions(request), expected_stocks(request)
    assert (versions is None) == (stocks is None)
    assert all(len(version) == 32 for version in versions or ())
    answer = not_modified_or(request, cacheable(JsonResponse("{}"), "0" * 32))
    assert answer.status_code in (200, 304)


def read_requests(data: bytes) -> None:
    """Read the bytes of a connection. However they are divided, they must be the same requests, and those h11 finds."""
    whole, is_refused = _LOOP.run_until_complete(_requests_of([data]))
    divided = _LOOP.run_until_complete(_requests_of(_divided(data)))
    assert (whole, is_refused) == divided, f"divided, it is {divided}, and not {whole, is_refused}"
    found, refusal = _requests_of_h11(data)
    for mine, other in zip(whole, found, strict=False):
        assert (mine[0], mine[2]) == (other[0], other[2]), f"h11 reads {other}, and not {mine}"
        # A client may send a whole URL, of which the service takes path and query. The `?` of an empty query is lost.
        targets = (other[1], other[1].removesuffix(b"?"))
        assert any(target.endswith(mine[1].lstrip(b"/")) for target in targets), f"{mine[1]!r} was {other[1]!r}"
        assert mine[3] == other[3] or mine[0] == "CONNECT", f"h11 reads {other}, and not {mine}"
    is_allowed = refusal.startswith(_STRICTER) or (whole and whole[-1][0] == "CONNECT")  # its body means nothing
    assert len(whole) <= len(found) or is_allowed, f"h11 finds fewer requests: {refusal}"


def _comparable(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return header fields without harmless differences.

    The service drops Upgrade, h11 writes Transfer-Encoding in lower case, and httptools leaves tabs at the end.
    """
    fields = [(bytes(name), bytes(value).rstrip(b" \t")) for name, value in headers if name != b"upgrade"]
    return [(name, value.lower() if name == b"transfer-encoding" else value) for name, value in fields]


_STRICTER: Final = ("no request line received", "illegal request line")
"""What h11 refuses, and RFC 9112 allows: empty lines before a request, and two spaces in its first line."""

_LOOP: Final = asyncio.new_event_loop()
_Found = tuple[str, bytes, list[tuple[bytes, bytes]], bytes]


async def _requests_of(parts: list[bytes]) -> tuple[list[_Found], bool]:
    """Return the requests that the service reads, and whether it refuses the rest.

    Not why: of two reasons, it gives the one that it notices first.
    """
    found: list[_Found] = []
    is_refused = False

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal is_refused
        if REQUEST_ERROR in scope:
            is_refused = True
        else:
            query = b"?" + scope["query_string"] if scope["query_string"] else b""
            target = scope["raw_path"] + query
            found.append((scope["method"], target, _comparable(scope["headers"]), (await receive())["body"]))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    server = make_server(app)
    transport = connect(server)
    for part in parts:
        receive(transport, part)
        for _ in range(1000):
            await asyncio.sleep(0)
            if not server.tasks:
                break
    transport.abort()
    await asyncio.sleep(0)
    return found, is_refused


def _divided(data: bytes) -> list[bytes]:
    if len(data) <= 64:
        return [data[at : at + 1] for at in range(len(data))]
    rng = Random(data)
    ends = sorted(rng.sample(range(1, len(data)), 5))
    return [data[start:end] for start, end in zip([0, *ends], [*ends, len(data)], strict=True)]


def _requests_of_h11(data: bytes) -> tuple[list[_Found], str]:
    """Return the requests that h11 reads, and why it refuses the rest: an empty text if it does not."""
    parser = h11.Connection(h11.SERVER, max_incomplete_event_size=2**20)
    parser.receive_data(data)
    found: list[_Found] = []
    try:
        while isinstance(head := parser.next_event(), h11.Request):
            body = b""
            while isinstance(event := parser.next_event(), h11.Data):
                body += event.data
            if not isinstance(event, h11.EndOfMessage):
                break
            found.append((head.method.decode(), head.target, _comparable(head.headers), body))
            if head.method == b"CONNECT":
                break
            parser.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
            parser.send(h11.EndOfMessage())
            if parser.our_state is not h11.DONE:
                break
            parser.start_next_cycle()
    except h11.RemoteProtocolError as error:
        return found, str(error)
    return found, ""


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "bodies": read_body,
    "queries": read_parameters,
    "fields": read_fields,
    "requests": read_requests,
}


def inputs(name: str) -> Iterator[bytes]:
    """Return inputs of a target. They are the same each time."""
    rng = Random(name)
    match name:
        case "bodies":
            calls = [(call.method, call.path) for call in CALLS for _ in (call.body, *call.body_with) if call.body]
            for number, call in enumerate(calls):
                yield from (bytes([number]) + make_body(rng, FIELDS[call], "r").data for _ in range(20))
            yield from (b"\0" + value for value in ODD_VALUES)
        case "queries":
            yield from (bytes([number]) + text for number in range(len(_QUERIES)) for text in PARAMETERS)
        case "fields":
            yield from (b"12\n" + field.replace(b"\r\n", b"\n") for field in FIELDS_OF_HEADS)
        case "requests":
            head = b"POST /orders HTTP/1.1\r\nHost: x\r\n%b\r\n\r\n"
            yield from (head % field + end for field in BAD_FIELDS if len(field) < 3000 for end in (b"", b"0\r\n\r\n"))
            for number in range(150):
                items = make_conversation(0, number).items
                yield from (item.data for item in items if len(item.data) < 2000)
                yield b"".join([item.data for item in items])[:4000]

"""The requests of sockets.py: HTTP/1.1 as clients send it, as bad clients send it, and as attackers send it.

`make_conversation(seed, number)` always returns the same bytes for the same arguments, so each finding can be repeated.
"""

import re
from itertools import pairwise
from random import Random
from typing import Final, NamedTuple

from service.api.call import Call
from service.api.routes import CALLS
from service.domain.limits import MAX_HEAD_BYTES, MAX_HEADER_FIELDS
from tests.fuzz.bodies import FIELDS, ODD_VALUES, Body, make_body, mutate
from tests.support.documented import document

KEY: Final = b"hf_fuzz"
"""The API key that may do everything."""

LIMITED_KEY: Final = b"hf_limited"
"""The API key that may only read products, and not often."""


class Item(NamedTuple):
    """A request, or bytes in the place of a request.

    `id`: its X-Request-Id. `is_clear`: these bytes are one whole request, whatever comes before or after, so it must be
    answered. `is_last`: the client asks the service to close the connection after it. `statuses`: those that the
    description of the API has for the call; empty if it is not known which call this is. `reference`: of the order that
    it places, if it places one. `is_whole`: the body is not mutated.
    """

    id: bytes
    data: bytes
    method: str = "GET"
    is_clear: bool = False
    is_last: bool = False
    statuses: frozenset[int] = frozenset()
    reference: str = ""
    is_whole: bool = False


class Conversation(NamedTuple):
    """What is sent on one connection. `is_cut`: the client closes it without waiting for the answers."""

    items: tuple[Item, ...]
    pieces: tuple[bytes, ...]
    is_cut: bool


_WEIGHTS: Final = {("POST", "/orders"): 60, ("GET", "/products/{id}"): 20, ("GET", "/orders/{id}"): 20,
                   ("GET", "/openapi.json"): 0.1, ("GET", "/metrics"): 0.1, ("GET", "/events"): 0.5,
                   ("GET", "/docs/{file}"): 1, ("POST", "/products"): 5, ("GET", "/products"): 4,
                   ("GET", "/orders"): 4, ("GET", "/problems"): 1, ("DELETE", "/products/{id}"): 3}  # fmt: skip
_CALL_WEIGHTS: Final = [_WEIGHTS.get((call.method, call.path), 8) for call in CALLS]
_STATUSES: Final = {
    call: frozenset(map(int, document()["paths"][call.path][call.method.lower()]["responses"])) for call in CALLS
}

_ID_TEXTS: Final = (
    b"0", b"-1", b"01", b"1e3", b"9007199254740991", b"9007199254740992", b"9" * 40, b"%31%30", b"1%0a", b"%00",
    b"%ff", b"%f0%9f%98%80", b"a", b"1;x", b"%2e%2e", b"1%2f2", b"%", b"%zz", b"*",
)  # fmt: skip
_FILES: Final = (
    b"pages.css", b"docs.js", b"swagger-ui.css", b"..%2fpages.css", b"%2e%2e", b"a" * 300,
)  # fmt: skip
_NAMES: Final = (
    b"not-found", b"overloaded", b"nothing", b"%3cscript%3e", b"%c3%a9",
)  # fmt: skip

PARAMETERS: Final = (
    b"limit=5", b"limit=1", b"limit=0", b"limit=1001", b"limit=05", b"limit=", b"limit", b"limit=1&limit=2",
    b"after=3", b"after=9007199254740991", b"after=9007199254740992", b"after=-1", b"after=1_0", b"after=%D9%A3",
    b"before=9", b"before=0", b"before=%20", b"in_stock=true", b"in_stock=TRUE", b"status=pending", b"status=x",
    b"customer=mug", b"customer=%F0%9F%98%80", b"customer=%ff", b"customer=%00", b"customer=" + b"c" * 300,
    b"reference=r", b"reference=%22%3E%0d%0a", b"type=order_placed,nothing", b"type=", b"unknown=1", b"&&;=&=", b"%zz",
    b"&".join([b"p%d=1" % number for number in range(25)]), b"x=" + b"y" * 2000,
)  # fmt: skip

FIELDS_OF_HEADS: Final = (
    b"Accept: text/html, */*;q=0.1", b"Accept: */*;q=9, ;;;q=1.", b"accept: ," + b"a/b;q=0.1," * 200, b"Accept:",
    b"Accept-Encoding: gzip;q=0.5, br", b"Accept-Encoding: gzip;q=0", b"Content-Encoding: gzip", b"Cookie: a=b; c",
    b"Idempotency-Key: k-%d", b'Idempotency-Key: "k-%d"', b'Idempotency-Key: "a\\"b"', b'Idempotency-Key: "',
    b"Idempotency-Key:", b"Idempotency-Key: " + b"k" * 256, b"Idempotency-Key: a b", b"Idempotency-Key: \xe9",
    b"Idempotency-Key: 1\r\nIdempotency-Key: 2", b"If-Match: *", b'If-Match: "%032d-9"', b'If-Match: W/"a", "b',
    b"If-Match: ,,", b'If-Match: "' + b"0" * 32 + b"-" + b"9" * 10 + b'"', b'If-None-Match: *',
    b'If-None-Match: "x", W/"y"', b"If-None-Match: \xff", b"Range: bytes=0-1", b"Upgrade-Insecure-Requests: 1",
    b"traceparent: 00-%032x-%016x-01", b"traceparent: ff-1", b"traceparent: \xff", b"Last-Event-ID: 1-1",
    b"Last-Event-ID: x", b"Connection: keep-alive",
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA", b"Upgrade: websocket", b"X: \t y \t",
    b"X:", b"X: \x80\xff", b"x-empty: ", b"!#$%&'*+-.^_`|~: 1", b"X: " + b"v" * 5000, b"Origin: null",
    b"Transfer: chunked", b"Content-Lengths: 5", b"Forwarded: for=_x", b"X-Forwarded-Host: evil", b"Max-Forwards: 0",
)  # fmt: skip
"""Fields that do not change where a request ends."""

_KEYS: Final = (
    b"", b"Authorization: Bearer nobody", b"Authorization: Basic YTpi", b"Authorization:", b"authorization: Bearer",
    b"Authorization: Bearer " + LIMITED_KEY, b"Authorization: Bearer \xff\xfe",
    b"Authorization: Bearer " + KEY + b"\r\nAuthorization: Bearer " + KEY,
)  # fmt: skip

BAD_FIELDS: Final = (
    b"Content-Length: 5", b"Content-Length: -1", b"Content-Length: +5", b"Content-Length: 5, 5",
    b"Content-Length: 0x5", b"Content-Length: " + b"9" * 30, b"Content-Length: 70000", b"Content-Length:",
    b"Content-Length : 5", b"Content-Length: 1e1", b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: chunked, chunked", b"Transfer-Encoding:", b"Transfer-Encoding: identity",
    b"Transfer-Encoding: xchunked", b"Transfer-Encoding : chunked", b"Transfer-Encoding:\x0bchunked",
    b"Transfer-Encoding: Chunked\r\nContent-Length: 3", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
    b"TE: trailers", b"Host: evil", b"Host:", b"X: a\r\n folded", b" X: begins with a space", b"X: a\nY: b",
    b"X: a\rY: b", b"X: \x00", b"X\x00: 1", b"X y: 1", b": 1", b"X", b"\x7f: 1", b"X\xe9: 1", b"X: \x01\x02",
    b"Connection: close", b"Connection: \xff, close", b"Connection:", b"Expect: 100-continue", b"Expect: x",
    b"Connection: close, upgrade\r\nUpgrade: x", b"X: " + b"h" * MAX_HEAD_BYTES,
    b"\r\n".join([b"X-%d: 1" % number for number in range(MAX_HEADER_FIELDS)]),
    b"\r\n\r\nGET /livez HTTP/1.1\r\nHost: x",
)  # fmt: skip
_BAD_LINES: Final = (
    b"GET", b"GET /livez", b"GET /livez HTTP/0.9", b"GET /livez HTTP/2.0", b"GET /livez HTTP/1.2",
    b"GET  /livez HTTP/1.1", b"get /livez HTTP/1.1", b"GET /livez http/1.1", b"GET /a b HTTP/1.1",
    b"GET /\xff HTTP/1.1", b"GET * HTTP/1.1", b"CONNECT x:1 HTTP/1.1", b"OPTIONS * HTTP/1.1", b"PRI * HTTP/2.0",
    b"GET livez HTTP/1.1", b" GET / HTTP/1.1", b"GET http:// HTTP/1.1", b"GET /" + b"p" * 70_000 + b" HTTP/1.1",
    b"M-SEARCH /livez HTTP/1.1", b"GET /#f HTTP/1.1", b"GET ?limit=1 HTTP/1.1", b"GET //x/livez HTTP/1.1",
    b"GET\t/livez HTTP/1.1", b"TRACE / HTTP/1.1", b"GET /livez HTTP/1.10", b"GET /livez HTTP/11",
    b"\r\n\r\nGET /livez HTTP/1.1",
)  # fmt: skip
_BAD_CHUNKS: Final = (
    b"5\r\nabc\r\n0\r\n\r\n", b"g\r\n", b"-1\r\n", b"0x1\r\na\r\n0\r\n\r\n", b"F" * 17 + b"\r\n", b"\r\n",
    b"1\na\n0\n\n", b"1;\x00\r\na\r\n0\r\n\r\n", b"1 \r\na\r\n0\r\n\r\n", b"1\r\na0\r\n\r\n",
    b"0\r\nX: a\r\n b\r\n\r\n", b"0\r\n" + b"T: 1\r\n" * 200 + b"\r\n", b"1;" + b"e" * 70_000 + b"\r\na\r\n0\r\n\r\n",
    b"1\r\na\r\n" * 5000 + b"0\r\n\r\n", b"2\r\na", b"0\r\nContent-Length: 5\r\n\r\n",
    b"ffff\r\n" + b"b" * 65535 + b"\r\n2\r\nbb\r\n0\r\n\r\n", b"7fffffffffffffff\r\n", b"1\r\na\r\n0\r\n",
)  # fmt: skip
_NOT_HTTP: Final = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\r\n" * 2000,
    b"\x00" * 100, b"{}", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"G", b"*1\r\n$4\r\nPING\r\n",
    b"\xff" * 70_000,
)  # fmt: skip


def make_conversation(seed: int, number: int) -> Conversation:
    """Return what is sent on the connection with this number."""
    rng = Random(f"{seed}-{number}")
    items = []
    for place in range(rng.choice((1, 2, 3, 5, 8, 13, 21, 34))):
        # With random digits, so that a mutated id is not the id of another request.
        items.append(_item(rng, b"f-%d-%d-%08x" % (number, place, rng.getrandbits(32))))
        ends = items[-1].is_last or not items[-1].is_clear
        if ends and rng.random() < 0.7:
            break  # otherwise the client sends more, although the service will probably not read it
    is_cut = rng.random() < 0.03
    data = b"".join([item.data for item in items])
    if is_cut:
        data = data[: rng.randrange(len(data) + 1)]
    return Conversation(tuple(items), _pieces(rng, data), is_cut)


def _pieces(rng: Random, data: bytes) -> tuple[bytes, ...]:
    if rng.random() < 0.6:
        return (data,)
    if rng.random() < 0.1:
        # Not more bytes one by one: a busy client would need seconds, and the service waits for two after a refusal.
        start = rng.randrange(len(data) + 1)
        ends = [*range(start, min(start + 30, len(data))), len(data)]
        return (data[:start], *[data[at:end] for at, end in pairwise(ends)])
    ends = sorted({rng.randrange(len(data) + 1) for _ in range(rng.randint(1, 6))} | {len(data)})
    return tuple(data[start:end] for start, end in zip([0, *ends], ends, strict=False))


def _item(rng: Random, request_id: bytes) -> Item:
    kind = rng.random()
    if kind < 0.005:
        return Item(request_id, rng.choice((*_NOT_HTTP, rng.randbytes(rng.randint(1, 300)))))
    if kind < 0.01:
        head = (
            b"POST /orders HTTP/1.1\r\nHost: x\r\nX-Request-Id: %b\r\nTransfer-Encoding: chunked\r\n\r\n" % request_id
        )
        return Item(request_id, head + rng.choice(_BAD_CHUNKS))
    call = rng.choices(CALLS, _CALL_WEIGHTS)[0]
    return _damaged(rng, call, request_id) if kind < 0.08 else _clear(rng, call, request_id)


def _target(rng: Random, call: Call, method: str) -> tuple[bytes, bool]:
    """Return path and query, and whether they still belong to the call."""
    path, belongs = call.path.encode(), True
    if "{id}" in call.path:
        good = rng.randint(1, 9) if "products" in call.path and rng.random() < 0.7 else int(10 ** rng.uniform(0, 5.3))
        if method in ("DELETE", "PATCH") and "products" in call.path:
            good += 9  # products 1 to 9 stay on sale
        text = b"%d" % good if rng.random() < 0.9 else rng.choice(_ID_TEXTS)
        belongs = b"%2f" not in text
        path = path.replace(b"{id}", text)
    elif "{file}" in call.path or "{name}" in call.path:
        path = re.sub(rb"{.*}", rng.choice(_FILES if "{file}" in call.path else _NAMES), path)
        belongs = b"%2f" not in path
    query = b""
    if call.path == "/events":
        query = rng.choice(
            (b"", b"?type=nothing", b"?type=order_placed,order_completed", b"?after=1-1", b"?type=summary")
        )
    elif rng.random() < (0.7 if call.query else 0.03):
        query = b"?" + b"&".join(rng.choices(PARAMETERS, k=rng.choice((1, 1, 1, 2, 4))))
    match rng.randrange(40):
        case 0:
            path, belongs = path + b"/", belongs and path != b"/"
        case 1:
            path = b"http://x:1" + path
        case 2:
            path, belongs = path + rng.choice((b"//", b"/x", b"%20", b".", b";v=1")), False
    return path + query, belongs


def _fields(rng: Random, request_id: bytes) -> list[bytes]:
    key = b"Authorization: Bearer " + KEY if rng.random() < 0.97 else rng.choice(_KEYS)
    fields = [b"Host: x", b"X-Request-Id: " + request_id, *([key] if key else [])]
    while rng.random() < 0.25:
        field = rng.choice(FIELDS_OF_HEADS)
        if b"%d" in field or b"%0" in field:
            field = (
                field.replace(b"%d", b"%d" % rng.randrange(300))
                .replace(b"%032x", b"a" * 32)
                .replace(b"%016x", b"b" * 16)
            )
            field = field.replace(b"%032d", b"0" * 32)
        fields.append(field)
    return fields


def _clear(rng: Random, call: Call, request_id: bytes) -> Item:
    """Return a request that is well formed. What it says may be wrong."""
    method = call.method if rng.random() < 0.97 else rng.choice(("PUT", "OPTIONS", "DELETE", "HEAD", "PATCH", "GET"))
    target, belongs = _target(rng, call, method)
    fields = _fields(rng, request_id)
    reference = request_id.decode() if (method, call.path) == ("POST", "/orders") else ""
    body, framed = Body(b"", is_whole=True), b""
    declared = FIELDS.get((method, call.path))
    if declared is not None or rng.random() < 0.02:
        body = make_body(rng, declared or FIELDS[("POST", "/orders")], reference)
        if rng.random() < 0.97:
            fields.append(rng.choice((b"Content-Type: application/json", b"content-type: Application/JSON; charset=x")))
        else:
            fields.append(rng.choice((b"Content-Type: text/plain", b"Content-Type:", b"Content-Type: \xff", b"X: y")))
        framed = _framed(rng, body.data, fields)
    version, is_last = b"1.1", False
    if rng.random() < 0.02 or call.path == "/events":  # a stream of events is always the last answer
        fields.append(b"Connection: close")
        is_last = True
    elif rng.random() < 0.01 and not any(
        field.lower().startswith((b"transfer-", b"expect", b"connection")) for field in fields
    ):
        version, is_last = b"1.0", True
    rng.shuffle(fields)
    head = b"%b %b HTTP/%b\r\n" % (method.encode(), target, version) + b"\r\n".join(fields) + b"\r\n\r\n"
    return Item(
        request_id,
        head + framed,
        method,
        is_clear=True,
        is_last=is_last,
        statuses=_STATUSES[call] if belongs and method == call.method else frozenset(),
        reference=reference,
        is_whole=body.is_whole,
    )


def _framed(rng: Random, body: bytes, fields: list[bytes]) -> bytes:
    """Return a body as it is sent, and add the fields that say where it ends."""
    if rng.random() < 0.02:
        fields.append(b"Expect: 100-continue")
    if rng.random() < 0.85:
        fields.append(b"Content-Length: %d" % len(body))
        return body
    fields.append(rng.choice((b"Transfer-Encoding: chunked", b"transfer-encoding: Chunked")))
    sent, at = [], 0
    while at < len(body):
        chunk = body[at : at + rng.choice((1, 7, 40, 5000, 65536))]
        extension = b"" if rng.random() < 0.9 else rng.choice((b";a", b";a=b", b';a="b"', b";a=b;c=d"))
        sent.append(rng.choice((b"%x", b"%X", b"000%x")) % len(chunk) + extension + b"\r\n" + chunk + b"\r\n")
        at += len(chunk)
    trailer = (
        b"" if rng.random() < 0.9 else rng.choice((b"X-T: 1\r\n", b"Cookie: 1\r\nCookie: 2\r\n", b"Host: evil\r\n"))
    )
    return b"".join(sent) + b"0\r\n" + trailer + b"\r\n"


def _damaged(rng: Random, call: Call, request_id: bytes) -> Item:
    """Return a request whose head is wrong, or whose body ends somewhere else than it says."""
    target, _ = _target(rng, call, call.method)
    fields = _fields(rng, request_id)
    line = b"%b %b HTTP/1.1" % (call.method.encode(), target)
    body = make_body(rng, FIELDS.get((call.method, call.path), ()), "").data
    if rng.random() < 0.7:
        fields += [b"Content-Type: application/json", b"Content-Length: %d" % len(body)]
    newline = b"\r\n"
    damage = rng.randrange(8)
    match damage:
        case 0:
            line = rng.choice(_BAD_LINES)
        case 1:
            newline = b"\n"
        case 2:
            fields.remove(b"Host: x")
        case 3:
            body = body[: rng.randrange(len(body) + 1)] if rng.random() < 0.5 else body + rng.choice(ODD_VALUES)
        case 4 | 5:
            fields.insert(rng.randrange(len(fields) + 1), rng.choice(BAD_FIELDS))
    data = newline.join([line, *fields, b"", body])
    return Item(request_id, mutate(rng, data) if damage > 5 else data)

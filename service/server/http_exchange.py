"""One HTTP request and its response, as the ASGI application sees them.

ASGI: https://asgi.readthedocs.io/en/latest/specs/www.html. The application gets the whole body at once. A response in
one part is sent as a whole. The parts of a longer response are sent as they come: http_stream.py.
"""

from http import HTTPStatus
from typing import Any, Final, Protocol
from urllib.parse import unquote

from service.api.coalescing import ClientState
from service.api.request import WHOLE_BODY
from service.api.responses import CLIENT_STATE, REQUEST_ERROR, SEND_WHOLE_RESPONSE, header_lines
from service.domain.errors.base import HoldfastError
from service.server.http_stream import ResponseStream

Headers = list[tuple[bytes, bytes]]

STATUS_LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}

_ASGI: Final = {"version": "3.0", "spec_version": "2.3"}

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

_MAX_COPIED_BYTES: Final = 16 * 1024
"""A larger body is not copied for each client: several slow clients may share it."""

_WITHOUT_BODY: Final = (204, 304)
"""Responses with these status codes have neither a body nor a Content-Length (RFC 9110, section 8.6)."""


class Connection(Protocol):
    """The part of a connection that its exchanges use."""

    client: tuple[str, int] | None
    """Address and port; None on a Unix socket."""

    def client_state(self) -> ClientState:
        """Return whether the client still waits for the response."""
        ...

    async def wait_until_closed(self) -> None:
        """Wait until the connection is closed."""
        ...

    def open_stream(self, exchange: "Exchange", in_chunks: bool) -> ResponseStream:
        """Begin a response in several parts. `in_chunks`: whether its parts are sent as chunks."""
        ...


class Exchange:
    """A request that was read, and then its response.

    `size`: the bytes of the request on the wire. `error`: why the request could not be read, or None.
    """

    __slots__ = (
        "_body_was_given",
        "_start",
        "body",
        "connection",
        "error",
        "headers",
        "http_1_0",
        "keep_alive",
        "method",
        "response",
        "size",
        "stream",
        "target",
    )

    def __init__(
        self, connection: Connection, method: str, target: bytes, headers: Headers, *, http_1_0: bool, keep_alive: bool
    ) -> None:
        """Begin with an empty body, and without a response."""
        self.connection = connection
        self.method = method
        self.target = target
        self.headers = headers
        self.http_1_0 = http_1_0
        self.keep_alive = keep_alive
        self.body: bytes | bytearray = b""
        self.size = 0
        self.error: HoldfastError | None = None
        self.response: tuple[int, bytes, bytes] | None = None
        """Status, header fields as lines, and body."""
        self.stream: ResponseStream | None = None
        self._body_was_given = False
        self._start: Any = None

    def add_to_body(self, part: bytes) -> None:
        """Append a part of the body. Most bodies come in one part, which is not copied."""
        if not self.body:
            self.body = part
        elif isinstance(self.body, bytearray):
            self.body += part
        else:
            self.body = bytearray(self.body) + part

    def scope(self, state: dict[str, Any], root_path: str) -> dict[str, Any]:
        """Return the ASGI scope of the request. Holdfast changes neither `state` nor "asgi", so they are not copied."""
        target = self.target
        path, _, query = (target if target[:1] == b"/" else _origin_form(target)).partition(b"?")
        text = path.decode("latin-1")
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": _ASGI,
            "http_version": "1.0" if self.http_1_0 else "1.1",
            "method": self.method,
            "scheme": "http",
            "path": unquote(text) if "%" in text else text,
            "raw_path": path,
            "query_string": query,
            "root_path": root_path,
            "headers": self.headers,
            "server": None,
            "client": self.connection.client,
            "state": state,
            "extensions": {SEND_WHOLE_RESPONSE: self.send_whole_response, CLIENT_STATE: self.connection.client_state},
            WHOLE_BODY: bytes(self.body),  # no copy, unless it came in several parts
        }
        if self.error is not None:
            scope[REQUEST_ERROR] = self.error
        return scope

    async def receive(self) -> dict[str, Any]:
        """Return the whole body as an ASGI event. Later calls wait until the client is gone."""
        if not self._body_was_given:
            self._body_was_given = True
            return {"type": "http.request", "body": bytes(self.body), "more_body": False}
        await self.connection.wait_until_closed()
        return {"type": "http.disconnect"}

    async def send(self, event: Any) -> None:
        """Take an ASGI event.

        Raise ValueError if a header field could begin another field or response. Raise OSError if the client is gone,
        but only in a response of several parts.
        """
        if event["type"] == "http.response.start":
            headers = [(bytes(name).lower(), bytes(value)) for name, value in event.get("headers", ())]
            if any(character in name + value for name, value in headers for character in b"\r\n\0"):
                raise ValueError("a header field of the response contains CR, LF or NUL")
            self._start = event["status"], headers
            return
        part, more = event.get("body", b""), event.get("more_body", False)
        if self.stream is None and more:
            self._begin_stream()
        if self.stream is not None:
            if self.method != "HEAD":
                await self.stream.write(part)
            if not more:
                await self.stream.end()
            return
        status, headers = self._start
        if status not in _WITHOUT_BODY and all(name != b"content-length" for name, _ in headers):
            headers.append((b"content-length", str(len(part)).encode()))
        self.response = status, header_lines(headers), part

    def _begin_stream(self) -> None:
        """Begin a response in several parts: it is the last one of its connection.

        HTTP/1.0 knows no chunks: there, the end of the connection is the end of the response (RFC 9112, section 6.3).
        """
        status, headers = self._start
        in_chunks = not self.http_1_0 and all(name != b"content-length" for name, _ in headers)
        if in_chunks:
            headers.append((b"transfer-encoding", b"chunked"))
        self.keep_alive = False
        self.response = status, header_lines(headers), b""
        self.stream = self.connection.open_stream(self, in_chunks and self.method != "HEAD")

    def send_whole_response(self, status: int, head: bytes, body: bytes) -> None:
        """Take a whole response: the ASGI extension SEND_WHOLE_RESPONSE.

        Header fields are not checked. Holdfast writes them itself, percent-encodes in Link what comes from a client,
        and checks X-Request-Id in the request middleware.
        """
        self.response = status, head, body

    def response_parts(self, date: bytes, *, last: bool) -> list[bytes]:
        """Return the bytes of the response: one part, or a head and a large body.

        `date`: the Date field. `last`: the connection ends after this response.
        """
        assert self.response is not None
        status, head, body = self.response
        if last:
            end = b"connection: close\r\n\r\n"
        elif self.http_1_0:
            end = b"connection: keep-alive\r\n\r\n"
        else:
            end = b"\r\n"
        if self.method == "HEAD" or status in _WITHOUT_BODY:
            body = b""
        if len(body) > _MAX_COPIED_BYTES:
            return [b"".join((STATUS_LINES[status], date, head, end)), body]
        return [b"".join((STATUS_LINES[status], date, head, end, body))]


def _origin_form(target: bytes) -> bytes:
    """Return path and query of a request target. A proxy may send a whole URL (RFC 9112, section 3.2.2)."""
    scheme, separator, rest = target.partition(b"://")
    if not separator or scheme.lower() not in (b"http", b"https"):
        return target
    authority_end = min((rest.find(mark) for mark in (b"/", b"?") if mark in rest), default=len(rest))
    path = rest[authority_end:]
    return path if path[:1] == b"/" else b"/" + path

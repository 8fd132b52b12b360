"""uvicorn's HTTP protocol with a bound on what comes before a body, and a short way for whole answers."""

import sys
from collections.abc import Iterable
from functools import partial
from typing import Final

from httptools import HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from service.api.responses import SEND_WHOLE_RESPONSE

MAX_HEAD_BYTES: Final = 64 * 1024
"""Request line and header fields, four times what most proxies let pass."""

_TOO_LARGE: Final = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"

_LARGE: Final = 16 * 1024
"""Bytes of a body that are too many to copy for each client."""


class HttpProtocol(HttpToolsProtocol):
    """Ends a connection whose request does not come to its body within MAX_HEAD_BYTES (RFC 6585, section 5).

    Neither httptools nor uvicorn has a bound: a single connection with header fields without end took 4 GB in
    six seconds.
    """

    _head_bytes = 0
    _in_head = True

    _data = _again = b""

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
        self._again = data
        while self._again:  # more than once only where an offer to upgrade is ignored
            self._data, self._again = self._again, b""
            super().data_received(self._data)
        # After, not before: what was just read may hold a whole request, body and all.
        if self._in_head and self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.transport.write(_TOO_LARGE)
            self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        """Ignores an offer to upgrade (RFC 9110, section 7.8): the request is parsed again without it.

        Each request of a Java client and of `curl --http2` has one, and uvicorn would lose its body
        (https://github.com/Kludex/uvicorn/issues/2722). uvicorn calls this while it handles httptools' exception.
        """
        upgrade = sys.exc_info()[1]
        if not self._ignores_upgrade() or not isinstance(upgrade, HttpParserUpgrade):
            super()._unsupported_upgrade_warning()
            return
        fields = [field for field in self.headers if field[0] not in (b"connection", b"upgrade", b"http2-settings")]
        version = self.parser.get_http_version().encode()
        parts = [self.parser.get_method(), b" ", self.url, b" HTTP/", version, b"\r\n"]
        for name, value in fields:
            parts += (name, b": ", value, b"\r\n")
        self.parser = HttpRequestParser(self)
        self._again = b"".join(parts) + b"\r\n" + self._data[upgrade.args[0] :]

    def _ignores_upgrade(self) -> bool:
        return bool(self.parser.should_upgrade()) and self.parser.get_method() != b"CONNECT"

    def on_headers_complete(self) -> None:
        if self._ignores_upgrade():
            return
        self._in_head = False
        super().on_headers_complete()
        self.scope["extensions"] = {SEND_WHOLE_RESPONSE: partial(_answer, self.cycle)}  # type: ignore[dict-item]

    def on_message_complete(self) -> None:
        if self._ignores_upgrade():
            return
        self._in_head = True
        self._head_bytes = 0
        super().on_message_complete()


def _answer(cycle: RequestResponseCycle, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bool:
    """What two calls of cycle.send() do, in a quarter of their time.

    They look for forbidden characters in header fields and count the bytes of the body. We write our fields
    ourselves; what comes from a client is percent-encoded in Link, and checked by telemetry.py in X-Request-Id.
    A large body is handed on as it is: it may be shared, by clients that take long to read it.
    """
    if cycle.disconnected or cycle.flow.write_paused:
        return False
    parts = [STATUS_LINE[status]]
    for name, value in (*cycle.default_headers, *headers):
        parts += (name, b": ", value, b"\r\n")
    if not cycle.keep_alive:
        parts.append(b"connection: close\r\n")
    parts.append(b"\r\n")
    if cycle.scope["method"] == "HEAD":
        body = b""
    cycle.response_started = True
    if len(body) > _LARGE:
        cycle.transport.writelines((b"".join(parts), body))
    else:
        parts.append(body)
        cycle.transport.write(b"".join(parts))
    cycle.waiting_for_100_continue = False
    cycle.response_complete = True
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
    return True

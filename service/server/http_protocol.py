"""uvicorn's HTTP protocol, with a limit on the size of a request head, and a faster function for a whole response.

These parts of uvicorn are used here, although its documentation does not promise them; a test checks that they are
there (tests/server/test_uvicorn_contract.py). All are in `uvicorn.protocols.http.httptools_impl`:

- `STATUS_LINE`
- `HttpToolsProtocol`: `data_received`, `on_headers_complete`, `on_message_complete` and `_unsupported_upgrade_warning`,
  which are overridden; `parser`, `transport`, `headers`, `url`, `scope`, `cycle`
- `RequestResponseCycle`: `on_response`; `scope`, `transport`, `flow.write_paused`, `default_headers`, `message_event`,
  `disconnected`, `keep_alive`, `waiting_for_100_continue`, `response_started`, `response_complete`
"""

import sys
from collections.abc import Iterable
from functools import partial
from typing import Final

from httptools import HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from service.api.responses import SEND_WHOLE_RESPONSE

MAX_HEAD_BYTES: Final = 64 * 1024
"""Limit for the request line and header fields, four times what most proxies accept."""

_TOO_LARGE: Final = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"

_MAX_COPIED_BYTES: Final = 16 * 1024
"""A larger body is not copied for each client."""


class HttpProtocol(HttpToolsProtocol):
    """Close a connection whose request head is larger than MAX_HEAD_BYTES (RFC 6585, section 5).

    Neither httptools nor uvicorn has a limit: a single connection with endless header fields took 4 GB of memory in
    six seconds.
    """

    _head_bytes = 0
    _in_head = True

    _data = b""
    _replay_buffer = b""
    """Bytes to parse next, in place of those that came from the client."""

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
        self._replay_buffer = data
        while self._replay_buffer:  # more than once only if an Upgrade header is ignored
            self._data, self._replay_buffer = self._replay_buffer, b""
            super().data_received(self._data)
        # After parsing, not before: these bytes may contain a whole request with its body.
        if self._in_head and self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.transport.write(_TOO_LARGE)
            self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        """Ignore the Upgrade header (RFC 9110, section 7.8): parse the request again without it.

        Every request of Java's HttpClient and of `curl --http2` has this header, and uvicorn would lose the body
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
        self._replay_buffer = b"".join(parts) + b"\r\n" + self._data[upgrade.args[0] :]

    def _ignores_upgrade(self) -> bool:
        return bool(self.parser.should_upgrade()) and self.parser.get_method() != b"CONNECT"

    def on_headers_complete(self) -> None:
        if self._ignores_upgrade():
            return
        self._in_head = False
        super().on_headers_complete()
        self.scope["extensions"] = {SEND_WHOLE_RESPONSE: partial(_send_whole_response, self.cycle)}  # type: ignore[dict-item]

    def on_message_complete(self) -> None:
        if self._ignores_upgrade():
            return
        self._in_head = True
        self._head_bytes = 0
        super().on_message_complete()


def _send_whole_response(
    cycle: RequestResponseCycle, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes
) -> bool:
    """Do what two calls of cycle.send() do, in a quarter of their time.

    cycle.send() looks for forbidden characters in header fields, and counts the bytes of the body. Neither is
    needed: Holdfast writes the header fields itself, percent-encodes in Link what comes from a client, and checks
    X-Request-Id in the request middleware. A large body is not copied: several slow clients may share it.
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
    if len(body) > _MAX_COPIED_BYTES:
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

"""An HTTP/1.1 connection: httptools parses the bytes, and each request gets its response, in order (RFC 9112).

A connection has a reading side, the callbacks of the parser, which put each request into a queue, and an answering
side: `_respond`, a task that lives while there are requests in the queue.

Everything that a client can make large has a limit: the head, the body, the bytes on the wire, the requests that wait,
the bytes that the client does not read, and the time for each.
"""

import asyncio
from collections import deque
from typing import Final, cast

import httptools
import structlog

from service.api.coalescing import ClientState
from service.api.request import request_facts
from service.domain.errors.base import HoldfastError, InternalError
from service.domain.errors.request import (
    BodyTooLarge,
    HeadTooLarge,
    MalformedRequest,
    RequestTimeout,
    UnsupportedHttpVersion,
)
from service.domain.limits import MAX_BODY_BYTES, MAX_HEAD_BYTES, MAX_HEADER_FIELDS
from service.server.http_exchange import CONTINUE, Exchange, Headers
from service.server.http_server import HttpServer
from service.server.http_stream import ResponseStream

log = structlog.get_logger()

MAX_WIRE_BYTES: Final = MAX_HEAD_BYTES + 4 * MAX_BODY_BYTES
"""Limit for a whole request as it is sent: with the sizes, extensions and trailers of its chunks."""

MAX_QUEUED: Final = 8
"""Requests that may wait for the response before them. Then the connection is not read."""

MAX_QUEUED_BYTES: Final = MAX_BODY_BYTES

_SLICE: Final = 4096
"""Bytes that are parsed at a time: httptools cannot stop within a slice, which may have 200 small requests."""

_MAX_UNREAD: Final = 64 * 1024
"""Bytes that a client may leave unread before it has to wait for its next response."""

_MIN_BYTES_PER_TICK: Final = 64 * 1024
"""A client that reads a large response faster than this has time until it has the whole response."""

_ANSWERS_PER_TURN: Final = 16
"""After this number of answers in a row, the other connections of the worker get their turn."""

_LINGER_TICKS: Final = 2
"""Ticks for the client to close the connection after the last response."""

_SHUTDOWN_BODY_TICKS: Final = 3
"""Ticks for the client to send the rest of a body, after the server has begun to stop."""

_SHUTDOWN_LINGER_SECONDS: Final = 0.2

_SHUTDOWN_IDLE_SECONDS: Final = 0.25
"""How long an idle connection stays open after the server has begun to stop. A request that the client was already
sending is answered, with `Connection: close`. Without this pause, the client would lose it."""


class HttpConnection(asyncio.Protocol):
    """One connection. asyncio calls its methods, and httptools those that begin with `on_`."""

    transport: asyncio.Transport

    def __init__(self, server: HttpServer) -> None:
        """Prepare a connection of this worker."""
        self.server = server
        self._parser = httptools.HttpRequestParser(self)
        # The request that is being read.
        self._target = b""
        self._headers: Headers = []
        self._exchange: Exchange | None = None  # from the end of its head to its own end
        self._size = 0  # of this request, up to now
        self._counted = 0  # of these bytes, how many the server counts as unfinished
        self._owes_continue = False
        # What was received, but not parsed yet. While there is something, the transport is not read.
        self._unparsed = b""
        self._paused = False
        self._is_last = False  # nothing that still comes matters
        self.deadline = server.now + server.timeouts.keep_alive
        # The requests that were read, and the answering side.
        self._queue: deque[Exchange] = deque()
        self._queued_bytes = 0
        self._task: asyncio.Task[None] | None = None
        self._writable: asyncio.Future[None] | None = None  # while the client leaves too much unread
        self._write_deadline = 0
        self._closed: asyncio.Future[None] | None = None
        self._streaming: Exchange | None = None  # whose response is being sent in several parts
        self.client: tuple[str, int] | None = None  # address and port
        self._client_has_ended = False
        self._lingers = False
        self._shutting_down = False

    # The callbacks of asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=_MAX_UNREAD)
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):  # not on a unix socket
            self.client = peer[0], peer[1]
        self.server.connections.add(self)
        self.server.make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        self.server.connections.discard(self)
        self._is_last = True
        self._queue.clear()  # the request that is being answered continues: it may be an order
        self._unparsed = b""
        self._forget_unfinished()
        del self._parser  # it refers to this object: a reference cycle
        self._exchange = None  # an exchange refers to this object, too
        self.resume_writing()
        if self._closed is not None and not self._closed.done():
            self._closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        if self._is_last:
            return
        if self.is_idle():
            self.deadline = self.server.now + self.server.timeouts.head
        if len(data) <= _SLICE and not self._paused:
            self._parse(data)
            if len(self._queue) >= MAX_QUEUED or self._queued_bytes >= MAX_QUEUED_BYTES:
                self._parse_more()
        else:
            self._unparsed += data
            self._parse_more()
        if self._size > self._counted:
            self.server.add_unfinished(self._size - self._counted)
            self._counted = self._size

    def eof_received(self) -> bool:
        """Keep the connection open for the responses that the client still waits for."""
        self._client_has_ended = True
        self._is_last = not self._unparsed
        return self._task is not None

    def pause_writing(self) -> None:
        self._writable = self.server.loop.create_future()
        unread = self.transport.get_write_buffer_size()
        self._write_deadline = self.server.now + self.server.timeouts.write + unread // _MIN_BYTES_PER_TICK
        self.server.add_unread(self, unread)

    def resume_writing(self) -> None:
        if self._writable is not None:
            self.server.remove_unread(self)
            if not self._writable.done():
                self._writable.set_result(None)
            self._writable = None

    # What the server calls.

    def is_reading(self) -> bool:
        """Return whether the client owes something: the rest of a request, or another request."""
        return self._task is None

    def is_idle(self) -> bool:
        """Return whether no request is being read or answered."""
        return self._task is None and self._size == 0

    def abort(self) -> None:
        """Close the connection immediately."""
        self._is_last = True
        self._forget_unfinished()
        self.transport.abort()

    def shutdown(self) -> None:
        """End the connection after the responses that are under way. uvicorn calls this when the server stops."""
        self._shutting_down = True
        if self._streaming is not None and self._closed is not None and not self._closed.done():
            self._closed.set_result(None)  # such a response can be endless: tell the application
        if self._task is not None:
            self._is_last = True  # requests that come after those in the queue are not answered
        else:
            self.server.loop.call_later(_SHUTDOWN_IDLE_SECONDS, self._end_reading)

    def _end_reading(self) -> None:
        """End a connection that is not answering a request. Wait only for a body."""
        if self._task is not None:
            return  # its response will be the last one
        if self._exchange is None or self._is_last:
            self.transport.close()  # nothing was asked: a part of a head is no request
        else:
            self.deadline = min(self.deadline, self.server.now + _SHUTDOWN_BODY_TICKS)

    def check_deadline(self) -> None:
        """End what takes the client too long. The time of the application does not count."""
        if self._writable is not None:
            if self.server.now > self._write_deadline:
                self.abort()
        elif self._task is None and self.server.now > self.deadline:
            if self._lingers or self.transport.is_closing():
                self.transport.abort()
            elif self.is_idle():
                self._is_last = True
                self.transport.close()
            else:
                self._refuse(RequestTimeout("The rest of the request did not arrive in time."))

    # The reading side.

    def _parse_more(self) -> None:
        """Parse what was received, as far as the responses keep up. Read no more until they do."""
        offset, data = 0, self._unparsed
        while offset < len(data) and self._may_read():
            self._parse(data[offset : offset + _SLICE])
            offset += _SLICE
        self._unparsed = b"" if self._is_last else data[offset:]
        if self._client_has_ended and not self._unparsed:
            self._is_last = True
        must_pause = bool(self._unparsed) or not self._may_read()
        if must_pause and not self._is_last:
            if not self._paused:
                self._paused = True
                self.transport.pause_reading()
        elif self._paused:
            self._paused = False
            self.transport.resume_reading()

    def _may_read(self) -> bool:
        return not self._is_last and len(self._queue) < MAX_QUEUED and self._queued_bytes < MAX_QUEUED_BYTES

    def _parse(self, data: bytes) -> None:
        self._size += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if not self._is_last:
                self._parse_without_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserCallbackError as error:
            log.error("internal_error", exc_info=error.__context__ or error)
            self._refuse(InternalError())
        except httptools.HttpParserError as error:
            if str(error) == "Invalid HTTP version":  # digits, but not those of 0.9, 1.0, 1.1 or 2.0
                self._refuse(UnsupportedHttpVersion("Use HTTP/1.1."))
            else:
                self._refuse(MalformedRequest(f"This is not HTTP/1.1: {error}."))
        if self._exchange is None:
            if self._size > MAX_HEAD_BYTES:
                self._refuse(HeadTooLarge(f"The head of the request is larger than {MAX_HEAD_BYTES} bytes."))
            elif len(self._headers) > MAX_HEADER_FIELDS:
                self._refuse(HeadTooLarge(f"The request has more than {MAX_HEADER_FIELDS} header fields."))
        elif self._size > MAX_WIRE_BYTES:
            self._refuse(BodyTooLarge(f"The request is larger than {MAX_WIRE_BYTES} bytes."))

    def _parse_without_upgrade(self, rest: bytes) -> None:
        """Parse the request again without its Upgrade field, which is ignored (RFC 9110, section 7.8).

        Every request of Java's HttpClient and of `curl --http2` has this field. httptools takes what follows it for
        another protocol.
        """
        version = self._parser.get_http_version().encode()
        head = [self._parser.get_method(), b" ", self._target, b" HTTP/", version, b"\r\n"]
        for name, value in self._headers:
            if name != b"upgrade":
                head += (name, b": ", value, b"\r\n")
        self._parser = httptools.HttpRequestParser(self)
        self._begin_request(0)
        self._parse(b"".join(head) + b"\r\n" + rest)

    def _begin_request(self, size: int) -> None:
        self._target, self._headers, self._exchange, self._size = b"", [], None, size
        self._owes_continue = False
        if self._counted:
            self._forget_unfinished()

    def _forget_unfinished(self) -> None:
        self.server.unfinished_bytes -= self._counted
        self._counted = 0

    def on_message_begin(self) -> None:
        # The first bytes of a request may come in the same slice as the end of the request before it.
        self._size = self._size or 1

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._exchange is None:  # otherwise a trailer, which is ignored (RFC 9110, section 6.5)
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        parser = self._parser
        method = parser.get_method()
        if self._is_last or (parser.should_upgrade() and method != b"CONNECT"):
            return  # see _parse_without_upgrade
        version = parser.get_http_version()
        keep_alive = parser.should_keep_alive() and method != b"CONNECT"
        exchange = self._exchange = Exchange(
            self, method.decode(), self._target, self._headers, http_1_0=version == "1.0", keep_alive=keep_alive
        )
        hosts, length, expects, codings = 0, 0, False, b""
        for name, value in self._headers:
            if name == b"host":
                hosts += 1
            elif name == b"content-length":
                length = int(value)  # the parser accepts digits only
            elif name == b"expect":
                expects = value.lower() == b"100-continue"
            elif name == b"transfer-encoding":
                codings += value.lower() or b"none"
        if version not in ("1.1", "1.0"):
            self._refuse(UnsupportedHttpVersion(f"Use HTTP/1.1, not HTTP/{version}."))
        elif hosts > 1 or (hosts == 0 and version == "1.1"):  # RFC 9112, section 3.2
            self._refuse(MalformedRequest("Send one Host header."))
        elif codings and (codings != b"chunked" or version == "1.0"):  # RFC 9112, section 6.1
            # The parser takes `gzip, chunked`, too: the compressed bytes would be read as JSON.
            self._refuse(MalformedRequest("Send no Transfer-Encoding but chunked, and none at all in HTTP/1.0."))
        elif len(self._headers) > MAX_HEADER_FIELDS:
            self._refuse(HeadTooLarge(f"The request has more than {MAX_HEADER_FIELDS} header fields."))
        elif length > MAX_BODY_BYTES:
            self._refuse(BodyTooLarge(f"The body is larger than {MAX_BODY_BYTES} bytes."))
        else:
            self.deadline = self.server.now + self.server.timeouts.body
            if expects and version == "1.1":
                self._owes_continue = True
                if self._task is None:
                    self._send_continue()
        exchange.size = self._size

    def on_body(self, part: bytes) -> None:
        exchange = self._exchange
        if self._is_last or exchange is None:
            return
        exchange.add_to_body(part)
        if len(exchange.body) > MAX_BODY_BYTES:
            self._refuse(BodyTooLarge(f"The body is larger than {MAX_BODY_BYTES} bytes."))

    def on_message_complete(self) -> None:
        exchange = self._exchange
        if self._is_last or exchange is None:  # the latter: see _parse_without_upgrade
            return
        exchange.size = self._size
        self._begin_request(0)
        if not exchange.keep_alive or self._shutting_down:
            self._is_last = True
        self._answer(exchange)

    def _refuse(self, error: HoldfastError) -> None:
        """Respond with an error after the responses to the requests before it, then close the connection."""
        if self._is_last:
            return
        self._is_last = True
        exchange = self._exchange or Exchange(self, "GET", b"/", [], http_1_0=False, keep_alive=False)
        exchange.error = error
        exchange.keep_alive = False
        exchange.body = b""
        self._begin_request(0)
        self._answer(exchange)

    def _answer(self, exchange: Exchange) -> None:
        self._queue.append(exchange)
        self._queued_bytes += exchange.size
        if self._task is None:
            self._task = self.server.loop.create_task(self._respond())
            self.server.tasks.add(self._task)

    # The answering side.

    async def _respond(self) -> None:
        """Answer the requests in the queue."""
        server, task, answered = self.server, self._task, 0
        try:
            while self._queue:
                while self._writable is not None:  # prepare no response before the client has read the last ones
                    await self._writable
                if not self._queue:
                    return  # the client is gone
                exchange = self._queue.popleft()
                self._queued_bytes -= exchange.size
                answered += 1
                if answered % _ANSWERS_PER_TURN == 0:
                    await asyncio.sleep(0)
                scope = exchange.scope(server.app_state, server.root_path)
                try:
                    await server.app(scope, exchange.receive, exchange.send)
                except Exception as error:
                    # The middleware of Holdfast answers all exceptions: this one comes from the middleware itself.
                    facts = request_facts(scope) if "request_info" in scope else {}
                    log.error("internal_error", exc_info=error, **facts)
                    exchange.response = None
                finally:
                    self._streaming = None
                if exchange.response is None:
                    exchange.keep_alive = False
                    exchange.response = 500, b"content-length: 0\r\ncache-control: no-store\r\n", b""
                if self.transport.is_closing():
                    return
                if exchange.stream is not None:
                    self._end_stream(exchange.stream)
                    return
                last = not exchange.keep_alive or (self._is_last and not self._queue)
                parts = exchange.response_parts(server.date, last=last)
                if len(parts) == 1:
                    self.transport.write(parts[0])
                else:
                    self.transport.writelines(parts)
                if last:
                    self._end()
                    return
                if self._paused:
                    self._parse_more()
            if self._is_last:  # the client has sent its last request, and a part of another one
                self._end()
                return
            if self._owes_continue:
                self._send_continue()
            timeouts = server.timeouts
            self.deadline = server.now + (
                timeouts.keep_alive if self._size == 0 else timeouts.head if self._exchange is None else timeouts.body
            )
        except BaseException:
            self.transport.abort()
            raise
        finally:
            self._task = None
            if task is not None:
                server.tasks.discard(task)

    def client_state(self) -> ClientState:
        if self.transport.is_closing():
            return ClientState.GONE
        return ClientState.MAY_BE_GONE if self._client_has_ended else ClientState.WAITS

    def open_stream(self, exchange: Exchange, in_chunks: bool) -> ResponseStream:
        self._streaming = exchange
        head = b"".join(exchange.response_parts(self.server.date, last=True))
        return ResponseStream(self._write_part, head, in_chunks=in_chunks)

    async def _write_part(self, data: bytes) -> None:
        """Send a part of a response, and wait while the client leaves too much unread. Raise OSError if it is gone."""
        if not self.transport.is_closing():
            self.transport.write(data)
            while self._writable is not None:
                await self._writable
        if self.transport.is_closing():
            raise ConnectionAbortedError("the client has closed the connection")

    def _end_stream(self, stream: ResponseStream) -> None:
        """End the connection after a response in several parts. If it is not complete, the client must notice that."""
        if stream.has_ended:
            self._end()
        else:
            self._is_last = True
            self.transport.abort()

    async def wait_until_closed(self) -> None:
        if self.transport.is_closing() or (self._streaming is not None and self._shutting_down):
            return
        if self._closed is None:
            self._closed = self.server.loop.create_future()
        await asyncio.shield(self._closed)

    def _send_continue(self) -> None:
        self._owes_continue = False
        self.transport.write(CONTINUE)

    def _end(self) -> None:
        """Say that this was the last response, and wait for the client to close the connection.

        Otherwise the system would reset the connection if more bytes of the client arrive, and the client could lose
        the response.
        """
        self._is_last = self._lingers = True
        self._unparsed = b""
        if self._client_has_ended:
            self.deadline = self.server.now + self.server.timeouts.write
            self.transport.close()
            return
        waits = self.transport.get_write_buffer_size() > 0
        self.deadline = self.server.now + (self.server.timeouts.write if waits else _LINGER_TICKS)
        self.transport.write_eof()
        if self._paused:
            self.transport.resume_reading()  # otherwise the end of the client's side would not be seen
        if self._shutting_down:
            self.server.loop.call_later(_SHUTDOWN_LINGER_SECONDS, self.transport.close)

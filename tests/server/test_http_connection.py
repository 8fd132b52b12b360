"""One HTTP connection without a network: order, limits, deadlines, and any division of the bytes into packets."""

import asyncio
import re
from itertools import pairwise

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send

from service.api.coalescing import ClientState
from service.api.request import RequestInfo
from service.api.responses import CLIENT_STATE
from service.domain.limits import MAX_BODY_BYTES, MAX_HEAD_BYTES, MAX_HEADER_FIELDS
from service.server.http_connection import MAX_QUEUED
from service.server.http_server import Timeouts
from tests.support.fake_transport import FakeTransport, connect, echo, make_server, receive, settle
from tests.support.waiting import eventually

POST = b"POST /orders HTTP/1.1\r\nHost: x\r\n"
ORDER = POST + b"Content-Length: 5\r\n\r\norder"
GET = b"GET /livez?a=1 HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nord\r\n2\r\ner\r\n0\r\nX-Trailer: 1\r\nHost: evil\r\n\r\n"
UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n"


def statuses(transport: FakeTransport) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+) ", transport.written)]


def connection_fields(transport: FakeTransport) -> list[str]:
    return [value.decode() for value in re.findall(rb"\r\nconnection: ([a-z-]+)", transport.written)]


async def answers_to(data: bytes) -> FakeTransport:
    server = make_server()
    transport = connect(server)
    receive(transport, data)
    await settle(server)
    return transport


REFUSED = {
    "a length and chunks": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and a length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "chunked is not last": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "an empty transfer encoding": POST + b"Transfer-Encoding:\r\nContent-Length: 5\r\n\r\n12345",
    "unknown transfer encoding": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "an encoding before the chunks": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "an encoding before the chunks, in two fields": POST
    + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two transfer encodings": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": b"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n123456",
    "a list of lengths": POST + b"Content-Length: 5, 5\r\n\r\n12345",
    "a length with a sign": POST + b"Content-Length: +5\r\n\r\n12345",
    "a length of 30 digits": POST + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n12345",
    "an empty length": POST + b"Content-Length:\r\n\r\n",
    "a folded field": b"GET / HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n",
    "a NUL in a field": b"GET / HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n",
    "a NUL in the target": b"GET /a\0b HTTP/1.1\r\nHost: x\r\n\r\n",
    "a space before the colon": POST + b"Content-Length : 5\r\n\r\n12345",
    "line feeds alone": b"GET / HTTP/1.1\nHost: x\n\n",
    "a CR in a field": b"GET / HTTP/1.1\r\nHost: x\r\nX: a\rContent-Length: 5\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
    "no HTTP": b"\x00\x01garbage\r\n\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
async def test_ambiguous_bytes_are_refused_after_the_answer_to_the_request_before_them(data: bytes) -> None:
    transport = await answers_to(ORDER + data + ORDER)
    assert statuses(transport) == [200, 400]
    assert b"malformed-request" in transport.written
    assert connection_fields(transport) == ["close"]
    assert transport.has_ended


TOO_LARGE = {
    "a declared body": (POST + b"Content-Length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1), 413),
    "a body in chunks": (
        POST + b"Transfer-Encoding: chunked\r\n\r\n" + (b"400\r\n" + b"x" * 1024 + b"\r\n") * 65,
        413,
    ),
    "one-byte chunks": (POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 100_000, 413),
    "a chunk extension": (POST + b"Transfer-Encoding: chunked\r\n\r\n5;" + b"a=b;" * 200_000, 413),
    "trailers": (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: aaaa\r\n" * 100_000, 413),
    "one trailer": (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"a" * 800_000, 413),
    "a field": (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * (MAX_HEAD_BYTES + 4096), 431),
    "a target": (b"GET /" + b"a" * (MAX_HEAD_BYTES + 4096), 431),
    "many fields": (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a:\r\n" * MAX_HEADER_FIELDS + b"\r\n", 431),
    "many fields without an end": (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a:\r\n" * 30_000, 431),
    "blank lines": (b"\r\n" * 100_000 + GET, 431),
    "another version": (b"GET / HTTP/0.9\r\n\r\n", 505),
    "HTTP/1.2": (b"GET / HTTP/1.2\r\nHost: x\r\n\r\n", 505),
    "HTTP/2.0": (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
    "HTTP/3.0": (b"GET / HTTP/3.0\r\nHost: x\r\n\r\n", 505),
}


@pytest.mark.parametrize(("data", "status"), TOO_LARGE.values(), ids=TOO_LARGE)
async def test_what_is_too_large_is_refused_after_the_answer_to_the_request_before_it(data: bytes, status: int) -> None:
    transport = await answers_to(ORDER + data)
    assert statuses(transport) == [200, status]
    assert connection_fields(transport) == ["close"]
    transport = await answers_to(data)
    assert statuses(transport) == [status]


ACCEPTED = {
    "one request": (ORDER, 1),
    "several requests": (ORDER + GET + CHUNKED + ORDER, 4),
    "Upgrade": (POST + UPGRADE + b"Content-Length: 5\r\n\r\norder" + ORDER, 2),
    "Upgrade and chunks": (POST + UPGRADE + CHUNKED.removeprefix(POST) + ORDER, 2),
    "trailers are no fields": (CHUNKED, 1),
    "blank lines before a request": (b"\r\n\r\n" + GET, 1),
    "a whole URL": (b"GET http://shop.example/livez?a=1 HTTP/1.1\r\nHost: x\r\n\r\n", 1),
    "HTTP/1.0 with keep-alive": (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" * 2, 2),
    "close, then more": (POST + b"Connection: close\r\nContent-Length: 5\r\n\r\norder" + ORDER, 1),
    "Upgrade beside close": (POST + b"Connection: close, Upgrade\r\nUpgrade: h2c\r\n\r\n" + ORDER, 1),
    "CONNECT": (b"CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\nxx", 1),
}


@pytest.mark.parametrize(("data", "count"), ACCEPTED.values(), ids=ACCEPTED)
async def test_requests_are_answered_in_order(data: bytes, count: int) -> None:
    transport = await answers_to(data)
    assert statuses(transport) == [200] * count


EVERYTHING = {
    **{name: data for name, (data, _) in ACCEPTED.items()},
    **{name: ORDER + data for name, data in REFUSED.items()},
}


@pytest.mark.parametrize("name", EVERYTHING)
def test_the_answers_do_not_depend_on_the_division_into_packets(name: str) -> None:
    data = EVERYTHING[name]

    async def answers(pieces: list[bytes], *, settled: bool) -> bytes:
        server = make_server()
        transport = connect(server)
        for piece in pieces:
            receive(transport, piece)
            if settled:
                await settle(server)
        await settle(server)
        # Whether an answer is the last is known later or earlier, so these fields may differ.
        return re.sub(rb"\r\ndate: [^\r]*", b"", transport.written)

    whole = asyncio.run(answers([data], settled=True))

    @settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.integers(0, len(data)), max_size=8), st.booleans())
    def check(cuts: list[int], settled: bool) -> None:
        places = [0, *sorted(cuts), len(data)]
        assert asyncio.run(answers([data[a:b] for a, b in pairwise(places)], settled=settled)) == whole

    check()
    assert asyncio.run(answers([data[at : at + 1] for at in range(len(data))], settled=False)) == whole


async def test_a_whole_url_gives_its_path_and_query() -> None:
    for target in (b"http://shop.example/livez?a=1", b"HTTPS://shop.example/livez?a=1", b"/livez?a=1"):
        transport = await answers_to(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"GET /livez?a=1 " in transport.written
    transport = await answers_to(b"GET http://shop.example?a=1 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"GET /?a=1 " in transport.written


async def test_a_half_closed_client_gets_all_its_answers() -> None:
    server = make_server()
    transport = connect(server)
    receive(transport, ORDER * (MAX_QUEUED * 300) + ORDER[:-1])
    assert transport.protocol is not None
    assert transport.protocol.eof_received()
    await settle(server)
    assert statuses(transport) == [200] * (MAX_QUEUED * 300)
    assert transport.is_closed


async def test_a_half_request_of_a_half_closed_client_is_not_answered() -> None:
    server = make_server()
    transport = connect(server)
    receive(transport, ORDER[:-1])
    assert transport.protocol is not None
    assert not transport.protocol.eof_received()
    assert transport.written == b""


async def test_a_connection_is_not_read_while_many_answers_are_owed() -> None:
    server = make_server()
    transport = connect(server)
    transport.client_reads = False
    transport.unread = 64 * 1024
    asked = 0
    while transport.reads and asked < 100_000:
        receive(transport, GET * 100)
        asked += 100
        await settle(server)
    assert asked < 1000
    assert len(transport.written) < 128 * 1024
    transport.read_all()
    await settle(server)
    assert transport.reads
    assert statuses(transport) == [200] * asked


async def test_a_client_that_expects_100_continue_gets_it_after_the_answers_before() -> None:
    server = make_server()
    transport = connect(server)
    receive(transport, ORDER + POST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")
    await settle(server)
    assert statuses(transport) == [200, 100]
    receive(transport, b"order")
    await settle(server)
    assert statuses(transport) == [200, 100, 200]


async def test_an_early_refusal_instead_of_100_continue_closes_the_connection() -> None:
    transport = await answers_to(POST + b"Expect: 100-continue\r\nContent-Length: 9999999\r\n\r\n")
    assert statuses(transport) == [413]
    assert connection_fields(transport) == ["close"]


@pytest.mark.parametrize(
    ("data", "seconds", "expected"),
    [
        (b"", 75, []),
        (ORDER, 75, [200]),
        (b"G", 10, [408]),
        (ORDER + b"GET / HTTP/1.1\r\nX: ", 10, [200, 408]),
        (ORDER[:-1], 30, [408]),
        (ORDER + ORDER[:-1], 30, [200, 408]),
    ],
)
async def test_a_client_that_takes_too_long_is_disconnected(data: bytes, seconds: int, expected: list[int]) -> None:
    server = make_server()
    transport = connect(server)
    if data:
        receive(transport, data)
    await settle(server)
    for _ in range(seconds):
        server.tick()
        await settle(server)
    assert not transport.is_closed
    assert not transport.has_ended
    for _ in range(4):  # one tick more, and those in which the client may close the connection
        server.tick()
        await settle(server)
    assert statuses(transport) == expected
    assert transport.is_closed


async def test_a_client_that_drips_gets_no_more_time() -> None:
    server = make_server(timeouts=Timeouts(head=3))
    transport = connect(server)
    receive(transport, b"GET / HTTP/1.1\r\nX: ")
    for _ in range(4):
        server.tick()
        receive(transport, b"x")
    await settle(server)
    assert statuses(transport) == [408]


async def test_the_time_of_the_application_does_not_count() -> None:
    proceed = asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await proceed.wait()
        await echo(scope, receive, send)

    server = make_server(slow)
    transport = connect(server)
    receive(transport, ORDER)
    for _ in range(200):
        server.tick()
    proceed.set()
    await settle(server)
    assert statuses(transport) == [200]
    server.tick()
    assert not transport.is_closed


async def test_a_client_that_does_not_read_is_disconnected() -> None:
    server = make_server(timeouts=Timeouts(write=5))
    transport = connect(server)
    transport.client_reads = False
    transport.unread = 64 * 1024
    receive(transport, GET)
    await settle(server)
    for _ in range(6):  # five, and one for 64 KiB
        server.tick()
    assert not transport.is_closed
    server.tick()
    assert transport.is_aborted


async def test_the_clients_that_read_nothing_for_longest_are_disconnected_if_too_much_is_unread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.server.http_server.MAX_UNREAD_BYTES", 200 * 1024)
    server = make_server()
    transports = [connect(server) for _ in range(4)]
    for transport in transports:
        transport.client_reads = False
        transport.unread = 64 * 1024
        receive(transport, GET)
        await settle(server)
    assert [transport.is_aborted for transport in transports] == [True, False, False, False]


async def test_at_the_limit_of_connections_the_oldest_idle_one_is_closed() -> None:
    server = make_server(max_connections=3)
    idle = connect(server)
    server.tick()
    busy = connect(server)
    receive(busy, ORDER[:-1])
    server.tick()
    later = connect(server)
    newest = connect(server)
    await settle(server)
    assert [transport.is_closed for transport in (idle, busy, later, newest)] == [True, False, False, False]
    receive(busy, ORDER[-1:])
    receive(newest, ORDER)
    await settle(server)
    assert statuses(busy) == statuses(newest) == [200]


async def test_at_the_limit_unfinished_requests_are_closed_if_no_connection_is_idle() -> None:
    server = make_server(max_connections=2)
    transports = [connect(server) for _ in range(2)]
    for transport in transports:
        receive(transport, ORDER[:-1])
        server.tick()
    newest = connect(server)
    await settle(server)
    assert newest.is_closed  # it is idle, and the others are not
    receive(connect(server), GET)
    assert len(server.connections) <= 3


async def test_unfinished_requests_of_all_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.server.http_server.MAX_UNFINISHED_BYTES", 100_000)
    server = make_server(max_connections=1000)
    transports = []
    for _ in range(20):
        transport = connect(server)
        receive(transport, b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000)
        transports.append(transport)
        server.tick()
    await settle(server)
    assert server.unfinished_bytes <= 100_000
    assert transports[0].is_aborted
    assert not transports[-1].is_closed
    for transport in transports:
        transport.abort()
    await settle(server)
    assert server.unfinished_bytes == 0


async def test_a_shutdown_closes_idle_connections_and_half_heads_and_answers_the_rest() -> None:
    proceed = asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await proceed.wait()
        await echo(scope, receive, send)

    server = make_server(slow)
    idle, half_head, half_body, busy = [connect(server) for _ in range(4)]
    receive(half_head, GET[:-3])
    receive(half_body, ORDER[:-1])
    receive(busy, ORDER * 3)
    for connection in tuple(server.connections):
        connection.shutdown()
    await eventually(lambda: idle.is_closed and half_head.is_closed)
    assert [transport.is_closed for transport in (half_body, busy)] == [False, False]
    proceed.set()
    await settle(server)
    assert statuses(busy) == [200] * 3
    assert connection_fields(busy) == ["close"]
    for _ in range(8):
        server.tick()
        await settle(server)
    assert statuses(half_body) == [408]
    assert not server.connections


async def test_a_request_that_was_on_its_way_when_a_shutdown_began_is_answered_and_the_connection_closed() -> None:
    server = make_server()
    kept, half_head = connect(server), connect(server)
    receive(kept, ORDER)
    receive(half_head, ORDER[:20])
    await settle(server)
    for connection in tuple(server.connections):
        connection.shutdown()
    receive(kept, ORDER * 2)
    receive(half_head, ORDER[20:])
    await settle(server)
    assert (statuses(kept), connection_fields(kept), kept.has_ended) == ([200, 200], ["close"], True)
    assert (statuses(half_head), connection_fields(half_head), half_head.has_ended) == ([200], ["close"], True)


async def test_a_body_that_is_completed_during_a_shutdown_is_answered_and_the_connection_closed() -> None:
    server = make_server()
    transport = connect(server)
    receive(transport, ORDER[:-1])
    for connection in tuple(server.connections):
        connection.shutdown()
    server.tick()
    receive(transport, ORDER[-1:] + ORDER)
    await settle(server)
    assert statuses(transport) == [200]
    assert connection_fields(transport) == ["close"]
    assert transport.has_ended


async def test_an_application_that_fails_is_answered_with_500() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("secret")

    server = make_server(broken)
    transport = connect(server)
    receive(transport, ORDER)
    await settle(server)
    assert statuses(transport) == [500]
    assert b"secret" not in transport.written
    assert connection_fields(transport) == ["close"]


async def test_the_failure_of_a_response_that_has_begun_is_logged_with_the_request_id() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        scope["request_info"] = RequestInfo("k-1", {})
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError

    server = make_server(broken)
    transport = connect(server)
    with structlog.testing.capture_logs() as logs:
        receive(transport, ORDER)
        await settle(server)
    assert [(entry["event"], entry["request_id"], entry["method"]) for entry in logs] == [
        ("internal_error", "k-1", "POST")
    ]


@pytest.mark.parametrize("value", [b"a\r\nx: y", b"a\nb", b"a\0b", b"\r"])
async def test_a_header_field_that_would_begin_another_one_is_not_sent(value: bytes) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"X-A", value)]})
        await send({"type": "http.response.body", "body": b""})

    server = make_server(app)
    transport = connect(server)
    receive(transport, GET)
    await settle(server)
    assert statuses(transport) == [500]


async def test_the_application_learns_that_the_client_is_gone() -> None:
    events: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        events.append((await receive())["type"])
        events.append((await receive())["type"])

    server = make_server(app)
    transport = connect(server)
    receive(transport, ORDER)
    await settle(server)
    assert events == ["http.request"]
    transport.close()
    await settle(server)
    assert events == ["http.request", "http.disconnect"]


async def test_the_application_knows_the_client_and_whether_it_still_waits() -> None:
    scopes: list[Scope] = []
    answer = asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await answer.wait()
        await echo(scope, receive, send)

    server = make_server(slow)
    transport = connect(server)
    receive(transport, GET)
    await asyncio.sleep(0)
    [scope] = scopes
    assert scope["client"] == ("192.0.2.7", 4711)
    state = scope["extensions"][CLIENT_STATE]
    assert state() is ClientState.WAITS
    assert transport.protocol is not None
    assert transport.protocol.eof_received()
    assert state() is ClientState.MAY_BE_GONE
    transport.abort()
    assert state() is ClientState.GONE
    answer.set()
    await settle(server)

"""GET /events: which events a client gets, how it resumes, and what happens to a client that reads too slowly."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from httpx2 import AsyncClient
from starlette.types import Message

from service.api import event_feed
from service.domain.errors.storage import Overloaded
from service.storage.partitioned import AnyStore
from service.storage.sender import CommandSender
from service.storage.store import Store
from tests.support.problems import assert_problem
from tests.support.shop import SHOP, add_mugs, make_store, new_order, with_state
from tests.support.waiting import eventually


class Stream:
    """What a client has received, and whether it still reads. `task`: the call of the application."""

    task: asyncio.Future[None]

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.text = ""
        self.has_ended = False
        self.may_read = asyncio.Event()
        self.may_read.set()
        self.is_gone = asyncio.Event()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            return
        await self.may_read.wait()
        if self.is_gone.is_set():
            raise ConnectionAbortedError
        self.text += message.get("body", b"").decode()
        self.has_ended = not message.get("more_body", False)

    async def receive(self) -> Message:
        await self.is_gone.wait()
        return {"type": "http.disconnect"}

    def messages(self, kind: str = "") -> list[dict[str, str]]:
        """Return the fields of each message that has data."""
        found = [
            dict(line.split(": ", 1) for line in block.split("\n") if ": " in line)
            for block in self.text.split("\n\n")[:-1]
        ]
        return [fields for fields in found if "data" in fields and (not kind or fields.get("event") == kind)]

    def ids(self) -> list[str]:
        return [fields["id"] for fields in self.messages() if "id" in fields]

    async def wait_for_ids(self, number: int) -> None:
        await eventually(lambda: len(self.ids()) >= number, f"{number} events")

    def data(self, kind: str) -> list[dict[str, Any]]:
        return [json.loads(fields["data"]) for fields in self.messages(kind)]


class Listeners:
    """Clients of one application."""

    def __init__(self, store: AnyStore) -> None:
        self.app = with_state(store)

    async def call(self, stream: Stream, method: str, query: str = "", **headers: str) -> None:
        """Send a request, and return when the response is over."""
        scope = {
            "type": "http",
            "method": method,
            "path": "/events",
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(name.replace("_", "-").lower().encode(), value.encode()) for name, value in headers.items()],
        }
        await self.app(scope, stream.receive, stream.send)

    @asynccontextmanager
    async def listen(self, query: str = "", **headers: str) -> AsyncIterator[Stream]:
        """Connect a client. At the end it goes away."""
        stream = Stream()
        stream.task = asyncio.ensure_future(self.call(stream, "GET", query, **headers))
        await eventually(lambda: "retry" in stream.text or (stream.status != 200 and stream.has_ended), "the stream")
        yield stream
        stream.is_gone.set()
        stream.may_read.set()
        await asyncio.wait_for(stream.task, 5)


@pytest.fixture
def listeners(store: Store) -> Listeners:
    return Listeners(store)


async def test_a_client_gets_each_event_from_now_on_with_id_type_and_json(store: Store, listeners: Listeners) -> None:
    await add_mugs(store)
    async with listeners.listen() as stream:
        assert stream.status == 200
        assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert stream.headers["cache-control"] == "no-store"
        assert stream.headers["x-accel-buffering"] == "no"
        await store.orders.place(new_order((1, 2)))
        await eventually(lambda: len(stream.messages()) == 1, "the event")
        [message] = stream.messages()
        [event] = await store.events.read(f"{int(message['id'].partition('-')[0]) - 1}-9999")
        assert (message["id"], message["event"], message["data"]) == (event.id, "order_placed", event.json())
        await store.products.withdraw(1)
        await eventually(lambda: len(stream.messages("product_withdrawn")) == 1, "the next event")


async def test_only_the_wanted_types_are_sent(store: Store, listeners: Listeners) -> None:
    async with (
        listeners.listen("type=product_added,product_withdrawn") as some,
        listeners.listen("type=order_placed") as orders,
        listeners.listen() as all_types,
    ):
        await add_mugs(store)
        await store.orders.place(new_order((1, 1)))
        await store.products.withdraw(1)
        await eventually(lambda: len(all_types.messages()) == 3, "all events")
        await eventually(lambda: len(some.messages()) == 2, "some events")
        assert [message["event"] for message in some.messages()] == ["product_added", "product_withdrawn"]
        assert [message["event"] for message in orders.messages()] == ["order_placed"]


@pytest.mark.parametrize("way", ["header", "query"])
async def test_a_client_resumes_after_the_last_event_that_it_has(store: Store, listeners: Listeners, way: str) -> None:
    for _ in range(5):
        await add_mugs(store)
    ids = [event.id for event in await store.events.read("0")]
    query = f"after={ids[1]}" if way == "query" else "after=0"
    headers = {"Last_Event_ID": ids[1]} if way == "header" else {}
    async with listeners.listen(query, **headers) as stream:
        await eventually(lambda: stream.ids() == ids[2:], "the old events")
        await add_mugs(store)
        await eventually(lambda: len(stream.ids()) == 4, "the new event")
        assert stream.messages("events_lost") == []


async def test_a_client_is_told_if_events_after_its_last_one_may_be_lost(redis: CommandSender) -> None:
    store = make_store(redis)
    await add_mugs(store)
    await add_mugs(store)
    await redis.send("XTRIM", f"{{{SHOP}}}:events", "MAXLEN", 1)
    async with Listeners(store).listen("after=1-1") as stream:
        await eventually(lambda: len(stream.ids()) == 1, "the event that is left")
        assert stream.messages()[0] == {"event": "events_lost", "data": '{"after":"1-1"}'}


async def test_no_event_is_lost_or_sent_twice_while_clients_come_and_go(store: Store, listeners: Listeners) -> None:
    await add_mugs(store)
    received: list[list[str]] = []

    async def client(number: int) -> None:
        ids = ["0"]
        for _ in range(4):
            async with listeners.listen(Last_Event_ID=ids[-1]) as stream:
                await stream.wait_for_ids(number % 3 + 1)
            ids += stream.ids()
        async with listeners.listen(Last_Event_ID=ids[-1]) as stream:
            await writer
            last = await store.events.last_id()
            await eventually(lambda: (stream.ids() or ids)[-1] == last, "the last event")
        received.append([*ids[1:], *stream.ids()])

    async def write() -> None:
        for _ in range(150):
            await store.orders.place(new_order((1, 1)))
            await asyncio.sleep(0.002)

    writer = asyncio.create_task(write())
    await asyncio.gather(*[client(number) for number in range(6)])
    ids = [event.id for event in await store.events.read("0")]
    assert received == [ids] * 6


async def test_a_slow_client_is_cut_off_and_the_others_are_not_delayed(
    store: Store, listeners: Listeners, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_feed, "MAX_WAITING_BYTES", 2000)
    await add_mugs(store)
    async with listeners.listen() as slow, listeners.listen() as fast:
        slow.may_read.clear()
        for number in range(40):
            await store.orders.place(new_order((1, 1)))
            await fast.wait_for_ids(number + 1)
        slow.may_read.set()
        await eventually(slow.task.done, "the end of the slow client")
        assert not slow.has_ended  # the connection breaks off, so that the client connects again
        assert len(slow.messages()) < 40


async def test_a_silent_stream_has_heartbeats_and_ends_with_its_client(store: Store, listeners: Listeners) -> None:
    async with listeners.listen() as stream:
        await eventually(lambda: "\n:\n\n" in stream.text, "a heartbeat")
    assert stream.messages() == []


async def test_there_is_a_limit_of_clients(
    store: Store, listeners: Listeners, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_feed, "MAX_LISTENERS", 1)
    async with listeners.listen(), listeners.listen() as refused:
        assert refused.status == 503
        assert "/problems/overloaded" in refused.text
    async with listeners.listen() as next_one:
        assert next_one.status == 200


@pytest.mark.parametrize(
    ("query", "headers", "pointer", "part"),
    [
        ("?type=order_places", {}, "#/type", "query"),
        ("?type=", {}, "#/type", "query"),
        ("?after=x", {}, "#/after", "query"),
        ("?after=1-1%0A", {}, "#/after", "query"),
        ("?since=1", {}, "#/since", "query"),
        ("", {"Last-Event-ID": "1; drop"}, "#/after", "header"),
    ],
)
async def test_a_wrong_parameter_is_refused(
    client: AsyncClient, query: str, headers: dict[str, str], pointer: str, part: str
) -> None:
    problem = assert_problem(await client.get(f"/events{query}", headers=headers), 422, "invalid-request")
    assert [(error["pointer"], error["in"]) for error in problem["errors"]] == [(pointer, part)]


async def test_an_event_of_another_program_cannot_forge_a_message(
    store: Store, listeners: Listeners, redis: CommandSender
) -> None:
    await add_mugs(store)
    async with listeners.listen() as stream:
        await redis.send("XADD", f"{{{SHOP}}}:events", "*", "event", "a\n\ndata: forged", "x", "1\n\nid: 7")
        await eventually(lambda: len(stream.messages()) == 1, "the event")
        assert "event" not in stream.messages()[0]
        assert json.loads(stream.messages()[0]["data"])["x"] == "1\n\nid: 7"


async def test_without_clients_nothing_reads_the_stream(listeners: Listeners) -> None:
    def readers() -> list[str]:
        return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("event-")]

    assert readers() == []
    async with listeners.listen():
        await eventually(lambda: "event-reader" in readers(), "the reader")
    await eventually(lambda: readers() == [], "the end of the reader")


@pytest.mark.parametrize("way", ["header", "query"])
async def test_an_event_id_from_the_future_does_not_block_this_or_other_clients(
    store: Store, listeners: Listeners, way: str
) -> None:
    await add_mugs(store)
    future = "900000000000000-1"
    query, headers = (f"after={future}", {}) if way == "query" else ("", {"Last_Event_ID": future})
    async with listeners.listen(query, **headers) as stream, listeners.listen("after=0") as other:
        assert stream.messages("events_lost") == [{"event": "events_lost", "data": f'{{"after":"{future}"}}'}]
        await store.orders.place(new_order((1, 1)))
        await eventually(lambda: len(stream.messages("order_placed")) == 1, "the event")
        await eventually(lambda: len(other.ids()) == 2, "all events")


async def test_clients_that_come_at_the_same_time_do_not_exceed_the_limit(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_feed, "MAX_LISTENERS", 3)
    feed = event_feed.EventFeed(store, store.metrics, poll_seconds=0.01)
    opened = await asyncio.gather(*[feed.open(frozenset(), None) for _ in range(6)], return_exceptions=True)
    streams = [each for each in opened if not isinstance(each, BaseException)]
    assert [type(each) for each in opened if isinstance(each, BaseException)] == [Overloaded] * 3
    for each in streams:
        await each.aclose()
    await (await feed.open(frozenset(), None)).aclose()


async def test_a_head_request_does_not_count_as_a_listener(
    listeners: Listeners, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_feed, "MAX_LISTENERS", 1)
    for _ in range(3):
        stream = Stream()
        await listeners.call(stream, "HEAD")
        assert (stream.status, stream.text, stream.has_ended) == (200, "", True)

"""Fixtures: a Store and an HTTP client, each on fakeredis and on a real engine."""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fakeredis import FakeAsyncRedis, FakeServer
from httpx2 import ASGITransport, AsyncClient, Response
from redis.exceptions import NoScriptError
from starlette.types import ASGIApp, Receive, Scope, Send

from service.app import create_app
from service.engine.launcher import run_engine
from service.http import State
from service.scripts import load_scripts
from service.settings import Settings
from service.sharing import SharedReads
from service.store import Link, Store
from service.wire import Wire

SHOP = "test"


class FakeLink:
    """fakeredis as the Store's link. It does not know the first line of our scripts, `#!lua`."""

    def __init__(self, server: FakeServer | None = None) -> None:
        self.client = FakeAsyncRedis(server=server or FakeServer(), protocol=2, decode_responses=True)
        self.client.response_callbacks.clear()  # replies as Redis sends them, as Wire gives them
        self.lock = asyncio.Lock()  # one command at a time, as on one connection
        self.taught: set[str] = set()
        self.by_sha = {script.sha: script.source for script in load_scripts().values()}

    def send(self, *command: bytes | str | int, repeatable: bool = False) -> Awaitable[Any]:
        return asyncio.ensure_future(self._send(*command))

    async def _send(self, name: Any, *args: Any) -> Any:
        if name == "EVALSHA":
            if args[0] not in self.taught:
                raise NoScriptError("No matching script.")
            name, args = "EVAL", (self.by_sha[args[0]], *args[1:])
        if name == "EVAL":
            self.taught |= {sha for sha, source in self.by_sha.items() if source == args[0]}
            args = (re.sub("^#!lua.*", "", args[0]), *args[1:])
        async with self.lock:
            return await self.client.execute_command(name, *args)  # type: ignore[no-untyped-call]


@pytest.fixture(scope="session")
def engine_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real engine, one for each xdist worker. Where it cannot run, tests fail rather than skip.

    HOLDFAST_TEST_REDIS_URL names another one to test on. Every test empties it, so they run one after another.
    """
    if url := os.environ.get("HOLDFAST_TEST_REDIS_URL"):
        assert "PYTEST_XDIST_WORKER" not in os.environ, "HOLDFAST_TEST_REDIS_URL is one Redis: leave out --numprocesses"
        yield url
        return
    with run_engine(tmp_path_factory.mktemp("engine"), "none") as url:
        yield url


@pytest.fixture
async def wire(engine_url: str) -> AsyncIterator[Wire]:
    """A connection to an empty real engine."""
    async with Wire(engine_url, timeout=10, max_in_flight=100_000) as wire:
        await wire.send("FLUSHALL")
        yield wire


@pytest.fixture(params=["fakeredis", "engine"])
def link(request: pytest.FixtureRequest) -> Link:
    """Redis, empty: the fast imitation and the real thing."""
    if request.param == "fakeredis":
        return FakeLink()
    wire: Wire = request.getfixturevalue("wire")
    return wire


def make_store(link: Link, **options: Any) -> Store:
    return Store(link, **{"shop": SHOP, "durability": "none", "events_max": 1_000_000, **options})


class Clock:
    """A Store's clock that only a test moves. In ms since 1970."""

    def __init__(self) -> None:
        self.now = 1_800_000_000_000

    def __call__(self) -> int:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += round(seconds * 1000)


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still until the test moves it. For a module's own `store`."""
    return Clock()


@pytest.fixture
def store(link: Link) -> Store:
    """A Store on both kinds of Redis."""
    return make_store(link)


@pytest.fixture
async def client(store: Store) -> AsyncIterator[AsyncClient]:
    """The whole application over HTTP, on both kinds of Redis."""
    async with http_client(store) as client:
        yield client


def http_client(store: Store) -> AsyncClient:
    """A client that calls the application in this process."""
    return AsyncClient(transport=ASGITransport(with_state(store)), base_url="http://holdfast")


def with_state(store: Store) -> ASGIApp:
    """The application as a server runs it, with the lifespan's state in every request."""
    app = create_app(Settings())
    state: State = {"store": store, "pages": SharedReads()}

    async def app_with_state(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"] = dict(state)
        await app(scope, receive, send)

    return app_with_state


async def release_all_due(store: Store, batch: int = 100) -> float:
    """Sweeps until nothing is due, and gives the seconds until something is."""
    for _ in range(1000):
        if (due_in := await store.expire_orders(batch)) > 0:
            return due_in
    raise AssertionError("a thousand rounds, and there is still something due")


def mug(**members: object) -> dict[str, object]:
    """A product to add: ten mugs at 19.99."""
    return {"name": "Mug", "description": "Holds coffee.", "price": 19.99, "stock": 10, **members}


async def add_product(client: AsyncClient, **members: object) -> int:
    """Adds mugs over HTTP and gives their id."""
    response = await client.post("/products", json=mug(**members))
    assert response.status_code == 201, response.text
    return int(response.json()["id"])


async def place(client: AsyncClient, *lines: tuple[int, int], key: str | None = None, **members: object) -> Response:
    """Orders `(product id, quantity)` lines over HTTP."""
    products = [{"product_id": product_id, "quantity": quantity} for product_id, quantity in lines]
    headers = {} if key is None else {"Idempotency-Key": key}
    return await client.post("/orders", json={"products": products, **members}, headers=headers)


async def send_json(client: AsyncClient, method: str, path: str, body: str | bytes) -> Response:
    """Sends exactly these bytes as JSON."""
    return await client.request(method, path, content=body, headers={"Content-Type": "application/json"})


async def pages(client: AsyncClient, path: str) -> list[list[int]]:
    """The ids on each page, from `path` along the links to the last one."""
    found = []
    while path:
        response = await client.get(path)
        assert response.status_code == 200, response.text
        found.append([item["id"] for item in response.json()])
        path = response.links.get("next", {}).get("url", "")
    return found


async def stock_of(client: AsyncClient, product_id: int) -> int:
    response = await client.get(f"/products/{product_id}")
    return int(response.json()["stock"])


async def dump(link: Link) -> dict[str, Any]:
    """All that Redis holds but the id counters: each key with its type and content."""
    read: dict[str, tuple[str, ...]] = {
        "string": ("GET",),
        "hash": ("HGETALL",),
        "zset": ("ZRANGE", "0", "-1", "WITHSCORES"),
        "stream": ("XRANGE", "-", "+"),
    }
    found = {}
    for name in await link.send("KEYS", "*"):
        if name.startswith(f"{{{SHOP}}}:ids:"):
            continue
        kind = await link.send("TYPE", name)
        command, *arguments = read[kind]
        found[name] = (kind, await link.send(command, name, *arguments))
    return found


@asynccontextmanager
async def nothing_changes(link: Link) -> AsyncIterator[None]:
    """What is done within leaves Redis as it was. The id counters may move."""
    before = await dump(link)
    yield
    assert await dump(link) == before


def assert_problem(response: Response, status: int, name: str) -> dict[str, Any]:
    """The answer is the problem of this name, whole and in the form of RFC 9457. Gives its members."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["type"] == f"/problems/{name}"
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    assert problem["instance"] == response.headers["x-request-id"]
    return problem


def assert_faults(response: Response, *pointers: str) -> None:
    """The request does not fit the schema in these places, and in no other."""
    problem = assert_problem(response, 422, "invalid-request")
    assert sorted(fault["pointer"] for fault in problem["errors"]) == sorted(pointers)
    assert all(fault["detail"] for fault in problem["errors"])

"""Fixtures: a Store and an HTTP client, each on fakeredis and on a real engine."""

import gc
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from functools import cache
from pathlib import Path

import pytest
from httpx2 import AsyncClient
from structlog.dev import ConsoleRenderer, plain_traceback

from service.storage.connection import MultiplexedConnection
from service.storage.scripts import load_scripts
from service.storage.sender import CommandSender
from service.storage.store import Store
from tests.support.clock import Clock
from tests.support.engines import TestConnection, engine_of_the_tests, make_user
from tests.support.fake_redis import FakeRedis
from tests.support.shop import http_client, make_store

_LONGEST = (
    "::test_every_command_answers_as_printed",
    "::test_nothing_is_lost_or_done_twice_under_faults",
    "::test_store_on_the_engine_agrees_with_the_model",
    "::test_the_service_does_what_its_description_says",
)
"""Tests of ten seconds and more."""


def pytest_configure(config: pytest.Config) -> None:
    """Let the tests begin alike on all machines.

    Under `nohup`, processes inherit that SIGHUP is ignored. A handler that does nothing is not inherited.
    With PYTHONDONTWRITEBYTECODE, which some machines set, each process would compile all modules anew: that took half
    of the time of all tests. The bytecode goes into a directory of its own instead.
    """
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
        sys.dont_write_bytecode = False
        sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"] = str(config.rootpath / ".pytest_cache" / "bytecode")
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)
    # httpx tries to import this package with each request. To find that it is absent takes half a millisecond.
    sys.modules["sniffio"] = None  # type: ignore[assignment]
    # As where Holdfast runs, without rich: it takes half a second of CPU for one traceback.
    ConsoleRenderer.get_active().exception_formatter = plain_traceback


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the tests in a browser unless they are asked for: only `make test-e2e` installs playwright."""
    if collection_path == Path(__file__).parent / "browser" and config.option.markexpr != "e2e":
        return True
    return None


def pytest_xdist_auto_num_workers() -> int:
    """Return the number of workers of `--numprocesses auto`: two per core, because many tests wait for processes."""
    return 2 * (os.cpu_count() or 1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that use a real engine, and those that start processes: `make test-quick` leaves them out."""
    for item in items:
        if item.nodeid.startswith(("tests/cli/", "tests/engine/")):
            item.add_marker(pytest.mark.process)
        fixtures = set(getattr(item, "fixturenames", ()))
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        if fixtures & {"engine_url", "engine"} or parameters.get("redis") == "engine":
            item.add_marker(pytest.mark.engine)
    # The longest tests first: otherwise one worker would still be busy with them when the others have nothing left.
    items.sort(key=lambda item: not any(name in item.nodeid for name in _LONGEST))


def pytest_collection_finish() -> None:
    """Let the garbage collector ignore the tests that were collected: it takes 0.8 s to look at 9,000 of them.

    Let it run after 10,000 new objects, not after 700 as by default: that took a tenth of the time of most tests.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


@pytest.fixture(scope="session", autouse=True)
def scripts_are_read_once() -> Iterator[None]:
    """Let the thousands of Stores of the tests share what the first one has read: 32 files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("service.storage.client.load_scripts", cache(load_scripts))
        yield


@pytest.fixture(scope="session")
def engine_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real engine, one per xdist worker. Where none can run, tests fail rather than skip."""
    with engine_of_the_tests(tmp_path_factory.mktemp("engine")) as url:
        yield url


@pytest.fixture(scope="session")
def url_of_holdfast(engine_url: str) -> str:
    """The URL of the engine for the user that has only the rights in docker-compose.yml."""
    return make_user(engine_url)


@pytest.fixture
async def engine(engine_url: str, url_of_holdfast: str) -> AsyncIterator[TestConnection]:
    """A connection to an empty real engine. The Store of the test has another one, as a user with fewer rights."""
    async with (
        TestConnection(engine_url, timeout=10, max_in_flight=100_000) as engine,
        MultiplexedConnection(url_of_holdfast, timeout=10, max_in_flight=100_000) as engine.of_holdfast,
    ):
        await engine.send("FLUSHALL")
        yield engine


@pytest.fixture(params=["fakeredis", "engine"])
def redis(request: pytest.FixtureRequest) -> CommandSender:
    """An empty Redis: once fakeredis, which is fast, and once a real engine."""
    if request.param == "fakeredis":
        return FakeRedis()
    engine: TestConnection = request.getfixturevalue("engine")
    return engine


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still until the test moves it. For a module's own `store`."""
    return Clock()


@pytest.fixture
def store(redis: CommandSender) -> Store:
    """A Store on both kinds of Redis."""
    return make_store(redis)


@pytest.fixture
async def client(store: Store) -> AsyncIterator[AsyncClient]:
    """The whole application over HTTP, on both kinds of Redis."""
    async with http_client(store) as client:
        yield client

"""Fixtures: networks in front of the real engine that a test can break, workers of a shop with partitions, a user.

`ways` are the same for a fake Redis: they can be broken at each single command.
"""

import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from service.storage.connection import MultiplexedConnection
from service.storage.partitioned import PartitionedStore
from tests.support.engines import TestConnection
from tests.support.fake_redis import FakeRedis
from tests.support.network import CLERK_PASSWORD, Network
from tests.support.pages import COUNT, stocks
from tests.support.partitions import make_partitioned_store, open_partitioned_store
from tests.support.shop import new_mug
from tests.support.ways import COUNT as WAYS
from tests.support.ways import Way


@pytest.fixture
async def network(engine_url: str, engine: MultiplexedConnection) -> AsyncIterator[Network]:
    """A network in front of the real engine, which is empty. The fixture `engine` does not go through it."""
    async with Network(engine_url) as network:
        yield network


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate of 127.0.0.1, and its private key."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, private_key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-keyout", private_key, "-out", certificate, "-days", "2", "-subj", "/CN=127.0.0.1"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, private_key


@pytest.fixture
async def tls_network(
    engine_url: str, engine: MultiplexedConnection, certificate: tuple[Path, Path]
) -> AsyncIterator[Network]:
    """The same network with TLS between the service and its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    async with Network(engine_url, context) as network:
        yield network


@pytest.fixture
async def clerk(engine: MultiplexedConnection) -> AsyncIterator[str]:
    """The name of an engine user that needs CLERK_PASSWORD."""
    await engine.send(
        "ACL", "SETUSER", "clerk", "reset", "on", f">{CLERK_PASSWORD}", "~*", "+@all", "-client", "-hello"
    )
    yield "clerk"
    await engine.send("ACL", "DELUSER", "clerk")


@pytest.fixture
async def networks(engine_url: str, engine: TestConnection) -> AsyncIterator[list[Network]]:
    """A network in front of each partition. All are on the same engine, which is empty."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Network(engine_url)) for _ in range(COUNT)]


@pytest.fixture
async def worker(networks: list[Network]) -> AsyncIterator[PartitionedStore]:
    """A shop with three mugs, whose page was read twice: over networks that the test can disturb."""
    async with open_partitioned_store(*[network.url for network in networks]) as store:
        for _ in range(3):
            await store.products.add(new_mug(stock=10))
        assert await stocks(store) == await stocks(store) == [10, 10, 10]
        yield store


@pytest.fixture
async def other(url_of_holdfast: str) -> AsyncIterator[PartitionedStore]:
    """Another worker. It has only the rights that Holdfast needs."""
    async with open_partitioned_store(*[url_of_holdfast] * COUNT) as store:
        yield store


@pytest.fixture
def fake_redis() -> FakeRedis:
    """The Redis at the end of all `ways`."""
    return FakeRedis()


@pytest.fixture
def ways(fake_redis: FakeRedis) -> list[Way]:
    """The way to each partition, for a Store that the test makes."""
    return [Way(fake_redis) for _ in range(WAYS)]


@pytest.fixture
def undisturbed(fake_redis: FakeRedis, ways: list[Way]) -> PartitionedStore:
    """The Store of another worker, which needs no `ways`."""
    return make_partitioned_store(fake_redis, count=len(ways))

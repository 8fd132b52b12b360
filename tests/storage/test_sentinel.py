"""redis+sentinel:// URLs: what they mean, and how a connection finds and follows the primary."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from service.domain.errors.storage import StorageUnavailable, UnsupportedRedis
from service.storage.addresses import Address
from service.storage.connection import MultiplexedConnection
from service.storage.sentinel import SentinelUrl, current_primary, read_sentinel_url
from tests.support.command_line import HoldfastCommand
from tests.support.replicas import PASSWORD, SENTINEL_NAME, ReplicatedEngines, replicated_engines
from tests.support.waiting import eventually


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "redis+sentinel://one,two:26380/main",
            SentinelUrl(("redis://one:26379?", "redis://two:26380?"), "main", "redis://primary?"),
        ),
        (
            "redis+sentinel://clerk:a%40b@one/main/3?sentinel_password=c%2Fd",
            SentinelUrl(("redis://:c%2Fd@one:26379?",), "main", "redis://clerk:a%40b@primary/3?"),
        ),
        (
            "rediss+sentinel://[::1],[::2]:1/main?ssl_ca_certs=%2Fca.pem&db=2&sentinel_username=u&sentinel_password=p",
            SentinelUrl(
                (
                    "rediss://u:p@[::1]:26379?ssl_ca_certs=%2Fca.pem",
                    "rediss://u:p@[::2]:1?ssl_ca_certs=%2Fca.pem",
                ),
                "main",
                "rediss://primary?ssl_ca_certs=%2Fca.pem&db=2",
            ),
        ),
        ("redis://one/0", None),
        ("unix:///run/redis.sock", None),
    ],
)
def test_a_url_of_sentinels_is_read(url: str, expected: SentinelUrl | None) -> None:
    assert read_sentinel_url(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        *("redis+sentinel://one", "redis+sentinel://one/", "redis+sentinel:///main", "redis+sentinel://one,,two/main"),
        *("redis+sentinel://one/main/x", "redis+sentinel://one/a b", "redis+sentinel://one:port/main"),
        *("redis+sentinel://one:99999999/main", "redis+sentinel://u:p#w@one/main", "unix+sentinel://one/main"),
        "redis+sentinel://one/main?socket_timeout=abc",
    ],
)
def test_a_wrong_url_of_sentinels_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(UnsupportedRedis, match=r"^the Redis URL cannot be used\. Its form is [^']*$"):
        MultiplexedConnection(url, timeout=1, max_in_flight=1)


def test_the_sentinel_with_the_highest_config_epoch_decides() -> None:
    old, new = ["ip", "one", "port", "1", "config-epoch", "9"], ["ip", "two", "port", "2", "config-epoch", "10"]
    assert current_primary([old, new, old]) == Address("two", 2)
    assert current_primary([]) is None


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReplicatedEngines]:
    """An engine and its sentinel, with passwords."""
    with replicated_engines(
        tmp_path_factory.mktemp("sentinel"), replicas=0, sentinels=1, password=PASSWORD, sentinel_password="s3ntinel/@"
    ) as engines:
        yield engines


async def test_the_primary_is_found_with_the_passwords_of_the_url(engines: ReplicatedEngines) -> None:
    async with MultiplexedConnection(engines.url(), timeout=5, max_in_flight=10) as connection:
        assert await connection.send("ECHO", "found") == "found"
        assert f"tcp_port:{engines.engines[0].port}" in await connection.send("INFO", "server")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("s3ntinel", "wrong"), "no sentinel knows the primary 'main': .*WRONGPASS|invalid username-password"),
        (("/main", "/other"), "no sentinel knows the primary 'other': .*No such master"),
        (("a%20p", "wrong"), "WRONGPASS|invalid username-password"),
    ],
)
async def test_the_error_names_a_wrong_password_or_primary_name(
    engines: ReplicatedEngines, change: tuple[str, str], reason: str
) -> None:
    url = engines.url().replace(*change)
    async with MultiplexedConnection(url, timeout=0.5, max_in_flight=10) as connection:
        with pytest.raises(StorageUnavailable, match=reason) as error:
            await connection.send("PING")
        assert "s3ntinel" not in error.value.reason


async def test_a_sentinel_that_hangs_delays_only_for_half_a_second(engines: ReplicatedEngines) -> None:
    with replicated_engines(engines.engines[0].folder.parent / "other", replicas=0, sentinels=1) as others:
        frozen = others.sentinels[0]
        frozen.freeze()
        url = engines.url().replace("127.0.0.1", f"127.0.0.1:{frozen.port},127.0.0.1", 1)
        async with MultiplexedConnection(url, timeout=5, max_in_flight=10) as connection:
            assert await asyncio.wait_for(connection.send("PING"), 2) == "PONG"


async def test_a_primary_that_sentinels_have_replaced_is_left_although_it_still_answers(tmp_path: Path) -> None:
    """It is cut off from sentinels and replicas, but not from the service."""
    with replicated_engines(tmp_path, replicas=1, sentinels=1, down_after_ms=300) as engines:
        old, new = engines.engines
        async with MultiplexedConnection(engines.url(), timeout=5, max_in_flight=10) as connection:
            assert f"tcp_port:{old.port}" in await connection.send("INFO", "server")
            with capture_logs() as logs:
                engines.sentinels[0].replies("SENTINEL", "REMOVE", SENTINEL_NAME)
                new.replies("REPLICAOF", "NO", "ONE")
                engines.sentinels[0].replies("SENTINEL", "MONITOR", SENTINEL_NAME, "127.0.0.1", new.port, 1)

                async def is_followed() -> bool:
                    info = await connection.send("INFO", "server", safe_to_repeat=True)
                    return f"tcp_port:{new.port}" in info

                await eventually(is_followed, "the new primary")
            assert "redis_primary_moved" in [entry["event"] for entry in logs]
            assert old.replies("PING")


def test_commands_take_a_url_of_sentinels(engines: ReplicatedEngines, tmp_path: Path) -> None:
    run = HoldfastCommand(tmp_path, HOLDFAST_REDIS_URL=engines.url(), HOLDFAST_DURABILITY="everysec")
    run.write_products("products.jsonl", 1)
    imported = run("import", "products.jsonl")
    assert imported.returncode == 0, imported.stderr
    assert '"name":"Mug"' in run("export", "products").stdout
    assert run("audit").returncode == 0
    doctor = run("doctor")
    assert "This is a primary" in doctor.stdout
    assert PASSWORD not in doctor.stdout + doctor.stderr

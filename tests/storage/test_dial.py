"""Connections by URL: unix sockets, TCP, TLS, databases, users and passwords, and servers that cannot be used."""

import asyncio
import time
from pathlib import Path
from urllib.parse import quote

import pytest

from service.domain.errors.storage import StorageUnavailable
from service.storage.connection import MultiplexedConnection
from service.storage.sender import ErrorReply
from tests.support.network import (
    CLERK_PASSWORD,
    LONG_TIMEOUT,
    MEBIBYTE,
    SHORT_TIMEOUT,
    Network,
    wait_for_recovery,
)
from tests.support.waiting import eventually


@pytest.mark.parametrize("transport", ["unix", "tcp", "tls, trusted certificate", "tls, unchecked certificate"])
async def test_unix_sockets_tcp_and_tls_can_be_used(
    engine_url: str, network: Network, tls_network: Network, certificate: tuple[Path, Path], transport: str
) -> None:
    url = {
        "unix": engine_url,
        "tcp": network.url,
        "tls, trusted certificate": f"{tls_network.url}?ssl_ca_certs={quote(str(certificate[0]))}",
        "tls, unchecked certificate": f"{tls_network.url}?ssl_cert_reqs=none&ssl_check_hostname=false",
    }[transport]
    async with MultiplexedConnection(url, timeout=LONG_TIMEOUT, max_in_flight=1000) as connection:
        replies = await asyncio.gather(*(connection.send("ECHO", number) for number in range(500)))
        assert replies == [str(number) for number in range(500)]
        large = "x" * MEBIBYTE
        assert await connection.send("ECHO", large) == large


async def test_a_broken_tls_connection_reopens(tls_network: Network) -> None:
    async with MultiplexedConnection(
        f"{tls_network.url}?ssl_cert_reqs=none", timeout=LONG_TIMEOUT, max_in_flight=10
    ) as connection:
        await connection.send("PING")
        tls_network.cut()
        await eventually(lambda: tls_network.accepted == 2, "another connection")
        assert await connection.send("ECHO", "next") == "next"


@pytest.mark.parametrize("database", ["/3", "?db=3"])
async def test_the_database_of_the_url_is_used(network: Network, engine: MultiplexedConnection, database: str) -> None:
    async with MultiplexedConnection(network.url + database, timeout=LONG_TIMEOUT, max_in_flight=10) as connection:
        await connection.send("SET", "key", "in database 3")
        network.cut()  # the next connection must select the database, too
        assert await connection.send("GET", "key", safe_to_repeat=True) == "in database 3"
    assert await engine.send("GET", "key") is None


@pytest.mark.parametrize(
    ("server", "client", "reason"),
    [
        ("tls", "rediss://127.0.0.1:{port}", "certificate verify failed"),
        ("tls", "rediss://127.0.0.1:{port}?ssl_ca_certs=/nowhere.pem", ""),
        ("tcp", "rediss://127.0.0.1:{port}", ""),
        ("none", "redis://127.0.0.1:{port}", "127.0.0.1"),
        ("none", "redis://nowhere.invalid:6379", "nowhere.invalid"),
        ("none", "unix:///nowhere/engine.sock", "/nowhere/engine.sock"),
    ],
)
async def test_the_error_says_why_a_server_cannot_be_reached(
    network: Network, tls_network: Network, server: str, client: str, reason: str
) -> None:
    port = {"tls": tls_network.port, "tcp": network.port, "none": 1}[server]
    async with MultiplexedConnection(client.format(port=port), timeout=SHORT_TIMEOUT, max_in_flight=10) as connection:
        with pytest.raises(StorageUnavailable) as error:
            await connection.send("INCR", "count")
        # One attempt to connect may take as long as a command may wait. On a busy machine, also TLS may take longer.
        give_up = time.monotonic() + LONG_TIMEOUT
        while error.value.reason == "not connected yet" or reason not in error.value.reason:
            assert time.monotonic() < give_up, error.value.reason
            with pytest.raises(StorageUnavailable) as error:
                await connection.send("INCR", "count")
            await asyncio.sleep(0.005)
        assert error.value.reason


@pytest.mark.parametrize("transport", ["unix", "tcp"])
async def test_user_and_password_of_the_url_are_used(
    engine_url: str, network: Network, clerk: str, transport: str
) -> None:
    login = f"{clerk}:{quote(CLERK_PASSWORD, safe='')}@"
    url = (engine_url if transport == "unix" else network.url).replace("://", f"://{login}")
    async with MultiplexedConnection(url, timeout=LONG_TIMEOUT, max_in_flight=10) as connection:
        assert await connection.send("ACL", "WHOAMI") == "clerk"


async def test_commands_fail_with_the_reason_until_the_password_is_correct(
    network: Network, engine: MultiplexedConnection, clerk: str
) -> None:
    url = network.url.replace("://", f"://{clerk}:other@")
    async with MultiplexedConnection(url, timeout=SHORT_TIMEOUT, max_in_flight=10) as connection:
        for _ in range(2):
            with pytest.raises(StorageUnavailable) as error:
                await connection.send("PING")
            assert "invalid username-password pair" in error.value.reason
        await engine.send("ACL", "SETUSER", clerk, ">other")
        await wait_for_recovery(connection)


async def test_a_command_that_the_acl_forbids_fails_only_its_own_command(
    network: Network, engine: MultiplexedConnection, clerk: str
) -> None:
    await engine.send("ACL", "SETUSER", clerk, "-incr")
    url = network.url.replace("://", f"://{clerk}:{quote(CLERK_PASSWORD, safe='')}@")
    async with MultiplexedConnection(url, timeout=LONG_TIMEOUT, max_in_flight=10) as connection:
        with pytest.raises(ErrorReply):
            await connection.send("INCR", "count")
        assert await connection.send("PING") == "PONG"

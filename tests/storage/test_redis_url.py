"""The URL of a Redis: what it means, and which are refused."""

import ssl
from pathlib import Path

import pytest

from service.domain.errors.storage import UnsupportedRedis
from service.storage.addresses import Address
from service.storage.connection import MultiplexedConnection
from service.storage.redis_url import RedisUrl, read_redis_url, tls_context

PLAIN = RedisUrl(Address("localhost", 6379), "", (), 0, "", None)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://", PLAIN),
        ("redis://one/", PLAIN._replace(address=Address("one", 6379))),
        ("redis://[::1]:7000", PLAIN._replace(address=Address("::1", 7000))),
        ("redis://one:7000/3", PLAIN._replace(address=Address("one", 7000), database=3)),
        ("redis://localhost/3?db=4", PLAIN._replace(database=4)),
        ("redis://clerk:a%40b%2F@localhost", PLAIN._replace(login=("clerk", "a@b/"))),
        ("redis://:secret@localhost", PLAIN._replace(login=("secret",))),
        ("redis://clerk@localhost", PLAIN._replace(login=("clerk", ""))),
        ("redis://localhost?username=clerk&password=a%2526b", PLAIN._replace(login=("clerk", "a%26b"))),
        ("redis://localhost?client_name=till", PLAIN._replace(client_name="till")),
        ("rediss://localhost", PLAIN._replace(tls={})),
        ("rediss://localhost?ssl_ca_certs=%2Fca.pem&db=1", PLAIN._replace(database=1, tls={"ssl_ca_certs": "/ca.pem"})),
        ("unix:///run/a%20b.sock?db=2", PLAIN._replace(path="/run/a b.sock", database=2)),
        ("unix://clerk:x@/run/redis.sock", PLAIN._replace(path="/run/redis.sock", login=("clerk", "x"))),
    ],
)
def test_the_url_of_a_redis_is_read(url: str, expected: RedisUrl) -> None:
    assert read_redis_url(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        *("http://one", "redis://one:port", "redis://one:70000", "redis://one/db", "redis://one/1/2"),
        *("redis://one?db=x", "redis://one?socket_timeout=5", "redis://one?ssl_ca_certs=/ca.pem"),
        *("rediss://one?ssl_cert_reqs=perhaps", "rediss://one?ssl_min_version=9", "redis://u:p#w@one"),
        *("redis://u:p/w@one", "redis://u:p?w@one"),
    ],
)
def test_a_wrong_url_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(UnsupportedRedis, match=r"^the Redis URL cannot be used\. Its form is [^']*$"):
        MultiplexedConnection(url, timeout=1, max_in_flight=1)


def test_certificates_are_checked_unless_the_url_says_otherwise() -> None:
    default = tls_context({})
    assert (default.verify_mode, default.check_hostname) == (ssl.CERT_REQUIRED, True)
    other_host = tls_context({"ssl_check_hostname": "false", "ssl_min_version": "772"})
    assert (other_host.verify_mode, other_host.check_hostname) == (ssl.CERT_REQUIRED, False)
    assert other_host.minimum_version == ssl.TLSVersion.TLSv1_3
    unchecked = tls_context({"ssl_cert_reqs": "none"})
    assert (unchecked.verify_mode, unchecked.check_hostname) == (ssl.CERT_NONE, False)


def test_a_client_shows_the_certificate_of_the_url(certificate: tuple[Path, Path]) -> None:
    path, key = map(str, certificate)
    context = tls_context({"ssl_certfile": path, "ssl_keyfile": key, "ssl_ca_certs": path, "ssl_ciphers": "HIGH"})
    assert context.get_ca_certs()
    with pytest.raises(OSError, match=r"nowhere|No such file"):
        tls_context({"ssl_certfile": "/nowhere.pem"})

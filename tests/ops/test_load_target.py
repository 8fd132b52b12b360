"""A rehearsal goes to this machine only, unless other machines are allowed."""

import pytest

from service.ops.load.target import Target, TargetRefused, default_url, find_target, resolve_host


@pytest.mark.parametrize(
    ("url", "addresses", "target"),
    [
        ("http://127.0.0.1:8000", ["127.0.0.1"], Target("http://127.0.0.1:8000", "127.0.0.1:8000", "127.0.0.1")),
        ("http://127.9.9.9:8000/", ["127.9.9.9"], Target("http://127.9.9.9:8000", "127.9.9.9:8000", "127.9.9.9")),
        ("http://[::1]:8000", ["::1"], Target("http://[::1]:8000", "[::1]:8000", "::1")),
        ("http://[::ffff:127.0.0.1]", ["::ffff:127.0.0.1"], None),
        (
            "HTTP://LocalHost/shop/",
            ["127.0.0.1", "::1"],
            Target("http://127.0.0.1:80/shop", "localhost", "localhost"),
        ),
        ("https://localhost:8443", ["::1"], Target("https://[::1]:8443", "localhost:8443", "localhost")),
    ],
)
def test_this_machine_is_allowed_and_its_name_is_resolved_once(
    url: str, addresses: list[str], target: Target | None
) -> None:
    found = find_target(url, allow_remote=False, resolve=lambda host, port: addresses)
    assert target is None or found == target


@pytest.mark.parametrize(
    ("url", "addresses"),
    [
        ("http://192.168.1.7:8000", ["192.168.1.7"]),
        ("http://0.0.0.0:8000", ["0.0.0.0"]),
        ("http://localhost.example.com", ["93.184.216.34"]),
        ("http://localhost", ["127.0.0.1", "10.0.0.1"]),
        ("http://[::ffff:10.0.0.1]", ["::ffff:10.0.0.1"]),
        ("http://[fe80::1]", ["fe80::1%eth0"]),
    ],
)
def test_another_machine_is_refused_unless_it_is_allowed(url: str, addresses: list[str]) -> None:
    with pytest.raises(TargetRefused, match=r"is not this machine.*--allow-remote"):
        find_target(url, allow_remote=False, resolve=lambda host, port: addresses)
    assert find_target(url, allow_remote=True, resolve=lambda host, port: addresses).base_url == url


@pytest.mark.parametrize(
    "url",
    [
        *("localhost:8000", "ftp://localhost", "http://", "http:///products", "http://localhost:port"),
        *("http://localhost:8000@example.com", "http://localhost/?a=b", "http://localhost/#a"),
        *("http://example.com\\@localhost", "http://[::1", ""),
    ],
)
@pytest.mark.parametrize("allow_remote", [True, False])
def test_what_is_not_the_url_of_a_service_is_refused(url: str, allow_remote: bool) -> None:
    with pytest.raises(TargetRefused):
        find_target(url, allow_remote=allow_remote, resolve=lambda host, port: ["127.0.0.1"])


def test_a_name_without_address_is_refused() -> None:
    def fail(host: str, port: int) -> list[str]:
        raise OSError(-2, "Name or service not known")

    with pytest.raises(TargetRefused, match=r"^nowhere: Name or service not known$"):
        find_target("http://nowhere", allow_remote=False, resolve=fail)
    with pytest.raises(TargetRefused, match="has no address"):
        find_target("http://nowhere", allow_remote=False, resolve=lambda host, port: [])


def test_addresses_need_no_name_server() -> None:
    assert resolve_host("127.0.0.1", 80) == ["127.0.0.1"]


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::", "http://[::1]:8000"),
        ("shop.internal", "http://shop.internal:8000"),
    ],
)
def test_the_default_is_the_service_of_the_settings(host: str, url: str) -> None:
    assert default_url(host, 8000) == url


def test_of_several_addresses_the_first_that_accepts_a_connection_is_used() -> None:
    def target(*listening: str) -> str:
        return find_target(
            "http://localhost:8000",
            allow_remote=False,
            resolve=lambda host, port: ["::1", "127.0.0.1"],
            accepts=lambda address, port: address in listening,
        ).base_url

    assert target("127.0.0.1") == "http://127.0.0.1:8000"
    assert target("::1", "127.0.0.1") == "http://[::1]:8000"
    assert target() == "http://[::1]:8000"

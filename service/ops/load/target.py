"""Decides whether a rehearsal may be sent to a URL: to this machine, and elsewhere only if that is allowed."""

import socket
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, NamedTuple
from urllib.parse import SplitResult, quote, urlsplit

Address = IPv4Address | IPv6Address
Resolve = Callable[[str, int], Iterable[str]]

_PORTS: Final = {"http": 80, "https": 443}

_ANY_ADDRESS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
"""A server can listen on all addresses of the machine. A client must use the loopback address instead."""


class TargetRefused(Exception):
    """A rehearsal must not, or cannot, be sent to this URL. The text says why."""


class Target(NamedTuple):
    """Where to send requests.

    `base_url`: has no slash at its end. Unless other hosts are allowed, it has an address in the place of a name: the
    name was resolved once, and cannot lead to another machine afterwards.
    `host`: the header Host. `server_name`: for the certificate of TLS.
    """

    base_url: str
    host: str
    server_name: str


def default_url(host: str, port: int) -> str:
    """Return the URL of a service that listens on this host and port."""
    host = _ANY_ADDRESS.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def resolve_host(host: str, port: int) -> list[str]:
    """Return the addresses of a host. Raise OSError or UnicodeError if it has none."""
    return [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def accepts_connections(address: str, port: int) -> bool:
    """Return whether a server listens at an address."""
    try:
        socket.create_connection((address, port), 1).close()
    except OSError:
        return False
    return True


def find_target(
    url: str,
    *,
    allow_remote: bool,
    resolve: Resolve = resolve_host,
    accepts: Callable[[str, int], bool] = accepts_connections,
) -> Target:
    """Return the target of a URL. Raise TargetRefused if it is wrong, or leads to another machine without permission.

    Loopback addresses are 127.0.0.0/8 and ::1 (RFC 6890). A name must have no other addresses. `localhost` often has
    both, and a service listens at one of them: the first that accepts a connection is used.
    """
    parts, port = _split(url)
    host = parts.hostname or ""
    authority = host if port == _PORTS[parts.scheme] else f"{host}:{port}"
    if ":" in host:
        authority = authority.replace(host, f"[{host}]", 1)
    path = quote(parts.path.rstrip("/"), safe="/%:@!$&'()*+,;=~-._")
    if allow_remote:
        return Target(f"{parts.scheme}://{authority}{path}", authority, host)
    try:
        addresses = [ip_address(text.partition("%")[0]) for text in resolve(host, port)]
    except (OSError, UnicodeError) as error:
        raise TargetRefused(f"{host}: {getattr(error, 'strerror', None) or error}") from None
    for address in addresses:
        if not _is_loopback(address):
            where = host if str(address) == host else f"{host} ({address})"
            raise TargetRefused(
                f"{where} is not this machine. A rehearsal places thousands of orders: send it to a service that is "
                "not in use, and allow this host with --allow-remote"
            )
    if not addresses:
        raise TargetRefused(f"{host} has no address")
    address = addresses[0]
    if len(addresses) > 1:
        address = next((each for each in addresses if accepts(str(each), port)), address)
    literal = f"[{address}]" if address.version == 6 else str(address)
    return Target(f"{parts.scheme}://{literal}:{port}{path}", authority, host)


def _split(url: str) -> tuple[SplitResult, int]:
    """Return the parts of a URL, and its port. Raise TargetRefused if it is not the URL of a service."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise TargetRefused(f"{url!r} is not a URL: {error}") from None
    if parts.scheme not in _PORTS or not parts.hostname:
        raise TargetRefused(f"{url!r} is not a URL such as http://127.0.0.1:8000")
    if "@" in parts.netloc or parts.query or parts.fragment or "\\" in url:
        raise TargetRefused("the URL must have no user, no query and no fragment")
    return parts, _PORTS[parts.scheme] if port is None else port


def _is_loopback(address: Address) -> bool:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback

"""What the URL of a single Redis means: where it listens, who logs in, and how TLS is checked."""

import re
import ssl
from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from service.storage.addresses import Address

_DEFAULT_PORT: Final = 6379

_OPTIONS: Final = ("db", "username", "password", "client_name")

_CHECKS: Final = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
_NO: Final = ("0", "f", "false", "n", "no")

_TLS_OPTIONS: Final = (
    *("ssl_ca_certs", "ssl_ca_path", "ssl_ca_data", "ssl_certfile", "ssl_keyfile", "ssl_password"),
    *("ssl_cert_reqs", "ssl_check_hostname", "ssl_min_version", "ssl_ciphers"),
)
"""Their names are those of redis-py, and so are the names of the other options."""


class RedisUrl(NamedTuple):
    """What redis://user:password@host:6379/0, rediss://... or unix://user:password@/path?db=0 means."""

    address: Address
    """Without meaning if there is a path."""
    path: str
    """Of a Unix socket."""
    login: tuple[str, ...]
    """Arguments of AUTH: user and password, or the password alone."""
    database: int
    client_name: str
    tls: Mapping[str, str] | None
    """The options of TLS; None: without TLS."""


def read_redis_url(url: str) -> RedisUrl:
    """Return what a URL says. Raise ValueError if it is wrong."""
    parts = urlsplit(url)
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise ValueError("not the URL of a Redis")
    has_tls, is_socket = parts.scheme == "rediss", parts.scheme == "unix"
    options: dict[str, str] = {}
    for name, value in parse_qsl(parts.query):
        if name not in _OPTIONS and not (has_tls and name in _TLS_OPTIONS):
            raise ValueError("an unknown option")
        options.setdefault(name, value)
    username = options.get("username") or unquote(parts.username or "")
    password = options.get("password") or unquote(parts.password or "")
    login = (username, password) if username else (password,)
    tls = {name: value for name, value in options.items() if name in _TLS_OPTIONS} if has_tls else None
    if tls is not None:
        _check_tls_options(tls)
    return RedisUrl(
        Address(unquote(parts.hostname or "") or "localhost", parts.port or _DEFAULT_PORT),
        unquote(parts.path) if is_socket else "",
        login if any(login) else (),
        int(options.get("db") or ("" if is_socket else parts.path.strip("/")) or 0),
        options.get("client_name", ""),
        tls,
    )


def check_form(url: str) -> None:
    """Raise ValueError for a URL that a parser would understand in another way than its author."""
    # Not urlsplit(): since Python 3.12 it refuses several hosts if the first is an IPv6 address.
    scheme, _, rest = url.partition("://")
    before_query, _, query = rest.partition("?")
    _, slash, path = before_query.partition("/")
    # In a password, `#` begins a fragment, `/` begins the path, and `?` the query, which then contains the `@`.
    has_path = scheme == "unix" or scheme.endswith(("+sentinel", "+cluster"))
    if "#" in url or "@" in query or (not has_path and not re.fullmatch(r"(/[0-9]*)?", slash + path)):
        raise ValueError


def _check_tls_options(options: Mapping[str, str]) -> None:
    """Raise ValueError if an option has no such value."""
    if options.get("ssl_cert_reqs", "required") not in _CHECKS:
        raise ValueError("ssl_cert_reqs")
    if version := options.get("ssl_min_version"):
        ssl.TLSVersion(int(version))


def tls_context(options: Mapping[str, str]) -> ssl.SSLContext:
    """Return how to check the certificate of Redis, and which one to show. Raise OSError if a file cannot be read."""
    context = ssl.create_default_context()
    checks = _CHECKS[options.get("ssl_cert_reqs", "required")]
    checks_host = options.get("ssl_check_hostname", "true").lower() not in _NO
    context.check_hostname = checks_host and checks != ssl.CERT_NONE
    context.verify_mode = checks
    certificate, key = options.get("ssl_certfile"), options.get("ssl_keyfile")
    if certificate or key:
        context.load_cert_chain(certificate or "", key, options.get("ssl_password"))
    trusted = [options.get(name) for name in ("ssl_ca_certs", "ssl_ca_path", "ssl_ca_data")]
    if any(trusted):
        context.load_verify_locations(*trusted)
    if version := options.get("ssl_min_version"):
        context.minimum_version = ssl.TLSVersion(int(version))
    if ciphers := options.get("ssl_ciphers"):
        context.set_ciphers(ciphers)
    return context

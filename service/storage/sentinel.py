"""What Holdfast knows of Redis Sentinel: its URLs, and which of the sentinels' answers counts. Pure functions."""

import re
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, quote, urlencode

from service.storage.addresses import Address, parse_address

_DEFAULT_PORT: Final = 26379


class SentinelUrl(NamedTuple):
    """What redis+sentinel://user:password@host1,host2:26380/name/0?sentinel_password=... means.

    User, password and number of the database are those of Redis. TLS and its options are for both.
    """

    sentinels: tuple[str, ...]
    """A redis:// or rediss:// URL of each sentinel."""
    name: str
    """By which the sentinels know the primary."""
    primary: str
    """The URL of the primary, but with a host that does not exist: its address is to be asked for."""


def read_sentinel_url(url: str) -> SentinelUrl | None:
    """Return what a URL says about sentinels, None if it is the URL of a Redis. Raise ValueError if it is wrong."""
    scheme, separator, rest = url.partition("+sentinel://")
    if not separator:
        return None
    # Not urlsplit(): since Python 3.12 it refuses several hosts if the first is an IPv6 address.
    authority, _, rest = rest.partition("/")
    user, at, hosts = authority.rpartition("@")
    path_text, _, query_text = rest.partition("?")
    path = re.fullmatch(r"([A-Za-z0-9._-]+)(/[0-9]*)?", path_text)
    if path is None or scheme not in ("redis", "rediss"):
        raise ValueError("no name of a primary")
    options = parse_qsl(query_text, keep_blank_values=True)
    query = dict(options)
    sentinel_user, sentinel_password = query.get("sentinel_username", ""), query.get("sentinel_password", "")
    login = f"{quote(sentinel_user, safe='')}:{quote(sentinel_password, safe='')}@" if sentinel_password else ""
    common = [(name, value) for name, value in options if not name.startswith("sentinel_")]
    for_sentinels = urlencode([(name, value) for name, value in common if name != "db"])
    return SentinelUrl(
        tuple(f"{scheme}://{login}{parse_address(host, _DEFAULT_PORT)}?{for_sentinels}" for host in hosts.split(",")),
        path[1],
        f"{scheme}://{user}{at}primary{path[2] or ''}?{urlencode(common)}",
    )


def current_primary(replies: Iterable[Sequence[str]]) -> Address | None:
    """Return the address of the primary by the replies of several sentinels to SENTINEL MASTER; None without replies.

    During a failover they disagree for a moment. The number `config-epoch` grows with each failover, so the highest is
    the newest.
    """
    states = [dict(zip(reply[::2], reply[1::2], strict=False)) for reply in replies]
    newest = max(states, key=lambda state: int(state.get("config-epoch", 0)), default=None)
    return None if newest is None else Address(newest["ip"], int(newest["port"]))

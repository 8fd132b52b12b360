"""API keys: who may call what. Holdfast keeps only the SHA-256 of each key: nobody can read a key from its files."""

import re
import secrets
from collections.abc import Iterable
from hashlib import sha256
from typing import Final, NamedTuple

from service.domain.times import Milliseconds, format_timestamp, parse_timestamp

SCOPES: Final = ("catalog:read", "catalog:write", "stock:write", "orders:read", "orders:write", "ops:read")
"""What a key may allow. `ops:read`: the metrics, and the events, which the board shows."""

ALL: Final = "all"
"""In a list of scopes: all of them."""

_PREFIX: Final = "hf_"
"""Begins each key, so that a search for secrets finds keys in source code."""

_NAME: Final = re.compile("[A-Za-z0-9._-]{1,32}")
_DIGEST: Final = re.compile("sha256:([0-9a-f]{64})")
_RATE: Final = re.compile("([1-9][0-9]{0,6})/(s|min|h)")
_SECONDS: Final = {"s": 1, "min": 60, "h": 3600}
_SHOP: Final = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9_.-]{1,64}")
_MEMBERS: Final = ("scopes", "shops", "expires", "rate")


class Rate(NamedTuple):
    """How many requests a key may send: `requests` within `seconds`, in each worker."""

    requests: int
    seconds: int

    def text(self) -> str:
        """Return the rate as it is written in a file of keys, such as `50/s`."""
        unit = next(unit for unit, seconds in _SECONDS.items() if seconds == self.seconds)
        return f"{self.requests}/{unit}"


class ApiKey(NamedTuple):
    """What is known of a key. Several keys may have one name: an old and a new one, while a key is replaced.

    `digest`: the SHA-256 of the key. `expires_at`: it is not accepted from this moment on; None: it does not expire.
    `shops`: the names of those that it is for; None: all.
    """

    name: str
    digest: bytes
    scopes: frozenset[str]
    expires_at: Milliseconds | None = None
    rate: Rate | None = None
    shops: frozenset[str] | None = None

    def line(self) -> str:
        """Return the key as a line of a file of keys."""
        scopes = ALL if self.scopes == set(SCOPES) else ",".join(scope for scope in SCOPES if scope in self.scopes)
        members = [self.name, f"sha256:{self.digest.hex()}", f"scopes={scopes}"]
        if self.shops is not None:
            members.append(f"shops={','.join(sorted(self.shops))}")
        if self.expires_at is not None:
            members.append(f"expires={format_timestamp(self.expires_at)}")
        if self.rate is not None:
            members.append(f"rate={self.rate.text()}")
        return " ".join(members)


def new_secret() -> str:
    """Return a new key with 256 random bits."""
    return _PREFIX + secrets.token_urlsafe(32)


def digest_of(secret: bytes) -> bytes:
    """Return the SHA-256 of a key. A key is random and long, so a slow hash, as for passwords, would gain nothing."""
    return sha256(secret).digest()


def parse_keys(text: str) -> tuple[ApiKey, ...]:
    """Return the keys of a file, or of a variable. Raise ValueError, with a text that shows no part of a key.

    One key per line, or between semicolons; what follows a `#` at the beginning of a line is ignored:

        NAME sha256:HEX scopes=orders:read,orders:write [shops=berlin] [expires=2027-01-01T00:00:00Z] [rate=50/s]
    """
    keys: list[ApiKey] = []
    for number, line in enumerate(text.splitlines(), 1):
        for part in line.split(";") if not line.lstrip().startswith("#") else ():
            if part.strip():
                try:
                    keys.append(_parse_key(part.split()))
                except ValueError as error:
                    raise ValueError(f"line {number}: {error}") from None
    digests = [key.digest for key in keys]
    for key in keys:
        if digests.count(key.digest) > 1:
            raise ValueError(f"the same key is given twice, once as {key.name}")
    return tuple(keys)


def parse_scopes(names: Iterable[str]) -> frozenset[str]:
    """Return the scopes of a list. Raise ValueError."""
    scopes: set[str] = set()
    for name in names:
        if name == ALL:
            scopes |= set(SCOPES)
        elif name in SCOPES:
            scopes.add(name)
        else:
            raise ValueError(f"scopes are {', '.join(SCOPES)}, or {ALL}")
    return frozenset(scopes)


def parse_shops(names: Iterable[str]) -> frozenset[str]:
    """Return the shops of a list. Raise ValueError."""
    shops = frozenset(names)
    if not all(_SHOP.fullmatch(shop) for shop in shops):
        raise ValueError("a shop has 1 to 64 letters, digits, dots, hyphens or underscores")
    return shops


def parse_name(text: str) -> str:
    """Return the name of a key. Raise ValueError."""
    if not _NAME.fullmatch(text):
        raise ValueError("a name has 1 to 32 letters, digits, dots, hyphens or underscores")
    return text


def parse_rate(text: str) -> Rate:
    """Return a rate such as `50/s`, `600/min` or `10000/h`. Raise ValueError."""
    match = _RATE.fullmatch(text)
    if match is None:
        raise ValueError("a rate is a number of requests per s, min or h, such as 50/s")
    return Rate(int(match[1]), _SECONDS[match[2]])


def parse_expiry(text: str) -> Milliseconds:
    """Return the moment at which a key expires. Raise ValueError."""
    try:
        return parse_timestamp(text)
    except ValueError:
        raise ValueError("expires is a date and time, such as 2027-01-01T00:00:00Z") from None


def _parse_key(words: list[str]) -> ApiKey:
    if len(words) < 3:
        raise ValueError("a key is NAME sha256:HEX scopes=..., and may have shops=..., expires=... and rate=...")
    name = parse_name(words[0])
    match = _DIGEST.fullmatch(words[1])
    if match is None:
        raise ValueError(
            f"the second word of {name} must be sha256: and 64 hexadecimal digits, which `holdfast key new` prints; "
            "never the key itself"
        )
    members: dict[str, str] = {}
    for word in words[2:]:
        member, _, value = word.partition("=")
        if member not in _MEMBERS or member in members:
            raise ValueError(f"{name} has a word that is not scopes=, shops=, expires= or rate=, or one of them twice")
        members[member] = value
    if "scopes" not in members:
        raise ValueError(f"{name} has no scopes=")
    if match[1] == digest_of(b"").hex():
        raise ValueError(f"the key of {name} is the SHA-256 of an empty text")
    return ApiKey(
        name,
        bytes.fromhex(match[1]),
        parse_scopes(members["scopes"].split(",")),
        parse_expiry(members["expires"]) if "expires" in members else None,
        parse_rate(members["rate"]) if "rate" in members else None,
        parse_shops(members["shops"].split(",")) if "shops" in members else None,
    )

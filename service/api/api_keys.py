"""Finds the API key of a request, and counts the requests of keys that have a rate.

`Authorization: Bearer <key>` (RFC 6750, section 2.1).
"""

import asyncio
import hmac
import math
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import structlog

from service.domain.api_key import ApiKey, Rate, digest_of, parse_keys
from service.domain.errors.access import NotAuthenticated
from service.key_file import read_key_file
from service.settings import Settings

log = structlog.get_logger()

REREAD_SECONDS: Final = 1.0
"""How often the file of keys is read again: a changed key counts after this time."""

_MAX_SEEN: Final = 1000
"""Valid values of Authorization that are remembered: otherwise each request would cost 1 us more, for the SHA-256.

Only in memory, where each request has its key for a moment anyway. A search uses a hash that is secret and different in
each process (PEP 456), so its time reveals nothing about the values.
"""

_SCHEME: Final = b"bearer "

_SEND_KEY: Final = "Send the header Authorization: Bearer <key>."


class ApiKeys:
    """The keys that are valid now."""

    def __init__(
        self,
        keys: Iterable[ApiKey],
        file: Path | None = None,
        *,
        shop: str = "",
        is_replacement: bool = False,
        clock: Callable[[], float] = time.time,
        tick: Callable[[], float] = time.monotonic,
    ) -> None:
        """Accept these keys, and those of the file. Raise OSError, and ValueError if a line of the file is wrong.

        `shop`: the one of all calls whose path names none; an empty text: there is none.
        `is_replacement`: of a worker that has ended. Then a file that cannot be used is logged, and none of its keys is
        accepted until it can.
        `clock`: seconds since 1970, for what expires. `tick`: seconds since any moment, for rates.
        """
        self.shop = shop
        self._fixed = tuple(keys)
        self._file = file
        self._clock = clock
        self._tick = tick
        self._text = self._failure = ""
        self._known: dict[bytes, KnownKey] = {}
        self._seen: dict[bytes, KnownKey] = {}
        try:
            self._use("" if file is None else read_key_file(file))
        except (OSError, ValueError) as error:
            if not is_replacement:
                raise
            self._use("")
            self._note_failure(error, "this worker accepts none of its keys")

    def find(self, given: bytes | None, *, is_repeated: bool = False) -> "KnownKey":
        """Return the key in a value of the header Authorization; None: there is no such header. Raise NotAuthenticated.

        `is_repeated`: the request has several of these headers.
        """
        if given is None:
            raise NotAuthenticated(_SEND_KEY, has_key=False)
        if is_repeated:
            raise NotAuthenticated("Authorization is given more than once.", has_key=True)
        known = self._seen.get(given) or self._look_up(given)
        expires_at = known.key.expires_at
        if expires_at is not None and self._clock() * 1000 >= expires_at:
            raise NotAuthenticated(f"The key {known.key.name} has expired.", has_key=True)
        return known

    def _look_up(self, given: bytes) -> "KnownKey":
        """Return the key of a value of Authorization, and remember the value. Raise NotAuthenticated."""
        if given[:7].lower() != _SCHEME:
            raise NotAuthenticated(_SEND_KEY, has_key=False)
        digest = digest_of(given[7:].strip())
        # The time of this search reveals nothing about valid keys: an attacker cannot choose the SHA-256 of a guessed
        # key. Whether the digests are equal is decided in constant time.
        known = self._known.get(digest)
        if known is None or not hmac.compare_digest(known.key.digest, digest):
            raise NotAuthenticated("The key is not known.", has_key=True)
        if len(self._seen) < _MAX_SEEN:
            self._seen[given] = known
        return known

    async def reread(self) -> None:
        """Use the keys that are in the file now. If it cannot be read, the keys from before stay valid."""
        if self._file is None:
            return
        try:
            text = await asyncio.to_thread(read_key_file, self._file)
            if text == self._text:
                self._failure = ""
            else:
                self._use(text)
                log.info("api_keys_read", file=str(self._file), keys=sorted({each.key.name for each in self}))
        except (OSError, ValueError) as error:
            self._note_failure(error, "the old keys stay valid")

    def _note_failure(self, error: Exception, then: str) -> None:
        if str(error) != self._failure:
            self._failure = str(error)
            log.error("api_keys_not_read", file=str(self._file), reason=str(error), then=then)

    def __iter__(self) -> Iterator["KnownKey"]:
        return iter(self._known.values())

    def _use(self, text: str) -> None:
        keys = (*self._fixed, *parse_keys(text))
        # A key that stays keeps its bucket: a change of the file gives nobody more requests.
        before = self._known
        self._known = {
            key.digest: before[key.digest]
            if key.digest in before and before[key.digest].key == key
            else KnownKey(key, self._tick)
            for key in keys
        }
        self._seen.clear()
        self._text, self._failure = text, ""


async def reread_regularly(keys: ApiKeys) -> None:
    """Read the file of keys again and again."""
    while True:
        await asyncio.sleep(REREAD_SECONDS)
        await keys.reread()


class KnownKey:
    """A key, and how many requests it may still send."""

    def __init__(self, key: ApiKey, tick: Callable[[], float]) -> None:
        self.key = key
        self.bucket = None if key.rate is None else _TokenBucket(key.rate, tick)


class _TokenBucket:
    """Counts the requests of a key: as many as the rate at once, and then as fast as places are refilled."""

    def __init__(self, rate: Rate, tick: Callable[[], float]) -> None:
        self._rate = rate
        self._tick = tick
        self._tokens = float(rate.requests)
        self._filled_at = tick()
        self.limit = f"{rate.requests} requests in {rate.seconds} s"
        self._policy = f'"key";q={rate.requests};w={rate.seconds}'.encode()

    def take(self) -> tuple[tuple[tuple[bytes, bytes], ...], int]:
        """Count a request. Return header fields for its answer, and the seconds to wait; 0: it is allowed.

        https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/10/
        """
        rate, now = self._rate, self._tick()
        refilled = self._tokens + (now - self._filled_at) * rate.requests / rate.seconds
        self._tokens, self._filled_at = min(refilled, rate.requests), now
        wait = 0
        if self._tokens >= 1:
            self._tokens -= 1
        else:
            wait = max(1, math.ceil((1 - self._tokens) * rate.seconds / rate.requests))
        full_in = math.ceil((rate.requests - self._tokens) * rate.seconds / rate.requests)
        left = b'"key";r=%d;t=%d' % (self._tokens, full_in)
        return ((b"ratelimit-policy", self._policy), (b"ratelimit", left)), wait


def api_keys(settings: Settings, *, is_replacement: bool = False) -> ApiKeys | None:
    """Return the API keys that may call the service; None: everybody may.

    Raise OSError if the file of keys cannot be read, and ValueError if a key in it, or in the settings, is wrong.
    """
    if settings.api_keys is None and settings.api_keys_file is None:
        return None
    return ApiKeys(
        parse_keys(settings.api_keys or ""),
        settings.api_keys_file,
        shop=settings.shop if settings.shops is None else "",
        is_replacement=is_replacement,
    )

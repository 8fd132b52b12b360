"""The HTTP client of a rehearsal: sends one request, and returns its answer or why there is none.

The only module that uses aiohttp.
"""

import json
import os
from decimal import Decimal
from types import TracebackType
from typing import Any, Final, NamedTuple

import aiohttp

from service.ops.load.target import Target

KEEP_ALIVE_SECONDS: Final = 60.0
"""Less than the service keeps an idle connection (75 s), so that the service never closes it as a request leaves."""


class Answer(NamedTuple):
    """An answer of the service. `body`: its JSON, with exact decimals; None if it has none."""

    status: int
    body: Any
    replayed: bool = False
    retry_after: str = ""
    link: str = ""


class NoAnswer(Exception):
    """There is no answer. `kind`: why, in a few words; `was_sent`: the service may have got the request."""

    def __init__(self, kind: str, *, was_sent: bool) -> None:
        super().__init__(kind)
        self.kind = kind
        self.was_sent = was_sent


class HttpClient:
    """Sends requests to a target, over at most `connections` connections. Further requests wait for a free one."""

    def __init__(self, target: Target, *, connections: int, timeout: float, key: str | None = None) -> None:
        """`timeout`: seconds for one request, in which it may also wait for a connection. `key`: an API key."""
        self.base_url = target.base_url
        tls_name = {"server_hostname": target.server_name} if target.base_url.startswith("https:") else {}
        self._options: dict[str, Any] = {"allow_redirects": False, **tls_name}
        self._host = target.host
        self._connections = connections
        self._timeout = timeout
        self._key = {} if key is None else {"Authorization": f"Bearer {key}"}

    async def __aenter__(self) -> "HttpClient":
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections, keepalive_timeout=KEEP_ALIVE_SECONDS),
            timeout=aiohttp.ClientTimeout(total=self._timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Host": self._host, "User-Agent": "holdfast-load", **self._key},
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def send(self, method: str, path: str, body: str | None = None, key: str | None = None) -> Answer:
        """Send a request, once. Raise NoAnswer."""
        headers = {}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if key is not None:
            headers["Idempotency-Key"] = key
        url = self.base_url + path
        try:
            async with self._session.request(method, url, data=body, headers=headers, **self._options) as response:
                content = await response.read()
        except TimeoutError:
            raise NoAnswer("timeout", was_sent=True) from None
        except aiohttp.ClientConnectorError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise NoAnswer(f"cannot connect: {reason}", was_sent=False) from None
        except aiohttp.ClientResponseError:
            raise NoAnswer("an answer that is not HTTP", was_sent=True) from None
        except (aiohttp.ClientError, OSError):
            raise NoAnswer("connection lost", was_sent=True) from None
        fields = response.headers
        return Answer(
            response.status,
            _parse(content),
            "Idempotent-Replayed" in fields,
            fields.get("Retry-After", ""),
            fields.get("Link", ""),
        )


def _parse(content: bytes) -> Any:
    try:
        return json.loads(content, parse_float=Decimal) if content else None
    except (ValueError, RecursionError):
        return None

"""Shops that fit a pattern of HOLDFAST_SHOPS: each is opened with the first request for it."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.api_keys import ApiKeys
from service.api.request import RequestInfo, is_repeated
from service.api.routes import CALLS
from service.api.shops import OF_THE_SERVICE, PREFIX
from service.domain.errors.access import MissingShop
from service.domain.errors.base import HoldfastError
from service.domain.errors.storage import Overloaded

ABSENT_SECONDS: Final = 1.0
"""For so long, Redis is not asked again for a shop that did not exist."""

MAX_ABSENT: Final = 1000
"""Names of absent shops that are remembered. So Redis is asked for no more of them in a second.

Shops that exist do not count: after a restart, many may be asked for at the same time.
"""

_PUBLIC: Final = frozenset(call.path[1:].partition("/")[0] for call in CALLS if not call.scope)
"""The first parts of the paths that need no API key, such as the page of the board."""

OpenShop = Callable[[str], Awaitable[bool]]


class MatchingShops:
    """Opens the shop of a request, if it fits a pattern and exists. ShopPaths, behind it, finds the shop of the path.

    Requests for random names must neither fill the memory nor flood Redis, so the limits above are there.
    """

    def __init__(
        self,
        app: ASGIApp,
        serves: Callable[[str], bool],
        keys: ApiKeys | None = None,
        tick: Callable[[], float] = time.monotonic,
    ) -> None:
        """`serves`: whether a name fits. `keys`: which requests are allowed; None: all. `tick`: seconds."""
        self.app = app
        self._serves = serves
        self._keys = keys
        self._tick = tick
        self._absent: dict[str, float] = {}
        """When Redis said that there is no such shop. The oldest answer is the first one."""
        self._lookups: dict[str, asyncio.Task[bool]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(PREFIX):
            shop, _, rest = scope["path"][len(PREFIX) :].partition("/")
            call = rest.partition("/")[0]
            if shop not in scope["state"]["shops"] and call not in OF_THE_SERVICE and self._serves(shop):
                try:
                    if self._keys is not None and call not in _PUBLIC:
                        self._check_key(self._keys, scope, shop)
                    await self._open(shop, scope["state"]["open_shop"])
                except HoldfastError:
                    scope["root_path"] += PREFIX + shop  # the same answer as from a shop that is open
                    raise
        await self.app(scope, receive, send)

    def _check_key(self, keys: ApiKeys, scope: Scope, shop: str) -> None:
        """Raise NotAuthenticated or MissingShop. The rest is checked with the call, when it is known."""
        info: RequestInfo = scope["request_info"]
        key = keys.find(info.fields.get(b"authorization"), is_repeated=is_repeated(b"authorization", scope)).key
        if key.shops is not None and shop not in key.shops:
            info.key = key.name
            raise MissingShop(sorted(key.shops), key.name)

    async def _open(self, shop: str, open_shop: OpenShop) -> None:
        """Open a shop, unless it does not exist. Raise StorageError."""
        lookup = self._lookups.get(shop)
        if lookup is None:
            if self._is_absent(shop):
                return
            if len(self._absent) + len(self._lookups) >= MAX_ABSENT:
                raise Overloaded("too many requests name shops that are not open")
            lookup = self._lookups[shop] = asyncio.create_task(self._look_up(shop, open_shop), name="open-shop")
        # A cancelled request must not cancel the lookup: other requests may wait for it.
        await asyncio.shield(lookup)

    async def _look_up(self, shop: str, open_shop: OpenShop) -> bool:
        try:
            exists = await open_shop(shop)
        finally:
            del self._lookups[shop]
        if not exists:
            self._absent[shop] = self._tick()
        return exists

    def _is_absent(self, shop: str) -> bool:
        """Forget the answers that are too old. Return whether there is one about this shop left."""
        too_old = self._tick() - ABSENT_SECONDS
        while self._absent and self._absent[oldest := next(iter(self._absent))] <= too_old:
            del self._absent[oldest]
        return shop in self._absent

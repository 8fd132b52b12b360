"""Several shops in one service: the paths below /shops/{shop}."""

from collections.abc import Mapping
from typing import Any, Final

from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.request import RequestInfo, State
from service.domain.errors.request import ShopNotFound

PREFIX: Final = "/shops/"

WITHOUT_SHOP: Final = frozenset({"", "docs", "livez", "metrics", "openapi.json", "problems", "readyz"})
"""The first parts of paths that are about the service, so that they need no shop."""

OF_THE_SERVICE: Final = frozenset({"livez", "metrics"})
"""The first parts of paths that are not about a shop."""

_OF_ALL_SHOPS: Final = ("shops", "shop_names")
"""What a request for a single shop does not get."""


class ShopPaths:
    """Finds the shop of each request, removes it from the path, and gives the request the objects of this shop.

    The shop becomes a part of `root_path`, so the links in the answers lead to the same shop.
    """

    def __init__(self, app: ASGIApp, root_shop: str) -> None:
        """`root_shop`: the shop of the paths without a shop; an empty text: there is none."""
        self.app = app
        self._root_shop = root_shop

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self._find_shop(scope)
        await self.app(scope, receive, send)

    def _find_shop(self, scope: Scope) -> None:
        """Raise ShopNotFound if the path names no shop of this service."""
        path: str = scope["path"]
        states: Mapping[str, State] = scope["state"]["shops"]
        shop, rest = self._root_shop, path
        if path.startswith(PREFIX):
            shop, slash, rest = path[len(PREFIX) :].partition("/")
            if shop not in states or rest.partition("/")[0] in OF_THE_SERVICE:
                raise ShopNotFound(path, has_shop=shop in states)
            rest = slash + rest or "/"
            scope["root_path"] += PREFIX + shop
        elif not shop and path[1:].partition("/")[0] not in WITHOUT_SHOP:
            raise ShopNotFound(path, has_shop=False)
        if shop:
            info: RequestInfo = scope["request_info"]
            state: dict[str, Any] = {**states[shop]}
            if path is rest and path[1:].partition("/")[0] in WITHOUT_SHOP:  # the service as a whole is asked
                state |= {name: value for name, value in scope["state"].items() if name not in _OF_ALL_SHOPS}
            else:
                info.shop = shop
            scope["state"] = state
        scope["path"] = rest

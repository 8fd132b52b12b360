"""Finds the call of a path and a method."""

import re
from collections.abc import Awaitable, Sequence
from typing import Any

from starlette.routing import Match, Route, Router
from starlette.types import ASGIApp, Lifespan, Receive, Scope, Send

from service.api.api_keys import ApiKeys
from service.api.call import Call, Endpoint, GuardedEndpoint
from service.domain.errors.request import MethodNotAllowed, PathNotFound


class CallRouter(Router):
    """Starlette's router, with dictionaries of the paths: Starlette would try its routes one after another.

    If no dictionary has the method and the path of a request, Starlette's search finds out why: the path is unknown, or
    it has other methods.
    """

    def __init__(self, calls: Sequence[Call], lifespan: Lifespan[Any], keys: ApiKeys | None = None) -> None:
        """`keys`: which requests are allowed; None: all."""
        routes = [_CallRoute(call.path, _endpoint(call, keys), methods=[call.method]) for call in calls]
        # The middleware removes one slash at the end. A path with two slashes at its end does not exist.
        super().__init__(routes, redirect_slashes=False, lifespan=lifespan)
        self._plain: dict[tuple[str, str], ASGIApp] = {}
        self._with_parameter: dict[tuple[str, str], tuple[ASGIApp, str]] = {}
        """By method and path: the call, and the name of its parameter. In the path, the parameter is written `{}`."""
        for route in routes:
            for method in route.methods or ():
                if not route.param_convertors:
                    self._plain[method, route.path] = route.app
                else:
                    [name] = route.param_convertors
                    assert route.path.split("/")[2] == f"{{{name}}}"
                    self._with_parameter[method, route.path.replace(f"{{{name}}}", "{}")] = route.app, name

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:  # type: ignore[override]
        """Return the work of the call: a coroutine of its own here would cost each request more."""
        method, path = scope.get("method", ""), scope.get("path", "")
        app = self._plain.get((method, path))
        if app is None:
            parts = path.split("/")
            if len(parts) > 2 and parts[2]:
                value, parts[2] = parts[2], "{}"
                found = self._with_parameter.get((method, "/".join(parts)))
                if found is not None:
                    app, name = found
                    scope["path_params"] = {name: value}
        return self._search(scope, receive, send) if app is None else app(scope, receive, send)

    async def _search(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and f"{scope['path']}/".startswith(f"{scope['root_path'] or None}/"):
            # Starlette would remove `root_path`, which the middleware has removed already, a second time.
            await self.not_found(scope, receive, send)
        await super().__call__(scope, receive, send)

    async def not_found(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raise PathNotFound. Starlette calls this if no route fits."""
        raise PathNotFound(scope["path"], f"{scope['root_path']}/docs")


def _endpoint(call: Call, keys: ApiKeys | None) -> Endpoint:
    return GuardedEndpoint(call, keys) if keys is not None and call.scope else Endpoint(call)


class _CallRoute(Route):
    """A row of the table of API calls."""

    def __init__(self, path: str, endpoint: Any, *, methods: list[str]) -> None:
        super().__init__(path, endpoint, methods=methods)
        # Starlette's `$` also matches before a line feed at the end: `/livez%0A` would be served.
        self.path_regex = re.compile(self.path_regex.pattern.removesuffix("$") + r"\Z")

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in (self.methods or ()):
            raise MethodNotAllowed(scope["method"], scope["path"], _allowed_methods(scope))
        await self.app(scope, receive, send)


def _allowed_methods(scope: Scope) -> list[str]:
    """Return the methods of all routes of the path."""
    routes = [route for route in scope["router"].routes if route.matches(scope)[0] is not Match.NONE]
    return sorted({method for route in routes for method in route.methods})

"""The layer around all API calls: request ids, a response to every exception, the access log."""

import itertools
import re
import secrets
import time
from collections.abc import Mapping

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.problems import problem_for
from service.api.request import RequestInfo, request_facts
from service.api.responses import REQUEST_ERROR, send_response
from service.metrics.counters import Metrics

log = structlog.get_logger()

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._~-]{1,128}")


class RequestMiddleware:
    """Gives each request an id, turns each exception into a response, counts it, and writes the access log if wanted.

    An X-Request-Id of the client is kept if it has 1 to 128 letters, digits, `.`, `_`, `~` or `-`.
    `/orders/` is treated like `/orders`. The prefix of a proxy, `root_path`, is removed from the path if the proxy has
    kept it. A server that cannot read a request puts the error into the scope, as
    REQUEST_ERROR: the middleware answers it like an error of a call.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, access_log: bool = False) -> None:
        self.app = app
        self._count_request = metrics.count_request
        self._count_problem = metrics.count_problem
        self.access_log = access_log
        self._prefix = secrets.token_hex(4)
        self._numbers = itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        fields = dict(scope["headers"])
        info = scope["request_info"] = RequestInfo(self._request_id(fields), fields)
        path: str = scope["path"]
        if scope["root_path"]:
            path = scope["path"] = _without_prefix(path, scope["root_path"])
        if path[-1:] == "/" and path not in ("/", "//"):
            scope["path"] = path[:-1]
        try:
            if REQUEST_ERROR in scope:
                raise scope[REQUEST_ERROR]
            await self.app(scope, receive, send)
        except ClientDisconnect:
            pass  # the client closed the connection before it had sent its whole body
        except Exception as error:
            response = problem_for(error, scope)
            if info.status:
                raise  # a response has begun, so the problem cannot be sent: the server closes the connection
            await send_response(response, scope, send)
        finally:
            # The extension refers to the request, and the request to this scope: a reference cycle.
            scope.pop("extensions", None)
            seconds = time.perf_counter() - started
            self._count_request(scope["method"], info.route, info.status, seconds)
            if info.reason and info.status >= 400:
                self._count_problem(info.reason)
            if self.access_log:
                ms = round(seconds * 1000, 2)
                reason = {"reason": info.reason} if info.reason else {}
                log.info("request", **request_facts(scope), path=path, status=info.status, **reason, ms=ms)

    def _request_id(self, fields: Mapping[bytes, bytes]) -> str:
        given = fields.get(b"x-request-id")
        if given is not None and _REQUEST_ID.fullmatch(given):
            return given.decode()
        return f"{self._prefix}-{next(self._numbers):x}"


def _without_prefix(path: str, prefix: str) -> str:
    """Return the path behind the prefix, or the whole path if it does not begin with the prefix."""
    if path == prefix:
        return "/"
    return path[len(prefix) :] if path.startswith(f"{prefix}/") else path

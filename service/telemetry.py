"""Request ids, logs, and the answer to what nobody foresaw: one pure-ASGI layer around everything."""

import itertools
import re
import secrets
import time
from collections.abc import Iterable

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from service.http import respond
from service.problems import answer

log = structlog.get_logger()

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._~-]{1,128}")


class Telemetry:
    """Gives each request an id and each exception an answer, and logs both.

    A client's own X-Request-Id is kept if it fits into a log line. `/orders/` is taken for `/orders`.
    """

    def __init__(self, app: ASGIApp, access_log: bool = False) -> None:
        self.app = app
        self.access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        scope["request_id"] = _request_id(scope["headers"])
        scope["app"] = self.app  # tells Starlette's router to raise its 404 and 405
        path: str = scope["path"]
        if path[-1:] == "/" and path != "/":
            scope["path"] = path[:-1]
        try:
            await self.app(scope, receive, send)
        except ClientDisconnect:
            pass  # it went away with its body half sent: there is nobody to answer
        except Exception as error:
            response = answer(error, scope)
            if "status" in scope:
                raise  # perhaps too late to say so: the server ends it
            await respond(response, scope, send)
        finally:
            # Its function knows the request, which knows this scope: a ring, until the garbage collector comes round.
            scope.pop("extensions", None)
            if self.access_log:
                ms = round((time.perf_counter() - started) * 1000, 2)
                log.info(
                    "request",
                    request_id=scope["request_id"],
                    method=scope["method"],
                    path=path,
                    status=scope.get("status", 0),
                    ms=ms,
                )


def _request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    given = dict(headers).get(b"x-request-id")
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given.decode()
    return f"{_PROCESS}-{next(_numbers):x}"


_PROCESS = secrets.token_hex(4)
_numbers = itertools.count(1)

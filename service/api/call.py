"""One call of the API: what its row in routes.py declares, and how a request is read by it."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.api.request import (
    JSON,
    Request,
    read_body,
    read_id,
    read_idempotency_key,
    read_query,
    refuse_parameters,
)
from service.api.responses import send_response
from service.domain.errors.base import HoldfastError
from service.domain.requests import RequestModel

ModelT = TypeVar("ModelT", bound=RequestModel)

Refusals = tuple[type[HoldfastError], ...]
Missing = Callable[[str], HoldfastError]


class Call:
    """A row of the table of calls. The handler gets the request, then the id, then the body or the query.

    - `missing`: the path has an `{id}`; this is the error for a text that cannot be an id.
    - `body`, `media_types`: the model of the body, and the media types that it may have.
    - `query`: the model of the query. Without it, query parameters are refused.
    - `any_query`: query parameters are ignored.
    - `keyed`: an Idempotency-Key is read, see `Request.idempotency_key`.
    - `refuses`: the errors that this call can answer with, beside those that every call can.
    """

    @overload
    def __init__(
        self,
        method: str,
        path: str,
        handler: Callable[[Request], Awaitable[Response]],
        *,
        any_query: bool = False,
        refuses: Refusals = (),
    ) -> None: ...
    @overload
    def __init__(
        self,
        method: str,
        path: str,
        handler: Callable[[Request, int], Awaitable[Response]],
        *,
        missing: Missing,
        refuses: Refusals = (),
    ) -> None: ...
    @overload
    def __init__(
        self,
        method: str,
        path: str,
        handler: Callable[[Request, ModelT], Awaitable[Response]],
        *,
        body: type[ModelT],
        keyed: bool = False,
        refuses: Refusals = (),
    ) -> None: ...
    @overload
    def __init__(
        self,
        method: str,
        path: str,
        handler: Callable[[Request, ModelT], Awaitable[Response]],
        *,
        query: type[ModelT],
        refuses: Refusals = (),
    ) -> None: ...
    @overload
    def __init__(
        self,
        method: str,
        path: str,
        handler: Callable[[Request, int, ModelT], Awaitable[Response]],
        *,
        missing: Missing,
        body: type[ModelT],
        media_types: tuple[str, ...] = JSON,
        keyed: bool = False,
        refuses: Refusals = (),
    ) -> None: ...
    def __init__(
        self,
        method: str,
        path: str,
        handler: Callable[..., Awaitable[Response]],
        *,
        missing: Missing | None = None,
        body: type[RequestModel] | None = None,
        media_types: tuple[str, ...] = JSON,
        query: type[RequestModel] | None = None,
        any_query: bool = False,
        keyed: bool = False,
        refuses: Refusals = (),
    ) -> None:
        self.method = method
        self.path = path
        self.handler = handler
        self.missing = missing
        self.body = body
        self.media_types = media_types
        self.query = query
        self.any_query = any_query
        self.keyed = keyed
        self.refuses = refuses


class Endpoint:
    """A call as an ASGI application.

    Starlette would wrap a plain function to catch its exceptions. The middleware does that for all calls, in a tenth
    of the time of a request.
    """

    def __init__(self, call: Call) -> None:
        self.call = call

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = self.call
        request = Request(scope, receive, send)
        arguments: list[Any] = []
        if scope["query_string"] and call.query is None and not call.any_query:
            refuse_parameters(scope["query_string"])
        if call.missing is not None:
            text: str = scope["path_params"]["id"]
            path_id = read_id(text)
            if path_id is None:
                raise call.missing(text)
            arguments.append(path_id)
        if call.keyed:
            request.idempotency_key = read_idempotency_key(scope["headers"])
        if call.body is not None:
            arguments.append(await read_body(request, call.body, call.media_types))
        elif call.query is not None:
            arguments.append(read_query(scope["query_string"], call.query))
        await send_response(await call.handler(request, *arguments), scope, send)

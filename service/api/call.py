"""One API call: what its row in routes.py declares, and how a request for it is read."""

from collections.abc import Awaitable, Callable, Container, Coroutine, Mapping
from typing import Any, Final, NamedTuple, TypeVar, overload

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.api.api_keys import ApiKeys
from service.api.request import (
    JSON,
    NO_MODELS,
    WHOLE_BODY,
    Request,
    RequestInfo,
    check_media_type,
    is_repeated,
    read_body,
    read_bytes,
    read_id,
    read_idempotency_key,
    read_query,
    refuse_parameters,
)
from service.api.responses import EventStream, send_events, send_response
from service.domain.errors.access import CrossSiteRequest, MissingScope, MissingShop, NotAuthenticated, RateLimited
from service.domain.errors.base import HoldfastError
from service.domain.errors.refusals import OrderNotFound, ProductNotFound
from service.domain.requests import RequestModel

_SAME_SITE: Final = (b"same-origin", b"none")
"""What browsers say in Sec-Fetch-Site about requests of this service's own pages, and of their user.

Other programs do not send it.
"""

ModelT = TypeVar("ModelT", bound=RequestModel)
OtherModelT = TypeVar("OtherModelT", bound=RequestModel)

Refusals = tuple[type[HoldfastError], ...]
NotFound = type[ProductNotFound] | type[OrderNotFound]


class Answer(NamedTuple):
    """What a call answers if it succeeds: a part of the description of the API, see api/openapi.py.

    `schema`: the name of the schema of the body; an empty text: the body is not JSON, or there is none.
    `headers`: header fields of the answer that matter to a client. `is_cacheable`: it has an ETag, and If-None-Match
    may be sent. `takes_if_match`: If-Match may be sent.
    """

    status: int
    schema: str = ""
    media_type: str = "application/json"
    headers: tuple[str, ...] = ()
    is_cacheable: bool = False
    takes_if_match: bool = False


class Call:
    """A row of the table of API calls. The handler gets the request, then the id, then the body or the query.

    - `scope`: what an API key must allow; an empty text: everybody may call this.
    - `answer`: of a request that succeeds.
    - `not_found`: the path has an `{id}`; this is the error for an unknown id, and for a text that cannot be an id.
    - `body`, `media_types`: the model of the body, and the media types that it may have.
    - `body_with`: other models of the body, for bodies that have a certain member.
    - `query`: the model of the query. Without it, query parameters are refused.
    - `ignores_query`: query parameters are ignored.
    - `takes_idempotency_key`: an Idempotency-Key is read, see `Request.idempotency_key`.
    - `refuses`: the errors that this call can raise, in addition to those that every call can raise.
    """

    @overload
    def __init__(
        self,
        method: str,
        path: str,
        handler: Callable[[Request], Awaitable[Response]],
        *,
        scope: str,
        answer: Answer,
        ignores_query: bool = False,
        refuses: Refusals = (),
    ) -> None: ...
    @overload
    def __init__(
        self,
        method: str,
        path: str,
        handler: Callable[[Request, int], Awaitable[Response]],
        *,
        scope: str,
        answer: Answer,
        not_found: NotFound,
        refuses: Refusals = (),
    ) -> None: ...
    @overload
    def __init__(
        self,
        method: str,
        path: str,
        handler: Callable[[Request, ModelT], Awaitable[Response]],
        *,
        scope: str,
        answer: Answer,
        body: type[ModelT],
        takes_idempotency_key: bool = False,
        refuses: Refusals = (),
    ) -> None: ...
    @overload
    def __init__(
        self,
        method: str,
        path: str,
        handler: Callable[[Request, ModelT], Awaitable[Response]],
        *,
        scope: str,
        answer: Answer,
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
        scope: str,
        answer: Answer,
        not_found: NotFound,
        body: type[ModelT],
        media_types: tuple[str, ...] = JSON,
        takes_idempotency_key: bool = False,
        refuses: Refusals = (),
    ) -> None: ...
    @overload
    def __init__(
        self,
        method: str,
        path: str,
        handler: Callable[[Request, int, ModelT | OtherModelT], Awaitable[Response]],
        *,
        scope: str,
        answer: Answer,
        not_found: NotFound,
        body: type[ModelT],
        body_with: Mapping[str, type[OtherModelT]],
        takes_idempotency_key: bool = False,
        refuses: Refusals = (),
    ) -> None: ...
    def __init__(
        self,
        method: str,
        path: str,
        handler: Callable[..., Awaitable[Response]],
        *,
        scope: str,
        answer: Answer,
        not_found: NotFound | None = None,
        body: type[RequestModel] | None = None,
        body_with: Mapping[str, type[RequestModel]] = NO_MODELS,
        media_types: tuple[str, ...] = JSON,
        query: type[RequestModel] | None = None,
        ignores_query: bool = False,
        takes_idempotency_key: bool = False,
        refuses: Refusals = (),
    ) -> None:
        self.method = method
        self.path = path
        self.handler = handler
        self.scope = scope
        self.answer = answer
        self.not_found = not_found
        self.body = body
        self.body_with = body_with
        self.media_types = media_types
        self.query = query
        self.ignores_query = ignores_query
        self.takes_idempotency_key = takes_idempotency_key
        self.refuses = (not_found, *refuses) if not_found is not None else refuses


class Endpoint:
    """An API call as an ASGI application, for everybody.

    Starlette would wrap a plain function to catch its exceptions, which costs 1 us per request. This is not needed: the
    middleware catches the exceptions of all calls.
    """

    refuses_other_sites = True
    """Whether a page of another site must not change anything. It could: a form needs no permission of this service."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.refuses_other_sites = self.refuses_other_sites and call.method != "GET"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = self.call
        info: RequestInfo = scope["request_info"]
        info.route = call.path
        if self.refuses_other_sites and info.fields.get(b"sec-fetch-site", b"none") not in _SAME_SITE:
            raise CrossSiteRequest
        request = Request(scope)
        arguments: list[Any] = []
        if scope["query_string"] and call.query is None and not call.ignores_query:
            refuse_parameters(scope["query_string"])
        if call.not_found is not None:
            text: str = scope["path_params"]["id"]
            path_id = read_id(text)
            if path_id is None:
                raise call.not_found(text)
            arguments.append(path_id)
        if call.takes_idempotency_key:
            request.idempotency_key = read_idempotency_key(scope)
        if call.body is not None:
            body = scope.get(WHOLE_BODY)
            check_media_type(info.fields, call.media_types)
            if body is None:
                body = await read_bytes(receive, info.fields)
            arguments.append(read_body(body, call.body, call.body_with))
        elif call.query is not None:
            arguments.append(read_query(scope["query_string"], call.query))
        response = await call.handler(request, *arguments)
        if response.__class__ is EventStream:
            await send_events(response, scope, receive, send, lambda: self.still_allows(scope))
        else:
            await send_response(response, scope, send)

    def still_allows(self, scope: Scope) -> bool:
        """Return whether a client may get more of an answer without end."""
        return True


class GuardedEndpoint(Endpoint):
    """An API call that needs an API key with its scope. A page of another site has no key."""

    refuses_other_sites = False

    def __init__(self, call: Call, keys: ApiKeys) -> None:
        super().__init__(call)
        self._keys = keys

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[None, None, None]:
        """Check the key, then return the rest of the work: a coroutine of its own would cost each request more."""
        info: RequestInfo = scope["request_info"]
        info.route = self.call.path
        known = self._keys.find(info.fields.get(b"authorization"), is_repeated=is_repeated(b"authorization", scope))
        key, bucket = known.key, known.bucket
        info.key = key.name
        if bucket is not None:  # also requests that the scopes do not allow count
            info.headers, wait = bucket.take()
            if wait:
                raise RateLimited(key.name, bucket.limit, wait)
        if self.call.scope not in key.scopes:
            raise MissingScope(self.call.scope, key.name)
        if key.shops is not None and not self._is_for_shop(key.shops, info):
            raise MissingShop(sorted(key.shops), key.name)
        return super().__call__(scope, receive, send)

    def _is_for_shop(self, shops: Container[str], info: RequestInfo) -> bool:
        return (info.shop or self._keys.shop) in shops

    def still_allows(self, scope: Scope) -> bool:
        """Return whether the key has not been taken away since the request, and has not expired."""
        info: RequestInfo = scope["request_info"]
        try:
            key = self._keys.find(info.fields.get(b"authorization")).key
        except NotAuthenticated:
            return False
        return self.call.scope in key.scopes and (key.shops is None or self._is_for_shop(key.shops, info))

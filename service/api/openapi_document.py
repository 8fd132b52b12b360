"""Builds the description of the API. Imported when it is asked for the first time."""

import json
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any, Final

from service.api.call import Call
from service.api.openapi_examples import ANSWERS, BODIES, EVENTS
from service.api.openapi_schemas import Schema, answer_schemas, problem_schema, problem_schema_name, ref
from service.api.problems import problem_document
from service.domain.errors.access import ACCESS_ERRORS
from service.domain.errors.base import HoldfastError, InternalError, Problem
from service.domain.errors.catalog import all_problems
from service.domain.errors.examples import EXAMPLES
from service.domain.errors.request import (
    BodyTooLarge,
    HeadTooLarge,
    InvalidIdempotencyKey,
    InvalidRequest,
    MalformedJson,
    MalformedRequest,
    RequestTimeout,
    UnsupportedMediaType,
)
from service.domain.errors.storage import OutcomeUnknown, Overloaded, StorageUnavailable
from service.domain.limits import MAX_ID, MAX_IDEMPOTENCY_KEY
from service.domain.schemas import request_schemas

_ABOUT: Final = """An order API that never oversells: one order takes the stock of all its lines, or of none.

Money is a number with at most two decimals. Send an `Idempotency-Key` with every order, return and stock change: then
it can be repeated after a lost connection, and takes effect only once. Each error is a problem (RFC 9457) that lists
everything that is wrong; its `type` leads to a page that explains it. A path may also end in a slash. An `X-Request-Id`
of yours, 1 to 128 letters, digits, `.`, `_`, `~` or `-`, stands in the answer and in the log of the service.

If the service has API keys, send one in `Authorization: Bearer <key>`. Each call below names the scope that its key
needs."""

_HEADERS: Final[Mapping[str, Schema]] = {
    "Location": {"description": "The path of what was created, or where to go.", "schema": {"type": "string"}},
    "Link": {"description": 'The next page, if there is one: `<...>; rel="next"` (RFC 8288).',
             "schema": {"type": "string"}},
    "ETag": {"description": "Changes when the answer changes (RFC 9110, 8.8.3).", "schema": {"type": "string"}},
    "Idempotent-Replayed": {"description": "`true`: an earlier request with the same Idempotency-Key had this result.",
                            "schema": {"type": "string", "enum": ["true"]}},
    "X-Request-Id": {"description": "The id of the request: yours, or one that the service chose.",
                     "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds after which the request may be repeated.", "schema": {"type": "integer"}},
    "WWW-Authenticate": {"description": "How to send a key (RFC 6750, section 3).", "schema": {"type": "string"}},
    "RateLimit": {"description": "Requests that are left, and the seconds until all are free again: `\"key\";r=3;t=7`. "
                                 "Each answer to a key with a rate has it.", "schema": {"type": "string"}},
    "RateLimit-Policy": {"description": "The rate of the key: `\"key\";q=50;w=1` are 50 requests in one second.",
                         "schema": {"type": "string"}},
    "Allow": {"description": "The methods of this path.", "schema": {"type": "string"}},
}  # fmt: skip

_IDEMPOTENCY_KEY: Final[Schema] = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Your id of this request, such as a UUID. Repeated with it, the request takes effect only once.",
    # Bare, or a quoted string (RFC 9651): see read_idempotency_key() in request.py.
    "schema": {
        "type": "string",
        "pattern": rf"^(?:[!#-~][!-~]{{0,{MAX_IDEMPOTENCY_KEY - 1}}}|"
        rf'"(?:[!#-\[\]-~]|\\["\\]){{1,{MAX_IDEMPOTENCY_KEY}}}")$',
    },
    "example": "3f0c5a52-8d1e-4c55-9b0e-0f5b6f6f4c11",
}
_IF_MATCH: Final[Schema] = {
    "name": "If-Match",
    "in": "header",
    "description": "The ETag of the product as you know it. 412 if somebody has changed it meanwhile.",
    "schema": {"type": "string"},
}
_IF_NONE_MATCH: Final[Schema] = {
    "name": "If-None-Match",
    "in": "header",
    "description": "The ETag of the answer that you have. 304 if it has not changed.",
    "schema": {"type": "string"},
}
_LAST_EVENT_ID: Final[Schema] = {
    "name": "Last-Event-ID",
    "in": "header",
    "description": "The id of the last event that you have: what happened after it comes first. It wins over `after`.",
    "schema": {"type": "string", "pattern": "^[0-9]{1,15}(-[0-9]{1,15})?(_[0-9]{1,15}(-[0-9]{1,15})?){0,63}$"},
}

_SCHEME: Final = "api_key"

_LINKED: Final[Mapping[str, tuple[str, ...]]] = {
    "/products": ("get_product", "change_product", "withdraw_product", "get_stock", "change_stock"),
    "/orders": ("get_order", "complete_order", "cancel_order", "extend_hold", "return_products"),
}
"""The calls that take the id of what a POST on this path has created."""


_OF_THE_SERVICE: Final = ("/livez", "/metrics")
"""The paths that are not about a shop."""


def openapi_document(root_path: str, shops: Iterable[str] = ()) -> dict[str, Any]:
    """Return the whole document. `root_path`: the prefix of a proxy, or an empty text.

    `shops`: the names and patterns of HOLDFAST_SHOPS, if the document is not about one of several shops.
    """
    from service.api.routes import CALLS  # the table has a call that returns this document

    bodies = {model for call in CALLS for model in (call.body, *call.body_with.values()) if model is not None}
    queries = {call.query for call in CALLS if call.query is not None}
    schemas = request_schemas(sorted(bodies | queries, key=lambda model: model.__name__))
    parameters = {query: _query_parameters(schemas.pop(query.__name__)) for query in queries}
    total = answer_schemas(schemas)["Order"]["properties"]["total_price"]
    problems = {problem_schema_name(problem): problem_schema(problem, root_path, total) for problem in all_problems()}
    paths: dict[str, dict[str, Any]] = {}
    for call in CALLS:
        operation = _operation(call, parameters[call.query] if call.query is not None else [], root_path)
        paths.setdefault(call.path, {})[call.method.lower()] = operation
    servers = [_server_of(shop, root_path) for shop in shops] or [{"url": root_path or "/"}]
    if shops:
        for path in _OF_THE_SERVICE:
            paths[path]["servers"] = [{"url": root_path or "/"}]
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "Holdfast",
            "version": version("holdfast"),
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": servers,
        "tags": [{"name": name} for name in ("products", "orders", "operation", "documentation")],
        "paths": paths,
        "components": {
            "schemas": {**schemas, **answer_schemas(schemas), **problems},
            "headers": dict(_HEADERS),
            "securitySchemes": {
                _SCHEME: {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key, which the operator makes.",
                }
            },
        },
    }


def _server_of(shop: str, root_path: str) -> dict[str, Any]:
    """Return where the calls of a shop are. For a pattern, the reader of the document writes the name."""
    if "*" not in shop:
        return {"url": f"{root_path}/shops/{shop}"}
    variable = {"default": shop, "description": f"The name of a shop: one that fits {shop}, and exists."}
    return {"url": f"{root_path}/shops/{{shop}}", "variables": {"shop": variable}}


_FURTHER_HEADERS: Final[Mapping[int, tuple[str, ...]]] = {
    401: ("WWW-Authenticate",),
    403: ("WWW-Authenticate",),
    405: ("Allow",),
    429: ("Retry-After", "RateLimit", "RateLimit-Policy"),
    503: ("Retry-After",),
}


def _operation(call: Call, query: list[Schema], root_path: str) -> dict[str, Any]:
    about = (call.handler.__doc__ or "").partition(f"({call.method} ")[0].strip().split("\n\n")
    operation: dict[str, Any] = {
        "operationId": call.handler.__name__,
        "tags": [_tag(call)],
        "summary": " ".join(about[0].split()),
    }
    if about[1:]:
        operation["description"] = " ".join(" ".join(about[1:]).split())
    if parameters := [*_path_parameters(call), *query, *_header_parameters(call)]:
        operation["parameters"] = parameters
    if call.body is not None:
        operation["requestBody"] = _request_body(call)
    if call.scope:
        # A service without keys needs none. OpenAPI 3.1 allows to name what a bearer token needs, too.
        operation["security"] = [{}, {_SCHEME: [call.scope]}]
    operation["responses"] = _responses(call, root_path)
    return operation


def _tag(call: Call) -> str:
    first = call.path.split("/")[1]
    if first in ("products", "orders"):
        return first
    return "operation" if first in ("livez", "readyz", "metrics", "events", "board") else "documentation"


def _path_parameters(call: Call) -> list[Schema]:
    if call.not_found is not None:
        schema: Schema = {"type": "integer", "minimum": 1, "maximum": MAX_ID}
        return [{"name": "id", "in": "path", "required": True, "schema": schema, "example": 1}]
    if "{" in call.path:
        name = call.path.partition("{")[2].rstrip("}")
        example = "insufficient-stock" if name == "name" else "docs.js"
        # Without a slash, and no dots alone: clients resolve such a path before they send it.
        schema = {"type": "string", "pattern": "^[a-z0-9-]+([.][a-z0-9]+)?$"}
        return [{"name": name, "in": "path", "required": True, "schema": schema, "example": example}]
    return []


def _query_parameters(schema: Schema) -> list[Schema]:
    return [
        {
            "name": name,
            "in": "query",
            "schema": next(part for part in field.get("anyOf", [field]) if part.get("type") != "null"),
        }
        for name, field in schema["properties"].items()
    ]


def _header_parameters(call: Call) -> Iterable[Schema]:
    if call.takes_idempotency_key:
        yield _IDEMPOTENCY_KEY
    if call.answer.takes_if_match:
        yield _IF_MATCH
    if call.answer.is_cacheable:
        yield _IF_NONE_MATCH
    if call.answer.media_type == "text/event-stream":
        yield _LAST_EVENT_ID


def _request_body(call: Call) -> Schema:
    models = [call.body, *call.body_with.values()]
    refs = [ref(model.__name__) for model in models if model is not None]
    content = {
        "schema": refs[0] if len(refs) == 1 else {"oneOf": refs},
        "examples": {name: {"value": value} for name, value in BODIES[call.handler.__name__].items()},
    }
    return {"required": True, "content": dict.fromkeys(call.media_types, content)}


def _responses(call: Call, root_path: str) -> dict[str, Any]:
    answer = call.answer
    replayed = ("Idempotent-Replayed",) if call.takes_idempotency_key else ()
    etag = ("ETag",) if answer.is_cacheable else ()
    success: dict[str, Any] = {
        "description": {201: "It was created.", 204: "It was done.", 307: "It is elsewhere."}.get(answer.status, "OK"),
        "headers": _headers(*answer.headers, *etag, *replayed),
    }
    if answer.schema:
        success["content"] = {answer.media_type: _content(answer.schema)}
        if answer.schema in ("ProblemTypes", "ProblemType"):
            success["content"]["text/html"] = {"schema": {"type": "string"}}
    elif answer.status == 200:
        success["content"] = {name: {"schema": {"type": "string"}} for name in _media_types(answer.media_type)}
        if answer.media_type == "text/event-stream":
            success["content"][answer.media_type]["example"] = EVENTS
    if answer.status == 201 and call.path in _LINKED:
        success["links"] = {
            name: {"operationId": name, "parameters": {"id": "$response.body#/id"}} for name in _LINKED[call.path]
        }
    responses: dict[str, Any] = {str(answer.status): success}
    if answer.is_cacheable:
        responses["304"] = {"description": "The answer that you have is still right.", "headers": _headers("ETag")}
    by_status: dict[int, dict[str, Problem]] = {}
    for problem in _problems(call):
        by_status.setdefault(problem.status, {})[problem.name] = problem
    for status, problems in sorted(by_status.items()):
        responses[str(status)] = _problem_response(status, list(problems.values()), root_path, replayed)
    return responses


def _media_types(media_type: str) -> tuple[str, ...]:
    """Return the media types that are described together."""
    if media_type == "text/javascript":
        return (media_type, "text/css")
    if media_type == "text/plain":
        return (media_type, "application/openmetrics-text")
    return (media_type,)


def _content(schema: str) -> Schema:
    content: Schema = {"schema": ref(schema)}
    if schema in ANSWERS:
        content["example"] = ANSWERS[schema]
    return content


def _problem_response(status: int, problems: list[Problem], root_path: str, replayed: Iterable[str]) -> Schema:
    refs = [ref(problem_schema_name(problem)) for problem in problems]
    schema: Schema = refs[0]
    if len(refs) > 1:
        types = {f"{root_path}/problems/{problem.name}": found["$ref"]
                 for problem, found in zip(problems, refs, strict=True)}  # fmt: skip
        schema = {"oneOf": refs, "discriminator": {"propertyName": "type", "mapping": types}}
    examples = {
        problem.name: {"value": json.loads(problem_document(EXAMPLES[problem.name], "5f3a9c1e-7", root_path))}
        for problem in problems
    }
    further = _FURTHER_HEADERS.get(status, ())
    return {
        "description": "; or: ".join(problem.title for problem in problems),
        "headers": _headers(*further, *(replayed if status in (404, 409, 412, 422) else ())),
        "content": {"application/problem+json": {"schema": schema, "examples": examples}},
    }


def _headers(*names: str) -> Schema:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in (*names, "X-Request-Id")}


def _problems(call: Call) -> Iterable[Problem]:
    """Yield the problems that a call can answer with."""
    errors: list[type[HoldfastError]] = [
        *call.refuses,
        MalformedRequest,
        RequestTimeout,
        HeadTooLarge,
        BodyTooLarge,
        InternalError,
    ]
    if call.scope:
        errors += ACCESS_ERRORS
    if call.body is not None:
        errors += [MalformedJson, UnsupportedMediaType]
    if call.body is not None or not call.ignores_query:
        errors += [InvalidRequest]
    if call.takes_idempotency_key:
        errors += [InvalidIdempotencyKey]
    if not call.ignores_query or call.path == "/readyz":
        errors += [StorageUnavailable, Overloaded]
        if call.method != "GET":
            errors += [OutcomeUnknown]
    return [error.problem for error in errors]

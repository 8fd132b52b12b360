"""Turns an error into an RFC 9457 problem. There is no table: each class of `service.domain.errors` has its problem."""

import json

import structlog
from starlette.responses import Response
from starlette.types import Scope

from service.api.request import RequestInfo, request_facts
from service.domain.errors.base import HoldfastError, InternalError
from service.domain.errors.storage import StorageError

log = structlog.get_logger()


def problem_for(error: Exception, scope: Scope) -> Response:
    """Return the response to an error. Log bugs and errors of the storage, with what is known of the request."""
    info: RequestInfo = scope["request_info"]
    if not isinstance(error, HoldfastError):
        facts = request_facts(scope)
        log.error("internal_error", **facts, path=scope["path"][:200], reason=repr(error)[:500], exc_info=error)
        error = InternalError()
    elif isinstance(error, StorageError):
        log.warning(error.problem.name, **request_facts(scope), reason=error.reason)
    info.reason = error.problem.name
    headers = {"Cache-Control": "no-store", **error.headers()}
    body = problem_document(error, info.id, scope["root_path"]) + "\n"
    return Response(body, error.problem.status, headers, media_type="application/problem+json")


def problem_document(error: HoldfastError, request_id: str, root_path: str) -> str:
    """Return the JSON text that a client gets about an error (RFC 9457, section 3)."""
    problem = error.problem
    document = {
        "type": f"{root_path}/problems/{problem.name}",
        "title": problem.title,
        "status": problem.status,
        "detail": error.detail(),
        "instance": request_id,
    }
    # dumps() writes ASCII: the detail may quote a lone surrogate from the request, which has no UTF-8 encoding.
    further_fields = "".join(f', "{name}": {text}' for name, text in error.further_fields().items())
    return json.dumps(document)[:-1] + further_fields + "}"

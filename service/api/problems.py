"""Turns an error into an RFC 9457 problem. There is no table: each class of `service.domain.errors` has its problem."""

import json

import structlog
from starlette.responses import Response
from starlette.types import Scope

from service.domain.errors.base import HoldfastError, InternalError
from service.domain.errors.storage import StorageError

log = structlog.get_logger()


def problem_for(error: Exception, request_id: str, scope: Scope) -> Response:
    """Return the response to an error. Log bugs and errors of the storage, with the id of the request."""
    if not isinstance(error, HoldfastError):
        log.error(
            "internal_error", request_id=request_id, method=scope["method"], path=scope["path"][:200], exc_info=error
        )
        error = InternalError()
    elif isinstance(error, StorageError):
        log.warning(error.problem.name, request_id=request_id, reason=error.reason)
    headers = {"Cache-Control": "no-store", **error.headers()}
    body = problem_document(error, request_id, scope["root_path"]) + "\n"
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

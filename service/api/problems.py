"""Turns an error into an RFC 9457 problem. There is no table: each class of `service.domain.errors` has its problem."""

import json
from functools import lru_cache
from json.encoder import encode_basestring_ascii as quoted  # what json.dumps() does to text

import structlog
from starlette.responses import Response
from starlette.types import Scope

from service.api.request import RequestInfo, request_facts
from service.api.responses import problem
from service.domain.errors.base import HoldfastError, InternalError, Problem
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
    return problem(problem_document(error, info.id, scope["root_path"]), error.problem.status, error.headers())


def problem_document(error: HoldfastError, request_id: str, root_path: str) -> str:
    """Return the JSON text that a client gets about an error (RFC 9457, section 3)."""
    # ASCII: the detail may quote a lone surrogate from the request, which has no UTF-8 encoding.
    head = _head(error.problem, root_path)
    document = f'{head}, "detail": {quoted(error.detail())}, "instance": {quoted(request_id)}'
    for name, text in error.further_fields().items():
        document += f', "{name}": {text}'
    return document + "}"


@lru_cache(maxsize=1000)
def _head(problem: Problem, root_path: str) -> str:
    """Return the beginning of a problem document: what all errors of a problem type have in common."""
    fields = {"type": f"{root_path}/problems/{problem.name}", "title": problem.title, "status": problem.status}
    return json.dumps(fields)[:-1]

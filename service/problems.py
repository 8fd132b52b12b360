"""From an exception to an RFC 9457 problem: one table."""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Match
from starlette.types import Scope

from service import errors
from service.models import MAX_BODY_BYTES, MAX_LINES, MAX_STOCK, MAX_TOTAL, money

log = structlog.get_logger()


class Problem(NamedTuple):
    """A kind of problem. `name` ends its type, `/problems/<name>`; `about` is the page found there, in HTML."""

    name: str
    status: int
    title: str
    about: str


PROBLEMS: dict[type[Exception], Problem] = {
    errors.MalformedJson: Problem(
        "malformed-json",
        400,
        "The body is not JSON",
        "The body could not be read as JSON (RFC 8259) in UTF-8. NaN, Infinity, lone surrogates, a member "
        "that is given twice and very deep nesting are refused, too. <code>detail</code> says where.",
    ),
    errors.InvalidIdempotencyKey: Problem(
        "invalid-idempotency-key",
        400,
        "The Idempotency-Key cannot be used",
        "An Idempotency-Key has 1 to 255 visible ASCII characters, bare or in double quotes, and comes once.",
    ),
    errors.BodyTooLarge: Problem(
        "body-too-large",
        413,
        "The body is too large",
        f"A body has at most {MAX_BODY_BYTES} bytes: an order of {MAX_LINES} lines needs less than a tenth of it.",
    ),
    errors.UnsupportedMediaType: Problem(
        "unsupported-media-type",
        415,
        "The body is not declared as JSON",
        "Send <code>Content-Type: application/json</code>, and no Content-Encoding.",
    ),
    errors.InvalidRequest: Problem(
        "invalid-request",
        422,
        "The request does not fit the schema",
        "The JSON or the query was read, but is not what this call takes. <code>errors</code> lists everything "
        "that is wrong: each entry with a JSON pointer (RFC 6901) to the place. Nothing was looked up or changed, "
        "and an Idempotency-Key is still unused.",
    ),
    errors.ProductNotFound: Problem(
        "product-not-found",
        404,
        "There is no such product",
        "No product of this id is on sale: it was never added, or it was withdrawn. For an order, "
        "<code>errors</code> lists every line that cannot be served; an order is refused as a whole.",
    ),
    errors.ProductIdTaken: Problem(
        "product-id-taken",
        409,
        "The product id is taken",
        "Another product has this id. An id is never given twice, not even after its product was withdrawn. "
        "Choose another one, or leave <code>id</code> out.",
    ),
    errors.OrderNotFound: Problem(
        "order-not-found",
        404,
        "There is no such order",
        "No order of this id was ever placed.",
    ),
    errors.OrderCompleted: Problem(
        "order-completed",
        409,
        "The order is completed",
        "A completed order cannot be cancelled: its stock is sold.",
    ),
    errors.OrderCancelled: Problem(
        "order-cancelled",
        410,
        "The order was cancelled",
        "The order was cancelled while it was pending, and its stock returned. That is final: place a new one.",
    ),
    errors.OrderExpired: Problem(
        "order-expired",
        410,
        "The order has expired",
        "The order was not completed before <code>expires_at</code>, and its stock returns to sale. That is final: "
        "place a new one.",
    ),
    errors.StockTooHigh: Problem(
        "stock-limit",
        409,
        "There would be too much stock",
        "A product has at most 1,000,000,000 units in stock and held together. The answer is final for its "
        "Idempotency-Key.",
    ),
    errors.InsufficientStock: Problem(
        "insufficient-stock",
        409,
        "There is not enough stock",
        "At least one line asks for more than there is. <code>errors</code> lists every short line with what was "
        "requested and what is available. Nothing was taken, from no line. The answer is final for its "
        "Idempotency-Key: to try again, use a new one.",
    ),
    errors.PriceChanged: Problem(
        "price-changed",
        409,
        "The price has changed",
        "The order named a <code>total_price</code>, and the products cost something else now: see "
        "<code>total_price</code> and <code>prices</code>. Nothing was taken. The answer is final for its "
        "Idempotency-Key: to order at the new price, use a new one.",
    ),
    errors.TotalTooLarge: Problem(
        "total-too-large",
        422,
        "The total is too large",
        "The total is 2<sup>53</sup> cents or more, past the integers that all readers of JSON keep exact. "
        "Split the order.",
    ),
    errors.IdempotencyKeyReused: Problem(
        "idempotency-key-reused",
        422,
        "The Idempotency-Key belongs to another request",
        "This key came before with another order. Use a new key for each order, and the same key only to repeat one.",
    ),
    errors.Overloaded: Problem(
        "overloaded",
        503,
        "Too many requests at once",
        "The request was refused before anything was done. Try again after <code>Retry-After</code> seconds.",
    ),
    errors.StorageUnavailable: Problem(
        "storage-unavailable",
        503,
        "The storage is not available",
        "Redis could not be reached, or did not take the command. This request did nothing. Repeat it after "
        "<code>Retry-After</code> seconds, an order or a stock move with the same Idempotency-Key.",
    ),
    errors.OutcomeUnknown: Problem(
        "outcome-unknown",
        503,
        "The outcome is not known",
        "The connection to Redis broke after the command had left: it may have been carried out, or not. Repeat an "
        "order with the same Idempotency-Key, and you get the one order that there is. Without a key, look before "
        "you repeat.",
    ),
}

NOT_FOUND = Problem("not-found", 404, "There is nothing here", "The path leads nowhere. The README lists all paths.")
METHOD_NOT_ALLOWED = Problem(
    "method-not-allowed", 405, "The method does not apply here", "The header <code>Allow</code> lists those that do."
)
INTERNAL_ERROR = Problem(
    "internal-error",
    500,
    "Something is wrong on our side",
    "The fault was logged. <code>instance</code> names the request: quote it when you report this.",
)

# Different facts, the same thing to say to a client.
PROBLEMS[errors.UnknownProducts] = PROBLEMS[errors.ProductNotFound]
PROBLEMS[errors.StockTooLow] = PROBLEMS[errors.InsufficientStock]
PROBLEMS[errors.Unfit] = PROBLEMS[errors.StorageUnavailable]

_PAGES = {problem.name: problem for problem in (*PROBLEMS.values(), NOT_FOUND, METHOD_NOT_ALLOWED, INTERNAL_ERROR)}

_RETRY = {"Retry-After": "1"}


def problem_response(
    request_id: str,
    problem: Problem,
    detail: str,
    members: Mapping[str, str] = MappingProxyType({}),
    headers: Mapping[str, str] = MappingProxyType({}),
) -> Response:
    """An `application/problem+json` answer. `members` extend it (RFC 9457, section 3.2); they are JSON already."""
    document = {
        "type": f"/problems/{problem.name}",
        "title": problem.title,
        "status": problem.status,
        "detail": detail,
        "instance": request_id,
    }
    # dumps() answers in ASCII: a client's lone surrogate, quoted in a detail, has no UTF-8.
    body = json.dumps(document)[:-1] + "".join(f', "{name}": {text}' for name, text in members.items()) + "}\n"
    return Response(body, problem.status, headers, media_type="application/problem+json")


def answer(error: Exception, scope: Scope) -> Response:
    """What a client is told of an exception. What it could not cause is logged, with the id of the request."""
    request_id, method, path = scope["request_id"], scope["method"], scope["path"][:200]
    if isinstance(error, HTTPException):  # of Starlette's router
        if error.status_code == 405:
            headers = {"Allow": ", ".join(_allowed_methods(scope))}
            return problem_response(request_id, METHOD_NOT_ALLOWED, f"{method} does not apply to {path}.", {}, headers)
        return problem_response(request_id, NOT_FOUND, f"There is nothing at {path}.")
    problem = PROBLEMS.get(type(error))
    if problem is None:
        log.error("internal_error", request_id=request_id, method=method, path=path, exc_info=error)
        detail = "The fault was logged. Quote the request id when you report it."
        return problem_response(request_id, INTERNAL_ERROR, detail)
    if isinstance(error, errors.StorageError | errors.Unfit):
        log.warning(problem.name, request_id=request_id, reason=error.reason)
    detail, members, fields = _describe(error)
    return problem_response(request_id, problem, detail, members, fields)


def _allowed_methods(scope: Scope) -> list[str]:
    """Of all routes of the path."""
    routes = [route for route in scope["router"].routes if route.matches(scope)[0] is not Match.NONE]
    return sorted({method for route in routes for method in route.methods})


async def explain_problem(request: Request[Any]) -> Response:
    """GET /problems/{name}: the page that a problem's type leads to."""
    problem = _PAGES.get(request.path_params["name"])
    if problem is None:
        raise HTTPException(404)
    return HTMLResponse(_PAGE.format(**problem._asdict()))


def _describe(error: Exception) -> tuple[str, dict[str, str], dict[str, str]]:
    """What to say of an error: detail, further members as JSON, headers."""
    match error:
        case errors.UnsupportedMediaType():
            accepts = ", ".join(error.accepts)
            return error.detail, {}, {"Accept": accepts, "Accept-Patch": accepts}
        case errors.InvalidRequest():
            return error.detail, {"errors": json.dumps([_fault(fault) for fault in error.faults])}, {}
        case errors.RequestError():
            return error.detail, {}, {}
        case errors.ProductNotFound():
            return f"There is no product {error.product_id[:40]} on sale.", {}, {}
        case errors.ProductIdTaken():
            return f"The id {error.product_id} belongs to another product.", {}, {}
        case errors.OrderNotFound():
            return f"There is no order {error.order_id[:40]}.", {}, {}
        case errors.OrderCompleted():
            return f"The order {error.order_id} is completed.", {}, {}
        case errors.OrderCancelled():
            return f"The order {error.order_id} was cancelled.", {}, {}
        case errors.OrderExpired():
            return f"The order {error.order_id} was not completed in time.", {}, {}
        case errors.IdempotencyKeyReused():
            return "This Idempotency-Key came before, with another request.", {}, {}
        case errors.OrderRefused():
            detail, members = _describe_refusal(error)
            return f"{detail} Nothing was taken.", members, {"Idempotent-Replayed": "true"} if error.replayed else {}
        case errors.StockRefused():
            replayed = {"Idempotent-Replayed": "true"} if error.replayed else {}
            return _describe_move(error), {"errors": json.dumps([_move_fault(error)])}, replayed
        case errors.OutcomeUnknown():
            detail = "The connection to the storage broke after the command had left: it may have been carried out."
            return detail, {}, _RETRY
        case errors.StorageError() | errors.Unfit():
            return "This request did nothing. Repeat it, with the same Idempotency-Key.", {}, _RETRY
    raise AssertionError(f"no description of {error!r}") from error


def _describe_refusal(error: errors.OrderRefused) -> tuple[str, dict[str, str]]:
    match error:
        case errors.UnknownProducts():
            unknown = ", ".join(str(line.product_id) for line in error.lines if line.available is None)
            return f"Not on sale: {unknown}.", {"errors": json.dumps([_short_line(line) for line in error.lines])}
        case errors.InsufficientStock():
            short = ", ".join(str(line.product_id) for line in error.lines)
            return f"Not enough stock of: {short}.", {"errors": json.dumps([_short_line(line) for line in error.lines])}
        case errors.PriceChanged():
            prices = ", ".join(f'{{"product_id": {p.product_id}, "price": {money(p.price)}}}' for p in error.prices)
            return f"The total is {money(error.total)} now.", {
                "total_price": money(error.total),
                "prices": f"[{prices}]",
            }
        case _:
            return f"The total is past {money(MAX_TOTAL)}.", {}


def _describe_move(error: errors.StockRefused) -> str:
    if isinstance(error, errors.StockTooHigh):
        return f"{error.stock} are in stock, {error.held} held: {error.change} more are past {MAX_STOCK}."
    return f"{error.stock} are in stock, {-error.change} cannot go."


def _move_fault(error: errors.StockRefused) -> dict[str, str | int]:
    fault: dict[str, str | int] = {"pointer": "#/change", "product_id": error.product_id}
    if isinstance(error, errors.StockTooLow):
        fault |= {"requested": -error.change, "available": error.stock}
    return fault | {"detail": _describe_move(error)}


def _fault(fault: errors.Fault) -> dict[str, str]:
    where = {"pointer": fault.pointer, "detail": fault.detail}
    return where if fault.source == "body" else {**where, "in": fault.source}


def _short_line(line: errors.ShortLine) -> dict[str, str | int]:
    if line.available is None:
        return {
            "pointer": f"#/products/{line.index}/product_id",
            "product_id": line.product_id,
            "detail": f"There is no product {line.product_id} on sale.",
        }
    return {
        "pointer": f"#/products/{line.index}/quantity",
        "product_id": line.product_id,
        "requested": line.requested,
        "available": line.available,
        "detail": f"{line.requested} requested, {line.available} available.",
    }


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title} · Holdfast</title>
<style>body {{ font: 1.1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 4rem auto; padding: 0 1rem }}
code {{ background: #8882; padding: .1em .3em }} small {{ color: #767676 }}</style>
<small>{status} <code>/problems/{name}</code></small>
<h1>{title}</h1>
<p>{about}</p>
"""

"""Errors of the request itself. Nothing was looked up or changed, and an Idempotency-Key is still unused."""

import json
from dataclasses import dataclass
from typing import Literal

from service.domain.errors.base import HoldfastError, Problem
from service.domain.limits import (
    MAX_BODY_BYTES,
    MAX_HEAD_BYTES,
    MAX_HEADER_FIELDS,
    MAX_IDEMPOTENCY_KEY,
    MAX_LINES,
)

RequestPart = Literal["body", "query", "header", "row"]
"""The part of the input that has the field. `row`: a row of an import file."""


@dataclass(eq=False)
class RequestError(HoldfastError):
    """The request itself is wrong. `explanation` tells the client what to change."""

    explanation: str

    def detail(self) -> str:
        return self.explanation


class MalformedRequest(RequestError):
    """The bytes are not a request of HTTP/1.1 or HTTP/1.0 (RFC 9112)."""

    problem = Problem(
        "malformed-request",
        400,
        "This is not an HTTP request",
        "The bytes on the connection could not be read as a request of HTTP/1.1 (RFC 9112). Requests before them "
        "were answered; nothing was done with these bytes, and the connection was closed.",
        "Correct the client. A usual cause is a `Content-Length` that counts characters instead of bytes.",
    )


class RequestTimeout(RequestError):
    """The client has sent the beginning of a request, but not the rest."""

    problem = Problem(
        "request-timeout",
        408,
        "The request did not arrive in time",
        "The beginning of a request arrived, but the rest did not follow in time. Nothing was done with it, and the "
        "connection was closed.",
        "Send the request again.",
    )


class HeadTooLarge(RequestError):
    """The request line and header fields are larger than any valid request (RFC 6585, section 5)."""

    problem = Problem(
        "head-too-large",
        431,
        "The header fields are too large",
        f"The request line and header fields have at most {MAX_HEAD_BYTES} bytes together, and at most "
        f"{MAX_HEADER_FIELDS} header fields. Nothing was done, and the connection was closed.",
        "Send fewer or shorter header fields.",
    )


class UnsupportedHttpVersion(RequestError):
    """The request has another version of HTTP than 1.0 and 1.1."""

    problem = Problem(
        "unsupported-http-version",
        505,
        "This version of HTTP is not supported",
        "Holdfast speaks HTTP/1.1 and HTTP/1.0. Nothing was done, and the connection was closed.",
        "Use HTTP/1.1. For HTTP/2 and HTTP/3, put a reverse proxy in front of Holdfast.",
    )


class MalformedJson(RequestError):
    """The body is not JSON (RFC 8259), or not UTF-8."""

    problem = Problem(
        "malformed-json",
        400,
        "The body is not JSON",
        "The body could not be read as JSON (RFC 8259) in UTF-8. NaN, Infinity, a field that is given twice, very "
        "many fields and very deep nesting are refused, too. Nothing was done, and an Idempotency-Key is still "
        "unused.",
        "Correct the body: `detail` says what is wrong.",
    )


class InvalidIdempotencyKey(RequestError):
    """The Idempotency-Key header cannot be used as a key."""

    problem = Problem(
        "invalid-idempotency-key",
        400,
        "The Idempotency-Key cannot be used",
        f"An Idempotency-Key has 1 to {MAX_IDEMPOTENCY_KEY} visible ASCII characters, bare or in double quotes, and a"
        " request has at most one. Nothing was done.",
        "Correct the header. A random UUID is a good key.",
    )


class BodyTooLarge(RequestError):
    """The body is larger than any valid request."""

    problem = Problem(
        "body-too-large",
        413,
        "The body is too large",
        f"A body has at most {MAX_BODY_BYTES} bytes: an order of {MAX_LINES} lines needs less than a tenth of it. "
        "Nothing was done.",
        "Send less in one request.",
    )


@dataclass(eq=False)
class UnsupportedMediaType(RequestError):
    """The body is not declared as JSON. `accepts` lists the media types that this API call takes."""

    accepts: tuple[str, ...]

    problem = Problem(
        "unsupported-media-type",
        415,
        "The body is not declared as JSON",
        "The body is not declared as JSON, or it is compressed. Nothing was done.",
        "Send `Content-Type: application/json`, and no `Content-Encoding`.",
    )

    def headers(self) -> dict[str, str]:
        accepts = ", ".join(self.accepts)
        return {"Accept": accepts, "Accept-Patch": accepts}


@dataclass(frozen=True, slots=True)
class FieldError:
    """One wrong field of a request: where it is (RFC 6901 pointer as a URI fragment), and what is wrong."""

    pointer: str
    detail: str
    source: RequestPart = "body"

    def entry(self) -> dict[str, str]:
        """Return the entry in the `errors` of a problem."""
        entry = {"pointer": self.pointer, "detail": self.detail}
        return entry if self.source == "body" else {**entry, "in": self.source}


@dataclass(eq=False)
class InvalidRequest(RequestError):
    """The request is readable, but does not fit the schema. `field_errors` has everything that is wrong."""

    field_errors: list[FieldError]

    problem = Problem(
        "invalid-request",
        422,
        "The request does not fit the schema",
        "The JSON or the query was read, but is not what this call takes. `errors` lists everything that is wrong: "
        "each entry has a JSON pointer (RFC 6901) to the place. Nothing was looked up or changed, and an "
        "Idempotency-Key is still unused.",
        "Correct each place that `errors` names. The same Idempotency-Key may be used.",
    )

    def further_fields(self) -> dict[str, str]:
        return {"errors": json.dumps([field_error.entry() for field_error in self.field_errors])}


@dataclass(eq=False)
class PathNotFound(HoldfastError):
    """No call has this path. `docs`: the path of the page that lists all calls."""

    path: str
    docs: str

    problem = Problem(
        "not-found",
        404,
        "There is no such path",
        "No call has this path. Nothing was done.",
        "Correct the path. The page `/docs` of this service lists all calls.",
    )

    def detail(self) -> str:
        return f"There is no path {self.path[:200]}. {self.docs} lists all calls."


@dataclass(eq=False)
class ShopNotFound(HoldfastError):
    """The service has several shops, and the path names none of them. `has_shop`: it does, but is not about a shop."""

    path: str
    has_shop: bool

    problem = Problem(
        "shop-not-found",
        404,
        "There is no such shop",
        "This service has several shops, and the path does not name one of them. Nothing was done.",
        "Put `/shops/` and the name of the shop before the path, such as `/shops/berlin/orders`. `GET /metrics` and "
        "`GET /livez` are about the whole service: they have no shop.",
    )

    def detail(self) -> str:
        if self.has_shop:
            return f"{self.path[:200]} is not about a shop: remove /shops/ and the name of the shop."
        return f"The path {self.path[:200]} names no shop of this service, as /shops/NAME/orders would."


@dataclass(eq=False)
class MethodNotAllowed(HoldfastError):
    """The path has calls, but none with this method. `allowed` lists the methods that it has."""

    method: str
    path: str
    allowed: list[str]

    problem = Problem(
        "method-not-allowed",
        405,
        "The path has no such method",
        "The path exists, but not with this method. Nothing was done.",
        "Use one of the methods in the header `Allow`.",
    )

    def detail(self) -> str:
        return f"The path {self.path[:200]} has no method {self.method}."

    def headers(self) -> dict[str, str]:
        return {"Allow": ", ".join(self.allowed)}

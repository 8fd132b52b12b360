"""Errors of API keys: the client may not call this, or not so often. Nothing was looked up or changed."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from service.domain.errors.base import HoldfastError, Problem


class AccessError(HoldfastError):
    """The API key of the request does not allow it."""


@dataclass(eq=False)
class NotAuthenticated(AccessError):
    """The request has no API key, or one that is not known or has expired.

    `explanation`: why, without the key. `has_key`: it has one (RFC 6750, section 3.1, tells these cases apart).
    """

    explanation: str
    has_key: bool

    problem = Problem(
        "not-authenticated",
        401,
        "A valid API key is needed",
        "The request has no API key, or its key is not known, or has expired. Nothing was done.",
        "Send the header `Authorization: Bearer <key>`. The operator makes keys with `holdfast key new`.",
    )

    def detail(self) -> str:
        return self.explanation

    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": 'Bearer realm="holdfast"' + (', error="invalid_token"' if self.has_key else "")}


@dataclass(eq=False)
class MissingScope(AccessError):
    """The API key is valid, but does not allow this call."""

    scope: str
    key_name: str

    problem = Problem(
        "missing-scope",
        403,
        "The API key does not allow this",
        "The API key of the request is valid, but this call needs a scope that the key does not have. `scope` names "
        "it. Nothing was done.",
        "Use a key that has this scope. The operator makes one with `holdfast key new`.",
    )

    def detail(self) -> str:
        return f"The key {self.key_name} does not have the scope {self.scope}."

    def further_fields(self) -> dict[str, str]:
        return {"scope": json.dumps(self.scope)}

    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": f'Bearer realm="holdfast", error="insufficient_scope", scope="{self.scope}"'}


class CrossSiteRequest(AccessError):
    """A page of another site has sent the request, and there are no API keys.

    https://www.w3.org/TR/fetch-metadata/
    """

    problem = Problem(
        "cross-site-request",
        403,
        "The request comes from a page of another site",
        "A browser sent this request for a page of another site, and this service needs no API key, so the page could "
        "do what its reader does not want. Nothing was done.",
        "Call the service from your backend. Or let the operator configure API keys: a page of another site has none.",
    )

    def detail(self) -> str:
        return "A page of another site may not change anything here."


@dataclass(eq=False)
class MissingShop(AccessError):
    """The API key is valid, but not for this shop, or not for the service with all its shops."""

    shops: Sequence[str]
    key_name: str

    problem = Problem(
        "missing-shop",
        403,
        "The API key is not for this shop",
        "The API key of the request is valid, but only for other shops of this service. `shops` names them. Nothing "
        "was done.",
        "Use a key for this shop, or one for all shops. The operator makes one with `holdfast key new`.",
    )

    def detail(self) -> str:
        return f"The key {self.key_name} is only for {', '.join(self.shops)}."

    def further_fields(self) -> dict[str, str]:
        return {"shops": json.dumps(list(self.shops))}

    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": 'Bearer realm="holdfast", error="insufficient_scope"'}


@dataclass(eq=False)
class RateLimited(AccessError):
    """The API key has sent too many requests (RFC 6585, section 4). `wait`: seconds until it may send the next."""

    key_name: str
    limit: str
    wait: int

    problem = Problem(
        "rate-limited",
        429,
        "The API key sends too many requests",
        "The API key has a limit of requests per time, and has reached it. Nothing was done.",
        "Repeat the request after `Retry-After` seconds. The header `RateLimit` of each answer says how many requests "
        "are left.",
    )

    def detail(self) -> str:
        return f"The key {self.key_name} may send {self.limit}."

    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(self.wait)}


ACCESS_ERRORS: Sequence[type[AccessError]] = (
    NotAuthenticated,
    MissingScope,
    MissingShop,
    CrossSiteRequest,
    RateLimited,
)
"""What every call with a scope can be answered with."""

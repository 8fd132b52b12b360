"""The base class of all errors that a client gets as a problem, and the text of a problem type."""

from typing import ClassVar, NamedTuple


class Problem(NamedTuple):
    """A problem type of RFC 9457. The type is `/problems/<name>`, the address of a page that explains it.

    `meaning`: what has happened, and what was not done. `remedy`: what the client can do. Code is in backticks.
    """

    name: str
    status: int
    title: str
    meaning: str
    remedy: str


class HoldfastError(Exception):
    """Base of all errors that a client gets as a problem (RFC 9457)."""

    problem: ClassVar[Problem]

    def detail(self) -> str:
        """Return what happened to this request, in a sentence or two."""
        raise NotImplementedError

    def further_fields(self) -> dict[str, str]:
        """Return further fields of the problem (RFC 9457, section 3.2). Their values are JSON texts."""
        return {}

    def headers(self) -> dict[str, str]:
        """Return header fields of the response."""
        return {}


class InternalError(HoldfastError):
    """A bug: another exception was raised. The bug is logged; the client gets the request id to quote."""

    problem = Problem(
        "internal-error",
        500,
        "Holdfast has a bug",
        "A bug in Holdfast. The error was logged. The request may have been carried out, or not.",
        "Quote `instance`, the id of the request, when you report the bug. Repeat the request with the same "
        "Idempotency-Key: then it takes effect only once.",
    )

    def detail(self) -> str:
        return "The error was logged. Quote the request id when you report the bug."

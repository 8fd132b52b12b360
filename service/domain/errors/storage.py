"""Errors of the storage. `reason` is for the log and the operator, never for a client of the API."""

from dataclasses import dataclass

from service.domain.errors.base import HoldfastError, Problem

_UNAVAILABLE = Problem(
    "storage-unavailable",
    503,
    "The storage is not available",
    "Redis could not be reached, or did not take the command. This request did nothing. Repeat it after "
    "<code>Retry-After</code> seconds; repeat an order or a stock move with the same Idempotency-Key.",
)


@dataclass(eq=False)
class StorageError(HoldfastError):
    """Redis cannot do it, now or as it is set up."""

    reason: str

    def detail(self) -> str:
        return "This request did nothing. Repeat it, with the same Idempotency-Key."

    def headers(self) -> dict[str, str]:
        return {"Retry-After": "1"}


class Overloaded(StorageError):
    """More calls wait for Redis than it can answer in time. This one was not sent."""

    problem = Problem(
        "overloaded",
        503,
        "Too many requests at once",
        "The request was refused before anything was done. Try again after <code>Retry-After</code> seconds.",
    )


class StorageUnavailable(StorageError):
    """Redis did not execute the call."""

    problem = _UNAVAILABLE


class OutcomeUnknown(StorageError):
    """The call was sent, but the connection broke or the deadline passed: it may have been executed."""

    problem = Problem(
        "outcome-unknown",
        503,
        "The outcome is not known",
        "The connection to Redis broke after the command was sent, so it may have been carried out, or not. "
        "If the request had an Idempotency-Key, repeat it with the same key: it takes effect only once. "
        "Without a key, look at the orders or the stock before you repeat it: it might take effect twice.",
    )

    def detail(self) -> str:
        return "The connection to the storage broke after the command was sent: it may have been carried out."


class UnsupportedRedis(StorageError):
    """This Redis must not be used: too old, with a newer layout of the data, or less durable than the settings ask."""

    problem = _UNAVAILABLE

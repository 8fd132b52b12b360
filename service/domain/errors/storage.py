"""Errors of the storage. `reason` is for the log and the operator, never for a client of the API."""

import random
from dataclasses import dataclass
from typing import Final

from service.domain.errors.base import HoldfastError, Problem

_MAX_RETRY_SECONDS: Final = 4

_UNAVAILABLE = Problem(
    "storage-unavailable",
    503,
    "The storage is not available",
    "Redis could not be reached, or refused the command, or is not configured safely enough (then the operator "
    "must act). This request did nothing.",
    "Repeat it after `Retry-After` seconds; repeat an order, a return or a stock change with the same Idempotency-Key.",
)


@dataclass(eq=False)
class StorageError(HoldfastError):
    """Redis is not reachable, too busy, or not configured as Holdfast needs it."""

    reason: str

    def detail(self) -> str:
        return "This request did nothing. Repeat it; if it had an Idempotency-Key, use the same key."

    def headers(self) -> dict[str, str]:
        return {"Retry-After": "1"}


class Overloaded(StorageError):
    """Too many commands, pages or overdue holds wait already. Nothing was done."""

    problem = Problem(
        "overloaded",
        503,
        "Too many requests at the same time",
        "Too many requests wait already, or expired holds are released too late and come first. The request was "
        "refused before anything was done.",
        "Repeat it after `Retry-After` seconds, with the same Idempotency-Key.",
    )

    def headers(self) -> dict[str, str]:
        # A random time, so that not all clients come back at the same moment.
        return {"Retry-After": str(random.randint(1, _MAX_RETRY_SECONDS))}  # noqa: S311


class StorageUnavailable(StorageError):
    """Redis did not execute the command, or executing it twice does no harm."""

    problem = _UNAVAILABLE


class OutcomeUnknown(StorageError):
    """The command was sent to Redis, but no reply came: it may have been executed.

    Or: it was executed, but too few replicas have it, so that a failover may lose it.
    Or: an earlier request with the same Idempotency-Key was executed, but its result could not be read now.
    """

    problem = Problem(
        "outcome-unknown",
        503,
        "The outcome is not known",
        "Holdfast did not get the result from Redis, or too few replicas of Redis have it. So the request may have "
        "been carried out, or not.",
        "If the request had an Idempotency-Key, repeat it with the same key: it takes effect only once. Without a "
        "key, look at the orders or the stock before you repeat it: it might take effect twice.",
    )

    def detail(self) -> str:
        return "The result did not come from the storage: the request may have been carried out, or not."


class UnsupportedRedis(StorageError):
    """This Redis must not be used: it is too old, not durable enough, or has data of a newer schema version."""

    problem = _UNAVAILABLE


class ReplicaRedis(UnsupportedRedis):
    """This Redis is a replica: it takes no writes, and it may become a primary."""

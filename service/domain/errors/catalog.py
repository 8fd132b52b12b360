"""Collects the problem types of all classes of errors."""

from collections.abc import Iterator

from service.domain.errors import access, order_refusals, refusals, request, return_refusals, stock_refusals, storage
from service.domain.errors.base import HoldfastError, Problem

MODULES = (request, access, refusals, stock_refusals, order_refusals, return_refusals, storage)
"""The modules with classes of errors. To add a module of errors, import it here."""


def all_problems() -> list[Problem]:
    """Return each problem type once."""
    return list({problem.name: problem for problem in _problems_below(HoldfastError)}.values())


def refusals_of_orders() -> list[Problem]:
    """Return each problem of an order that was not placed, and of whose Idempotency-Key there is no earlier result."""
    classes = (*order_refusals.ORDER_REFUSALS, refusals.IdempotencyKeyReused)
    return list({found.problem.name: found.problem for found in classes}.values())


def _problems_below(error_class: type[HoldfastError]) -> Iterator[Problem]:
    if "problem" in vars(error_class):
        yield error_class.problem
    for child in error_class.__subclasses__():
        yield from _problems_below(child)

"""All problem types: they are the classes of the modules imported here, so nothing is listed twice."""

from collections.abc import Iterator

from service.domain.errors import refusals, request, storage
from service.domain.errors.base import HoldfastError, Problem

MODULES = (request, refusals, storage)
"""The modules with classes of errors. An import is all that a new module needs."""


def all_problems() -> list[Problem]:
    """Return each problem type once."""
    return list({problem.name: problem for problem in _problems_below(HoldfastError)}.values())


def _problems_below(kind: type[HoldfastError]) -> Iterator[Problem]:
    if "problem" in vars(kind):
        yield kind.problem
    for child in kind.__subclasses__():
        yield from _problems_below(child)

"""The register of the state machine's actions. Each action is a method of `ShopMachine`."""

from collections.abc import Callable
from typing import Any, TypeVar

from hypothesis import strategies as st

F = TypeVar("F", bound=Callable[..., None])

actions: list[st.SearchStrategy[tuple[str, dict[str, Any]]]] = []


def action(**arguments: st.SearchStrategy[Any]) -> Callable[[F], F]:
    """Register an action, as Hypothesis' `rule` does. `ShopMachine.act` chooses among all actions.

    Hypothesis disables rules at random, in many runs all but one or two. Most actions have no effect without the
    others, so Hypothesis sees all of them as one rule.
    """

    def register(method: F) -> F:
        actions.append(st.tuples(st.just(method.__name__), st.fixed_dictionaries(arguments)))
        return method

    return register

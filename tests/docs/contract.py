"""What the code defines and the documents must name. The only place of these tests that knows the code's modules."""

import inspect
import re
from typing import NamedTuple

from service.api.routes import CALLS
from service.cli.main import COMMANDS
from service.domain import limits as domain_limits
from service.domain.errors.catalog import all_problems
from service.domain.event import EVENT_FIELDS
from service.domain.money import Cents, format_cents
from service.settings import SETTINGS
from service.storage import keys
from service.storage.requirements import check_settings


class Setting(NamedTuple):
    """A setting as the environment has it."""

    variable: str
    default: str


class ProblemType(NamedTuple):
    """A kind of error answer."""

    name: str
    status: int


def settings() -> list[Setting]:
    """Return all settings in the code's order. An empty default: there is none."""
    return [
        Setting(setting.variable, "" if setting.default is None else str(setting.default).replace("False", "false"))
        for setting in SETTINGS
    ]


def problem_types() -> set[ProblemType]:
    """Return all problem types."""
    return {ProblemType(problem.name, problem.status) for problem in all_problems()}


def calls() -> set[tuple[str, str]]:
    """Return method and path of all calls."""
    return {(call.method, call.path) for call in CALLS}


def refusals() -> dict[tuple[str, str], set[str]]:
    """Return the problem types with which each call can refuse, in addition to the general errors."""
    return {(call.method, call.path): {kind.problem.name for kind in call.refuses} for call in CALLS}


def commands() -> set[str]:
    """Return the names of all commands."""
    return set(COMMANDS)


def key_patterns() -> set[str]:
    """Return the pattern of each key: `{shop}:product:<id>`."""
    found = set()
    for _, function in inspect.getmembers(keys, inspect.isfunction):
        names = list(inspect.signature(function).parameters)
        shown = [
            name if name == "shop" else f"<{name.removeprefix('product_').removeprefix('order_')}>" for name in names
        ]
        found.add(function(*shown))
    return found - {keys.prefix("shop")}


def event_kinds() -> set[str]:
    """Return the kinds of events."""
    return set(EVENT_FIELDS)


def limits() -> dict[str, str]:
    """Return the numbers of the contract as documents print them."""
    numbers = {name: value for name, value in vars(domain_limits).items() if re.match("MAX_|DEFAULT_", name)}
    cents = {"MAX_PRICE"}
    powers = {"MAX_ID", "MAX_TOTAL"}
    return {
        name: "2⁵³" if name in powers else format_cents(Cents(value)) if name in cents else f"{value:,}"
        for name, value in numbers.items()
    } | {"MAX_PRICE": "999,999,999.99"}


def check_engine_settings(found: dict[str, str]) -> None:
    """Raise an error if an engine with these settings is not safe enough for `always`."""
    check_settings([part for pair in found.items() for part in pair], "always")

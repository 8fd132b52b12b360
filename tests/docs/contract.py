"""What the code defines and the documents must name. The only place of these tests that knows the code's modules."""

import inspect
import re
from typing import NamedTuple

from service import keys, models
from service.__main__ import Holdfast
from service.app import ROUTES
from service.fitness import check_settings
from service.problems import INTERNAL_ERROR, METHOD_NOT_ALLOWED, NOT_FOUND, PROBLEMS
from service.settings import Settings
from tests.docs.blocks import ROOT


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
    found = []
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None else str(field.default)
        found.append(Setting(f"HOLDFAST_{name.upper()}", default.lower() if field.default is False else default))
    return found


def problem_types() -> set[ProblemType]:
    """Return all problem types."""
    problems = (*PROBLEMS.values(), NOT_FOUND, METHOD_NOT_ALLOWED, INTERNAL_ERROR)
    return {ProblemType(problem.name, problem.status) for problem in problems}


def calls() -> set[tuple[str, str]]:
    """Return method and path of all calls."""
    return {(method, route.path) for route in ROUTES for method in (route.methods or set()) - {"HEAD"}}


def commands() -> set[str]:
    """Return the names of all commands."""
    return {name.removesuffix("_") for name in Holdfast.model_fields} - set(Settings.model_fields)


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
    """Return the kinds of events that the scripts write."""
    sources = [path.read_text() for path in (ROOT / "lua").glob("*.lua")]
    kinds = {kind for source in sources for kind in re.findall(r"'event', '(\w+)'(?! \.\.)", source)}
    return kinds | {"order_cancelled", "order_expired"}  # release_order.lua puts these two together


def limits() -> dict[str, str]:
    """Return the numbers of the contract as documents print them."""
    numbers = {name: value for name, value in vars(models).items() if re.match("MAX_|DEFAULT_", name)}
    cents = {"MAX_PRICE"}
    powers = {"MAX_ID", "MAX_TOTAL"}
    return {
        name: "2⁵³" if name in powers else models.money(value) if name in cents else f"{value:,}"
        for name, value in numbers.items()
    } | {"MAX_PRICE": "999,999,999.99"}


def check_engine_settings(found: dict[str, str]) -> None:
    """Raise an error if an engine with these settings is not safe enough for `always`."""
    check_settings([part for pair in found.items() for part in pair], "always")

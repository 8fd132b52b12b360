"""Runs a target on mutated inputs, without regard to which code they reach: wherever atheris is not there."""

from random import Random
from typing import NamedTuple

from tests.fuzz.bodies import mutate
from tests.fuzz.targets import TARGETS, inputs


class Finding(NamedTuple):
    """An input for which a target failed."""

    data: bytes
    error: BaseException


def run(name: str, seed: int, cases: int) -> Finding | None:
    """Run a target on its inputs, then on mutated ones, until one of them fails."""
    rng, target, known = Random(f"{seed}-{name}"), TARGETS[name], list(inputs(name))
    for case in range(cases):
        data = known[case] if case < len(known) else mutate(rng, rng.choice(known))
        try:
            target(data)
        except Exception as error:
            return Finding(data, error)
    return None

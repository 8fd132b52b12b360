"""Runs a target on mutated inputs, without regard to the code that they reach: wherever atheris is not there."""

import traceback
from random import Random

from tests.fuzz.bodies import mutate
from tests.fuzz.coverage_guided import Run
from tests.fuzz.targets import TARGETS, inputs


def run(name: str, seed: int, cases: int) -> Run:
    """Run a target on its inputs, then on mutated ones, for this number of cases or until it fails."""
    rng, target, known = Random(f"{seed}-{name}"), TARGETS[name], list(inputs(name))
    for case in range(cases):
        data = known[case] if case < len(known) else mutate(rng, rng.choice(known))
        try:
            target(data)
        except Exception:
            return Run(case + 1, "", f"{data!r}\n{traceback.format_exc()}")
    return Run(cases, "", "")

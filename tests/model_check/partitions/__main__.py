"""`make model-check`: searches all shops, all mutants and all contests, and prints what it found."""

import os
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor

from tests.model_check.partitions.configurations import LONG, SHORT, WEAKER
from tests.model_check.partitions.livelock import contests, explore
from tests.model_check.partitions.mutants import ANOMALY, MUTANTS, Mutant
from tests.model_check.partitions.search import Found, search

SHOPS = [*SHORT, *LONG, *WEAKER]
BROKEN = [*MUTANTS, *ANOMALY]
WIDTH = max(len(configuration.name) for configuration in [*SHOPS, *[mutant for mutant, _ in BROKEN]])


def _search_shop(number: int) -> Found:
    return search(SHOPS[number])


def main() -> int:
    """Return 0 if all laws hold in all shops, each mutant is found, and claims end all live-locks."""
    began = time.monotonic()
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(_search_shop, range(len(SHOPS)))
        faults = _print_shops(found)
    faults += _print_mutants(BROKEN) + _print_contests()
    print(f"\n{faults} faults, in {time.monotonic() - began:.0f} s")
    return bool(faults)


def _print_shops(results: Iterable[Found]) -> int:
    faults, states, steps = 0, 0, 0
    print(f"{'shop':{WIDTH}} {'states':>9} {'steps':>10}  result")
    for configuration, found in zip(SHOPS, results, strict=True):
        result = found.fault or ("all laws hold" if found.is_complete else "too many states")
        print(f"{configuration.name:{WIDTH}} {found.states:>9,} {found.steps:>10,}  {result}", flush=True)
        print(*[f"    {step}" for step in found.run], sep="\n", end="\n" if found.run else "")
        faults += not found.is_complete
        states, steps = states + found.states, steps + found.steps
    print(f"{f'{len(SHOPS)} shops':{WIDTH}} {states:>9,} {steps:>10,}\n")
    return faults


def _print_mutants(mutants: list[Mutant]) -> int:
    faults = 0
    print(f"{'without a safeguard':{WIDTH}} {'states':>9} {'steps':>10}  what goes wrong")
    for configuration, expected in mutants:
        found = search(configuration)
        is_found = found.fault == expected
        result = found.fault if is_found else f"NOT AS EXPECTED: {found.fault or 'nothing'}"
        print(f"{configuration.name:{WIDTH}} {found.states:>9,} {found.steps:>10,}  {result}", flush=True)
        faults += not is_found
    print()
    return faults


def _print_contests() -> int:
    faults = 0
    print(f"{'orders that contend for units':{WIDTH}} {'states':>9}  live-locks without claims, with claims")
    for without, contest in zip(contests(claims=False), contests(claims=True), strict=True):
        before, after = explore(without), explore(contest)
        print(f"{contest.name:{WIDTH}} {after.states:>9,}  {before.live_locks}, {after.live_locks}", flush=True)
        faults += bool(after.live_locks or after.stuck)
    return faults


if __name__ == "__main__":
    sys.exit(main())

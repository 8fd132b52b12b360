"""`make fuzz`: more than a million cases, others at each run. Ends with 1 if a fuzzer has found something."""

import argparse
import random
import re
import sys
import time

from tests.fuzz import coverage_guided, from_description, mutations, sockets
from tests.fuzz.targets import TARGETS

FUZZERS = ("description", "targets", "sockets")


def run_description(seed: int, examples: int) -> tuple[int, bool]:
    """Run schemathesis. Return the number of its cases, and whether it has found nothing."""
    try:
        done, _ = from_description.run(f"--max-examples={examples}", f"--seed={seed}")
    except AssertionError as error:
        print(f"description: seed {seed}: {error}")
        return 0, False
    found = re.findall(r"(\d+) generated", done.stdout)
    cases = int(found[0]) if found else 0
    stateful = "".join(re.findall(r"API Links: +(.*)", done.stdout))
    print(f"description: {cases:,} cases, seed {seed}, ends with {done.returncode}; links: {stateful}", flush=True)
    if done.returncode:
        print(done.stdout)
    return cases, done.returncode == 0


def run_targets(seed: int, cases: int) -> tuple[int, bool]:
    """Run each target. Return the number of cases, and whether all of them have found nothing."""
    total, is_clean = 0, True
    if not coverage_guided.is_available():
        print("targets: atheris is not there for this Python, so inputs are mutated without regard to coverage")
    for name in TARGETS:
        started = time.monotonic()
        run = (coverage_guided if coverage_guided.is_available() else mutations).run(name, seed, cases)
        seconds = time.monotonic() - started
        what = f"target {name}: {run.cases:,} cases in {seconds:.0f} s, seed {seed}, coverage: {run.coverage or '-'}"
        print(f"{what}\n{run.finding}" if run.finding else what, flush=True)
        total += run.cases
        is_clean = is_clean and not run.finding and run.cases > 0
    return total, is_clean


def run_sockets(seed: int, cases: int, first: int) -> tuple[int, bool]:
    """Run the grammar fuzzer. Return the number of cases, and whether it has found nothing."""
    report = sockets.run(seed, cases, first=first)
    print(report)
    for finding in report.findings:
        print(finding)
    return report.cases, not report.findings


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(1, 2**31), help="repeats a run")
    parser.add_argument("--only", choices=FUZZERS, action="append")
    parser.add_argument("--cases", type=int, default=900_000, help="of the sockets")
    parser.add_argument("--target-cases", type=int, default=100_000, help="of each target")
    parser.add_argument("--examples", type=int, default=600, help="of each call in the description")
    parser.add_argument("--first", type=int, default=0, help="number of the first connection: repeats a finding")
    parser.add_argument("--show", type=int, metavar="NUMBER", help="print what a connection sends, and end")
    options = parser.parse_args()
    if options.show is not None:
        print(sockets.describe(options.seed, options.show))
        return 0
    fuzzers = {
        "description": lambda: run_description(options.seed, options.examples),
        "targets": lambda: run_targets(options.seed, options.target_cases),
        "sockets": lambda: run_sockets(options.seed, options.cases, options.first),
    }
    started = time.monotonic()
    results = [fuzzers[name]() for name in options.only or FUZZERS]
    cases, is_clean = sum(cases for cases, _ in results), all(clean for _, clean in results)
    print(
        f"{cases:,} cases in {time.monotonic() - started:.0f} s, seed {options.seed}:",
        "nothing found" if is_clean else "FOUND",
    )
    return 0 if is_clean else 1


if __name__ == "__main__":
    sys.exit(main())

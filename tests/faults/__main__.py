"""Runs the long form, `make faults`: 300 faults, in seven cases."""

import argparse
import asyncio
import shutil
import tempfile
import time
from pathlib import Path
from typing import Final, get_args

from tests.faults.campaign import Result, run
from tests.faults.faults import ALL
from tests.faults.world import Setup

CASES: Final[tuple[tuple[Setup, int], ...]] = (
    ("embedded", 1),
    ("embedded", 3),
    ("partitions", 3),
    ("own", 1),
    ("own", 3),
    ("replica", 3),
    ("cluster", 2),
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", type=int, default=300, help="of all set-ups together")
    parser.add_argument("--setup", choices=get_args(Setup))
    parser.add_argument("--workers", type=int)
    parser.add_argument("--only", nargs="+", choices=ALL, default=())
    parser.add_argument("--plain", action="store_true", help="without a small disk and changed clocks: starts faster")
    parser.add_argument("--folder", type=Path, help="keep the histories here; otherwise only those of failed runs")
    options = parser.parse_args()
    cases: list[tuple[Setup, int]] = [case for case in CASES if options.setup in (None, case[0])]
    cases = [case for case in cases if options.workers in (None, case[1])]
    if not cases:
        cases = [(options.setup or "own", options.workers)]
    folder = options.folder or Path(tempfile.mkdtemp(prefix="holdfast-faults-"))
    ok = True
    for number, (setup, workers) in enumerate(cases):
        count = (options.faults + number) // len(cases)
        print(f"{setup}, workers: {workers}, seed {options.seed}", flush=True)
        began = time.monotonic()
        case_folder = folder / f"{setup}-{workers}"
        case_folder.mkdir(parents=True)
        result = asyncio.run(
            run(
                case_folder,
                seed=options.seed,
                setup=setup,
                workers=workers,
                faults=count,
                only=options.only,
                disk=setup == "embedded" and not options.plain,
                # A cluster compares the clocks of its nodes: set back, they would fail over without a reason.
                clocks=setup != "cluster" and not options.plain,
            )
        )
        print_result(result, time.monotonic() - began)
        ok = ok and not result.violations
    if ok and not options.folder:
        shutil.rmtree(folder)
    else:
        print(f"the histories are in {folder}")
    return 0 if ok else 1


def print_result(result: Result, seconds: float) -> None:
    for what, reason in result.missing.items():
        print(f"  LEFT OUT, all faults of the {what}: {reason}")
    for name, (count, longest) in sorted(result.by_fault.items()):
        print(f"  {count:3} x {name:40} healthy after {longest:4.1f} s at most")
    for name, value in result.summary.items():
        print(f"  {name}: {value}")
    print(f"  wrong answers: {sum(map(len, result.violations.values()))}; {seconds:.0f} s", flush=True)
    for name, texts in result.violations.items():
        print(f"  VIOLATED {name}, {len(texts)} times:")
        for text in texts[:5]:
            print(f"    {text[:1000]}")


if __name__ == "__main__":
    raise SystemExit(main())

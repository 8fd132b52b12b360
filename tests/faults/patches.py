"""Makes copies of Holdfast with wrong texts in them, and runs tests with these copies, for `make mutants`."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

CHECKOUT: Final = Path(__file__).parents[2]

_PARTS: Final = ("service", "lua", "tests", "pyproject.toml", "docker-compose.yml")
"""What the campaign and the tests need. The last two have the settings of pytest and the rights of the Redis user."""

_TEST_SECONDS: Final = 20
"""The longest time for one test. Most tests take one second, and all tests together less than a minute."""

_START_SECONDS: Final = 40
"""The longest time until the first test begins."""


class Patch(NamedTuple):
    """A text that occurs once in a file, and the wrong one that takes its place."""

    file: str
    right: str
    wrong: str


_NO_SHRINKING: Final = Patch(
    "tests/model_check/test_partition_steps.py",
    "        deadline=None,\n",
    "        deadline=None,\n        phases=settings.default.phases[:3],\n",
)
"""Any difference between the model and a script is enough. To search for the smallest one would take 10 seconds."""


class Safeguard(NamedTuple):
    """A mutant of Holdfast that lacks one safeguard. `caught_by`: the test that must fail."""

    name: str
    patches: tuple[Patch, ...]
    caught_by: str


class Outcome(NamedTuple):
    """The result of pytest. `failure`: the first test that failed, and why. It is empty if no test has failed."""

    passed: bool
    failure: str
    output: str


@contextmanager
def broken_copy(patches: Sequence[Patch]) -> Iterator[Path]:
    """Yield a folder with a copy of Holdfast that has these wrong texts, until the block ends."""
    with tempfile.TemporaryDirectory(prefix="holdfast-mutant-") as name:
        copy = Path(name)
        for part in _PARTS:
            if (CHECKOUT / part).is_dir():
                shutil.copytree(CHECKOUT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(CHECKOUT / part, copy / part)
        for file, right, wrong in patches:
            text = (copy / file).read_text()
            assert text.count(right) == 1, f"{file} has this text {text.count(right)} times: {right}"
            (copy / file).write_text(text.replace(right, wrong))
        yield copy


def environment_of(copy: Path) -> dict[str, str]:
    """Return the environment of a process that imports the modules of a copy."""
    return {**os.environ, "PYTHONPATH": str(copy)}


def run_tests(patches: Sequence[Patch], tests: Sequence[str]) -> Outcome:
    """Run tests on a broken copy, until the first of them fails.

    An error while tests are collected, or in a fixture, does not count: then the mutant breaks more than its safeguard.
    A NameError does not count either: the wrong text needs an import.
    """
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=short", "-p", "no:cacheprovider", *tests]
    with broken_copy((*patches, _NO_SHRINKING)) as copy:
        environment = {**environment_of(copy), "COLUMNS": "250"}  # pytest cuts reasons at the end of a line
        with subprocess.Popen(
            command, cwd=copy, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            try:
                output, _ = process.communicate(timeout=_START_SECONDS + _TEST_SECONDS * len(tests))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGINT)  # so that the fixtures stop their engines
                output, _ = process.communicate()
    failed = re.search(r"^FAILED \S*?::((?!.* - NameError).*)$", output, re.MULTILINE)
    return Outcome(process.returncode == 0, failed[1] if failed and process.returncode == 1 else "", output)

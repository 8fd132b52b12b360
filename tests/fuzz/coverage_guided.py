"""Runs the targets under atheris, which keeps the inputs that reach new code, and goes on from them.

Each target runs in a process of its own: libFuzzer ends the process at the first finding, and at the end.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

_SERVICE = ["service.domain", "service.api", "service.server"]
"""Modules whose code is watched. The rest is as fast as ever."""

_MAX_BYTES = 4096
"""Of an input. Longer ones are slow, and sockets.py sends them."""


class Run(NamedTuple):
    """A run of a target. `finding`: the input and the traceback, or an empty text."""

    cases: int
    coverage: str
    finding: str


def is_available() -> bool:
    """Return whether atheris is installed: it exists for Linux and some versions of Python."""
    from importlib.util import find_spec

    return find_spec("atheris") is not None


def run(name: str, seed: int, cases: int) -> Run:
    """Run a target for this number of cases, or until it fails."""
    from tests.fuzz.targets import inputs

    with tempfile.TemporaryDirectory(prefix="holdfast-fuzz-") as folder:
        corpus = Path(folder, "corpus")
        corpus.mkdir()
        for number, data in enumerate(inputs(name)):
            (corpus / f"{number}").write_bytes(data[:_MAX_BYTES])
        # libFuzzer takes the seed 0 for "choose one".
        options = (
            f"-runs={cases}",
            f"-seed={seed or 1}",
            f"-max_len={_MAX_BYTES}",
            "-timeout=20",
            "-rss_limit_mb=4096",
        )
        done = subprocess.run(
            [sys.executable, "-m", "tests.fuzz.coverage_guided", name, *options, f"-artifact_prefix={folder}/", corpus],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
            check=False,
        )
        output = done.stdout.decode(errors="replace")
        numbers = re.findall(r"^#(\d+)\s.*?cov: (\d+ ft: \d+)", output, re.MULTILINE)
        count, coverage = numbers[-1] if numbers else ("0", "")
        if done.returncode == 0:
            return Run(int(count), coverage, "")
        bad = [repr(path.read_bytes()) for path in Path(folder).iterdir() if path.is_file()]
        return Run(int(count), coverage, f"{' '.join(bad)}\n{output[-5000:]}")


def main() -> None:
    """Run the target that the command line names, with the options of libFuzzer."""
    import atheris

    with atheris.instrument_imports(include=_SERVICE, enable_loader_override=False):
        from tests.fuzz.targets import TARGETS

    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()

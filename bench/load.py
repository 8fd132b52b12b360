"""Runs a load generator in its own process: wrk for the highest rate, openloop.py for latencies at a constant rate."""

import atexit
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

from bench.processes import end_with_parent, on_cores

LoadKind = Literal[
    "orders",
    "keyed",
    "replay",
    "pending",
    "flash",
    "sold_out",
    "page",
    "pages",
    "order_pages",
    "product",
    "mixed",
]


@dataclass(frozen=True, slots=True)
class Load:
    """The requests that clients send: their kind, the lines per order, and the number of products to choose from."""

    kind: LoadKind
    lines: int
    products: int


OVERLOAD_CONNECTIONS: Final = 512
"""From so many connections on, the load may be an overload: a server may refuse a part of the orders with 503."""

MANY_CONNECTIONS: Final = 4096
"""So many connections need some time to open, and to get their first answers."""


def run_at_full_speed(port: int, load: Load, connections: int, seconds: int, cores: set[int]) -> dict[str, Any]:
    """Run a closed loop: every connection sends its next request as soon as it has its answer.

    From OVERLOAD_CONNECTIONS on, answers with 503 count as refused. Raise AssertionError for any other answer than 200,
    201 and 409.
    """
    script = Path(__file__).with_name("load.lua")
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "60s", "-s", str(script)]
    url = f"http://127.0.0.1:{port}"
    run = _run([*command, url, "--", load.kind, str(load.lines), str(load.products)], seconds, cores)
    overloaded = run.pop("overloaded")
    assert not overloaded or connections >= OVERLOAD_CONNECTIONS, f"{overloaded} answers were 503: overloaded"
    return {**run, "refused": run["refused"] + overloaded}


@cache
def constant_rate_client() -> Path:
    """Compile openloop.c, and return the program, which is removed when this process ends.

    Call it before the first measurement. Raise FileNotFoundError if there is no C compiler.
    """
    folder = Path(tempfile.mkdtemp(prefix="holdfast-openloop-"))
    atexit.register(shutil.rmtree, folder)
    program = folder / "openloop"
    source = Path(__file__).with_name("openloop.c")
    subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, source], check=True)
    return program


def run_at_rate(port: int, load: Load, connections: int, seconds: int, cores: set[int], rate: float) -> dict[str, Any]:
    """Run an open loop: requests are sent on a schedule, even if earlier answers are late.

    Raise AssertionError if an answer is not 200, 201 or 409.
    """
    numbers = [str(number) for number in (port, connections, seconds, rate)]
    requests = [load.kind, str(load.lines), str(load.products)]
    command = [sys.executable, "-m", "bench.openloop", str(constant_rate_client()), *numbers, *requests]
    return _run(command, seconds, cores)


def _run(command: list[str], seconds: int, cores: set[int]) -> dict[str, Any]:
    done = subprocess.run(
        end_with_parent(on_cores(cores, command)), capture_output=True, text=True, timeout=seconds + 90, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert result["other"] == 0, f"{result['other']} answers were not 200, 201 or 409"
    assert result["broken"] == 0, f"{result['broken']} connections broke or timed out"
    assert result["requests"], "no request was answered"
    return result

"""Runs a load generator in its own process: wrk for the highest rate, openloop.c for latencies at a constant rate."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from bench import openloop
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


def run_at_rate(port: int, load: Load, connections: int, seconds: int, cores: set[int], rate: float) -> dict[str, Any]:
    """Run an open loop: requests are sent on a schedule, even if earlier answers are late.

    Raise AssertionError if an answer is not 200, 201 or 409.
    """
    make_request = openloop.request_maker(load.kind, load.lines, load.products)
    return _checked(openloop.run(port, connections, seconds, rate, make_request, cores))


def _run(command: list[str], seconds: int, cores: set[int]) -> dict[str, Any]:
    done = subprocess.run(
        end_with_parent(on_cores(cores, command)), capture_output=True, text=True, timeout=seconds + 90, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return _checked(json.loads(done.stdout.splitlines()[-1]))


def _checked(result: dict[str, Any]) -> dict[str, Any]:
    assert result["other"] == 0, f"{result['other']} answers were not 200, 201 or 409"
    assert result["broken"] == 0, f"{result['broken']} connections broke or timed out"
    assert result["requests"], "no request was answered"
    return result

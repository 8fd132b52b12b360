"""The load: wrk for the highest rate, openloop.py for latencies at a given rate. Each in its own process."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.processes import ended_with_us, on_cores

Kind = Literal["orders", "flash", "page", "pages", "product", "mixed"]


@dataclass(frozen=True, slots=True)
class Load:
    """What clients ask for. `lines` of an order, of `products` that there are."""

    kind: Kind
    lines: int
    products: int


def at_full_speed(port: int, load: Load, connections: int, seconds: int, cores: set[int]) -> dict[str, Any]:
    """A closed loop: every connection asks again as soon as it has its answer."""
    script = Path(__file__).with_name("load.lua")
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "60s", "-s", str(script)]
    return _run([*command, _url(port), "--", load.kind, str(load.lines), str(load.products)], seconds, cores)


def at_rate(port: int, load: Load, connections: int, seconds: int, cores: set[int], rate: float) -> dict[str, Any]:
    """An open loop: requests leave on schedule, whether or not answers come."""
    numbers = [str(number) for number in (port, connections, seconds, rate)]
    command = [sys.executable, "-m", "bench.openloop", *numbers, load.kind, str(load.lines), str(load.products)]
    return _run(command, seconds, cores)


def _run(command: list[str], seconds: int, cores: set[int]) -> dict[str, Any]:
    """Raises AssertionError if anything but 200, 201 and 409 came back."""
    done = subprocess.run(
        ended_with_us(on_cores(cores, command)), capture_output=True, text=True, timeout=seconds + 90, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert result["other"] == 0, f"{result['other']} answers were not 200, 201 or 409"
    assert result["broken"] == 0, f"{result['broken']} connections broke or timed out"
    assert result["requests"], "there was no answer"
    return result


def _url(port: int) -> str:
    return f"http://127.0.0.1:{port}"

"""Processes: start and stop them, put them on cores, read what they use."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def ended_with_us(command: list[str]) -> list[str]:
    """The kernel ends it when we are killed."""
    return ["setpriv", "--pdeathsig", "TERM", *command]


def split_cores() -> tuple[set[int], set[int]]:
    """Cores of the servers, and of the load generator. With less than four they share all of them."""
    cores = sorted(os.sched_getaffinity(0))
    return (set(cores), set(cores)) if len(cores) < 4 else (set(cores[:-1]), {cores[-1]})


def on_cores(cores: set[int], command: list[str]) -> list[str]:
    return ["taskset", "-c", ",".join(map(str, sorted(cores))), *command]


def stop(process: subprocess.Popen[bytes], with_signal: int = signal.SIGTERM) -> None:
    """Asks it to end, and ends it and its children if it does not."""
    process.send_signal(with_signal)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        for pid in tree(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.wait()


def tree(pid: int) -> list[int]:
    """A process and its descendants."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (fields := _stat(int(folder.name))):
            children.setdefault(int(fields[1]), []).append(int(folder.name))
    found = [pid]
    for parent in found:
        found += children.get(parent, [])
    return found


def cpu_seconds(pid: int) -> float:
    """Of a process, its descendants, and those that have ended."""
    return sum(sum(map(int, fields[11:15])) for one in tree(pid) if (fields := _stat(one))) / _TICKS


def memory(pid: int) -> int:
    """Bytes of a process and its descendants, what they share counted once (PSS)."""
    total = 0
    for one in tree(pid):
        lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
    return total


def settle(*pids: int, quiet: float = 0.2, longest: float = 20) -> None:
    """Waits until these have had nothing to do for a while: a load leaves requests under way when it ends."""
    give_up = time.monotonic() + longest
    used = [cpu_seconds(pid) for pid in pids]
    while time.monotonic() < give_up:
        time.sleep(quiet)
        before, used = used, [cpu_seconds(pid) for pid in pids]
        if sum(used) - sum(before) <= 0.02:
            return


def version_of(*command: str) -> str:
    """The first line of what a program says of itself; wrk says it with a usage error."""
    if not shutil.which(command[0]):
        return "missing"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).splitlines()[0]


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/<pid>/stat from the third on; None if the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None

"""Functions for processes: stop them, put them on cores, measure what they use."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def end_with_parent(command: list[str]) -> list[str]:
    """Return the command in a form that makes the kernel end it when this process is killed."""
    return ["setpriv", "--pdeathsig", "TERM", *command]


def split_cores() -> tuple[set[int], set[int]]:
    """Return the cores for the servers and those for the load generator. With fewer than four, both get all cores."""
    cores = sorted(os.sched_getaffinity(0))
    return (set(cores), set(cores)) if len(cores) < 4 else (set(cores[:-1]), {cores[-1]})


def on_cores(cores: set[int], command: list[str]) -> list[str]:
    """Return the command in a form that runs it on these cores only."""
    return ["taskset", "-c", ",".join(map(str, sorted(cores))), *command]


def stop(process: subprocess.Popen[bytes], with_signal: int = signal.SIGTERM) -> None:
    """Ask a process to end. If it has not ended after 20 seconds, kill it and its descendants."""
    process.send_signal(with_signal)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        for pid in process_tree(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.wait()


def process_tree(pid: int) -> list[int]:
    """Return the ids of a process and its descendants."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (fields := _stat(int(folder.name))):
            children.setdefault(int(fields[1]), []).append(int(folder.name))
    found = [pid]
    for parent in found:
        found += children.get(parent, [])
    return found


def cpu_seconds(root: int) -> float:
    """Return the CPU time of a process and its descendants, including those that have ended."""
    return sum(sum(map(int, fields[11:15])) for pid in process_tree(root) if (fields := _stat(pid))) / _TICKS_PER_SECOND


def memory_bytes(root: int) -> int:
    """Return the memory of a process and its descendants. Memory that they share counts once (PSS)."""
    total = 0
    for pid in process_tree(root):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
    return total


def wait_until_idle(*pids: int, idle_seconds: float = 0.2, timeout: float = 20) -> None:
    """Wait until these processes use almost no CPU: when a load ends, some of its requests are still under way."""
    deadline = time.monotonic() + timeout
    used = [cpu_seconds(pid) for pid in pids]
    while time.monotonic() < deadline:
        time.sleep(idle_seconds)
        before, used = used, [cpu_seconds(pid) for pid in pids]
        if sum(used) - sum(before) <= 0.02:
            return


def version_of(*command: str) -> str:
    """Return the first line that a program prints about its version. wrk prints it together with a usage error."""
    if not shutil.which(command[0]):
        return "missing"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).splitlines()[0]


def _stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/<pid>/stat from the third on, or None if the process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None

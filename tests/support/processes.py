"""Processes that tests start and kill, found by their working directory."""

import contextlib
import os
import signal
import socket
import subprocess
from pathlib import Path

from tests.support.waiting import wait_until


def processes_in(folder: Path) -> list[int]:
    """Return the ids of the processes whose working directory is in `folder`. An engine works in its data directory."""
    folder = folder.resolve()
    if Path("/proc/self/cwd").exists():
        found = []
        for process in Path("/proc").iterdir():
            if process.name.isdecimal():
                with contextlib.suppress(OSError):  # the process ended, or belongs to another user
                    if (process / "cwd").readlink().is_relative_to(folder):
                        found.append(int(process.name))
        return found
    listing = subprocess.run(["lsof", "-a", "-d", "cwd", "-Fpn"], capture_output=True, text=True, check=False).stdout
    found, pid = [], 0
    for line in listing.splitlines():
        if line.startswith("p"):
            pid = int(line[1:])
        elif line.startswith("n") and Path(line[1:]).is_relative_to(folder):
            found.append(pid)
    return found


def wait_for_no_processes_in(folder: Path) -> None:
    """Wait until all processes in `folder` have ended without help."""
    wait_until(lambda: not processes_in(folder), f"the end of the processes in {folder}")


def kill_processes_in(folder: Path) -> None:
    """Kill the processes in `folder` that are still running at the end of a test."""
    for pid in processes_in(folder):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_for_no_processes_in(folder)


def free_port() -> int:
    """Return a TCP port that no process listens on."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])

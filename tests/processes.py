"""Processes that tests start and kill: which of them live, by the directory they work in."""

import contextlib
import os
import signal
import socket
import subprocess
from pathlib import Path

from tests.waiting import wait_until


def processes_in(folder: Path) -> list[int]:
    """The processes whose working directory is in `folder`: engines work in their data directory."""
    folder = folder.resolve()
    if Path("/proc/self/cwd").exists():
        found = []
        for process in Path("/proc").iterdir():
            if process.name.isdecimal():
                with contextlib.suppress(OSError):  # it ended, or is not ours
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
    """Passes when all of them have ended by themselves."""
    wait_until(lambda: not processes_in(folder), f"the end of the processes in {folder}")


def kill_processes_in(folder: Path) -> None:
    """For the end of a test, whatever it left."""
    for pid in processes_in(folder):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_for_no_processes_in(folder)


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])

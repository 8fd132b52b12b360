"""Runs `holdfast` in processes that are forked from one that has imported all modules already.

A command then starts in a fiftieth of the time, and a service in a fifth. It is still a process of its own, with its
own folder, environment and standard streams, and so are the workers of a service; only the start of Python and the
imports are not repeated. Tests of these start the command itself.
"""

import atexit
import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

_SERVER: Final = "from tests.support.preload_server import serve; serve()"
"""Not a module: Python would import the main module again in each worker of a service."""

_server: Any = None


def run_preloaded(
    args: list[str],
    folder: Path,
    env: Mapping[str, str],
    stdout_to: Path | None = None,
    stderr_to: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end. Its standard input is empty. `stdout_to`, `stderr_to`: terminals."""
    with tempfile.TemporaryDirectory() as outputs:
        stdout, stderr = Path(outputs) / "stdout", Path(outputs) / "stderr"
        stdout.touch()
        stderr.touch()
        code = _ask(args, folder, env, stdout_to or stdout, stderr_to or stderr, is_service=False)
        return subprocess.CompletedProcess(args, code, stdout.read_text(), stderr.read_text())


class PreloadedProcess:
    """A service that was forked. It has the methods of subprocess.Popen that tests use. Linux only."""

    def __init__(self, args: Sequence[str], folder: Path, env: Mapping[str, str], output: Path) -> None:
        """Start it with a session of its own. `output`: a file, to which stdout and stderr are appended."""
        if ctypes.CDLL(None).prctl(36, 1) != 0:  # PR_SET_CHILD_SUBREAPER: the service becomes a child of this process
            raise OSError("prctl failed")
        self.returncode: int | None = None
        self.pid = _ask(args, folder, env, output, output, is_service=True)

    def poll(self) -> int | None:
        """Return the exit code, or None while the process runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float = 60) -> int:
        """Wait until the process has ended, and return its exit code. `timeout` in seconds."""
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("holdfast", timeout)
            time.sleep(0.005)
        return code

    def send_signal(self, signum: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, signum)

    def kill(self) -> None:
        """Kill the process, unless it has ended."""
        self.send_signal(signal.SIGKILL)


def _ask(
    args: Sequence[str], folder: Path, env: Mapping[str, str], stdout: Path, stderr: Path, *, is_service: bool
) -> int:
    """Let the server fork a process. Return the exit code of a command, or the id of a service's process."""
    global _server
    if _server is None:
        _server = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", _SERVER],
            env=dict(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        atexit.register(_end)
    call = {
        "args": list(args),
        "folder": str(folder),
        "env": dict(env),
        "stdout": str(stdout),
        "stderr": str(stderr),
        "is_service": is_service,
    }
    _server.stdin.write(json.dumps(call) + "\n")
    _server.stdin.flush()
    return int(json.loads(_server.stdout.readline()))


def _end() -> None:
    _server.stdin.close()
    _server.stdout.close()
    _server.wait()

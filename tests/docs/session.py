"""Runs the commands of a document as a reader would type them: in bash, in a clean directory, with a real service."""

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.docs.blocks import ROOT, Step
from tests.docs.varying import Values
from tests.support.command_line import PYTHONPATH
from tests.support.processes import free_port, kill_processes_in

PRINTED_DIRECTORY: Final = "/home/me/holdfast"
"""The clean directory, as documents print it."""

PRINTED_PORTS: Final = ("8000", "9000")
"""Ports that documents use. A free one takes the place of each."""

PATIENCE: Final = 60.0
"""Seconds for one command."""

_PORT = re.compile(rf"(localhost:|127\.0\.0\.1:|HOLDFAST_PORT=|--port )({'|'.join(PRINTED_PORTS)})\b")
_SERVES = re.compile(r"holdfast\b.* serve$")
_MAKE = re.compile(r"\bmake ([a-z0-9-]+)$")
_DONE: Final = "docs-test-done"

# What a terminal shows: curl without a progress meter; redis-cli with quotes and numbers, but not into a pipe.
_PRELUDE: Final = """
exec 9>&1
curl() { command curl --no-progress-meter "$@"; }
redis-cli() { if [ /dev/stdout -ef /dev/fd/9 ]; then command redis-cli --no-raw "$@"; else command redis-cli "$@"; fi; }
status=0
"""


class Session:
    """One document's shell, its directory and the service that runs in it."""

    def __init__(self, directory: Path, tools: Path, variables: dict[str, str], patience: float) -> None:
        self.directory = directory
        self.values = Values()
        self.ports = {printed: str(free_port()) for printed in PRINTED_PORTS}
        self.log = tools / "service.log"
        self.log.touch()
        self.logged = 0
        self.services: list[int] = []
        self.patience = patience
        foreign = ("HOLDFAST_", "REDIS", "CURL_", "COMPOSE_")
        own = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        environment = {
            **own,
            "PATH": f"{tools}:{own['PATH']}",
            "NO_PROXY": "localhost,127.0.0.1",
            "HOLDFAST_PORT": self.ports["8000"],
            "LC_ALL": "C.UTF-8",
            "PYTHONPATH": PYTHONPATH,  # without the package rich, which takes a tenth of a second in each process
            **variables,
        }
        self.shell = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=directory,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._type(_PRELUDE)

    def run(self, step: Step) -> list[str]:
        """Run a command and return the lines of its answer, in the document's terms."""
        if step.command == "^C":
            return self._stop_service()
        command = _recipe(self._to_real(step.command))
        if _SERVES.search(command):
            return self._start_service(command, step.expected)
        return self._to_printed(self.execute(command))

    def execute(self, command: str) -> str:
        """Run a command as it stands and return what it prints. Raise AssertionError if it does not end in time."""
        self._type(f"(exit $status)\n{{ {command}\n}} </dev/null\nstatus=$?\necho; echo {_DONE}\n")
        end = f"\n{_DONE}\n".encode()
        output = b""
        assert self.shell.stdout is not None
        deadline = time.monotonic() + self.patience
        while not output.endswith(end):
            ready, _, _ = select.select([self.shell.stdout], [], [], max(0, deadline - time.monotonic()))
            read = os.read(self.shell.stdout.fileno(), 65_536) if ready else b""
            assert read, f"no end after {self.patience:.0f} s: {command}\n{output.decode()}"
            output += read
        return output.removesuffix(end).decode()

    def _start_service(self, command: str, expected: list[str]) -> list[str]:
        self.logged = self.log.stat().st_size if self.log.exists() else 0
        self.execute(f"{command} >>{self.log} 2>&1 &")
        service = int(self.execute("echo $!"))
        self.services.append(service)
        deadline = time.monotonic() + PATIENCE
        while True:
            lines = self._to_printed(self.log.read_bytes()[self.logged :].decode())
            # What the service logs later is no part of the answer.
            for end in range(len(lines), 0, -1):
                if self.values.fits(expected, lines[:end]):
                    return lines[:end]
            if time.monotonic() > deadline or not _is_alive(service):
                return lines
            if not expected and "Application startup complete." in "".join(lines):
                return []
            time.sleep(0.02)

    def _stop_service(self) -> list[str]:
        assert self.services, "^C without a service that runs"
        service = self.services.pop()  # the terminal of the last one
        self.logged = self.log.stat().st_size
        os.kill(service, signal.SIGINT)
        self.execute(f"wait {service}")
        text = self.log.read_bytes()[self.logged :].decode()
        self.logged = self.log.stat().st_size
        return self._to_printed(text)

    def _type(self, text: str) -> None:
        assert self.shell.stdin is not None
        self.shell.stdin.write(text.encode())
        self.shell.stdin.flush()

    def _to_real(self, command: str) -> str:
        return self.values.to_real(_PORT.sub(lambda match: match[1] + self.ports[match[2]], command))

    def _to_printed(self, output: str) -> list[str]:
        for printed, real in self.ports.items():
            output = re.sub(rf"\b{real}\b", printed, output)
        output = output.replace(str(self.directory), PRINTED_DIRECTORY).replace("\r\n", "\n")
        lines = [line.rstrip() for line in output.split("\n")]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    def status(self) -> int:
        """Return the exit code of the last command."""
        return int(self.execute("echo $?"))

    def close(self) -> None:
        """End the services and the shell."""
        while self.services:
            if _is_alive(self.services[-1]):
                self._stop_service()
            else:
                self.services.pop()
        self.shell.communicate(timeout=PATIENCE)


@contextmanager
def open_session(directory: Path | None = None, patience: float = PATIENCE, **variables: str) -> Iterator[Session]:
    """Open a session in `directory`, or in a clean one which has `.venv` as a clone has it after `make`."""
    with tempfile.TemporaryDirectory(prefix="hf-") as clean, tempfile.TemporaryDirectory(prefix="hf-") as tools:
        here = directory or Path(clean).resolve()
        if directory is None:
            (here / ".venv").symlink_to(sys.prefix)
            variables = {"HOME": tools, **variables}  # no .curlrc
        for name in ("curl", "redis-cli"):
            if shutil.which(name) is None:
                replacement = Path(__file__).with_name(f"{name.replace('-', '_')}.py")
                launcher = Path(tools) / name
                launcher.write_text(f'#!/bin/sh\nexec {sys.executable} {replacement} "$@"\n')
                launcher.chmod(0o755)
        session = Session(here, Path(tools).resolve(), variables, patience)
        try:
            yield session
            session.close()
        finally:
            session.shell.kill()
            session.shell.wait()
            for pipe in (session.shell.stdin, session.shell.stdout):
                if pipe is not None and not pipe.closed:
                    pipe.close()
            kill_processes_in(here)


def check_document(steps: list[Step]) -> tuple[list[list[str]], list[str]]:
    """Run all steps in one session. Return the answers in the document's terms, and what is not as printed."""
    answers, differences = [], []
    with open_session() as session:
        for step in steps:
            actual = session.run(step)
            if session.values.fits(step.expected, actual):
                answers.append(step.expected)
                continue
            answers.append([session.values.to_printed(line) for line in actual])
            printed, found = "\n  ".join(step.expected), "\n  ".join(actual)
            differences.append(f"{step.place}: $ {step.command}\nprinted:\n  {printed}\nfound:\n  {found}")
    return answers, differences


def make_recipes() -> dict[str, str]:
    """Return the targets of the Makefile, each with its recipe."""
    rules = re.findall(r"^([a-z0-9-]+):.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return {target: re.sub(r"^\t@?", "", recipe, flags=re.MULTILINE).strip() for target, recipe in rules}


def _recipe(command: str) -> str:
    """Return what make would run: it is not there in each place where tests run, and would look at the lock file."""
    match = _MAKE.search(command)
    if match is None:
        return command
    return command[: match.start()] + make_recipes()[match[1]].removeprefix("exec ")


def _is_alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True

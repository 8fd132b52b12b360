"""Signals: none is lost while the service starts, and each number of workers treats them in the same way."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.command_line import environment
from tests.support.processes import free_port, processes_in, wait_for_no_processes_in
from tests.support.service_process import StartService
from tests.support.waiting import wait_until

pytestmark = pytest.mark.process

EARLY_MODULES = ["click", "service.settings", "service.server.serve"]
"""Imported before the engine starts."""

LATE_MODULES = ["uvicorn", "pydantic", "service.app"]
"""Imported while the engine starts, which must end with the service."""

SIGNALS_WHILE_IMPORTING = """
import importlib.abc, os, signal, sys
modules = set(sys.argv[1:])
class SendSignals(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name not in modules:
            return
        for signum in (signal.SIGTERM, signal.SIGHUP):
            pid = os.fork()
            if pid == 0:
                sys.meta_path.remove(self)
                signal.alarm(20)  # ends this process if the other signal does not
                os.kill(os.getpid(), signum)
                return
            print(name, signum.name, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
        modules.remove(name)
        if not modules:
            os._exit(0)
sys.meta_path.insert(0, SendSignals())
from service.__main__ import main
sys.argv[1:] = ["serve"]
main()
"""
"""Imports the service. At the import of each module, a copy of the process gets SIGTERM, and another one SIGHUP."""

SIGNAL_WHILE_IMPORTING = """
import importlib.abc, os, sys
module, signum = sys.argv[1], int(sys.argv[2])
class SendSignal(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == module:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signum)
sys.meta_path.insert(0, SendSignal())
from service.__main__ import main
sys.argv[1:] = ["serve"]
main()
"""


def test_a_signal_during_an_early_import_ends_the_service_with_0(tmp_path: Path) -> None:
    process = run_python(tmp_path, SIGNALS_WHILE_IMPORTING, *EARLY_MODULES)
    ends = {f"{module} {name} 0" for module in EARLY_MODULES for name in ("SIGTERM", "SIGHUP")}
    assert set(process.stdout.splitlines()) == ends, process.stderr
    assert "Traceback" not in process.stderr
    wait_for_no_processes_in(tmp_path)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("module", LATE_MODULES)
def test_a_signal_during_a_late_import_ends_the_service_with_0(
    tmp_path: Path, module: str, signum: signal.Signals
) -> None:
    process = run_python(tmp_path, SIGNAL_WHILE_IMPORTING, module, str(int(signum)))
    assert process.returncode == 0, process.stderr
    assert "Traceback" not in process.stderr
    wait_for_no_processes_in(tmp_path)


def run_python(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", *args],
        cwd=folder,
        env=environment(HOLDFAST_PORT=str(free_port())),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_signal_while_modules_are_compiled_is_not_lost(tmp_path: Path) -> None:
    """The first start: no module has bytecode. An exception that a handler raises in the compiler gets lost."""
    for delay_ms in range(100, 1100, 250):
        env = environment(HOLDFAST_PORT=str(free_port()), PYTHONPYCACHEPREFIX=str(tmp_path / f"cache{delay_ms}"))
        process = subprocess.Popen(
            [sys.executable, "-m", "service", "serve"], cwd=tmp_path, env=env, stderr=subprocess.DEVNULL
        )
        wait_for_handler(process.pid)  # before main() has begun, the system's own handler ends the process
        time.sleep(delay_ms / 1000)  # any moment of the start will do
        process.terminate()
        assert process.wait(20) == 0
    wait_for_no_processes_in(tmp_path)


def wait_for_handler(pid: int) -> None:
    wait_until(lambda: handles_sigterm(pid), "the signal handler")


def handles_sigterm(pid: int) -> bool:
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt")]
    return bool(int(line.split()[1], 16) & (1 << (signal.SIGTERM - 1)))


@pytest.mark.parametrize("group", [False, True], ids=["kill", "closed terminal"])
@pytest.mark.parametrize("workers", [1, 2])
def test_sighup_stops_the_service_as_sigterm_does(start_ready_service: StartService, workers: int, group: bool) -> None:
    service = start_ready_service(workers=workers)
    service.signal(signal.SIGHUP, group)
    assert service.wait_for_exit() == 0
    wait_for_no_processes_in(service.folder)
    assert "Traceback" not in service.stderr
    assert not [entry for entry in service.logs if entry["level"] == "error"]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_service_started_with_nohup_survives_the_end_of_its_terminal(
    start_ready_service: StartService, workers: int
) -> None:
    nohup = ("sh", "-c", 'trap "" HUP; exec "$@"', "sh", sys.executable, "-m", "service")
    service = start_ready_service(workers=workers, command=nohup)
    before = processes_in(service.folder)
    service.signal(signal.SIGHUP, group=True)
    service.signal(signal.SIGHUP, group=False)
    assert service.order(service.add_product()).status_code == 201
    assert sorted(processes_in(service.folder)) == sorted(before)
    service.signal(signal.SIGTERM, group=False)
    assert service.wait_for_exit() == 0
    assert "worker_ended" not in service.stderr


@pytest.mark.parametrize(
    ("redirections", "workers"), [("<&- >&- 2>&-", 1), ("<&- >&- 2>&-", 2), ("<&-", 1), (">&-", 1), ("2>&-", 1)]
)
def test_a_service_with_closed_standard_streams_starts_and_stops(
    start_service: StartService, redirections: str, workers: int
) -> None:
    command = ("sh", "-c", f'exec "$@" {redirections}', "sh", sys.executable, "-m", "service")
    service = start_service(command=command, workers=workers)
    service.wait_until_ready()
    assert service.order(service.add_product()).status_code == 201
    service.signal(signal.SIGTERM, group=False)
    assert service.wait_for_exit() == 0
    wait_for_no_processes_in(service.folder)


def test_an_unread_stderr_does_not_stop_the_service(start_service: StartService, tmp_path: Path) -> None:
    fifo = tmp_path / "stderr"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    command = ("sh", "-c", f'exec "$@" 2>{fifo}', "sh", sys.executable, "-m", "service")
    service = start_service(command=command, access_log="true")
    service.wait_until_ready()
    for _ in range(1000):  # 364 lines fill the pipe
        assert service.answers("/livez") == 200
    service.signal(signal.SIGTERM, group=False)
    assert service.wait_for_exit() == 0
    os.close(reader)

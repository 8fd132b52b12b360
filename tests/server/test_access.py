"""API keys of a running service: whether it starts without them, and that it reads their file again."""

import os
import pty
import signal
from functools import partial
from pathlib import Path

import httpx2
import pytest

from tests.support.command_line import HOLDFAST, HoldfastCommand, environment
from tests.support.processes import free_port, wait_for_no_processes_in
from tests.support.service_process import NO_TLS, ServiceProcess, StartService, workers_of
from tests.support.shop import mug
from tests.support.waiting import wait_until

pytestmark = pytest.mark.process


def new_key(folder: Path, file: Path, name: str = "shop", *options: str) -> dict[str, str]:
    """Make a key, add it to the file, and return the header field that has it."""
    done = HoldfastCommand(folder)("key", "new", name, "--scopes", "all", "--file", file, *options)
    assert done.returncode == 0, done.stderr
    return {"Authorization": f"Bearer {done.stdout.strip()}"}


def status(service: ServiceProcess, headers: dict[str, str] | None = None) -> int:
    return service.client.get("/products", headers=headers or {}).status_code


def statuses(service: ServiceProcess, headers: dict[str, str]) -> set[int]:
    """Return the statuses of several requests, each over a new connection: it may be that of any worker."""
    url = f"http://127.0.0.1:{service.port}/products"
    return {httpx2.get(url, headers=headers, verify=NO_TLS).status_code for _ in range(12)}


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_without_keys_the_service_does_not_start_on_an_address_that_others_reach(
    start_service: StartService, host: str
) -> None:
    service = start_service(host=host)
    assert service.wait_for_exit() == 1
    assert "holdfast key new" in service.stderr
    assert "HOLDFAST_OPEN=true" in service.stderr
    assert not service.data_dir.exists()


def test_everybody_may_call_a_service_that_is_open_on_purpose(start_service: StartService) -> None:
    service = start_service(host="0.0.0.0", open="true")
    service.wait_until_ready()
    assert status(service) == 200
    [entry] = service.logged("no_api_keys")
    assert entry["level"] == "warning"


def test_on_loopback_a_line_says_that_there_are_no_keys(start_service: StartService) -> None:
    service = start_service()
    service.wait_until_ready()
    [entry] = service.logged("no_api_keys")
    assert "every program on this machine" in entry["reason"]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"api_keys_file": "missing"}, "HOLDFAST_API_KEYS_FILE: cannot read missing: No such file"),
        ({"api_keys": "shop hf_secret scopes=all"}, "the API keys are not valid: line 1: the second word of shop"),
    ],
)
def test_wrong_keys_are_named_at_the_start_and_not_shown(
    start_service: StartService, settings: dict[str, str], reason: str
) -> None:
    service = start_service(**settings)
    assert service.wait_for_exit() == 1
    assert reason in service.stderr
    assert "hf_secret" not in service.stderr


@pytest.mark.parametrize("workers", [1, 2])
def test_the_file_of_keys_is_read_again_and_sighup_does_not_stop_the_service(
    start_ready_service: StartService, tmp_path: Path, workers: int
) -> None:
    file = tmp_path / "keys"
    first = new_key(tmp_path, file)
    service = start_ready_service(workers=workers, api_keys_file=file, host="0.0.0.0", access_log="true")
    assert (status(service), status(service, first)) == (401, 200)
    second = new_key(tmp_path, file)
    service.process.send_signal(signal.SIGHUP)
    read = "api_keys_read"
    wait_until(lambda: len(service.logged(read)) == workers, "the new keys")
    assert [status(service, headers) for headers in (first, second) * 4] == [200] * 8
    file.write_text(file.read_text().splitlines()[1] + "\n")
    wait_until(lambda: len(service.logged(read)) == 2 * workers, "the old key to be gone")
    assert [status(service, headers) for headers in (first, second) * 4] == [401, 200] * 4
    assert len(workers_of(service)) == workers
    wait_until(lambda: len([e for e in service.logged("request") if e.get("key") == "shop"]) == 13, "the log")
    secrets = [headers["Authorization"].removeprefix("Bearer ") for headers in (first, second)]
    assert not any(secret in service.stderr for secret in secrets)
    service.signal(signal.SIGTERM, group=False)
    assert service.wait_for_exit() == 0


def test_a_stream_of_events_ends_when_its_key_is_taken_away(start_ready_service: StartService, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    listener, other = new_key(tmp_path, file, "listener"), new_key(tmp_path, file, "other")
    service = start_ready_service(api_keys_file=file)
    with service.client.stream("GET", "/events", headers=listener) as response:
        lines = response.iter_lines()
        assert next(lines).startswith("retry:")
        add = partial(service.client.post, "/products", json=mug(), headers=other)
        assert add().status_code == 201
        assert next(line for line in lines if line.startswith("event:")) == "event: product_added"
        file.write_text(file.read_text().splitlines()[1] + "\n")
        wait_until(lambda: service.logged("api_keys_read"), "the key to be gone")
        assert add().status_code == 201
        assert [line for line in lines if line.startswith("event:")] == []


def test_a_worker_that_replaces_another_one_waits_for_a_file_of_keys_that_is_gone(
    start_ready_service: StartService, tmp_path: Path
) -> None:
    file = tmp_path / "keys"
    key = new_key(tmp_path, file)
    service = start_ready_service(workers=2, api_keys_file=file)
    gone = file.rename(tmp_path / "gone")
    before = workers_of(service)
    os.kill(before[0], signal.SIGKILL)
    wait_until(lambda: len(set(workers_of(service)) - set(before)) == 1, "another worker")
    wait_until(lambda: statuses(service, key) == {200, 401}, "one worker without keys")
    gone.rename(file)
    wait_until(lambda: statuses(service, key) == {200}, "the file")
    assert "Traceback" not in service.stderr


@pytest.mark.parametrize("workers", [1, 2])
def test_a_service_with_a_file_of_keys_ends_with_its_terminal(tmp_path: Path, workers: int) -> None:
    file = tmp_path / "keys"
    new_key(tmp_path, file)
    port = str(free_port())
    variables = environment(HOLDFAST_PORT=port, HOLDFAST_API_KEYS_FILE=str(file), HOLDFAST_WORKERS=str(workers))
    pid, terminal = pty.fork()
    if pid == 0:  # the new process, whose terminal is the other end of `terminal`
        os.chdir(tmp_path)
        os.execve(HOLDFAST[0], [*HOLDFAST, "serve"], variables)
    shown = b""
    while b"listening" not in shown:
        shown += os.read(terminal, 4096)
    os.kill(pid, signal.SIGHUP)  # the terminal is still there
    assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    wait_for_no_processes_in(tmp_path)

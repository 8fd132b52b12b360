"""`holdfast health`: the request, and the report of the answer."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.cli import health
from service.cli.health import check_health
from service.settings import Settings
from tests.support.command_line import HoldfastCommand
from tests.support.processes import free_port


class Responder:
    """A server on a free port. It sends fixed bytes to one client, and closes the connection after a pause."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.listener = socket.create_server((address, 0), family=family)
        self.port = int(self.listener.getsockname()[1])
        self.answer = b""
        self.request = b""
        self.pause = 0.0
        self.thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        connection, _ = self.listener.accept()
        with connection:
            self.request = connection.recv(1000)
            connection.sendall(self.answer)
            time.sleep(self.pause)

    def start(self, answer: bytes, pause: float = 0) -> None:
        self.answer, self.pause = answer, pause
        self.thread.start()


@pytest.fixture
def responder() -> Iterator[Responder]:
    responder = Responder()
    yield responder
    if responder.thread.is_alive():
        responder.thread.join()
    responder.listener.close()


READY = b'HTTP/1.1 200 OK\r\ncontent-length: 19\r\n\r\n{"status":"ready"}\n'
UNAVAILABLE = b'HTTP/1.1 503 Service Unavailable\r\n\r\n{"title": "The storage is not available"}'


@pytest.mark.parametrize(("options", "path"), [([], b"/readyz"), (["--live"], b"/livez")])
@pytest.mark.parametrize("entry", ["direct", "click"])
def test_a_service_that_answers_200_is_healthy(
    tmp_path: Path, responder: Responder, options: list[str], path: bytes, entry: str
) -> None:
    responder.start(READY)
    command = HoldfastCommand(tmp_path, HOLDFAST_PORT=str(responder.port if entry == "direct" else 1))
    result = command(*([] if entry == "direct" else ["--port", str(responder.port)]), "health", *options)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert responder.request.startswith(b"GET " + path + b" HTTP/1.1\r\nHost: ")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (UNAVAILABLE, "/readyz answered 503 Service Unavailable: The storage is not available"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n<html>", "/readyz answered 404 Not Found"),
        (b"HTTP/1.1 500 \r\n\r\n[]", "/readyz answered 500 "),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "does not speak HTTP"),
        (b"", "does not speak HTTP"),
    ],
)
def test_a_bad_answer_is_reported_in_one_line(
    responder: Responder, capfd: pytest.CaptureFixture[str], answer: bytes, reason: str
) -> None:
    responder.start(answer)
    assert check_health({"port": str(responder.port)}, live=False) == 1
    output = capfd.readouterr()
    assert output.out == ""
    assert output.err.startswith("holdfast: ")
    assert output.err.count("\n") == 1
    assert reason in output.err


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\n"])
def test_a_service_that_does_not_answer_is_not_healthy(
    responder: Responder, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    monkeypatch.setattr(health, "_TIMEOUT_SECONDS", 0.2)
    responder.start(answer, pause=1)
    started = time.monotonic()
    assert check_health({"port": str(responder.port)}, live=False) == 1
    assert time.monotonic() - started < 0.9
    assert "no answer" in capfd.readouterr().err


def test_a_port_where_nothing_listens_is_reported(capfd: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    assert check_health({"port": str(port)}, live=False) == 1
    assert capfd.readouterr().err == f"holdfast: no answer from 127.0.0.1 port {port}: Connection refused\n"


@pytest.mark.parametrize("host", ["a..b", "\u00e9" * 70])
def test_an_impossible_host_is_reported_in_one_line(capfd: pytest.CaptureFixture[str], host: str) -> None:
    assert check_health({"host": host}, live=False) == 1
    output = capfd.readouterr().err
    assert output.startswith(f"holdfast: no answer from {host} port 8000: ")
    assert output.count("\n") == 1


@pytest.mark.parametrize(("host", "address"), [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("localhost", "127.0.0.1")])
def test_a_service_on_all_addresses_is_checked_on_the_local_address(host: str, address: str) -> None:
    try:
        responder = Responder(address)
    except OSError:
        pytest.skip("this machine has no IPv6")
    responder.start(READY)
    with responder.listener:
        assert check_health({"host": host, "port": str(responder.port)}, live=False) == 0
        responder.thread.join()


@pytest.mark.parametrize("port", ["http", "65536", "-1", "8_000", " 8000", "٨٠٠٠", "+80", "9" * 5000])
def test_health_and_audit_report_a_bad_port_with_the_same_message(tmp_path: Path, port: str) -> None:
    command = HoldfastCommand(tmp_path, HOLDFAST_PORT=port)
    health_result, audit_result = command("health"), command("audit")
    assert (health_result.returncode, health_result.stdout) == (2, "")
    assert (audit_result.returncode, audit_result.stdout) == (2, "")
    assert health_result.stderr == audit_result.stderr


def test_health_and_settings_have_the_same_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses: list[object] = []

    def create_connection(address: object, timeout: float) -> socket.socket:
        addresses.append(address)
        raise OSError("this test opens no connection")

    monkeypatch.setattr("socket.create_connection", create_connection)
    assert check_health({}, live=False) == 1
    assert addresses == [(Settings().host, Settings().port)]

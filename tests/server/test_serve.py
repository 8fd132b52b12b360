"""`holdfast serve` starts, stops, and reports a wrong setting."""

import json
import re
import signal
import socket
from pathlib import Path

import pytest

from tests.support.processes import processes_in, wait_for_no_processes_in
from tests.support.service_process import HOLDFAST, MODULE, StartService
from tests.support.waiting import wait_until

pytestmark = pytest.mark.process


@pytest.mark.parametrize("command", [HOLDFAST, MODULE], ids=["holdfast", "python -m service"])
def test_a_started_service_places_orders(start_ready_service: StartService, command: tuple[str, ...]) -> None:
    service = start_ready_service(command=command, workers=2)
    assert service.answers("/livez") == 200
    assert service.order(service.add_product()).status_code == 201
    assert "Traceback" not in service.stderr


def test_products_orders_and_stock_survive_a_restart(start_ready_service: StartService) -> None:
    service = start_ready_service()
    mugs = service.add_product(stock=10)
    order = service.order(mugs, 3).json()
    service.signal(signal.SIGTERM, group=False)
    assert service.wait_for_exit() == 0
    restarted = start_ready_service()
    assert restarted.client.get(f"/orders/{order['id']}").json() == order
    assert restarted.stock(mugs) == 7
    assert restarted.order(mugs, 7).json()["id"] != order["id"]


@pytest.mark.parametrize(("signum", "group"), [(signal.SIGTERM, False), (signal.SIGINT, True)], ids=["kill", "ctrl-c"])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_stopped_service_finishes_running_requests_and_exits_with_0(
    start_ready_service: StartService, workers: int, signum: signal.Signals, group: bool
) -> None:
    service = start_ready_service(workers=workers)
    mugs = service.add_product(stock=10)
    body = json.dumps({"products": [{"product_id": mugs, "quantity": 1}]}).encode()
    with socket.create_connection(("127.0.0.1", service.port), timeout=15) as connection:
        head = f"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        # The response 100: the head has arrived, and the handler waits for the body.
        connection.sendall(f"{head}Expect: 100-continue\r\nConnection: close\r\n\r\n".encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
        service.signal(signum, group)
        wait_until(lambda: "Shutting down" in service.stderr, "the shutdown")
        connection.sendall(body)
        assert connection.recv(1000).startswith(b"HTTP/1.1 201 ")
    assert service.wait_for_exit() == 0
    wait_for_no_processes_in(service.folder)
    assert "Traceback" not in service.stderr
    assert all(entry["level"] in ("info", "warning") for entry in service.logs)


def test_an_unfinished_request_does_not_prevent_the_exit(start_ready_service: StartService) -> None:
    service = start_ready_service(shutdown_timeout=1)
    with socket.create_connection(("127.0.0.1", service.port), timeout=15) as connection:
        connection.sendall(
            b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n"
            b"Expect: 100-continue\r\n\r\n"
        )
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
        service.signal(signal.SIGTERM, group=False)
        assert service.wait_for_exit() == 0
    wait_for_no_processes_in(service.folder)


def test_an_idle_connection_does_not_delay_the_exit(start_ready_service: StartService) -> None:
    service = start_ready_service()  # `service.client` keeps a connection open
    service.signal(signal.SIGTERM, group=False)
    assert service.wait_for_exit() == 0
    assert "exceeded" not in service.stderr


@pytest.mark.parametrize(("signum", "group"), [(signal.SIGTERM, False), (signal.SIGINT, True)], ids=["kill", "ctrl-c"])
@pytest.mark.parametrize("stage", ["the engine", "the workers"])
def test_a_service_can_be_stopped_while_it_starts(
    start_service: StartService, stage: str, signum: signal.Signals, group: bool
) -> None:
    service = start_service(command=MODULE, workers=2)
    if stage == "the engine":
        wait_until(lambda: processes_in(service.data_dir), stage)
    else:
        wait_until(lambda: "Started parent process" in service.stderr, stage)
        wait_until(lambda: len(processes_in(service.folder)) >= 4, stage)
    service.signal(signum, group)
    assert service.wait_for_exit() == 0
    wait_for_no_processes_in(service.folder)
    assert "Traceback" not in service.stderr


def test_a_second_service_on_the_same_data_directory_does_not_start(
    start_ready_service: StartService, start_service: StartService
) -> None:
    service = start_ready_service()
    wait_until(lambda: len(service.logged("redis_connected")) == 2, "the last line of the start: a thread writes it")
    before = len(service.stderr)
    second = start_service()
    assert second.wait_for_exit() == 1
    output = service.stderr[before:]
    assert re.fullmatch(r"holdfast: [^\n]+ is in use by [^\n]+\n", output)
    for part in (str(service.data_dir), str(service.process.pid), "HOLDFAST_DATA_DIR"):
        assert part in output
    assert service.answers("/readyz") == 200


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", 65_536),
        ("redis_url", "http://localhost"),
        ("shop", "a b"),
        ("redis_timeout", "0"),
    ],
)
def test_an_invalid_setting_is_reported_in_one_line(start_service: StartService, name: str, value: str) -> None:
    service = start_service(**{name: value})
    assert service.wait_for_exit() == 2
    assert re.fullmatch(rf"holdfast: HOLDFAST_{name.upper()}: [^\n]+\n", service.stderr)
    assert not service.data_dir.exists()


def test_the_embedded_engine_is_refused_if_replicas_must_confirm_each_change(start_service: StartService) -> None:
    service = start_service(wait_replicas=1)
    assert service.wait_for_exit() == 1
    assert re.fullmatch(r"holdfast: HOLDFAST_WAIT_REPLICAS needs HOLDFAST_REDIS_URL: [^\n]+\n", service.stderr)
    assert not service.data_dir.exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_port_in_use_is_reported_and_all_processes_end(start_service: StartService, workers: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        service = start_service(port=port, workers=workers)
        assert service.wait_for_exit() not in (0, None)
    assert re.search(f"(?i){port}.*in use|in use.*{port}", service.stderr)
    assert "Traceback" not in service.stderr
    wait_for_no_processes_in(service.folder)


def test_an_unusable_data_directory_is_reported_in_one_line(start_service: StartService, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    service = start_service(data_dir=file)
    assert service.wait_for_exit() == 1
    assert re.fullmatch(rf"holdfast: [^\n]*{re.escape(str(file))}[^\n]*\n", service.stderr)


def test_logs_are_json_lines(start_ready_service: StartService) -> None:
    service = start_ready_service(access_log="true", log_level="debug")
    service.client.get("/products", headers={"X-Request-Id": "mine"})
    service.client.get("/nowhere")
    service.signal(signal.SIGTERM, group=False)
    assert service.wait_for_exit() == 0
    assert {"message", "level", "timestamp"} <= set.intersection(*(set(entry) for entry in service.logs))
    [entry] = [entry for entry in service.logged("request") if entry["path"] == "/products"]
    assert (entry["request_id"], entry["method"], entry["status"]) == ("mine", "GET", 200)

"""`holdfast serve` as its own process, over real HTTP: how it starts, what it survives, and how it ends."""

import asyncio
import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest
from httpx2 import AsyncClient, Client, HTTPError, Limits, Response
from redis import Redis

from service.engine.launcher import run_engine
from tests.support.processes import free_port, kill_processes_in, processes_in, wait_for_no_processes_in
from tests.support.shop import mug
from tests.support.waiting import eventually, wait_until

pytestmark = pytest.mark.process

HOLDFAST = (str(Path(sys.executable).with_name("holdfast")),)
MODULE = (sys.executable, "-m", "service")

STOCK = 1_000_000
REDIS_TIMEOUT = 0.3
MARGIN = 1.5
"""Seconds that a busy machine may be late."""


class Service:
    """A `holdfast serve` of a test. Whatever it starts works in `folder`."""

    def __init__(
        self, folder: Path, command: tuple[str, ...] = HOLDFAST, port: int | None = None, **settings: object
    ) -> None:
        self.folder = folder
        self.data_dir = folder / "data"
        self.port = port or free_port()
        self.stderr_file = folder / "stderr.log"
        self.stderr_file.touch()
        settings = {"data_dir": self.data_dir, "port": self.port, **settings}
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
        environment |= {f"HOLDFAST_{name.upper()}": str(value) for name, value in settings.items()}
        with self.stderr_file.open("a") as stderr:
            self.process = subprocess.Popen(
                [*command, "serve"],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                start_new_session=True,
            )
        self.client = Client(base_url=f"http://127.0.0.1:{self.port}", timeout=10)

    def wait_until_ready(self) -> None:
        wait_until(lambda: self.lives_and_answers("/readyz"), "/readyz")

    def wait_until_alive(self) -> None:
        wait_until(lambda: self.lives_and_answers("/livez"), "/livez")

    def lives_and_answers(self, path: str) -> bool:
        assert self.process.poll() is None, f"it ended with {self.process.returncode}: {self.stderr}"
        return self.answers(path) == 200

    def answers(self, path: str) -> int | None:
        """The status, or None where nobody listens."""
        try:
            return self.client.get(path).status_code
        except HTTPError:
            return None

    def add_product(self, **members: object) -> int:
        response = self.client.post("/products", json=mug(**members))
        assert response.status_code == 201, response.text
        return int(response.json()["id"])

    def order(self, product_id: int, quantity: int = 1, **headers: str) -> Response:
        lines = [{"product_id": product_id, "quantity": quantity}]
        return self.client.post("/orders", json={"products": lines}, headers=headers)

    def stock(self, product_id: int) -> int:
        return int(self.client.get(f"/products/{product_id}").json()["stock"])

    @property
    def stderr(self) -> str:
        return self.stderr_file.read_text()

    @property
    def logs(self) -> list[dict[str, Any]]:
        """What it logged. Every line of it is a JSON object."""
        return [json.loads(line) for line in self.stderr.splitlines()]

    def logged(self, message: str) -> list[dict[str, Any]]:
        return [entry for entry in self.logs if entry["message"] == message]

    @property
    def engine_url(self) -> str:
        [entry] = self.logged("embedded_engine")
        return str(entry["url"])

    def signal(self, signum: signal.Signals, group: bool) -> None:
        """To the process, as `kill` does, or to all of its group, as Ctrl-C does."""
        if group:
            os.killpg(self.process.pid, signum)
        else:
            self.process.send_signal(signum)

    def ended(self) -> int:
        """The exit code of a service that ends by itself."""
        return self.process.wait(20)

    def close(self) -> None:
        self.client.close()
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()


Start = Callable[..., Service]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a service: `start(workers=3)` sets HOLDFAST_WORKERS. All of a test's share one data directory."""
    services: list[Service] = []

    def start(**settings: Any) -> Service:
        folder = tmp_path / "service"
        folder.mkdir(exist_ok=True)
        service = Service(folder, **settings)
        services.append(service)
        return service

    yield start
    for service in services:
        service.close()
    kill_processes_in(tmp_path)
    for line in sorted({service.stderr for service in services}):
        print(line[-3000:])  # pytest shows it where a test fails


@pytest.fixture
def serve(start: Start) -> Start:
    """Starts a service and waits until it is ready, with all of its workers."""

    def serve(workers: int = 1, **settings: Any) -> Service:
        service = start(workers=workers, **settings)
        service.wait_until_ready()
        wait_until(lambda: len(workers_of(service)) == workers, "all workers")
        return service

    return serve


@pytest.fixture
def redis_dir(tmp_path: Path) -> Path:
    """Where a test's external Redis lives."""
    return tmp_path / "redis"


def redis_of(url: str) -> Any:
    return Redis(unix_socket_path=unquote(url.removeprefix("unix://")), decode_responses=True)


def workers_of(service: Service) -> list[int]:
    """The processes that serve requests."""
    started = re.findall(r"Started server process \[(\d+)\]", service.stderr)
    living = processes_in(service.folder)
    return [int(pid) for pid in started if int(pid) in living]


def the_engine(service: Service) -> int:
    [engine] = processes_in(service.data_dir)
    return engine


class Storm:
    """Many clients that order all the time, and what they were told."""

    def __init__(self, service: Service, products: list[int], clients: int = 24) -> None:
        self.service = service
        self.products = products
        self.clients = clients
        self.placed: dict[int, dict[str, Any]] = {}
        self.problems: Counter[str] = Counter()
        self.broken = 0
        self.stopping = False

    async def __aenter__(self) -> "Storm":
        self.tasks = [asyncio.create_task(self._client(random.Random(seed))) for seed in range(self.clients)]
        await eventually(lambda: len(self.placed) > 200, "the first orders")
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stopping = True
        await asyncio.gather(*self.tasks)

    async def _client(self, rng: random.Random) -> None:
        url = f"http://127.0.0.1:{self.service.port}"
        async with AsyncClient(base_url=url, timeout=10, limits=Limits(max_connections=1)) as client:
            while not self.stopping:
                lines = [{"product_id": p, "quantity": rng.randint(1, 9)} for p in rng.sample(self.products, 2)]
                try:
                    response = await client.post("/orders", json={"products": lines})
                except HTTPError:
                    self.broken += 1
                    await asyncio.sleep(0.01)
                    continue
                if response.status_code == 201:
                    order = response.json()
                    assert order["id"] not in self.placed
                    self.placed[order["id"]] = order
                else:
                    assert response.headers["content-type"] == "application/problem+json", response.text
                    self.problems[f"{response.status_code} {response.json()['type']}"] += 1


def assert_books_balance(url: str, placed: dict[int, dict[str, Any]]) -> None:
    """Every acknowledged order is there as it was answered, and every piece is accounted for."""
    with redis_of(url) as redis:
        sold: Counter[str] = Counter()
        orders = {}
        for key in redis.scan_iter("{shop}:order:*", count=1000):
            order = redis.hgetall(key)
            orders[int(order["id"])] = order
            for line in order["products"].split("\n"):
                product, quantity = re.fullmatch(r"(\d+): (\d+) x 19\.99", line).groups()  # type: ignore[union-attr]
                sold[product] += int(quantity)
        for order_id, answer in placed.items():
            lines = [f"{line['product_id']}: {line['quantity']} x 19.99" for line in answer["products"]]
            assert orders[order_id]["products"].split("\n") == lines
            assert float(orders[order_id]["total_price"]) == answer["total_price"]
        products = [redis.hgetall(key) for key in redis.scan_iter("{shop}:product:*")]
        assert len(products) == 5
        for product in products:
            assert int(product["received"]) == STOCK
            assert int(product["stock"]) + int(product["held"]) + int(product["sold"]) == STOCK
            assert int(product["sold"]) == sold[product["id"]]


# Starting and stopping


@pytest.mark.parametrize("command", [HOLDFAST, MODULE], ids=["holdfast", "python -m service"])
def test_it_is_ready_soon_after_its_start(serve: Start, command: tuple[str, ...]) -> None:
    service = serve(command=command, workers=2)
    assert service.answers("/livez") == 200
    assert service.order(service.add_product()).status_code == 201
    assert "Traceback" not in service.stderr


def test_products_orders_and_stock_survive_a_restart(serve: Start) -> None:
    service = serve()
    mugs = service.add_product(stock=10)
    order = service.order(mugs, 3).json()
    service.signal(signal.SIGTERM, group=False)
    assert service.ended() == 0
    again = serve()
    assert again.client.get(f"/orders/{order['id']}").json() == order
    assert again.stock(mugs) == 7
    assert again.order(mugs, 7).json()["id"] != order["id"]


@pytest.mark.parametrize(("signum", "group"), [(signal.SIGTERM, False), (signal.SIGINT, True)], ids=["kill", "ctrl-c"])
@pytest.mark.parametrize("workers", [1, 3])
def test_it_finishes_the_requests_under_way_and_ends_with_0(
    serve: Start, workers: int, signum: signal.Signals, group: bool
) -> None:
    service = serve(workers=workers)
    mugs = service.add_product(stock=10)
    body = json.dumps({"products": [{"product_id": mugs, "quantity": 1}]}).encode()
    with socket.create_connection(("127.0.0.1", service.port), timeout=15) as connection:
        head = f"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        # An interim answer: the request has arrived, and its handler waits for the body.
        connection.sendall(f"{head}Expect: 100-continue\r\nConnection: close\r\n\r\n".encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
        service.signal(signum, group)
        wait_until(lambda: "Shutting down" in service.stderr, "the shutdown")
        connection.sendall(body)
        assert connection.recv(1000).startswith(b"HTTP/1.1 201 ")
    assert service.ended() == 0
    wait_for_no_processes_in(service.folder)
    assert "Traceback" not in service.stderr
    assert all(entry["level"] in ("info", "warning") for entry in service.logs)


def test_a_request_that_never_ends_does_not_keep_it_from_ending(serve: Start) -> None:
    service = serve(shutdown_timeout=1)
    with socket.create_connection(("127.0.0.1", service.port), timeout=15) as connection:
        connection.sendall(
            b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n"
            b"Expect: 100-continue\r\n\r\n"
        )
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
        service.signal(signal.SIGTERM, group=False)
        assert service.ended() == 0
    wait_for_no_processes_in(service.folder)


def test_an_idle_connection_does_not_keep_it_from_ending(serve: Start) -> None:
    service = serve()  # its client keeps a connection open
    service.signal(signal.SIGTERM, group=False)
    assert service.ended() == 0
    assert "exceeded" not in service.stderr


@pytest.mark.parametrize(("signum", "group"), [(signal.SIGTERM, False), (signal.SIGINT, True)], ids=["kill", "ctrl-c"])
@pytest.mark.parametrize("stage", ["the engine", "the workers"])
def test_it_can_be_stopped_while_it_starts(start: Start, stage: str, signum: signal.Signals, group: bool) -> None:
    service = start(workers=3)
    if stage == "the engine":
        wait_until(lambda: processes_in(service.data_dir), stage)
    else:
        wait_until(lambda: "Started parent process" in service.stderr, stage)
        wait_until(lambda: len(processes_in(service.folder)) >= 5, stage)
    service.signal(signum, group)
    assert service.ended() == 0
    wait_for_no_processes_in(service.folder)
    assert "Traceback" not in service.stderr


def test_a_second_one_on_the_same_directory_is_refused(serve: Start, start: Start) -> None:
    service = serve()
    before = len(service.stderr)
    second = start()
    assert second.ended() == 1
    said = service.stderr[before:]
    assert re.fullmatch(r"holdfast: [^\n]+ is in use by [^\n]+\n", said)
    for part in (str(service.data_dir), str(service.process.pid), "HOLDFAST_DATA_DIR"):
        assert part in said
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
def test_an_invalid_setting_is_named_in_one_line(start: Start, name: str, value: str) -> None:
    service = start(**{name: value})
    assert service.ended() == 2
    assert re.fullmatch(rf"holdfast: HOLDFAST_{name.upper()}: [^\n]+\n", service.stderr)
    assert not service.data_dir.exists()


@pytest.mark.parametrize("workers", [1, 3])
def test_a_port_that_is_taken_is_named_and_leaves_nothing_running(start: Start, workers: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        service = start(port=port, workers=workers)
        assert service.ended() not in (0, None)
    assert re.search(f"(?i){port}.*in use|in use.*{port}", service.stderr)
    assert "Traceback" not in service.stderr
    wait_for_no_processes_in(service.folder)


def test_a_directory_that_cannot_be_used_is_named_in_one_line(start: Start, tmp_path: Path) -> None:
    in_its_place = tmp_path / "file"
    in_its_place.touch()
    service = start(data_dir=in_its_place)
    assert service.ended() == 1
    assert re.fullmatch(rf"holdfast: [^\n]*{re.escape(str(in_its_place))}[^\n]*\n", service.stderr)


def test_its_logs_are_json_lines(serve: Start) -> None:
    service = serve(access_log="true", log_level="debug")
    service.client.get("/products", headers={"X-Request-Id": "mine"})
    service.client.get("/nowhere")
    service.signal(signal.SIGTERM, group=False)
    assert service.ended() == 0
    assert {"message", "level", "timestamp"} <= set.intersection(*(set(entry) for entry in service.logs))
    [entry] = [entry for entry in service.logged("request") if entry["path"] == "/products"]
    assert (entry["request_id"], entry["method"], entry["status"]) == ("mine", "GET", 200)


# Processes that are killed


@pytest.mark.skipif(sys.platform != "linux", reason="PDEATHSIG is Linux's")
@pytest.mark.parametrize("workers", [1, 3])
async def test_a_parent_killed_in_a_storm_of_orders_leaves_no_process_and_loses_no_order(
    serve: Start, workers: int
) -> None:
    service = serve(workers=workers)
    products = [service.add_product(stock=STOCK) for _ in range(5)]
    async with Storm(service, products) as storm:
        service.process.kill()
        service.process.wait()
        await eventually(lambda: storm.broken >= storm.clients, "the end")
    wait_for_no_processes_in(service.folder)
    again = serve()
    assert_books_balance(again.logged("embedded_engine")[-1]["url"], storm.placed)
    assert again.order(products[0]).json()["id"] not in storm.placed


@pytest.mark.skipif(sys.platform != "linux", reason="PDEATHSIG is Linux's")
def test_a_parent_killed_while_its_workers_start_leaves_no_process(start: Start) -> None:
    service = start(workers=3)
    wait_until(lambda: "Started parent process" in service.stderr, "the workers")
    service.process.kill()
    service.process.wait()
    wait_for_no_processes_in(service.folder)


async def test_an_engine_killed_in_a_storm_of_orders_is_started_again_and_loses_no_order(serve: Start) -> None:
    service = serve(redis_timeout=REDIS_TIMEOUT)
    products = [service.add_product(stock=STOCK) for _ in range(5)]
    async with Storm(service, products) as storm:
        so_far = len(storm.placed)
        os.kill(the_engine(service), signal.SIGKILL)
        await eventually(lambda: len(storm.placed) > so_far + 200, "more orders")
    assert not storm.broken
    unavailable = {"503 /problems/outcome-unknown", "503 /problems/storage-unavailable"}
    assert set(storm.problems) <= unavailable
    assert "Traceback" not in service.stderr
    assert_books_balance(service.engine_url, storm.placed)


@pytest.mark.parametrize("workers", [1, 3])
def test_an_engine_that_died_is_started_again(serve: Start, workers: int) -> None:
    service = serve(workers=workers, redis_timeout=REDIS_TIMEOUT)
    dead = the_engine(service)
    os.kill(dead, signal.SIGKILL)
    wait_until(lambda: dead not in processes_in(service.data_dir), "its end")
    wait_until(lambda: service.answers("/readyz") == 200, "another engine")
    assert service.process.poll() is None
    assert service.logged("engine_ended")[0]["level"] == "error"


async def test_a_worker_that_is_killed_is_replaced_while_the_others_serve_on(serve: Start) -> None:
    service = serve(workers=3)
    products = [service.add_product(stock=STOCK) for _ in range(5)]
    before = workers_of(service)
    async with Storm(service, products) as storm:
        os.kill(before[0], signal.SIGKILL)
        await eventually(lambda: len(set(workers_of(service)) - set(before)) == 1, "another worker")
        so_far = len(storm.placed)
        await eventually(lambda: len(storm.placed) > so_far + 200, "more orders")
    assert not storm.problems
    assert len(workers_of(service)) == 3
    assert_books_balance(service.engine_url, storm.placed)


# An external Redis


def external(url: str, **settings: object) -> dict[str, object]:
    return {"redis_url": url, "redis_timeout": REDIS_TIMEOUT, "durability": "none", **settings}


def assert_unavailable(response: Response, *names: str) -> str:
    """A 503 that says when to come back. Gives its request id."""
    assert response.status_code == 503, response.text
    assert response.headers["retry-after"]
    assert response.json()["type"] in {f"/problems/{name}" for name in names}
    return response.headers["x-request-id"]


def test_a_redis_that_hangs_gives_503_in_time_and_recovers_by_itself(serve: Start, redis_dir: Path) -> None:
    with run_engine(redis_dir, "none") as url:
        service = serve(**external(url))
        mugs = service.add_product(stock=10)
        [redis] = processes_in(redis_dir)
        os.kill(redis, signal.SIGSTOP)
        try:
            request_ids = set()
            for _ in range(3):
                started = time.monotonic()
                response = service.order(mugs)
                assert time.monotonic() - started < REDIS_TIMEOUT + MARGIN
                request_ids.add(assert_unavailable(response, "outcome-unknown", "storage-unavailable"))
            started = time.monotonic()
            assert_unavailable(service.client.get("/products"), "storage-unavailable")
            assert_unavailable(service.client.get("/readyz"), "storage-unavailable")
            assert service.answers("/livez") == 200
            assert time.monotonic() - started < 2 * REDIS_TIMEOUT + MARGIN
        finally:
            os.kill(redis, signal.SIGCONT)
        service.wait_until_ready()
        assert service.order(mugs).status_code == 201
        logged = {entry.get("request_id"): entry for entry in service.logs}
        assert request_ids <= set(logged)
        assert all(logged[request_id]["reason"] for request_id in request_ids)
        assert "Traceback" not in service.stderr


async def test_requests_beyond_the_bound_are_refused_at_once_and_logged(serve: Start, redis_dir: Path) -> None:
    with run_engine(redis_dir, "none") as url:
        service = serve(**external(url, max_in_flight=4, redis_timeout=2))
        mugs = service.add_product(stock=10)
        [redis] = processes_in(redis_dir)
        os.kill(redis, signal.SIGSTOP)
        try:
            async with AsyncClient(base_url=service.client.base_url, timeout=10) as client:
                answers = await asyncio.gather(*(client.get(f"/products/{mugs}") for _ in range(20)))
        finally:
            os.kill(redis, signal.SIGCONT)
        names = Counter(answer.json()["type"] for answer in answers)
        assert names == {"/problems/overloaded": 16, "/problems/storage-unavailable": 4}
        for answer in answers:
            assert_unavailable(answer, "overloaded", "storage-unavailable")
        assert {answer.headers["x-request-id"] for answer in answers} == {
            entry["request_id"] for entry in service.logged("overloaded") + service.logged("storage-unavailable")
        }
        service.wait_until_ready()
        assert service.stock(mugs) == 10


def test_an_order_of_unknown_outcome_is_placed_once_when_it_is_repeated_with_its_key(
    serve: Start, redis_dir: Path
) -> None:
    with run_engine(redis_dir, "none") as url:
        service = serve(**external(url))
        mugs = service.add_product(stock=10)
        service.order(mugs)  # its block of order ids has been taken: the next order is one call
        [redis] = processes_in(redis_dir)
        os.kill(redis, signal.SIGSTOP)
        key = {"Idempotency-Key": "once"}
        try:
            assert_unavailable(service.order(mugs, 2, **key), "outcome-unknown")
        finally:
            os.kill(redis, signal.SIGCONT)
        service.wait_until_ready()
        answers = [service.order(mugs, 2, **key) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [201] * 3
        assert len({answer.json()["id"] for answer in answers}) == 1
        assert service.stock(mugs) == 7


def test_another_redis_on_the_same_address_is_taken_and_taught_the_scripts(serve: Start, redis_dir: Path) -> None:
    with run_engine(redis_dir, "always") as url:
        service = serve(**external(url))
        mugs = service.add_product(stock=10)
        assert service.order(mugs).status_code == 201
    response = service.client.get(f"/products/{mugs}")
    assert_unavailable(response, "storage-unavailable")
    with run_engine(redis_dir, "always") as again:
        assert again == url
        with redis_of(url) as redis:
            redis.script_flush()
        service.wait_until_ready()
        assert service.order(mugs).status_code == 201
        assert service.stock(mugs) == 8


def test_it_starts_without_its_redis_and_serves_when_that_comes(start: Start, redis_dir: Path) -> None:
    url = f"unix://{quote(str(redis_dir.resolve() / 'engine.sock'))}"
    service = start(**external(url))
    service.wait_until_alive()
    assert_unavailable(service.client.get("/readyz"), "storage-unavailable")
    assert_unavailable(service.client.get("/products"), "storage-unavailable")
    assert service.logged("redis_not_ready")
    with run_engine(redis_dir, "none") as where:
        assert where == url
        service.wait_until_ready()
        assert service.order(service.add_product()).status_code == 201


@pytest.mark.parametrize(
    ("found", "expected", "starts"),
    [
        ("everysec", "always", False),
        ("none", "everysec", False),
        ("always", "everysec", True),
    ],
)
def test_a_redis_that_promises_less_durability_than_expected_is_refused(
    start: Start, redis_dir: Path, found: Any, expected: str, starts: bool
) -> None:
    with run_engine(redis_dir, found) as url:
        service = start(**external(url, durability=expected))
        if starts:
            service.wait_until_ready()
            return
        assert service.ended() == 1
        assert re.search(r"^holdfast: [^\n]*HOLDFAST_DURABILITY[^\n]*\n\Z", service.stderr, re.MULTILINE)
        assert f"is {expected}" in service.stderr
        assert f"keeps {found}" in service.stderr


@pytest.mark.parametrize(("name", "value"), [("appendonly", "no"), ("no-appendfsync-on-rewrite", "yes")])
def test_a_redis_whose_promise_is_broken_later_is_not_ready(
    serve: Start, redis_dir: Path, name: str, value: str
) -> None:
    with run_engine(redis_dir, "always") as url, redis_of(url) as redis:
        service = serve(**external(url, durability="always"))
        redis.config_set(name, value)
        assert_unavailable(service.client.get("/readyz"), "storage-unavailable")
        assert any(name in str(entry) and "HOLDFAST_DURABILITY" in str(entry) for entry in service.logs)


def test_data_of_a_newer_layout_are_refused_and_not_touched(start: Start, redis_dir: Path) -> None:
    with run_engine(redis_dir, "none") as url, redis_of(url) as redis:
        redis.hset("{shop}:meta", "layout", "2")
        service = start(**external(url))
        assert service.ended() == 1
        assert "layout 2" in service.stderr
        assert "Traceback" not in service.stderr
        assert redis.hgetall("{shop}:meta") == {"layout": "2"}
        assert redis.keys() == ["{shop}:meta"]


def test_a_redis_whose_settings_may_not_be_read_is_used_with_a_warning(serve: Start, redis_dir: Path) -> None:
    with run_engine(redis_dir, "none") as url, redis_of(url) as redis:
        redis.execute_command("ACL", "SETUSER", "clerk", "on", ">secret", "~{shop}:*", "+@all", "-config", "-info")
        with_login = url.replace("unix://", "unix://clerk:secret@")
        service = serve(**external(with_login, durability="always"))
        assert service.order(service.add_product()).status_code == 201
        for _ in range(3):
            assert service.answers("/readyz") == 200
        warnings = service.logged("engine_unreadable")
        assert {entry["level"] for entry in warnings} == {"warning"}
        # Once each, by the parent before it starts and by the server.
        assert sorted(entry["command"][0] for entry in warnings) == ["CONFIG", "CONFIG", "INFO", "INFO"]
        assert "secret" not in service.stderr


def test_a_wrong_password_is_503_with_a_reason_in_the_log(start: Start, redis_dir: Path) -> None:
    with run_engine(redis_dir, "none") as url, redis_of(url) as redis:
        redis.execute_command("ACL", "SETUSER", "clerk", "on", ">secret", "~*", "+@all")
        service = start(**external(url.replace("unix://", "unix://clerk:wr0ng@")))
        service.wait_until_alive()
        request_id = assert_unavailable(service.client.get("/products"), "storage-unavailable")
        [entry] = [entry for entry in service.logs if entry.get("request_id") == request_id]
        assert "invalid username-password pair" in entry["reason"]
        assert "wr0ng" not in service.stderr
        assert "Traceback" not in service.stderr


def test_stopping_leaves_an_external_redis_alone(serve: Start, redis_dir: Path) -> None:
    with run_engine(redis_dir, "none") as url, redis_of(url) as redis:
        service = serve(**external(url))
        service.signal(signal.SIGTERM, group=False)
        assert service.ended() == 0
        assert not service.data_dir.exists()
        assert redis.ping()

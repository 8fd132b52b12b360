"""`holdfast serve` as its own process: start it, call it, load it with orders, and check its data."""

import asyncio
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from httpx2 import AsyncClient, Client, HTTPError, Limits, Response
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.command_line import PYTHONPATH
from tests.support.preloaded import PreloadedProcess
from tests.support.processes import free_port, processes_in
from tests.support.shop import mug
from tests.support.waiting import PATIENCE, eventually, wait_until

HOLDFAST = (str(Path(sys.executable).with_name("holdfast")),)


MODULE = (sys.executable, "-m", "service")


STOCK = 1_000_000


REDIS_TIMEOUT = 0.3


NO_TLS = False
"""As `verify` of an HTTP client: otherwise each one reads all certificates of the system, which takes 30 ms of CPU."""


class ServiceProcess:
    """A running `holdfast serve`. The working directory of all its processes is in `folder`.

    Without a `command`, it is forked from a process that has imported everything. Tests of the start name a command.
    """

    def __init__(
        self, folder: Path, command: tuple[str, ...] | None = None, port: int | None = None, **settings: object
    ) -> None:
        self.folder = folder
        self.data_dir = folder / "data"
        self.port = port or free_port()
        self.stderr_file = folder / "stderr.log"
        self.stderr_file.touch()
        settings = {"data_dir": self.data_dir, "port": self.port, **settings}
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
        environment |= {"PYTHONPATH": PYTHONPATH}
        environment |= {f"HOLDFAST_{name.upper()}": str(value) for name, value in settings.items()}
        self.process: subprocess.Popen[bytes] | PreloadedProcess
        if command is None and sys.platform == "linux":
            self.process = PreloadedProcess(["serve"], folder, environment, self.stderr_file)
        else:
            self._start(command or HOLDFAST, environment)
        self.client = Client(base_url=f"http://127.0.0.1:{self.port}", timeout=10, verify=NO_TLS)

    def _start(self, command: tuple[str, ...], environment: dict[str, str]) -> None:
        with self.stderr_file.open("a") as stderr:
            self.process = subprocess.Popen(
                [*command, "serve"],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                start_new_session=True,
            )

    def wait_until_ready(self) -> None:
        wait_until(lambda: self.runs_and_answers("/readyz"), "/readyz")

    def wait_until_alive(self) -> None:
        wait_until(lambda: self.runs_and_answers("/livez"), "/livez")

    def runs_and_answers(self, path: str) -> bool:
        assert self.process.poll() is None, f"the service ended with {self.process.returncode}: {self.stderr}"
        return self.answers(path) == 200

    def answers(self, path: str) -> int | None:
        """Return the status of the response, or None if there is no response."""
        try:
            return self.client.get(path).status_code
        except HTTPError:
            return None

    def add_product(self, **fields: object) -> int:
        response = self.client.post("/products", json=mug(**fields))
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
        """Return the log. Fail if a line is not a JSON object."""
        return [json.loads(line) for line in self.stderr.splitlines()]

    def logged(self, message: str) -> list[dict[str, Any]]:
        return [entry for entry in self.logs if entry["message"] == message]

    @property
    def engine_url(self) -> str:
        [entry] = self.logged("embedded_engine")
        return str(entry["url"])

    def signal(self, signum: signal.Signals, group: bool) -> None:
        """Send a signal to the parent process, as `kill` does, or to the whole process group, as Ctrl-C does."""
        if group:
            os.killpg(self.process.pid, signum)
        else:
            self.process.send_signal(signum)

    def wait_for_exit(self) -> int:
        """Wait until the service has ended. Return its exit code."""
        return self.process.wait(20)

    def close(self) -> None:
        self.client.close()
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()


StartService = Callable[..., ServiceProcess]


def redis_client(url: str) -> Any:
    path = unquote(url.removeprefix("unix://"))
    return Redis(unix_socket_path=path, decode_responses=True, retry=Retry(NoBackoff(), 0))


def workers_of(service: ServiceProcess) -> list[int]:
    """Return the running processes that serve requests."""
    started = re.findall(r"Started server process \[(\d+)\]", service.stderr)
    living = processes_in(service.folder)
    return [int(pid) for pid in started if int(pid) in living]


def engine_pid(service: ServiceProcess) -> int:
    """Return the process of the embedded engine."""
    [engine] = processes_in(service.data_dir)
    return engine


class OrderLoad:
    """Clients that order without a pause, and the responses that they received."""

    def __init__(self, service: ServiceProcess, products: list[int], clients: int = 24) -> None:
        self.service = service
        self.products = products
        self.clients = clients
        self.placed: dict[int, dict[str, Any]] = {}
        self.problems: Counter[str] = Counter()
        self.unanswered = 0
        self.stopping = False

    async def __aenter__(self) -> "OrderLoad":
        self.tasks = [asyncio.create_task(self._client(random.Random(seed))) for seed in range(self.clients)]
        await eventually(lambda: len(self.placed) > 200, "the first orders")
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stopping = True
        await asyncio.gather(*self.tasks)

    async def _client(self, rng: random.Random) -> None:
        url = f"http://127.0.0.1:{self.service.port}"
        limits = Limits(max_connections=1)
        async with AsyncClient(base_url=url, timeout=PATIENCE, limits=limits, verify=NO_TLS) as client:
            while not self.stopping:
                lines = [{"product_id": p, "quantity": rng.randint(1, 9)} for p in rng.sample(self.products, 2)]
                try:
                    response = await client.post("/orders", json={"products": lines})
                except HTTPError:
                    self.unanswered += 1
                    await asyncio.sleep(0.01)
                    continue
                if response.status_code == 201:
                    order = response.json()
                    assert order["id"] not in self.placed
                    self.placed[order["id"]] = order
                else:
                    assert response.headers["content-type"] == "application/problem+json", response.text
                    self.problems[f"{response.status_code} {response.json()['type']}"] += 1


def assert_orders_agree_with_stock(url: str, placed: dict[int, dict[str, Any]]) -> None:
    """Assert that Redis has each order that was answered with 201, and that stock numbers and orders agree."""
    with redis_client(url) as redis:
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

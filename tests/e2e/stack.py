"""Run the compose files as one project, and place orders in it without a pause."""

import asyncio
import json
import os
import secrets
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from httpx2 import AsyncClient, Client, HTTPError, Limits, TransportError

from tests.support.processes import free_port
from tests.support.shop import mug

ROOT = Path(__file__).parents[2]
PROJECT = "holdfast-e2e"
IMAGE = f"{PROJECT}-api"
STOCK = 1_000_000

measurements: list[str] = []
"""Results that pytest prints at the end of the run."""


def docker(*args: str, check: bool = True, timeout: float = 120, environment: Mapping[str, str] | None = None) -> str:
    """Run docker in the project's directory. Return its output. Only `environment` has settings of the project."""
    prefixes = ("HOLDFAST_", "REDIS_", "COMPOSE_")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
    env = {**inherited, **(environment or {})}
    done = subprocess.run(["docker", *args], cwd=ROOT, env=env, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0 or not check, f"docker {' '.join(args)}: {done.stdout}{done.stderr}"
    return done.stdout if check else done.stdout + done.stderr


class Stack:
    """A compose project on a free port."""

    def __init__(self, *files: str) -> None:
        self.files = [part for file in files for part in ("-f", file)]
        self.environment = {"HOLDFAST_PORT": str(free_port())}
        self.url = f"http://127.0.0.1:{self.environment['HOLDFAST_PORT']}"

    def compose(self, *args: str, check: bool = True, timeout: float = 120) -> str:
        # Ignore the .env file of the developer.
        head = ("compose", "-p", PROJECT, "--env-file", os.devnull, *self.files)
        return docker(*head, *args, check=check, timeout=timeout, environment=self.environment)

    def up(self, *args: str, **settings: str) -> float:
        """Start each container that is stopped or has new settings. Return the seconds until the API is ready."""
        self.environment |= settings
        started = time.monotonic()
        self.compose("up", "-d", *args)
        self.wait_until_ready()
        return time.monotonic() - started

    def wait_until_ready(self) -> None:
        with Client(base_url=self.url, timeout=5) as client:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                try:
                    if client.get("/readyz").status_code == 200:
                        return
                except HTTPError:
                    pass
                time.sleep(0.05)
        raise AssertionError(f"not ready within a minute:\n{self.compose('logs', '--tail', '50')}")

    def key(self) -> dict[str, str]:
        """Return the header field with the API key that has all rights."""
        found = self.compose("run", "--rm", "--no-deps", "-T", "--entrypoint", "cat", "secrets", "/secrets/key/admin")
        return {"Authorization": f"Bearer {found.strip()}"}

    def down(self, *args: str) -> None:
        self.compose("down", *args)

    def containers(self, service: str) -> list[str]:
        return self.compose("ps", "-aq", service).split()

    def inspect(self, service: str) -> Any:
        """Return what `docker inspect` shows of the only container of a service."""
        [container] = self.containers(service)
        [found] = json.loads(docker("inspect", container))
        return found

    def in_api(self, *command: str) -> str:
        return self.compose("exec", "-T", "api", *command)

    def redis(self, *command: str) -> str:
        """Return the reply of Redis to its administrator."""
        script = 'REDISCLI_AUTH=$(cat /secrets/admin) exec redis-cli "$@"'
        return self.compose("exec", "-T", "redis", "sh", "-c", script, "sh", *command).strip()

    def redis_as_api(self, *command: str) -> str:
        """Return the reply of Redis to the user of the API, also if it is an error."""
        script = 'REDISCLI_AUTH=$(cat /secrets/api) exec redis-cli --user holdfast "$@"'
        return self.compose("exec", "-T", "redis", "sh", "-c", script, "sh", *command).strip()

    def passwords(self) -> list[str]:
        """Return the two passwords of Redis, the administrator's first."""
        found = self.compose("exec", "-T", "redis", "sh", "-c", "cat /secrets/admin; echo; cat /secrets/api").split()
        assert len(found) == 2
        return found

    def audit(self) -> Any:
        """Assert that `holdfast audit` has no findings. Return its report."""
        report = json.loads(self.in_api("holdfast", "audit", "--json"))
        assert report["balanced"], report
        return report

    def logs_of_api(self) -> list[Any]:
        """Return the log of the API. Fail if a line is not a JSON object."""
        text = "".join(docker("logs", container, check=False) for container in self.containers("api"))
        lines = [json.loads(line) for line in text.splitlines()]
        assert lines
        for line in lines:
            assert {"level", "timestamp", "message"} <= line.keys(), line
        return lines

    def client(self) -> AsyncClient:
        return AsyncClient(base_url=self.url, headers=self.key(), timeout=25, limits=Limits(max_connections=200))


class Load:
    """Clients that order one unit per order. Each order has its own key, and is repeated until it is acknowledged."""

    def __init__(self, client: AsyncClient, product_id: int) -> None:
        self.client = client
        self.product_id = product_id
        self.run = secrets.token_hex(4)
        self.acknowledged: dict[str, int] = {}
        self.answers: Counter[int | str] = Counter()
        """The number of attempts per status, or per `no answer`."""
        self.errors: Counter[str] = Counter()
        """The reasons for `no answer`."""
        self.replayed = 0
        """The number of orders that an earlier attempt had placed without an answer."""
        self.stopping = False

    async def order(self, key: str) -> bool:
        body = {"products": [{"product_id": self.product_id, "quantity": 1}]}
        try:
            response = await self.client.post("/orders", json=body, headers={"Idempotency-Key": key})
        except TransportError as error:
            self.answers["no answer"] += 1
            self.errors[repr(error)] += 1
            return False
        self.answers[response.status_code] += 1
        if response.status_code != 201:
            return False
        self.acknowledged[key] = response.json()["id"]
        self.replayed += "idempotent-replayed" in response.headers
        return True

    async def keep_ordering(self, name: int) -> None:
        number = 0
        while not self.stopping:
            number += 1
            while True:
                acknowledged = await self.order(f"{self.run}-{name}-{number}")
                await asyncio.sleep(0.01 if acknowledged else 0.05)
                if acknowledged:
                    break

    async def wait_until(self, happened: Callable[[], bool], seconds: float = 30) -> float:
        """Wait until `happened()` is true. Return the seconds that this took."""
        started = time.monotonic()
        while not happened():
            assert time.monotonic() - started < seconds, f"not true within {seconds} s: {self.answers}"
            await asyncio.sleep(0.02)
        return time.monotonic() - started

    async def wait_for_more_orders(self) -> float:
        """Wait for another hundred acknowledged orders. Return the seconds that this took."""
        enough = len(self.acknowledged) + 100
        return await self.wait_until(lambda: len(self.acknowledged) >= enough)


@asynccontextmanager
async def under_load(stack: Stack, clients: int = 8) -> AsyncIterator[Load]:
    """Place orders during the block. At the end, assert that no acknowledged order is lost."""
    async with stack.client() as client:
        load = Load(client, await add_product(client, STOCK))
        tasks = [asyncio.create_task(load.keep_ordering(name)) for name in range(clients)]
        try:
            await load.wait_for_more_orders()
            yield load
            await load.wait_for_more_orders()
        finally:
            load.stopping = True
            await asyncio.wait(tasks, timeout=30)
            for task in tasks:
                task.cancel()
        for task in tasks:
            task.result()
        await assert_nothing_lost(stack, client, load)


async def assert_nothing_lost(stack: Stack, client: AsyncClient, load: Load) -> None:
    """Assert that each acknowledged order exists, that its key returns it, and that no other unit was sold."""
    slots = asyncio.Semaphore(20)

    async def check(key: str, order_id: int) -> None:
        body = {"products": [{"product_id": load.product_id, "quantity": 1}]}
        async with slots:
            found = await client.get(f"/orders/{order_id}")
            again = await client.post("/orders", json=body, headers={"Idempotency-Key": key})
        assert found.status_code == 200, f"{key}: {found.text}"
        assert [line["product_id"] for line in found.json()["products"]] == [load.product_id]
        assert again.status_code == 201, f"{key}: {again.text}"
        assert again.headers["idempotent-replayed"] == "true"
        assert again.json()["id"] == order_id

    assert len(set(load.acknowledged.values())) == len(load.acknowledged)
    await asyncio.gather(*(check(key, order_id) for key, order_id in load.acknowledged.items()))
    product = (await client.get(f"/products/{load.product_id}")).json()
    assert STOCK - product["stock"] == len(load.acknowledged)
    stack.audit()


async def add_product(client: AsyncClient, stock: int) -> int:
    response = await client.post("/products", json=mug(stock=stock))
    assert response.status_code == 201, response.text
    return int(response.json()["id"])


async def in_thread(call: Callable[..., Any], *args: str) -> Any:
    """Run a blocking call in a thread, so that the load continues."""
    return await asyncio.to_thread(call, *args)


def assert_only(load: Load, *expected: int | str) -> None:
    assert set(load.answers) <= set(expected), f"{load.answers} {load.errors}, expected only {expected}"

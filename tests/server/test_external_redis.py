"""A service on an external Redis that hangs, restarts, starts later, or is configured in a wrong way."""

import asyncio
import os
import re
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from httpx2 import AsyncClient, Response

from service.engine.launcher import run_engine
from tests.support.processes import processes_in
from tests.support.service_process import (
    NO_TLS,
    REDIS_TIMEOUT,
    StartService,
    redis_client,
)
from tests.support.waiting import wait_until

pytestmark = pytest.mark.process


MAX_DELAY = 1.5
"""Seconds of delay that a busy machine may add."""


def external(url: str, **settings: object) -> dict[str, object]:
    """Return the settings of a service on an external Redis."""
    return {"redis_url": url, "redis_timeout": REDIS_TIMEOUT, "durability": "none", **settings}


def assert_unavailable(response: Response, *names: str) -> str:
    """Assert that the response is 503 with Retry-After, and one of these problems. Return its request id."""
    assert response.status_code == 503, response.text
    assert response.headers["retry-after"]
    assert response.json()["type"] in {f"/problems/{name}" for name in names}
    return response.headers["x-request-id"]


def test_a_hanging_redis_gives_503_within_the_timeout_until_it_continues(
    start_ready_service: StartService, redis_dir: Path
) -> None:
    with run_engine(redis_dir, "none") as url:
        service = start_ready_service(**external(url))
        mugs = service.add_product(stock=10)
        [redis] = processes_in(redis_dir)
        os.kill(redis, signal.SIGSTOP)
        try:
            request_ids = set()
            for _ in range(3):
                started = time.monotonic()
                response = service.order(mugs)
                assert time.monotonic() - started < REDIS_TIMEOUT + MAX_DELAY
                request_ids.add(assert_unavailable(response, "outcome-unknown", "storage-unavailable"))
            started = time.monotonic()
            assert_unavailable(service.client.get("/products"), "storage-unavailable")
            assert_unavailable(service.client.get("/readyz"), "storage-unavailable")
            assert service.answers("/livez") == 200
            assert time.monotonic() - started < 2 * REDIS_TIMEOUT + MAX_DELAY
        finally:
            os.kill(redis, signal.SIGCONT)
        service.wait_until_ready()
        assert service.order(mugs).status_code == 201
        wait_until(lambda: request_ids <= {entry.get("request_id") for entry in service.logs}, "the log")
        logged = {entry.get("request_id"): entry for entry in service.logs}
        assert all(logged[request_id]["reason"] for request_id in request_ids)
        assert "Traceback" not in service.stderr


async def test_requests_above_max_in_flight_are_refused_immediately_and_logged(
    start_ready_service: StartService, redis_dir: Path
) -> None:
    with run_engine(redis_dir, "none") as url:
        service = start_ready_service(**external(url, max_in_flight=4, redis_timeout=2))
        mugs = service.add_product(stock=10)
        [redis] = processes_in(redis_dir)
        os.kill(redis, signal.SIGSTOP)
        try:
            async with AsyncClient(base_url=service.client.base_url, timeout=10, verify=NO_TLS) as client:
                answers = await asyncio.gather(*(client.get(f"/products/{mugs}") for _ in range(20)))
        finally:
            os.kill(redis, signal.SIGCONT)
        names = Counter(answer.json()["type"] for answer in answers)
        assert names.keys() == {"/problems/overloaded", "/problems/storage-unavailable"}
        # The regular check of Redis may wait for replies, too.
        assert names["/problems/overloaded"] >= 16
        for answer in answers:
            assert_unavailable(answer, "overloaded", "storage-unavailable")
        wait_until(
            lambda: (
                {answer.headers["x-request-id"] for answer in answers}
                == {
                    entry["request_id"]
                    for entry in service.logged("overloaded") + service.logged("storage-unavailable")
                }
            ),
            "the log",
        )
        service.wait_until_ready()
        assert service.stock(mugs) == 10


def test_an_order_with_unknown_outcome_is_placed_once_if_repeated_with_its_key(
    start_ready_service: StartService, redis_dir: Path
) -> None:
    with run_engine(redis_dir, "none") as url:
        service = start_ready_service(**external(url))
        mugs = service.add_product(stock=10)
        service.order(mugs)  # reserves a block of order ids: the next order is a single call
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


def test_a_new_redis_at_the_same_address_is_used_and_gets_the_scripts(
    start_ready_service: StartService, redis_dir: Path
) -> None:
    with run_engine(redis_dir, "always") as url:
        service = start_ready_service(**external(url))
        mugs = service.add_product(stock=10)
        assert service.order(mugs).status_code == 201
    response = service.client.get(f"/products/{mugs}")
    assert_unavailable(response, "storage-unavailable")
    with run_engine(redis_dir, "always") as new_url:
        assert new_url == url
        with redis_client(url) as redis:
            redis.script_flush()
        service.wait_until_ready()
        assert service.order(mugs).status_code == 201
        assert service.stock(mugs) == 8


def test_a_service_starts_without_redis_and_is_ready_when_redis_has_started(
    start_service: StartService, redis_dir: Path
) -> None:
    url = f"unix://{quote(str(redis_dir.resolve() / 'engine.sock'))}"
    service = start_service(**external(url))
    service.wait_until_alive()
    assert_unavailable(service.client.get("/readyz"), "storage-unavailable")
    assert_unavailable(service.client.get("/products"), "storage-unavailable")
    assert service.logged("redis_not_ready")
    with run_engine(redis_dir, "none") as started_url:
        assert started_url == url
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
def test_a_service_does_not_start_on_a_redis_with_too_little_durability(
    start_service: StartService, redis_dir: Path, found: Any, expected: str, starts: bool
) -> None:
    with run_engine(redis_dir, found) as url:
        service = start_service(**external(url, durability=expected))
        if starts:
            service.wait_until_ready()
            return
        assert service.wait_for_exit() == 1
        assert re.search(r"^holdfast: [^\n]*HOLDFAST_DURABILITY[^\n]*\n\Z", service.stderr, re.MULTILINE)
        assert f"is {expected!r}" in service.stderr
        assert f"only configured for {found!r}" in service.stderr


@pytest.mark.parametrize(("name", "value"), [("appendonly", "no"), ("no-appendfsync-on-rewrite", "yes")])
def test_a_service_is_not_ready_after_its_redis_has_lost_durability(
    start_ready_service: StartService, redis_dir: Path, name: str, value: str
) -> None:
    with run_engine(redis_dir, "always") as url, redis_client(url) as redis:
        service = start_ready_service(**external(url, durability="always"))
        redis.config_set(name, value)
        assert_unavailable(service.client.get("/readyz"), "storage-unavailable")
        wait_until(
            lambda: any(name in str(entry) and "HOLDFAST_DURABILITY" in str(entry) for entry in service.logs), "the log"
        )


def test_a_service_does_not_start_and_changes_nothing_on_data_of_a_newer_version(
    start_service: StartService, redis_dir: Path
) -> None:
    with run_engine(redis_dir, "none") as url, redis_client(url) as redis:
        redis.hset("{shop}:meta", "layout", "3")
        service = start_service(**external(url))
        assert service.wait_for_exit() == 1
        assert "schema version 3" in service.stderr
        assert "Traceback" not in service.stderr
        assert redis.hgetall("{shop}:meta") == {"layout": "3"}
        assert redis.keys() == ["{shop}:meta"]


def test_a_redis_with_unreadable_settings_is_used_with_a_warning(
    start_ready_service: StartService, redis_dir: Path
) -> None:
    with run_engine(redis_dir, "none") as url, redis_client(url) as redis:
        redis.execute_command("ACL", "SETUSER", "clerk", "on", ">secret", "~{shop}:*", "+@all", "-config", "-info")
        with_login = url.replace("unix://", "unix://clerk:secret@")
        service = start_ready_service(**external(with_login, durability="always"))
        assert service.order(service.add_product()).status_code == 201
        for _ in range(3):
            assert service.answers("/readyz") == 200
        warnings = service.logged("redis_not_checked")
        assert {entry["level"] for entry in warnings} == {"warning"}
        # The parent logs each command once before it starts the server, and the server logs it once.
        assert sorted(entry["command"][0] for entry in warnings) == ["CONFIG", "CONFIG", "INFO", "INFO"]
        assert "secret" not in service.stderr


def test_a_wrong_password_gives_503_and_the_log_has_the_reason(start_service: StartService, redis_dir: Path) -> None:
    with run_engine(redis_dir, "none") as url, redis_client(url) as redis:
        redis.execute_command("ACL", "SETUSER", "clerk", "on", ">secret", "~*", "+@all")
        service = start_service(**external(url.replace("unix://", "unix://clerk:wr0ng@")))
        service.wait_until_alive()
        request_id = assert_unavailable(service.client.get("/products"), "storage-unavailable")
        wait_until(lambda: request_id in {entry.get("request_id") for entry in service.logs}, "the log")
        [entry] = [entry for entry in service.logs if entry.get("request_id") == request_id]
        assert "invalid username-password pair" in entry["reason"]
        assert "wr0ng" not in service.stderr
        assert "Traceback" not in service.stderr


def test_stopping_the_service_does_not_stop_an_external_redis(
    start_ready_service: StartService, redis_dir: Path
) -> None:
    with run_engine(redis_dir, "none") as url, redis_client(url) as redis:
        service = start_ready_service(**external(url))
        service.signal(signal.SIGTERM, group=False)
        assert service.wait_for_exit() == 0
        assert not service.data_dir.exists()
        assert redis.ping()


def test_a_replica_is_refused_at_the_start_and_a_new_primary_is_used(
    start_service: StartService, redis_dir: Path
) -> None:
    with run_engine(redis_dir, "none") as url, redis_client(url) as redis:
        redis.execute_command("REPLICAOF", "127.0.0.1", "1")
        service = start_service(**external(url))
        assert service.wait_for_exit() == 1
        assert "this Redis is a replica" in service.stderr
        assert "Traceback" not in service.stderr
        service = start_service(**external(url, redis_timeout=30))
        redis.execute_command("REPLICAOF", "NO", "ONE")
        service.wait_until_ready()
        assert service.order(service.add_product()).status_code == 201


def test_workers_refuse_orders_within_a_second_or_so_after_an_unsafe_change_of_settings(
    start_ready_service: StartService, redis_dir: Path
) -> None:
    with run_engine(redis_dir, "always") as url, redis_client(url) as redis:
        service = start_ready_service(workers=3, **external(url, durability="always"))
        mugs = service.add_product(stock=100_000)
        redis.execute_command("CONFIG", "SET", "appendonly", "no")
        wait_until(lambda: len(service.logged("redis_unusable")) == 3, "all workers")
        assert {service.order(mugs, connection="close").status_code for _ in range(30)} == {503}
        assert service.answers("/readyz") == 503
        redis.execute_command("CONFIG", "SET", "appendonly", "yes")
        wait_until(lambda: len(service.logged("redis_usable")) == 3, "all workers")
        assert service.order(mugs).status_code == 201


def test_readyz_answers_503_while_the_memory_is_full(start_ready_service: StartService, redis_dir: Path) -> None:
    with run_engine(redis_dir, "always") as url, redis_client(url) as redis:
        service = start_ready_service(**external(url, durability="always"))
        redis.execute_command("CONFIG", "SET", "maxmemory", "1")
        assert service.answers("/readyz") == 503
        redis.execute_command("CONFIG", "SET", "maxmemory", "0")
        assert service.answers("/readyz") == 200

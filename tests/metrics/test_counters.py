"""The numbers in memory: one worker, several workers, and a worker that replaces another one."""

import multiprocessing
import signal
import sys
import tempfile
from multiprocessing.context import SpawnProcess
from typing import Any

import pytest

from service.metrics.counters import Metrics
from service.metrics.families import (
    CLIENTS,
    CPU_SECONDS,
    ORDERS,
    PROBLEMS,
    REFUSED,
    REQUEST_BOUNDS,
    REQUEST_SECONDS,
    REQUESTS,
    RESTARTS,
    REVENUE,
    SWEEPS,
    UNITS,
    Family,
)
from service.metrics.shared_rows import SharedRows
from tests.support.waiting import wait_until

SPAWN = multiprocessing.get_context("spawn")


def numbers(metrics: Metrics, family: Family) -> dict[tuple[str, ...], Any]:
    [found] = [found for other, found in metrics.read() if other.name == family.name]
    return {labels: values[0] if len(values) == 1 else list(values) for labels, values in found.items()}


def occurred(metrics: Metrics) -> dict[tuple[str, ...], Any]:
    return {labels: number for labels, number in numbers(metrics, REQUESTS).items() if number}


def test_a_request_is_counted_by_route_and_status_with_its_duration() -> None:
    metrics = Metrics(calls=[("POST", "/orders"), ("GET", "/orders")])
    metrics.count_request("POST", "/orders", 201, 0.003)
    metrics.count_request("POST", "/orders", 201, 60)
    metrics.count_request("BREW", "", 404, 0.0005)
    assert occurred(metrics) == {("POST", "/orders", "201"): 2, ("", "", "404"): 1}
    durations = numbers(metrics, REQUEST_SECONDS)
    assert durations.keys() == {("POST", "/orders"), ("", "")}
    counts, total = durations["POST", "/orders"][:-1], durations["POST", "/orders"][-1]
    assert counts == [1.0 if bound == 0.005 else 0.0 for bound in REQUEST_BOUNDS] + [1.0]
    assert total == pytest.approx(60.003)
    assert durations["", ""][0] == 1  # a bound belongs to its bucket


def test_a_status_that_is_not_known_is_counted_as_0() -> None:
    metrics = Metrics()
    metrics.count_request("GET", "", 418, 0)
    assert occurred(metrics) == {("", "", "0"): 1}


def test_failures_of_each_call_are_shown_before_the_first_one() -> None:
    metrics = Metrics(calls=[("POST", "/orders")])
    failures = {("", "", "500"), ("", "", "503"), ("POST", "/orders", "500"), ("POST", "/orders", "503")}
    assert numbers(metrics, REQUESTS) == dict.fromkeys(failures, 0)


def test_problems_are_counted_by_name() -> None:
    metrics = Metrics(problems=["overloaded", "storage-unavailable"])
    metrics.count_problem("overloaded")
    metrics.count_problem("not-in-the-list")
    assert numbers(metrics, PROBLEMS) == {("overloaded",): 1, ("storage-unavailable",): 0}


def test_orders_are_counted_with_their_units_and_their_price_in_whole_cents() -> None:
    metrics = Metrics(refusals=["insufficient-stock"])
    for _ in range(3):
        metrics.count_order("placed", 7, 10)
    metrics.count_order("returned", 1, 1999)
    metrics.count_order("expired", 2)
    metrics.count_order("replayed")
    metrics.count_refusal("insufficient-stock")
    assert numbers(metrics, ORDERS)["placed",] == 3
    assert numbers(metrics, UNITS)["placed",] == 21
    assert numbers(metrics, UNITS)["expired",] == 2
    assert numbers(metrics, REVENUE) == {("placed",): 0.3, ("completed",): 0, ("returned",): 19.99}
    assert metrics.refused_orders() == {"insufficient-stock": 1}
    assert numbers(metrics, REFUSED) == {("insufficient-stock",): 1}


def _count(shared: SharedRows, sweeps: int) -> None:
    metrics = Metrics(shared=shared)
    for _ in range(sweeps):
        metrics.count(SWEEPS)
    metrics.set(CLIENTS, sweeps)
    metrics.publish()
    signal.pause()


def _started(shared: SharedRows, sweeps: int) -> SpawnProcess:
    process = SPAWN.Process(target=_count, args=(shared, sweeps))
    process.start()
    return process


def test_all_workers_are_added_up_and_a_worker_continues_what_a_killed_one_has_counted() -> None:
    shared = SharedRows(2)
    reader = Metrics(shared=shared)
    first, second = _started(shared, 5), _started(shared, 7)
    try:
        wait_until(lambda: {*numbers(reader, CLIENTS).values()} >= {5, 7}, "both workers")
        assert numbers(reader, SWEEPS) == {(): 12}
        assert numbers(reader, RESTARTS) == {(): 0}
        assert reader.workers == 2
        assert numbers(reader, CPU_SECONDS).keys() == {("1",), ("2",)}
        first.kill()
        first.join()
        third = _started(shared, 2)
        try:
            wait_until(lambda: 2 in numbers(reader, CLIENTS).values(), "the new worker")
            assert numbers(reader, SWEEPS) == {(): 14}
            assert numbers(reader, RESTARTS) == {(): 1}
            assert sorted(numbers(reader, CLIENTS).values()) == [2, 7]
        finally:
            third.kill()
    finally:
        first.kill()
        second.kill()


def test_gauges_of_a_worker_that_has_ended_are_not_shown() -> None:
    now = [1000.0]
    metrics = Metrics(clock=lambda: now[0])
    assert numbers(metrics, CLIENTS) == {}
    metrics.set(CLIENTS, 3)
    metrics.publish()
    assert numbers(metrics, CLIENTS) == {("0",): 3}
    now[0] += 60
    assert numbers(metrics, CLIENTS) == {}


def test_a_machine_that_has_just_started_has_no_workers_yet() -> None:
    assert numbers(Metrics(clock=lambda: 1.0), CLIENTS) == {}


def test_there_is_no_row_for_more_workers_than_expected() -> None:
    shared = SharedRows(0)
    process = _started(shared, 1)
    try:
        wait_until(lambda: _is_full(shared), "the worker")
    finally:
        process.kill()


def test_the_shared_memory_needs_no_directory_that_may_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform != "linux":
        pytest.skip("macOS has no file in memory")
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    metrics = Metrics(shared=SharedRows(1))
    metrics.count(SWEEPS)
    assert numbers(metrics, SWEEPS) == {(): 1}


def _is_full(shared: SharedRows) -> bool:
    try:
        shared.claim()
    except RuntimeError:
        return True
    return False

"""The background log: it never waits for a reader, and counts what is lost."""

import json
import logging
import os
import time
from collections.abc import Iterator

import pytest

from service import logs
from service.logs import BackgroundHandler
from tests.support.waiting import wait_until

MAX_LINES = 50


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe that is full after 64 KB."""
    read_end, write_end = os.pipe()
    yield read_end, write_end
    os.close(read_end)
    os.close(write_end)


def record(text: str) -> logging.LogRecord:
    return logging.LogRecord("test", logging.INFO, "", 0, text, None, None)


def test_lines_are_written_in_their_order(pipe: tuple[int, int]) -> None:
    handler = BackgroundHandler(pipe[1])
    for number in range(1000):
        handler.emit(record(str(number)))
    handler.flush()
    assert os.read(pipe[0], 65_536).decode().split() == [str(number) for number in range(1000)]


def test_a_pipe_that_nobody_reads_does_not_stop_the_caller_and_lost_lines_are_counted(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "MAX_WAITING_LINES", MAX_LINES)
    handler = BackgroundHandler(pipe[1])
    sent = 1000
    started = time.monotonic()
    for _ in range(sent):
        handler.emit(record("x" * 10_000))
    assert time.monotonic() - started < 5
    received = ""

    def all_lines_are_accounted_for() -> bool:
        nonlocal received
        received += os.read(pipe[0], 65_536).decode()
        lines = received.splitlines()
        lost: int = sum(json.loads(line)["lines"] for line in lines if "log_lines_lost" in line and line.endswith("}"))
        return lost > 0 and lines.count("x" * 10_000) + lost == sent

    wait_until(all_lines_are_accounted_for, "all lines")


def test_flush_does_not_wait_for_ever(pipe: tuple[int, int]) -> None:
    handler = BackgroundHandler(pipe[1])
    for _ in range(20):
        handler.emit(record("x" * 10_000))
    started = time.monotonic()
    handler.flush()
    assert time.monotonic() - started < 5
    os.read(pipe[0], 1_000_000)


def test_a_reader_that_has_gone_does_not_end_the_log() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    handler = BackgroundHandler(write_end)
    handler.emit(record("nobody reads this"))
    handler.flush()
    handler.emit(record("nor this"))
    handler.flush()
    os.close(write_end)

"""How the log looks: JSON for programs, readable lines for people, and no line that a client could forge."""

import json
import logging
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from service.logs import configure_logging

EVIL = 'anna\n{"message": "forged"}\x1b[31m\r\u2028\u202e'

SCRIPT = """
import logging, structlog, sys
from service.logs import configure_logging
configure_logging("info", sys.argv[1])
structlog.get_logger().info("order_refused", reason="insufficient-stock")
logging.getLogger("uvicorn").info("started")
"""


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.mark.parametrize("log_format", ["json", "console", "auto"])
def test_a_text_of_a_client_stays_within_its_line(capsys: pytest.CaptureFixture[str], log_format: str) -> None:
    configure_logging("info", log_format)
    structlog.get_logger().info("order_refused", customer=EVIL, products=[{"name": EVIL}])
    logging.getLogger("library").warning("about %s", EVIL)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)
    if log_format != "console":
        assert json.loads(lines[0])["customer"] == EVIL
        assert json.loads(lines[1])["message"] == f"about {EVIL}"


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_an_error_is_logged_with_its_traceback(capsys: pytest.CaptureFixture[str], log_format: str) -> None:
    configure_logging("info", log_format)
    try:
        raise ValueError("the reason\x1b[31m")
    except ValueError as error:
        structlog.get_logger().error("internal_error", exc_info=error)
    text = capsys.readouterr().err
    assert "Traceback" in text
    assert "ValueError: the reason" in text
    assert "\x1b" not in text
    assert (text.count("\n") == 1) == (log_format == "json")


def on_a_terminal(log_format: str, **variables: str) -> str:
    """Return what a process writes to a terminal."""
    ours, theirs = pty.openpty()
    subprocess.run(
        [sys.executable, "-c", SCRIPT, log_format],
        stderr=theirs,
        cwd=Path(__file__).parents[1],
        env={**os.environ, **variables},
        check=True,
    )
    os.close(theirs)
    text = os.read(ours, 65_536).decode()
    os.close(ours)
    return text


def test_a_terminal_gets_readable_lines_with_colours_unless_they_are_unwanted() -> None:
    coloured = on_a_terminal("auto", NO_COLOR="")
    assert "\x1b[" in coloured
    plain = on_a_terminal("auto", NO_COLOR="1")
    assert "\x1b[" not in plain
    first, second = plain.splitlines()
    assert "order_refused" in first
    assert "reason=insufficient-stock" in first
    assert "started" in second
    assert json.loads(on_a_terminal("json").splitlines()[0])["message"] == "order_refused"

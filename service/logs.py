"""Logging on stderr: one JSON object per line, or readable lines on a terminal."""

import contextlib
import json
import logging
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from typing import Final, TextIO

import structlog

from service.environment import colours_wanted

MAX_WAITING_LINES: Final = 10_000
"""Lines that may wait until stderr accepts them: about 3 MB. Further lines are lost."""

_MAX_LINES_PER_WRITE: Final = 200

_GATHER_SECONDS: Final = 0.005
"""How long the thread waits for further lines: if each line woke the thread, a refused order would take 10 us more."""


class BackgroundHandler(logging.Handler):
    """Writes the log in a thread: a full pipe that nobody reads must not stop the service.

    It writes to the file descriptor. A thread that waits in `sys.stderr.write` holds a lock that the end of Python
    needs: the process would end with SIGABRT.
    """

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd
        self._waiting: SimpleQueue[str | threading.Event] = SimpleQueue()
        self._lost = 0
        threading.Thread(target=self._write_lines, name="log-writer", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.write_line(self.format(record))
        except Exception:
            self.handleError(record)

    def write_line(self, line: str) -> None:
        """Let the thread write a line. It is lost if too many lines wait."""
        if self._waiting.qsize() >= MAX_WAITING_LINES:
            self._lost += 1
        else:
            self._waiting.put(line + "\n")

    def flush(self) -> None:
        """Wait until all lines are written, but at most a second: it may be that nobody reads them."""
        written = threading.Event()
        self._waiting.put(written)
        written.wait(1)

    def _write_lines(self) -> None:
        while True:
            lines: list[str] = []
            flushed: threading.Event | None = None
            item = self._waiting.get()
            if isinstance(item, str):
                time.sleep(_GATHER_SECONDS)
            with contextlib.suppress(Empty):
                while isinstance(item, str):
                    lines.append(item)
                    if len(lines) == _MAX_LINES_PER_WRITE:
                        break
                    item = self._waiting.get_nowait()
                else:
                    flushed = item
            self._write(lines)
            if self._lost:
                lost, self._lost = self._lost, 0
                self._write([_lost_lines(lost)])
            if flushed is not None:
                flushed.set()

    def _write(self, lines: list[str]) -> None:
        rest = "".join(lines).encode(errors="backslashreplace")
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError:  # the reader has gone, or the disk is full
            self._lost += len(lines)


def _lost_lines(number: int) -> str:
    entry = {"lines": number, "level": "error", "timestamp": datetime.now(UTC).isoformat(), "message": "log_lines_lost"}
    return json.dumps(entry) + "\n"


_encode = json.JSONEncoder(default=repr).encode  # json.dumps() with a default makes an encoder for each line


def _serialize(entry: object, **options: object) -> str:
    return _encode(entry)


class _LineLogger:
    """Writes the lines of Holdfast's own log, which structlog has rendered. The level was checked before."""

    def __init__(self, write_line: Callable[[str], object]) -> None:
        self.debug = self.info = self.warning = self.error = self.critical = write_line


def _write_to_stderr(line: str) -> None:
    print(line, file=sys.stderr)


def _escape_control_characters(_: object, __: str, entry: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Escape what a client could send to forge a line, or to send commands to a terminal. JSON does so itself."""
    return {name: _escape(value) if isinstance(value, str) else value for name, value in entry.items()}


_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def _write_traceback(file: TextIO, exc_info: structlog.typing.ExcInfo) -> None:
    """Write a traceback. Its lines stay lines, but the message of an exception may quote a client, too."""
    text = "".join(traceback.format_exception(*exc_info))
    file.write("\n" + "\n".join(_escape(line) for line in text.rstrip("\n").split("\n")))


def _escape(text: str) -> str:
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def _renderers(log_format: str) -> list[structlog.typing.Processor]:
    """Return what makes a line of an entry."""
    if log_format == "console" or (log_format == "auto" and sys.stderr.isatty()):
        colours = sys.stderr.isatty() and colours_wanted()
        from structlog.dev import ConsoleRenderer

        return [_escape_control_characters, ConsoleRenderer(colors=colours, exception_formatter=_write_traceback)]
    return [
        structlog.processors.format_exc_info,
        structlog.processors.EventRenamer("message"),
        structlog.processors.JSONRenderer(serializer=_serialize),
    ]


def configure_logging(level: str, log_format: str = "auto", in_background: bool = False) -> None:
    """Write the log of Holdfast, uvicorn and all libraries to stderr.

    `log_format`: `json`, `console`, or `auto`, which is `console` on a terminal. Holdfast's own entries do not pass
    through `logging`, because that takes 30 us more for each refused order.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    rendered = _renderers(log_format)
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendered],
    )
    root = logging.getLogger()
    handler: logging.Handler
    if in_background:
        # A process needs only one thread for the log: two could write in the wrong order.
        old = [handler for handler in root.handlers if isinstance(handler, BackgroundHandler)]
        handler = background = old[0] if old else BackgroundHandler(sys.stderr.fileno())
        write_line: Callable[[str], object] = background.write_line
    else:
        handler, write_line = logging.StreamHandler(sys.stderr), _write_to_stderr
    structlog.configure(
        processors=[*shared, *rendered],
        logger_factory=lambda *_: _LineLogger(write_line),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        cache_logger_on_first_use=True,
    )
    handler.setFormatter(formatter)
    root.handlers[:] = [handler]
    root.setLevel(level.upper())

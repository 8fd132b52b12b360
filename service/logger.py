"""The log of storage and engine, which commands use, too: structlog is imported with the first line that is logged."""

import logging
import time
from collections.abc import Callable
from typing import Final

_COMMAND: logging.Logger = logging.getLogger("service")
"""Has the lowest level that a command logs. `holdfast serve` logs what its structlog is configured for."""


_PAUSE_SECONDS: Final = 60.0
"""A failure that goes on is logged so often."""

_MAX_REMEMBERED: Final = 1000
"""Failures whose last line is remembered."""


def log_only_errors() -> None:
    """Log only errors from now on: a command prints on the terminal what its log would say."""
    for logger in (_COMMAND, logging.getLogger()):
        logger.setLevel(logging.ERROR)


class Logger:
    """Logs entries as structlog's logger does: the name of an event, and facts about it."""

    def debug(self, event: str, **facts: object) -> None:
        """Log what helps to find a fault of Holdfast."""
        _log(logging.DEBUG, event, facts)

    def info(self, event: str, **facts: object) -> None:
        """Log what happened."""
        _log(logging.INFO, event, facts)

    def warning(self, event: str, **facts: object) -> None:
        """Log what an operator should know."""
        _log(logging.WARNING, event, facts)

    def error(self, event: str, **facts: object) -> None:
        """Log what an operator should mend."""
        _log(logging.ERROR, event, facts)

    def exception(self, event: str, **facts: object) -> None:
        """Log an error with the exception that is being handled."""
        _log(logging.ERROR, event, {**facts, "exc_info": True})


class RepeatedFailures:
    """Which failures were logged in the last minute: the same line again and again would hide all others."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._logged: dict[str, float] = {}

    def is_due(self, failure: str) -> bool:
        """Return whether a failure must be logged now. `failure`: a text that is the same if it is the same failure."""
        now = self._clock()
        if now - self._logged.get(failure, -_PAUSE_SECONDS) < _PAUSE_SECONDS:
            return False
        if len(self._logged) >= _MAX_REMEMBERED:
            self._logged.clear()
        self._logged[failure] = now
        return True


def _log(level: int, event: str, facts: dict[str, object]) -> None:
    if level < _COMMAND.level:
        return
    import structlog  # imported late: it takes longer than a whole command

    if _COMMAND.level and not structlog.is_configured():
        from service.logs import configure_logging

        configure_logging("error")
    structlog.get_logger().log(level, event, **facts)

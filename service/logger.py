"""The log of storage and engine, which commands use, too: structlog is imported with the first line that is logged."""

import logging

_COMMAND: logging.Logger = logging.getLogger("service")
"""Has the lowest level that a command logs. `holdfast serve` logs what its structlog is configured for."""


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


def _log(level: int, event: str, facts: dict[str, object]) -> None:
    if level < _COMMAND.level:
        return
    import structlog  # imported late: it takes longer than a whole command

    if _COMMAND.level and not structlog.is_configured():
        from service.logs import configure_logging

        configure_logging("error")
    structlog.get_logger().log(level, event, **facts)

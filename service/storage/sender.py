"""What the Store sends its commands through, and the error that a command may be answered with."""

from collections.abc import Awaitable
from typing import Any, Protocol


class CommandSender(Protocol):
    """The way to an engine: `MultiplexedConnection`, or a few lines around a redis-py client in tests and bench."""

    def send(self, *command: bytes | str | int, idempotent: bool = False) -> Awaitable[Any]:
        """Send a command. The awaitable gives its reply, with `str` for strings, or raises ErrorReply.

        `idempotent`: executing the command twice does no harm.
        """
        ...


class ErrorReply(Exception):
    """The engine replied with an error. `code` is its first word: NOSCRIPT, WRONGTYPE, READONLY, ERR, ..."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.code = text.partition(" ")[0]

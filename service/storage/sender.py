"""The interface that the Store uses to send commands, and the exception for an error reply."""

from collections.abc import Awaitable
from typing import Any, Protocol


class CommandSender(Protocol):
    """Sends commands to Redis: `MultiplexedConnection`, or a small wrapper of another client in tests and bench."""

    def send(self, *command: bytes | str | int, safe_to_repeat: bool = False) -> Awaitable[Any]:
        """Send a command. The awaitable returns its reply, with `str` for strings, or raises ErrorReply.

        `safe_to_repeat`: if the command is executed twice, that does no harm.
        """
        ...


class ErrorReply(Exception):
    """Redis replied with an error. `code` is its first word: NOSCRIPT, WRONGTYPE, READONLY, ERR, ..."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.code = text.partition(" ")[0]

"""What ends `holdfast serve` before it serves: a reason why it cannot start, and the signals that stop it."""

import os
import signal
from socket import socket
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import uvicorn

STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""SIGHUP says that the terminal was closed. `nohup` makes a process ignore it, and then Holdfast ignores it, too.

With a file of API keys, SIGHUP does not stop the service, unless the terminal is really gone: many know SIGHUP as the
signal to read such files again.
"""


def has_terminal() -> bool:
    """Return whether this process has a controlling terminal that is still there (tty(4))."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


class CannotStart(Exception):
    """The service cannot start. `reason` is for the operator."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class StopRequest:
    """Remembers that SIGINT, SIGTERM or SIGHUP has arrived.

    The handler of a signal raises nothing: CPython drops an exception that is raised while it compiles a module, and
    then the signal would be lost.
    """

    def __init__(self, *, rereads_keys: bool) -> None:
        self._requested = False
        self._server: uvicorn.Server | None = None
        self._rereads_keys = rereads_keys
        self._had_terminal = has_terminal()

    def install(self) -> None:
        for signum in STOP_SIGNALS:
            if signum != signal.SIGHUP or signal.getsignal(signum) is not signal.SIG_IGN:  # nohup ignores SIGHUP
                signal.signal(signum, self._handle)

    def is_requested(self) -> bool:
        return self._requested

    def stops(self, signum: int) -> bool:
        """Return whether this signal, which arrives now, stops the service. See STOP_SIGNALS."""
        return signum != signal.SIGHUP or not self._rereads_keys or (self._had_terminal and not has_terminal())

    def run(self, server: "uvicorn.Server", listener: socket) -> None:
        """Run a server, unless a signal has arrived. Stop it on a signal that arrives before it handles signals."""
        self._server = server
        if not self._requested:
            server.run([listener])

    def _handle(self, signum: int, frame: object) -> None:
        if not self.stops(signum):
            return
        self._requested = True
        if self._server is not None:
            self._server.should_exit = True

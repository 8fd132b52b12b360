"""`holdfast health`: ask a running service over a plain socket.

A container runs it every few seconds, so it must start fast: it imports only small modules.
"""

import socket
import sys
from time import monotonic

_TIMEOUT_SECONDS = 3.0
"""For the whole exchange."""

_MAX_BYTES = 65_536

_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
"""A server can listen on all addresses of the machine. A client must use the loopback address instead."""


def check_health(settings: dict[str, str], live: bool) -> int:
    """Ask /readyz, or /livez. Return 0 if the status is 200, 1 with a line on stderr if it is not, 2 for a bad port.

    `settings` has the texts of `host` and `port`. The defaults are repeated here: settings.py takes too long to import.
    """
    host, port = settings.get("host", "127.0.0.1"), settings.get("port", "8000")
    number = int(port) if port.isascii() and port.isdigit() and len(port) <= 20 else -1  # as in settings.py
    if not 0 <= number <= 65_535:
        return _fail(f"HOLDFAST_PORT: must be a whole number from 0 to 65535, not {port!r}", 2)
    host = _ANY_ADDRESS.get(host, host)
    path = "/livez" if live else "/readyz"
    try:
        response = _exchange(host, number, path)
    except (OSError, UnicodeError) as error:  # UnicodeError: the host cannot be a name
        reason = getattr(error, "strerror", None) or error
        return _fail(f"no answer from {host} port {port}: {reason}")
    head, _, body = response.partition(b"\r\n\r\n")
    protocol, _, status = head.partition(b"\r\n")[0].partition(b" ")
    if not protocol.startswith(b"HTTP/1."):
        return _fail(f"the program on {host} port {port} does not speak HTTP")
    if status[:3] == b"200":
        return 0
    return _fail(f"{path} answered {status.decode('latin-1')}{_title(body)}")


def _fail(reason: str, code: int = 1) -> int:
    """Do what terminal.fail() does, which takes too long to import."""
    try:  # noqa: SIM105  # without contextlib, whose import takes time, too
        print(f"holdfast: {reason}", file=sys.stderr)
    except OSError:  # nobody reads it
        pass
    return code


def _exchange(host: str, port: int, path: str) -> bytes:
    deadline = monotonic() + _TIMEOUT_SECONDS
    response = b""
    with socket.create_connection((host, port), _TIMEOUT_SECONDS) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: health\r\nConnection: close\r\n\r\n".encode())
        while len(response) < _MAX_BYTES:
            connection.settimeout(max(deadline - monotonic(), 0.001))
            part = connection.recv(_MAX_BYTES)
            if not part:
                break
            response += part
    return response


def _title(body: bytes) -> str:
    """Return the title of a problem+json body, or an empty text if the body is something else."""
    import json  # imported late: only needed if the status is not 200

    try:
        return f": {json.loads(body)['title']}"
    except (ValueError, KeyError, TypeError):
        return ""

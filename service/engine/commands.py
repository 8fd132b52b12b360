"""The few commands that Holdfast itself sends to the embedded engine."""

import socket
from io import BufferedIOBase

from service.engine.data_dir import EngineError


class Commands:
    """Sends commands to the engine, and reads its replies."""

    def __init__(self, connection: socket.socket, replies: BufferedIOBase) -> None:
        self._connection = connection
        self._replies = replies

    def send(self, command: str) -> str:
        """Return the reply to a command, a list as lines. Raise EngineError if it is an error, OSError and EOFError."""
        self._connection.sendall(f"{command}\r\n".encode())
        return self._read()

    def facts(self, *sections: str) -> dict[str, str]:
        """Return what INFO says in these sections. Raise as `send` does."""
        lines = self.send(f"INFO {' '.join(sections)}").splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def _read(self) -> str:
        line = self._replies.readline().decode().rstrip("\r\n")
        if not line:
            raise EOFError("the connection was closed")
        kind, text = line[0], line[1:]
        if kind == "-":
            raise EngineError(f"the engine refused a command: {text}")
        if kind == "$":
            return self._replies.read(int(text) + 2)[:-2].decode()
        if kind == "*":
            return "\n".join(self._read() for _ in range(int(text)))
        return text

"""Starts the servers that are compared, each in its own process on a free port."""

import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from urllib.request import urlopen

from bench.backends import Backend, Engine
from bench.processes import cpu_seconds, end_with_parent, memory_bytes, stop

ServerName = Literal["ceiling", "holdfast", "pool", "postgres"]

# The same options that `holdfast serve` gives to uvicorn.
_UVICORN_OPTIONS = ["--loop", "uvloop", "--ws", "none", "--no-access-log", "--no-server-header"]
_APPS = {
    "ceiling": "bench.apps:ceiling",
    "pool": "bench.apps:holdfast_on_pool",
    "postgres": "bench.alternative:create_app",
}


class Server:
    """A running server and its backend. The ceiling has no backend."""

    def __init__(self, port: int, pid: int, backend: Backend | None) -> None:
        self.port = port
        self.pid = pid
        self.backend = backend

    @property
    def pids(self) -> list[int]:
        """The process ids of the server and of its backend."""
        return [self.pid] if self.backend is None else [self.pid, self.backend.pid]

    def cpu_seconds(self) -> list[float]:
        """Return the CPU time of the server, and that of its backend."""
        return [cpu_seconds(pid) for pid in self.pids]

    def memory_of_idle_connections(self, count: int) -> dict[str, float]:
        """Open connections that send one request and then nothing. Return the bytes before, and per connection."""
        idle = memory_bytes(self.pid)
        connections = []
        try:
            for _ in range(count):
                connection = socket.create_connection(("127.0.0.1", self.port))
                connections.append(connection)
                connection.sendall(b"GET /products/1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                connection.recv(65_536)
            time.sleep(0.5)
            return {"idle_bytes": idle, "bytes_per_connection": (memory_bytes(self.pid) - idle) / count}
        finally:
            for connection in connections:
                connection.close()


@contextmanager
def serve(name: ServerName, backend: Backend | None, workers: int, pool_size: int) -> Iterator[Server]:
    """Start a server, wait until it answers, and stop it at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
    if isinstance(backend, Engine):
        environment |= backend.environment()
    elif backend is not None:
        environment |= backend.environment(pool_size)
    if name == "holdfast":
        command = [str(Path(sys.executable).with_name("holdfast")), "serve"]
        environment |= {"HOLDFAST_PORT": str(port), "HOLDFAST_WORKERS": str(workers)}
    else:
        options = ["--host", "127.0.0.1", "--port", str(port), "--workers", str(workers), "--log-level", "warning"]
        options += [*_UVICORN_OPTIONS, "--http"]
        options += ["service.server.http_protocol:default_protocol" if name == "pool" else "httptools"]
        command = [sys.executable, "-m", "uvicorn", "--factory", _APPS[name], *options]
    process = subprocess.Popen(end_with_parent(command), env=environment, start_new_session=True)
    try:
        deadline = time.monotonic() + 30
        while True:
            assert process.poll() is None, f"{name} ended with exit code {process.returncode}"
            try:
                with urlopen(f"http://127.0.0.1:{port}/products/1", timeout=30):
                    break
            except OSError:  # the server does not listen yet
                time.sleep(0.1)
            assert time.monotonic() < deadline, f"{name} does not answer"
        yield Server(port, process.pid, backend)
    finally:
        stop(process)


def allow_many_connections() -> None:
    """Raise the limit of open connections, for this process and those that it starts, as far as the system allows."""
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))

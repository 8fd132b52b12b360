"""The servers that are compared, each as its own process on a free port."""

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
from bench.processes import cpu_seconds, ended_with_us, memory, stop

Name = Literal["ceiling", "holdfast", "pool", "postgres"]

# As `holdfast serve` sets up uvicorn.
_UVICORN = ["--loop", "uvloop", "--ws", "none", "--no-access-log", "--no-server-header"]
_APPS = {
    "ceiling": "bench.apps:ceiling",
    "pool": "bench.apps:holdfast_on_pool",
    "postgres": "bench.alternative:create_app",
}


class Server:
    """One that runs, with what it stores in; the ceiling stores nothing."""

    def __init__(self, port: int, pid: int, backend: Backend | None) -> None:
        self.port = port
        self.pid = pid
        self.backend = backend

    @property
    def pids(self) -> list[int]:
        return [self.pid] if self.backend is None else [self.pid, self.backend.pid]

    def cpu_seconds(self) -> list[float]:
        return [cpu_seconds(pid) for pid in self.pids]

    def memory_of_idle_connections(self, count: int) -> dict[str, float]:
        """Bytes before there are connections, and for each of those that have asked once and then keep still."""
        idle = memory(self.pid)
        sockets = []
        try:
            for _ in range(count):
                one = socket.create_connection(("127.0.0.1", self.port))
                sockets.append(one)
                one.sendall(b"GET /products/1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                one.recv(65_536)
            time.sleep(0.5)
            return {"idle_bytes": idle, "bytes_per_connection": (memory(self.pid) - idle) / count}
        finally:
            for one in sockets:
                one.close()


@contextmanager
def serve(name: Name, backend: Backend | None, workers: int, pool_size: int) -> Iterator[Server]:
    """Starts it, waits until it answers, and stops it at the end."""
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
        where = ["--host", "127.0.0.1", "--port", str(port), "--workers", str(workers), "--log-level", "warning"]
        protocol = "service.server.http_protocol:HttpProtocol" if name == "pool" else "httptools"
        command = [sys.executable, "-m", "uvicorn", "--factory", _APPS[name], *where, *_UVICORN, "--http", protocol]
    process = subprocess.Popen(ended_with_us(command), env=environment, start_new_session=True)
    try:
        give_up = time.monotonic() + 30
        while True:
            assert process.poll() is None, f"{name} ended with {process.returncode}"
            try:
                with urlopen(f"http://127.0.0.1:{port}/products/1", timeout=30):
                    break
            except OSError:  # not yet
                time.sleep(0.1)
            assert time.monotonic() < give_up, f"{name} does not answer"
        yield Server(port, process.pid, backend)
    finally:
        stop(process)


def allow_many_connections() -> None:
    """As many as the system lets us and those we start have."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

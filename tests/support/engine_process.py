"""Connect to an embedded engine, and run an engine in another process."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

_RUN_ENGINE = """
import sys
from pathlib import Path
from service.engine.data_dir import EngineError
from service.engine.launcher import run_engines
try:
    with run_engines(Path(sys.argv[1]), int(sys.argv[2]), "always") as url:
        print(url, flush=True)
        sys.stdin.read()
except EngineError as error:
    print("error:", error, flush=True)
"""


@contextmanager
def connect(url: str) -> Iterator[Any]:
    """Give a Redis client that is connected to this engine."""
    path = unquote(url.removeprefix("unix://"))
    with Redis(unix_socket_path=path, retry=Retry(NoBackoff(), 0)) as redis:  # by default, it waits between attempts
        yield redis


@contextmanager
def run_engine_in_another_process(data_dir: Path, partitions: int = 1) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Give the other process, and its first line of output: the engine's URL, or `error:` with the reason."""
    command = [sys.executable, "-c", _RUN_ENGINE, str(data_dir), str(partitions)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().rstrip("\n")
        finally:
            process.kill()

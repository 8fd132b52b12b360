"""Run `holdfast` as a user runs it, in its own process and folder."""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote

import redis

from tests.support.preloaded import run_preloaded
from tests.support.products import product_hash
from tests.support.shop import mug
from tests.support.waiting import PATIENCE

HOLDFAST = [sys.executable, "-W", "error", "-m", "service"]
CHECKOUT = Path(__file__).parents[2]
PYTHONPATH = f"{Path(__file__).with_name('production')}:{CHECKOUT}"


def environment(**variables: str) -> dict[str, str]:
    """Return the environment of a command: that of the tests without its HOLDFAST_ variables, and `variables`.

    Also without PYTHONUNBUFFERED, which some machines set and most do not: it hides errors at the end of a program.
    """
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("HOLDFAST_") and name != "PYTHONUNBUFFERED"
    }
    return {**inherited, "PYTHONPATH": PYTHONPATH, "HOLDFAST_DURABILITY": "none", **variables}


class HoldfastCommand:
    """Runs `holdfast` in a folder, with its own environment variables."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.folder = folder
        self.env = environment(**variables)

    def __call__(self, *args: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command to its end. With `options` of subprocess.run(), also Python starts anew for it."""
        if not options:
            return run_preloaded([str(arg) for arg in args], self.folder, self.env)
        return subprocess.run(
            [*HOLDFAST, *args],
            cwd=self.folder,
            env=self.env,
            capture_output="stderr" not in options,
            text=True,
            timeout=60,
            check=False,
            **options,
        )

    def on_terminal(
        self, *args: str, stdout: int | None = None, stderr: int | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, whose `stdout` or `stderr` is this open terminal."""
        terminals = [None if fd is None else Path(os.ttyname(fd)) for fd in (stdout, stderr)]
        return run_preloaded(list(args), self.folder, self.env, *terminals)

    @contextmanager
    def start(self, *args: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
        """Start a command, and do not wait for its end. Kill it if the test has not waited for its end either."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        # A shell starts its background processes with SIGINT ignored, and the tests and their commands inherit that.
        handler = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            process = subprocess.Popen([*HOLDFAST, *args], cwd=self.folder, env=self.env, text=True, bufsize=1, **pipes)
        finally:
            signal.signal(signal.SIGINT, handler)
        with process:
            try:
                yield process
            finally:
                process.kill()

    def write_products(self, name: str, *product_ids: int, more: str = "") -> None:
        """Write a .jsonl file with products, followed by the text `more`, into the folder."""
        rows = [json.dumps({"id": product_id, **mug()}) + "\n" for product_id in product_ids]
        (self.folder / name).write_text("".join(rows) + more)


class SharedEngineCommand(HoldfastCommand):
    """Runs `holdfast` on the engine of the tests, in the shop `cli`, which is empty at first."""

    def __init__(self, folder: Path, engine_url: str, **variables: str) -> None:
        super().__init__(folder, HOLDFAST_REDIS_URL=engine_url, HOLDFAST_SHOP="cli", **variables)
        self.redis = redis.Redis(unix_socket_path=unquote(engine_url.removeprefix("unix://")))
        self.redis.flushall()

    def add_products(self, *product_ids: int) -> None:
        """Add products as the script writes them: ten mugs per id. This is faster than a command."""
        with self.redis.pipeline(transaction=False) as pipeline:
            for product_id in product_ids:
                fields = product_hash(product_id)
                pipeline.hset(f"{{cli}}:product:{product_id}", mapping=fields)  # type: ignore[arg-type]
                pipeline.zadd("{cli}:products", {str(product_id): product_id})
            pipeline.execute()

    def add_event(self, number: int) -> str:
        """Add the event of a stock change, as the script writes it. Return the event's id."""
        fields = {"event": "stock_moved", "product": 1, "change": number, "reason": "counted", "stock": number}
        event_id: Any = self.redis.xadd("{cli}:events", fields)  # type: ignore[arg-type]
        return str(event_id.decode())


def next_line(pipe: IO[str]) -> str:
    """Return the next line of a pipe, or fail if none arrives in time. At the end of the pipe, return an empty text."""
    line = b""
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([pipe], [], [], PATIENCE)
        assert ready, f"no line within {PATIENCE} s"
        # Not readline(): it would take the line after this one, too, and select() would not see that one any more.
        byte = os.read(pipe.fileno(), 1)
        if not byte:
            break
        line += byte
    return line.decode()


def assert_failed(result: subprocess.CompletedProcess[str], code: int, message: str) -> None:
    """Assert that the command exited with `code` and printed one line with `message` and no traceback."""
    assert result.returncode == code, result.stderr
    assert result.stdout == ""
    assert result.stderr.startswith("holdfast: ")
    assert result.stderr.count("\n") == 1, result.stderr
    assert message in result.stderr

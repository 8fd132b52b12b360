"""The real engine of the tests, and the connection of the user with the rights that Holdfast needs, and no more."""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redis import Redis

from service.engine.launcher import run_engine
from service.storage.connection import MultiplexedConnection
from tests.support.waiting import wait_until

COMPOSE = Path(__file__).parents[2] / "docker-compose.yml"


class TestConnection(MultiplexedConnection):
    """The connection of a test, which may do everything. `of_holdfast`: that of the Store."""

    __test__ = False

    of_holdfast: MultiplexedConnection


@contextmanager
def engine_of_the_tests(folder: Path) -> Iterator[str]:
    """Start an engine without durability, and yield its URL.

    HOLDFAST_TEST_ENGINE: the program of another Redis or Valkey that takes the place of the embedded one. Tests of the
    embedded engine itself do not use it.
    """
    program = os.environ.get("HOLDFAST_TEST_ENGINE")
    if program is None:
        with run_engine(folder, "none") as url:
            yield url
        return
    socket = folder / "engine.sock"
    options = ("--port", "0", "--unixsocket", str(socket), "--save", "", "--appendonly", "no", "--dir", str(folder))
    with subprocess.Popen(
        [program, *options, "--latency-monitor-threshold", "10"], stdout=subprocess.DEVNULL
    ) as process:
        try:
            wait_until(socket.exists, "the engine")
            yield f"unix://{socket}"
        finally:
            process.terminate()


def user_of_holdfast() -> list[str]:
    """Return the rights of the Redis user in docker-compose.yml, as arguments of ACL SETUSER, for all shops."""
    text = COMPOSE.read_text().partition("user holdfast on")[2].partition("END")[0].replace("$$HOLDFAST_SHOP}", "*}")
    return re.findall(r"[~+][\w{}:*|]+", text)


def make_user(url: str) -> str:
    """Make the user, and return the URL with it."""
    with Redis.from_url(url) as redis:
        redis.execute_command("ACL", "SETUSER", "holdfast", "reset", "on", ">secret", *user_of_holdfast())
    if url.startswith("unix://"):
        return f"unix://holdfast@{url.removeprefix('unix://')}?password=secret"
    return url.replace("://", "://holdfast:secret@", 1)

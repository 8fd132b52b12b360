"""What a campaign breaks: a service with its engines, the network between them, the disk and the clocks."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from httpx2 import AsyncClient, HTTPError, Limits
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from service.engine.data_dir import running_engine
from service.partition_url import partition_url
from service.storage import keys
from tests import support
from tests.support.cluster import ClusterNode, EngineCluster
from tests.support.command_line import PYTHONPATH
from tests.support.network import Network
from tests.support.processes import kill_processes_in, processes_in, wait_for_no_processes_in
from tests.support.replicas import ReplicatedEngine
from tests.support.service_process import NO_TLS, ServiceProcess, workers_of
from tests.support.waiting import wait_until

Setup = Literal["embedded", "partitions", "own", "replica", "cluster"]
"""`embedded`: the embedded engine. `partitions`: a shop with PARTITIONS, and an embedded engine for each. `own`: a
Redis of its own, behind a network that can fail. `replica`: the same with a replica that confirms each change, and can
take the place of the primary. `cluster`: a shop with PARTITIONS in a Redis Cluster of three primaries. Each has a
replica that confirms each change, and takes its place when it fails."""

PARTITIONS: Final = 4

REDIS_TIMEOUT: Final = 0.5
HEALTHY_SECONDS: Final = 15.0
"""In this time after a fault, all workers must work again. Most of it is for a busy machine."""
DISK_MEGABYTES: Final = 128
NODE_TIMEOUT_MS: Final = 1000
"""After so long without an answer, the other nodes of the cluster give a node up, and its replica takes its place."""

_ALWAYS: Final = ("--appendonly", "yes", "--appendfsync", "always")
_ENGINE_OPTIONS: Final = (*_ALWAYS, "--save", "", "--repl-diskless-sync-delay", "0")
_FAKETIME: Final = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)


class World:
    """One set-up. `missing`: what this machine does not have, so that faults are left out."""

    def __init__(self, folder: Path, setup: Setup, workers: int, *, disk: bool = False, clocks: bool = False) -> None:
        """`disk`: the embedded engine writes to a small file system. `clocks`: the clocks can be changed."""
        self.folder = folder
        self.setup = setup
        self.workers = workers
        self.missing: dict[str, str] = {}
        self.partitions = PARTITIONS if setup in ("partitions", "cluster") else 1
        self.target = 0
        """The partition whose engine has the next fault."""
        self.is_embedded = setup in ("embedded", "partitions")
        self.can_fail_over = setup in ("replica", "cluster")
        self.clock_file = folder / "clock"
        self.has_clocks, self.has_disk = clocks, disk
        self.network = Network("redis://127.0.0.1:1")
        self.engines: Sequence[ReplicatedEngine] = ()
        self.cluster: EngineCluster | None = None
        self._node: ClusterNode | None = None
        self._restarts = 0

    async def __aenter__(self) -> "World":
        self.folder.mkdir(parents=True, exist_ok=True)
        self.clock_file.write_text("+0")
        if self.has_clocks and _FAKETIME is None:
            self.has_clocks, self.missing["clock"] = False, "libfaketime is not installed (Debian: faketime)"
        if self.has_disk:
            self._mount()
        try:
            if self.setup == "cluster":
                await asyncio.to_thread(self._start_cluster)
            elif not self.is_embedded:
                await self._start_engines()
            await asyncio.to_thread(self._start_service, None)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def _start_engines(self) -> None:
        for number in range(2 if self.setup == "replica" else 1):
            engine = await asyncio.to_thread(
                ReplicatedEngine, self.folder / f"redis{number}", *_ENGINE_OPTIONS, prefix=self._clock_prefix()
            )
            self.engines = [*self.engines, engine]
        self.network.engine_url = f"redis://127.0.0.1:{self.primary.port}"
        await self.network.open()
        if self.setup == "replica":
            self.engines[1].replies("REPLICAOF", "127.0.0.1", self.primary.port)
            await self.wait(lambda: self.primary.replicas_follow(1), "the replica")

    def _start_cluster(self) -> None:
        self.cluster = EngineCluster(
            self.folder / "cluster", primaries=3, replicas=1, timeout_ms=NODE_TIMEOUT_MS, options=_ALWAYS
        )
        self.engines = self.cluster.nodes
        self.aim(0)

    async def __aexit__(self, *_: object) -> None:
        await self.network.__aexit__()
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        if hasattr(self, "service"):
            self.service.close()
        for engine in self.engines:
            engine.unfreeze()
            engine.kill()
        kill_processes_in(self.folder)
        if self.has_disk:
            subprocess.run(["umount", self.folder / "data"], check=False)

    def _mount(self) -> None:
        data = self.folder / "data"
        data.mkdir(mode=0o700)
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MEGABYTES}m,mode=700", "tmpfs", str(data)]
        with contextlib.suppress(FileNotFoundError):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                return
            self.missing["disk"] = f"a small file system cannot be mounted: {done.stderr.splitlines()[0]}"
        self.missing.setdefault("disk", "there is no `mount`")
        self.has_disk = False

    def _clock_prefix(self) -> tuple[str, ...]:
        if not self.has_clocks:
            return ()
        variables = ("FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1", f"LD_PRELOAD={_FAKETIME}")
        path = f"PYTHONPATH={Path(support.__file__).parent / 'faketime'}:{PYTHONPATH}"
        return "env", f"FAKETIME_TIMESTAMP_FILE={self.clock_file}", path, *variables

    def _start_service(self, port: int | None) -> None:
        settings: dict[str, Any] = {"redis_timeout": REDIS_TIMEOUT, "log_format": "json", "workers": self.workers}
        settings["partitions"] = self.partitions
        if not self.is_embedded:
            settings["redis_url"] = self.network.url if self.cluster is None else self.cluster.url
        if self.can_fail_over:
            settings["wait_replicas"] = 1
        command = (*self._clock_prefix(), sys.executable, "-m", "service") if self.has_clocks else None
        self.service = ServiceProcess(self.folder, command, port, **settings)
        self.service.wait_until_ready()
        if self.workers > 1:
            wait_until(lambda: len(workers_of(self.service)) == self.workers, "all workers")

    async def restart_service(self, signum: signal.Signals) -> None:
        """End all processes of the service, and start it again on the same port."""
        self.service.process.send_signal(signum)
        await asyncio.to_thread(self.service.process.wait, 20)
        self.service.client.close()
        if self.is_embedded:
            await asyncio.to_thread(wait_for_no_processes_in, self.folder)
        else:
            await self.wait(lambda: not self._processes_of_service(), "the end of the workers")
        await asyncio.to_thread(self._start_service, self.service.port)

    def _processes_of_service(self) -> list[int]:
        of_engines = {pid for engine in self.engines for pid in processes_in(engine.folder)}
        return [pid for pid in processes_in(self.folder) if pid not in of_engines]

    def aim(self, partition: int) -> None:
        """Let the next fault happen to the engine of this partition: in a cluster, to the node that has it now."""
        self.target = partition
        if self.cluster is not None:
            self._node = self.cluster.owner(self.shops()[partition])

    @property
    def primary(self) -> ReplicatedEngine:
        return self._node or self.engines[0]

    @property
    def replica(self) -> ReplicatedEngine:
        """The replica of `primary`."""
        if self.cluster is None or self._node is None:
            return self.engines[1]
        return self.cluster.replica_of(self._node)

    @property
    def engine_pid(self) -> int:
        """The process of the engine, with partitions: of `target`. Wait until there is one."""
        if self.engines:
            return self.primary.process.pid
        data = self._engine_dir
        wait_until(lambda: len(processes_in(data)) == 1, "the embedded engine")
        return processes_in(data)[0]

    @property
    def _engine_dir(self) -> Path:
        data = self.service.data_dir
        return data / "partitions" / str(self.target) if self.partitions > 1 else data

    @property
    def engine_url(self) -> str:
        """The URL of the engine, without the network. With an engine for each partition, it has a `{partition}`."""
        if self.cluster is not None:
            return self.cluster.url
        if self.engines:
            return f"redis://127.0.0.1:{self.primary.port}"
        return running_engine(self.service.data_dir) or "unix://none"

    def client(self, partition: int | None = None) -> "Redis":
        """Return a client of the engine, with partitions: of this one, or of `target`."""
        if self.cluster is not None:
            node = self.primary if partition is None else self.cluster.owner(self.shops()[partition])
            client: Redis = node.client(5)
            return client
        url = partition_url(self.engine_url, self.target if partition is None else partition)
        return Redis.from_url(url, decode_responses=True, socket_timeout=5, retry=Retry(NoBackoff(), 0))

    async def command(self, *command: str | int) -> Any:
        """Run a command on the engine, as its administrator does."""

        def run() -> Any:
            with self.client() as client:
                return client.execute_command(*command)

        return await asyncio.to_thread(run)

    async def kill_engine(self) -> None:
        """Kill the engine. The service starts the embedded one again, this method any other."""
        pid = await asyncio.to_thread(lambda: self.engine_pid)
        if self.engines:
            await self.kill(self.primary)
            await asyncio.to_thread(self.primary.start)
        else:
            os.kill(pid, signal.SIGKILL)
            await self.wait(lambda: pid not in processes_in(self._engine_dir), "the end of the engine")

    async def kill(self, engine: ReplicatedEngine) -> None:
        """Kill an engine, and wait until its child has ended, too, which rewrites the file: it keeps the port open."""
        await asyncio.to_thread(engine.kill)
        await asyncio.to_thread(wait_for_no_processes_in, engine.folder)

    async def promote(self) -> None:
        """Kill the primary, let the replica take its place, and make the old one its replica."""
        old, new = self.engines
        await self.kill(old)
        new.replies("REPLICAOF", "NO", "ONE")
        self.engines = [new, old]
        self.network.engine_url = f"redis://127.0.0.1:{new.port}"
        self.network.cut()
        await asyncio.to_thread(old.start)
        old.replies("REPLICAOF", "127.0.0.1", new.port)

    def shops(self) -> list[str]:
        """Return the names whose keys the engines have: of the shop, or of each partition."""
        if self.partitions == 1:
            return ["shop"]
        return [keys.partition("shop", number) for number in range(self.partitions)]

    async def settle(self) -> None:
        """Wait until the next fault may happen: until each node of the cluster has a replica that follows."""
        if self.cluster is not None:
            await self.wait(self.cluster.is_settled, "the cluster")

    async def wait(self, condition: Callable[[], object], description: str) -> None:
        """Wait for a condition in another thread, because the network is in this one."""
        await asyncio.to_thread(wait_until, condition, description)

    async def seconds_until_healthy(self, placed: Sequence[int]) -> float:
        """Wait until all workers are ready, and orders are confirmed in each partition. Return how long that took.

        `placed`: the ids of confirmed orders, to which clients append.
        """
        began, before, ready = time.monotonic(), len(placed), 0
        url, limits = f"http://127.0.0.1:{self.service.port}", Limits(max_keepalive_connections=0)
        async with AsyncClient(base_url=url, timeout=2, limits=limits, verify=NO_TLS) as client:
            while ready < 3 * self.workers or len({id_ % self.partitions for id_ in placed[before:]}) < self.partitions:
                try:
                    ready = ready + 1 if (await client.get("/readyz")).status_code == 200 else 0
                except HTTPError:
                    ready = 0
                if time.monotonic() - began > HEALTHY_SECONDS + 1:
                    return float("inf")
                await asyncio.sleep(0.01)
        return time.monotonic() - began

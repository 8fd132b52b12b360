"""Runs the checks of requirements.py on a Redis, and writes the schema version of a new shop."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from service.domain.errors.storage import ReplicaRedis, StorageError, UnsupportedRedis
from service.logger import Logger
from service.settings import Durability
from service.storage import keys
from service.storage.requirements import (
    ENGINE_SETTINGS,
    LAYOUT_FIELD,
    PARTITIONS_FIELD,
    SCHEMA_VERSION,
    UPGRADE_FIELD,
    check_partitions,
    check_rights,
    check_role,
    check_schema_version,
    check_settings,
    check_version,
    lost_data,
    read_run_id,
    rights_to_try,
)
from service.storage.scripts import load_scripts
from service.storage.sender import ErrorReply

log = Logger()

CHECK_INTERVAL_SECONDS: Final = 1.0
"""Pause between two checks of a running service: for so long, a change of Redis can stay unnoticed."""


class _Send(Protocol):
    async def __call__(self, *command: str | int, safe_to_repeat: bool = False, skip_check: bool = False) -> Any: ...


class _Execute(Protocol):
    async def __call__(self, *command: str | int) -> Any: ...


class Beginning(Protocol):
    """The questions that EngineCheck asks before it begins the data of one part of a shop."""

    async def check_first(self) -> None:
        """Check the shop before the part. Raise UnsupportedRedis."""

    async def has_begun(self) -> bool:
        """Return whether the part had data at any time. If they are missing now, they are lost."""

    async def note_begun(self) -> bool:
        """Note that the part has data. Return False if that must be done later."""


class EngineCheck:
    """Whether a Redis may be used. `passed`: the last check that could be carried out was successful."""

    def __init__(
        self,
        shop: str,
        durability: Durability,
        *,
        creates_shop: bool = True,
        waits_for_replicas: bool = False,
        upgrades: bool = False,
        partitions: int = 1,
        beginning: Beginning | None = None,
    ) -> None:
        """Prepare the check.

        `creates_shop`: whether a shop without data gets its schema version. Otherwise nothing is written.
        `waits_for_replicas`: whether WAIT is needed, too.
        `upgrades`: whether data of an older schema version may be used.
        `partitions`: of the shop. It is noted with the schema version, and never changes.
        `beginning`: of data that are a part of a shop; None: they are the whole shop.
        """
        self._partitions = partitions
        self._beginning = beginning
        self._beginning_is_noted = False
        self._had_data = False
        self._upgrades = upgrades
        self.waits_for_replicas = waits_for_replicas
        self._creates_shop = creates_shop
        self._rights_are_due = False
        self._connections = 0
        self.server_id = ""
        """Of the running server. After a restart or a failover it is another one."""
        self._shop = shop
        self._key = keys.meta(shop)
        self._durability = durability
        self._warned_of: set[tuple[str, ...]] = set()
        self.passed = False
        self.after_check: list[Callable[[], Awaitable[None]]] = []
        """Called after each check that passed. The data may be others than at the last check."""
        self.on_replica: Callable[[], None] | None = None
        """Called if Redis has become a replica: a new connection may lead to the new primary."""

    async def verify_connection(self, execute: _Execute) -> None:
        """Check the Redis at the other end of a new connection, before any other command is sent over it.

        Raise UnsupportedRedis, and what `execute` raises.
        """
        self.begin_anew()
        await self.verify_engine(execute)
        await self._check_rights(execute)
        self._rights_are_due = False

    def begin_anew(self) -> None:
        """Note that there is another Redis, or the same after a restart: the next command checks it and its data."""
        self.passed = False
        self._rights_are_due = True
        self._connections += 1
        self.server_id = f"connection {self._connections}"  # if INFO is forbidden

    async def run(self, send: _Send) -> None:
        """Check Redis and its data. Raise UnsupportedRedis, and what `send` raises."""

        async def execute(*command: str | int) -> Any:
            return await send(*command, safe_to_repeat=True, skip_check=True)

        checked = -1
        while checked != self._connections:  # otherwise a part of the check was about the Redis before
            checked = self._connections
            await self._run(execute)
        self.passed = True
        for callback in self.after_check:
            await callback()

    async def _run(self, execute: _Execute) -> None:
        try:
            if self._beginning is not None:
                await self._beginning.check_first()
            await self.verify_engine(execute)
            if self._rights_are_due:  # in a cluster: the connection to a node is there for several shops
                self._rights_are_due = False  # before the check: meanwhile it may become due again
                try:
                    await self._check_rights(execute)
                except BaseException:
                    self._rights_are_due = True
                    raise
            await self._check_schema(execute)
        except UnsupportedRedis as error:
            self.passed = False
            if isinstance(error, ReplicaRedis) and self.on_replica is not None:
                self.on_replica()
            raise

    async def verify_engine(self, execute: _Execute) -> None:
        """Check version, settings and role. If the ACL forbids to read them, warn once instead."""
        checks: list[tuple[tuple[str, ...], Callable[[Any], None]]] = [
            (("INFO", "server"), self._check_server),
            (("CONFIG", "GET", *ENGINE_SETTINGS), lambda reply: check_settings(reply, self._durability)),
            (("INFO", "replication"), check_role),
        ]
        for command, check in checks:
            try:
                reply = await execute(*command)
            except ErrorReply as error:
                if command[0] not in {warned[0] for warned in self._warned_of}:
                    log.warning(
                        "redis_not_checked",
                        command=command,
                        reason=str(error),
                        then="Holdfast continues, but does not check the version, the settings or the role",
                    )
                self._warned_of.add(command)
            else:
                check(reply)

    def _check_server(self, info: str) -> None:
        check_version(info)
        self.server_id = read_run_id(info) or self.server_id

    async def _check_rights(self, execute: _Execute) -> None:
        """Check that the user may run all commands of the scripts on the keys of the shop."""
        names, calls = rights_to_try(self._shop)
        source = load_scripts()["check_rights"].source
        try:
            reply = await execute("EVAL", source, len(names), *names, *calls)
        except ErrorReply as error:
            if error.code in ("NOPERM", "ERR"):
                raise UnsupportedRedis(f"the Redis user cannot run scripts on the keys of the shop: {error}") from None
            raise
        check_rights(reply)
        if self.waits_for_replicas:
            try:
                await execute("WAIT", 0, 1)
            except ErrorReply as error:
                raise UnsupportedRedis(f"HOLDFAST_WAIT_REPLICAS needs the command WAIT: {error}") from None

    async def _check_schema(self, execute: _Execute) -> None:
        had_data = self._had_data  # before the read: another check may begin the shop meanwhile
        version, unfinished, partitions = await self._read_schema(execute)
        if version is None and self._beginning is not None and await self._beginning.has_begun():
            # Another worker may have begun the data since they were read.
            version, unfinished, partitions = await self._read_schema(execute)
            if version is None:
                raise UnsupportedRedis(lost_data(self._key))
        if version is None and had_data:
            self._had_data = False
            log.error(
                "data_changed", reason=f"{self._key} is gone", then="the shop begins anew, without orders and products"
            )
        if version is None:
            if not self._creates_shop:
                return
            # Write only if the shop is new. Otherwise a full Redis would refuse this write, and not even the audit
            # could read.
            if self._partitions > 1:  # first: it must not be begun as a shop without partitions
                await execute("HSETNX", self._key, PARTITIONS_FIELD, self._partitions)
            await execute("HSETNX", self._key, LAYOUT_FIELD, SCHEMA_VERSION)
            self._beginning_is_noted = False
            # Another service may have begun the shop at the same time, with another number of partitions.
            _, _, partitions = await self._read_schema(execute)
            check_partitions(partitions, self._partitions)
        else:
            check_partitions(partitions, self._partitions)
            check_schema_version(version, unfinished, older_is_usable=self._upgrades)
        self._had_data = True
        if not self._beginning_is_noted and self._creates_shop and self._beginning is not None:
            self._beginning_is_noted = await self._beginning.note_begun()

    async def _read_schema(self, execute: _Execute) -> tuple[str | None, str | None, str | None]:
        try:
            version, unfinished, partitions = await execute(
                "HMGET", self._key, LAYOUT_FIELD, UPGRADE_FIELD, PARTITIONS_FIELD
            )
        except ErrorReply as error:
            if error.code != "WRONGTYPE":
                raise
            raise UnsupportedRedis(f"{self._key} is not a hash, so Holdfast did not write it") from None
        return version, unfinished, partitions


async def check_regularly(check: Callable[[], Awaitable[None]], **facts: int | str) -> None:
    """Repeat a check without end. It is logged, with these facts, when it begins to fail and when it passes again."""
    reason = ""
    while True:
        await asyncio.sleep(CHECK_INTERVAL_SECONDS)
        before = reason
        try:
            await check()
            reason = ""
        except StorageError as error:
            reason = error.reason
        except Exception as error:
            reason = repr(error)
        if reason != before:
            if reason:
                log.error("redis_unusable", reason=reason, then="requests get 503 until Redis can be used", **facts)
            else:
                log.info("redis_usable", **facts)

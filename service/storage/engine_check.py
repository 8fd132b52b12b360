"""Runs the checks of requirements.py on a Redis, and writes the schema version of a new shop."""

from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

import structlog

from service.domain.errors.storage import UnsupportedRedis
from service.settings import Durability
from service.storage import keys
from service.storage.requirements import (
    ENGINE_SETTINGS,
    SCHEMA_VERSION,
    check_schema_version,
    check_settings,
    check_version,
)
from service.storage.sender import ErrorReply

log = structlog.get_logger()

_SCHEMA_FIELD: Final = "layout"
"""The field of `{shop}:meta` that has the schema version."""


class _Send(Protocol):
    async def __call__(self, *command: str | int, safe_to_repeat: bool = False, skip_check: bool = False) -> Any: ...


class EngineCheck:
    """Whether a Redis may be used. `passed`: the last check that could be carried out was successful."""

    def __init__(self, send: _Send, shop: str, durability: Durability) -> None:
        self._send = send
        self._key = keys.meta(shop)
        self._durability = durability
        self._warned_of: set[tuple[str, ...]] = set()
        self.passed = False
        self.after_check: list[Callable[[], Awaitable[None]]] = []
        """Called after each check that passed. The data may be others than at the last check."""

    async def run(self) -> None:
        """Check Redis and its data. Raise UnsupportedRedis, and what sending raises."""
        try:
            await self._check_engine()
            await self._check_schema()
        except UnsupportedRedis:
            self.passed = False
            raise
        self.passed = True
        for callback in self.after_check:
            await callback()

    async def _check_engine(self) -> None:
        """Check the version and the settings. If the ACL forbids to read them, warn once instead."""
        checks: list[tuple[tuple[str, ...], Callable[[Any], None]]] = [
            (("INFO", "server"), check_version),
            (("CONFIG", "GET", *ENGINE_SETTINGS), lambda reply: check_settings(reply, self._durability)),
        ]
        for command, check in checks:
            try:
                reply = await self._send(*command, safe_to_repeat=True, skip_check=True)
            except ErrorReply as error:
                if command not in self._warned_of:
                    log.warning(
                        "redis_not_checked",
                        command=command,
                        reason=str(error),
                        then="Holdfast continues, but does not check the version or the settings",
                    )
                self._warned_of.add(command)
            else:
                check(reply)

    async def _check_schema(self) -> None:
        version = await self._send("HGET", self._key, _SCHEMA_FIELD, safe_to_repeat=True, skip_check=True)
        if version is None:
            # Write only if the shop is new. Otherwise a full Redis would refuse this write, and not even the audit
            # could read.
            await self._send("HSETNX", self._key, _SCHEMA_FIELD, SCHEMA_VERSION, safe_to_repeat=True, skip_check=True)
        else:
            check_schema_version(int(version))

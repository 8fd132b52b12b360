"""The mark of a shop with partitions, `{shop}:meta`: the number of partitions, and which of them have had data.

A partition that has lost its data must not begin again as an empty one: it would get its first units of each product
again, and sell them a second time.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from service.domain.errors.storage import StorageUnavailable
from service.storage import keys
from service.storage.engine_check import EngineCheck
from service.storage.requirements import LAYOUT_FIELD
from service.storage.store import Store


def begun_field(number: int) -> str:
    """Return the field that says that a partition was begun."""
    return f"begun:{number}"


class ShopMark:
    """The mark of a shop. `check`: of its Redis. Each method also raises what RedisClient raises."""

    check: EngineCheck

    def __init__(self, shop: str) -> None:
        self._key = keys.meta(shop)
        self._store: Store | None = None
        self._partitions: Sequence[Store] = ()
        self.was_checked = False

    def join(self, store: Store, partitions: Sequence[Store]) -> None:
        """Give the mark its Store, and those of all partitions, before anything is checked."""
        self._store, self._partitions = store, partitions

    async def check_once(self) -> None:
        """Check the number of partitions that the shop was begun with, unless that was done. Raise UnsupportedRedis.

        Once is enough: each partition has the number, too. So a partition can be used while the Redis of the mark is
        away.
        """
        if not self.was_checked:
            await self.check_again()

    async def check_again(self) -> None:
        """Check it, and begin the mark if the shop is new. Raise UnsupportedRedis."""
        assert self._store is not None
        await self._store.check()
        self.was_checked = True

    async def any_partition_has_data(self) -> bool:
        """Return whether a partition was begun already."""
        for store in self._partitions:
            name = keys.meta(store.client.shop)
            if await store.client.send("HGET", name, LAYOUT_FIELD, safe_to_repeat=True, skip_check=True) is not None:
                return True
        return False

    async def has_begun(self, number: int) -> bool:
        """Return whether a partition was begun at any time."""
        await self.check_again()  # all data may be gone: then the mark is, too
        return await self._send("HGET", self._key, begun_field(number)) is not None

    async def note_begun(self, number: int) -> None:
        """Note that a partition was begun."""
        await self._send("HSETNX", self._key, begun_field(number), 1)

    async def _send(self, *command: str | int) -> Any:
        assert self._store is not None
        return await self._store.client.send(*command, safe_to_repeat=True)


class BeginningOfMark:
    """What the check of the mark asks before it begins a shop."""

    def __init__(self, mark: ShopMark) -> None:
        self._mark = mark

    async def check_first(self) -> None:
        """Check nothing before."""

    async def has_begun(self) -> bool:
        """Return whether the shop has data elsewhere."""
        return await self._mark.any_partition_has_data()

    async def note_begun(self) -> bool:
        """Note nothing: the mark is the note."""
        return True


class BeginningOfPartition:
    """What the check of a partition asks before it begins the partition."""

    def __init__(self, mark: ShopMark, number: int) -> None:
        self._mark = mark
        self._number = number

    async def check_first(self) -> None:
        """Check the number of partitions, if the mark can be read. Raise UnsupportedRedis.

        A partition with data stores the number, too, and its own check compares it. So it can be used while the Redis
        of the mark is away. A partition without data cannot be begun then: see `has_begun`.
        """
        with suppress(StorageUnavailable):
            await self._mark.check_once()

    async def has_begun(self) -> bool:
        """Return whether this partition was begun at any time."""
        return await self._mark.has_begun(self._number)

    async def note_begun(self) -> bool:
        """Note that this partition was begun. Return False if that must be done later: the mark cannot be read."""
        if not self._mark.was_checked:
            return False
        try:
            await self._mark.note_begun(self._number)
        except StorageUnavailable:
            return False
        return True

"""Brings changes of products from their home partition to all other partitions of a shop.

The home of a product is the partition `id mod P`. A change is made there, and noted in `unpropagated` by the same
script. It is answered when all partitions have it. What was interrupted, the sweeper brings to its end.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from contextlib import asynccontextmanager
from itertools import chain
from typing import Final, TypeVar

from service.domain.errors.refusals import ProductNotFound
from service.domain.errors.storage import OutcomeUnknown, StorageError, StorageUnavailable
from service.logger import Logger, RepeatedFailures
from service.metrics.families import PUSHES
from service.storage import keys
from service.storage.client import RedisClient
from service.storage.records import CATALOGUE_FIELDS
from service.storage.refusals import unknown_reply

log = Logger()

T = TypeVar("T")

_STATE: Final = ("version", "share", "withdrawn", *CATALOGUE_FIELDS)


class CataloguePushes:
    """The changes of products that some partitions do not have yet. Each method also raises what RedisClient raises."""

    def __init__(self) -> None:
        """Begin without partitions: they are added to `partitions`."""
        self.partitions: list[RedisClient] = []
        self._logged = RepeatedFailures()

    def home(self, product_id: int) -> int:
        """Return the partition where a product is changed."""
        return product_id % len(self.partitions)

    @asynccontextmanager
    async def at_home(self, product_id: int) -> AsyncIterator[int]:
        """Yield the home of a product. Instead of ProductNotFound, raise StorageUnavailable if the product is lost."""
        try:
            yield self.home(product_id)
        except ProductNotFound:
            await self.check_home(product_id)
            raise

    async def check_home(self, product_id: int) -> None:
        """Raise StorageUnavailable if the home of a product has lost it."""
        await self.update(self.home(product_id), [product_id])

    async def push(self, product_id: int) -> None:
        """Bring a product, as its home partition has it now, to all other partitions.

        Raise OutcomeUnknown if not all of them have it: the change is made, and reaches them later, unless a partition
        has lost the product.
        """
        home = self.home(product_id)
        client = self.partitions[home]
        try:
            [[version, share, withdrawn, *values]] = await client.read_confirmed(
                [keys.product(client.shop, product_id)], _STATE
            )
            if version is None:
                raise self._lost(client, product_id)
            if share is not None and not await self._is_unpropagated(product_id):
                share = None  # all have had it: somebody has just noted that, or an older program did not remove it
            pairs = [part or "" for part in chain.from_iterable(zip(CATALOGUE_FIELDS, values, strict=True))]
            others = [partition for number, partition in enumerate(self.partitions) if number != home]
            args = push_product_args(
                product_id=product_id, version=version, share=share or "", withdrawn=withdrawn or "0", pairs=pairs
            )
            await _all([self._push(partition, product_id, args) for partition in others])
            await client.run(
                "note_propagated",
                (keys.product(client.shop, product_id), keys.unpropagated(client.shop)),
                note_propagated_args(product_id=product_id, version=version),
            )
        except StorageError as error:  # also Overloaded, which says that nothing was done
            raise OutcomeUnknown(error.reason) from error
        client.metrics.count(PUSHES)

    async def bring(self, product_id: int) -> None:
        """Push a product for a request that has not changed it.

        Raise StorageUnavailable if not all partitions get it now: nothing that the request wants was done.
        """
        try:
            await self.push(product_id)
        except OutcomeUnknown as error:
            raise StorageUnavailable(error.reason) from error

    async def finish(self, product_id: int) -> None:
        """Push a product if an earlier request was interrupted before all partitions had its change.

        Raise StorageUnavailable if they do not get it now.
        """
        if await self._is_unpropagated(product_id):
            await self.bring(product_id)

    async def _is_unpropagated(self, product_id: int) -> bool:
        client = self.partitions[self.home(product_id)]
        index = keys.unpropagated(client.shop)
        return await client.send("ZSCORE", index, product_id, safe_to_repeat=True) is not None

    async def update(self, partition: int, product_ids: Iterable[int]) -> bool:
        """Push those of these products of which a partition has an old version.

        Return False if it is the home of all of them: it never has an old version. Raise StorageUnavailable if the
        partition does not get them now, and if it has lost one of them.
        """
        ids = list(product_ids)
        elsewhere = {id_: self._elsewhere(id_, partition) for id_ in ids}
        asked = sorted(set(elsewhere.values()))
        rows = await _all([self._versions(number, [i for i in ids if elsewhere[i] == number]) for number in asked])
        # Read last: if the other partitions have a product, and this one does not have it after that, it is lost here.
        here = await self._versions(partition, ids)
        found = {id_: version for versions in rows for id_, version in versions.items()}
        for id_ in ids:
            if self.home(id_) == partition and found[id_] and not here[id_]:
                raise self._lost(self.partitions[partition], id_)
        away = [id_ for id_ in ids if self.home(id_) != partition]
        await _all([self.bring(id_) for id_ in away if found[id_] > here[id_]])
        return bool(away)

    def _elsewhere(self, product_id: int, partition: int) -> int:
        """Return the partition that can tell what another one lacks: the home; for the home, the partition after it."""
        home = self.home(product_id)
        return home if home != partition else (home + 1) % len(self.partitions)

    async def _versions(self, partition: int, product_ids: Sequence[int]) -> dict[int, int]:
        client = self.partitions[partition]
        names = [keys.product(client.shop, product_id) for product_id in product_ids]
        rows = await client.read_confirmed(names, ("version",))
        return {product_id: int(version or 0) for product_id, [version] in zip(product_ids, rows, strict=True)}

    async def _push(self, client: RedisClient, product_id: int, args: Sequence[str | int]) -> None:
        names = (keys.product(client.shop, product_id), keys.products(client.shop))
        reply = await client.run("push_product", names, args)
        if reply == ["lost"]:
            raise self._lost(client, product_id)
        if reply not in (["pushed"], ["known"]):
            raise unknown_reply("push_product", reply)

    def _lost(self, client: RedisClient, product_id: int) -> StorageUnavailable:
        """Log that a partition has lost a product, and return the error. Other partitions go on selling the product."""
        key = keys.product(client.shop, product_id)
        if self._logged.is_due(key):
            log.error(
                "product_lost",
                key=key,
                then="in this partition, orders for this product get 503; other partitions sell it",
            )
        return StorageUnavailable(f"{key} is lost: see docs/scale.md#if-the-data-of-a-partition-are-lost")


async def _all(work: Sequence[Awaitable[T]]) -> list[T]:
    """Return all results. Wait for all, even if one fails, and then raise its error."""
    results = await asyncio.gather(*work, return_exceptions=True)
    done: list[T] = []
    for result in results:
        if isinstance(result, BaseException):
            raise result
        done.append(result)
    return done


def push_product_args(
    *, product_id: int, version: str, share: str, withdrawn: str, pairs: Sequence[str]
) -> tuple[str | int, ...]:
    """Return ARGV of lua/push_product.lua."""
    return (product_id, version, share, withdrawn, *pairs)


def note_propagated_args(*, product_id: int, version: str) -> tuple[str | int, ...]:
    """Return ARGV of lua/note_propagated.lua."""
    return (product_id, version)

"""Moves units from one partition of a shop to another. docs/scale.md describes the steps: give, take, settle.

Units that were given are on their way until they are taken in. If a step fails, a later transfer or a sweeper brings
them.
"""

import asyncio
from collections.abc import Awaitable, Collection, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple, TypeVar

from service.domain.errors.storage import StorageError
from service.logger import Logger, RepeatedFailures
from service.metrics.counters import Metrics
from service.metrics.families import TRANSFERRED_UNITS, TRANSFERS
from service.storage.background import BackgroundTasks, has_failed
from service.storage.transfers import Transfer, Transfers, Wish

log = Logger()

T = TypeVar("T")

_SETTLE_FROM: Final = 50
"""If so many transfers are on their way, they are settled immediately. Otherwise, the next transfer settles them."""


class Delivered(NamedTuple):
    """The result of a delivery. `product_ids`: products to push. `errors`: why some units did not arrive."""

    product_ids: list[int]
    errors: list[BaseException]


class Deliveries:
    """The transfers that this worker makes."""

    def __init__(self, partitions: Sequence[Transfers], patience: float, metrics: Metrics) -> None:
        """`partitions`: may grow later. `patience`: for so many seconds, `move` waits for a partition."""
        self._partitions = partitions
        self._patience = patience
        self._metrics = metrics
        self._tasks = BackgroundTasks()
        self._taken: dict[tuple[int, int], str] = {}
        """By source and destination: the last transfer that is known to have arrived. The next one settles it."""
        self._last_taken: dict[tuple[int, int], str] = {}
        """By source and destination: the last transfer that was taken in, when all partitions were last asked."""
        self._logged = RepeatedFailures()

    async def move(self, wishes: Mapping[tuple[int, int], Mapping[int, Wish]]) -> None:
        """Transfer units. Return when the sources have given them, or when they take too long.

        Each take begins immediately, so it is executed before an order that is sent to the same partition later.

        `wishes`: by source and destination, then by product.
        """
        gives = {
            self._tasks.start(
                self._partitions[source].give(to, self._taken.get((source, to), "0"), list(products.values())),
                "exchange-give",
            ): (source, to)
            for (source, to), products in wishes.items()
        }
        if not gives:
            return
        self._metrics.count(TRANSFERS, len(gives))
        done, late = await asyncio.wait(gives, timeout=self._patience)
        for give in done:
            self._take(*gives[give], give)
        for give in late:
            give.add_done_callback(partial(self._take, *gives[give]))

    def _take(self, source: int, to: int, give: asyncio.Future[list[Transfer]]) -> None:
        if not has_failed(give) and (transfers := give.result()):
            self._tasks.start(self._deliver_quietly(source, to, transfers), "exchange-take")

    async def _deliver_quietly(self, source: int, to: int, transfers: Sequence[Transfer]) -> None:
        try:
            await self._deliver(source, to, transfers, settles=len(transfers) >= _SETTLE_FROM)
        except StorageError as error:
            log.debug("units_on_their_way", source=source, to=to, reason=error.reason, then="a sweeper brings them")
        except Exception:
            log.exception("exchange_failed")

    async def _deliver(self, source: int, to: int, transfers: Sequence[Transfer], *, settles: bool) -> None:
        taken = await self._partitions[to].take(source, transfers)
        self._metrics.count(TRANSFERRED_UNITS, taken.units)
        self._taken[source, to] = max(self._taken.get((source, to), "0"), taken.id, key=int)
        if settles:
            await self._partitions[source].settle(to, taken.id)

    async def deliver_all(self, silent: Collection[int] = ()) -> Delivered:
        """Bring all units on their way to their destinations. Partitions that do not answer do not delay the others.

        Several workers may do this at the same time: no unit is lost or doubled.

        `silent`: partitions that did not answer before; they are not asked.
        """
        numbers = [number for number in range(len(self._partitions)) if number not in silent]
        work = [self._deliver_from(source, [to for to in numbers if to != source]) for source in numbers]
        found = await asyncio.gather(*work, return_exceptions=True)
        delivered = Delivered([], [])
        for part in found:
            if isinstance(part, BaseException):
                delivered.errors.append(part)
            else:
                delivered.product_ids.extend(part.product_ids)
                delivered.errors.extend(part.errors)
        return delivered

    async def _deliver_from(self, source: int, others: Sequence[int]) -> Delivered:
        taken_before = {to: self._last_taken.get((source, to), "0") for to in others}
        outgoing = await _named(source, self._partitions[source].outgoing(others))
        for to, taken in taken_before.items():
            if _as_id(taken) > _as_id(sent := outgoing.sent.get(str(to), "0")):
                self._report_older(source, to, taken, sent)
        self._last_taken |= {(other, source): outgoing.taken.get(str(other), "0") for other in others}
        work = [
            _named(to, self._deliver(source, to, transfers, settles=True))
            for to, transfers in outgoing.transfers.items()
        ]
        results = await asyncio.gather(*work, return_exceptions=True)
        return Delivered(outgoing.product_ids, [error for error in results if error is not None])

    def _report_older(self, source: int, to: int, taken: str, sent: str) -> None:
        if self._logged.is_due(f"older {source} {to}"):
            log.error(
                "partition_is_older",
                partition=source,
                reason=f"partition {to} has taken in transfer {taken} from here, but the last that was given is {sent}",
                then="units are doubled or lost: run holdfast audit, and see docs/scale.md",
            )

    async def close(self) -> None:
        """Cancel all tasks. The sweeper of another worker finishes the transfers that they have begun."""
        await self._tasks.close()


async def _named(partition: int, work: Awaitable[T]) -> T:
    """Return the result of work. If it fails, name the partition in the reason."""
    try:
        return await work
    except StorageError as error:
        raise type(error)(f"partition {partition}: {error.reason}") from error


def _as_id(text: str) -> int:
    """Return the id of a transfer, or 0 if the text is not an id: the audit reports such a text."""
    return int(text) if text.isdecimal() else 0

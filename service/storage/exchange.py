"""Brings units to the partition where an order needs them.

A partition that has too few units of a product for an order asks the others. All orders of this worker that wait for
units share the next cycle: one look at each partition, and one transfer from one partition to another. docs/scale.md
describes the steps, and what is left if one of them fails.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

from service.domain.errors.storage import Overloaded, StorageError, StorageUnavailable
from service.logger import Logger, RepeatedFailures
from service.metrics.counters import Metrics
from service.metrics.families import EXCHANGES, TRANSFERRED_UNITS, TRANSFERS
from service.storage.exchange_plan import Plan, Waiting, add_up
from service.storage.transfers import Transfer, Transfers, Units, Wish

log = Logger()

T = TypeVar("T")

MAX_LINES: Final = 1000
"""Order lines from which on further orders are in the next cycle: a script with more lines would delay all others, and
one with 4,000 products would fail."""

MAX_WAITING: Final = 10_000
"""Orders that may wait for units. With more, the last would wait longer than a client does."""

CLAIM_FROM_ATTEMPT: Final = 2
"""From this attempt on, counted from 0, an order claims units: two orders could otherwise take them from each other
for ever."""

_PLENTY: Final = 8
"""A product is guessed to be plentiful if the last look found so many times what each partition would need."""

_MAX_KNOWN: Final = 100_000
"""Products whose last look is remembered."""

_WAIT_SHARE: Final = 0.5
"""The part of the timeout of a command for which a cycle waits for a partition. It goes on with the others then."""

_SHORT_PATIENCE_SECONDS: Final = 0.05
"""For so long, a look waits for a partition that was silent at the last one."""

_PAUSE_SECONDS: Final = 0.005
"""Longest pause, at random, of an order whose units are on their way elsewhere. It grows with each attempt."""

_MAX_PAUSE_SECONDS: Final = 0.1
"""The longest pause after any number of attempts: if the units arrive at last, the order must soon see them."""

TOO_LATE: Final = "the units do not come to their partition in time: if this goes on, run holdfast audit"
"""Why an order fails after its deadline."""

_SETTLE_FROM: Final = 50
"""With so many transfers on their way, they are settled at once; fewer are settled by the next transfer."""


class Delivered(NamedTuple):
    """What was found on its way. `product_ids`: must be pushed. `errors`: why some units did not arrive."""

    product_ids: list[int]
    errors: list[BaseException]


class _Seen(NamedTuple):
    """What a look found. `total`: units of all partitions, and those on their way. `richest`: has most units."""

    total: int
    richest: int


class Exchange:
    """Moves units between the partitions of a shop, for the orders of this worker."""

    def __init__(self, timeout: float, metrics: Metrics, bring: Callable[[int], Awaitable[None]]) -> None:
        """Begin without partitions: they are added to `partitions`.

        `timeout`: of a command, in seconds. `bring`: brings a product, as its home has it, to all partitions.
        """
        self.partitions: list[Transfers] = []
        self._metrics = metrics
        self._bring = bring
        self._patience = timeout * _WAIT_SHARE
        self._waiting: list[Waiting] = []
        self._cycles: asyncio.Task[None] | None = None
        self._background: set[asyncio.Task[Any]] = set()
        self._silent: set[int] = set()
        """The partitions that did not answer a look in time, and that have answered no look since then."""
        self._seen: dict[int, _Seen] = {}
        self._taken: dict[tuple[int, int], str] = {}
        """By source and destination: the last transfer that is known to have arrived. The next one settles it."""
        self._last_taken: dict[tuple[int, int], str] = {}
        """By source and destination: the last transfer that was taken in, when all partitions were last asked."""
        self._logged = RepeatedFailures()

    async def gather(
        self, partition: int, needs: Mapping[int, int], found: Mapping[int, int], attempt: int, deadline: float
    ) -> dict[int, int] | None:
        """Bring units to a partition, then return None: the order can be tried again. Others may be faster.

        If all partitions together have too few of a product, return the units of each such product instead.

        `needs`: units of each product of the order. `found`: units that the partition has, of the products of which it
        has too few. `attempt`: how often the order was tried before. `deadline`: in event-loop time.

        Raise StorageUnavailable if too many partitions do not answer to say one or the other, or after the deadline.
        Raise Overloaded if too many orders wait. Nothing was done then.
        """
        if self.is_full:
            raise Overloaded(f"{MAX_WAITING} orders wait for units of other partitions already")
        totals: asyncio.Future[dict[int, int] | None] = asyncio.get_running_loop().create_future()
        waiting = Waiting(partition, needs, found, attempt, deadline, totals)
        self._waiting.append(waiting)
        if self._cycles is None:
            self._cycles = asyncio.create_task(self._run(), name="exchange")
        return await waiting.totals

    @property
    def is_full(self) -> bool:
        """Whether no further order may wait."""
        return len(self._waiting) >= MAX_WAITING

    async def look(self, product_ids: Sequence[int]) -> list[dict[int, Units] | None]:
        """Return the units of products in each partition; None for one that does not answer.

        The sum of stock - moved is the number of units in stock anywhere or on their way, at one moment of the look.
        """
        looks = [asyncio.create_task(partition.units(product_ids)) for partition in self.partitions]
        hopeless = [looks[number] for number in self._silent]
        if hopeful := [look for number, look in enumerate(looks) if number not in self._silent]:
            await asyncio.wait(hopeful, timeout=self._patience)
        if hopeless:
            await asyncio.wait(hopeless, timeout=_SHORT_PATIENCE_SECONDS)
        rows: list[dict[int, Units] | None] = []
        for number, look in enumerate(looks):
            row = None
            if not look.done():
                self._silent.add(number)
                self._background.add(look)
                look.add_done_callback(partial(self._end_late_look, number))
            elif not _failed(look):
                self._silent.discard(number)
                row = dict(zip(product_ids, look.result(), strict=True))
            rows.append(row)
        return rows

    def _end_late_look(self, number: int, look: "asyncio.Task[list[Units]]") -> None:
        self._background.discard(look)
        if not look.cancelled() and look.exception() is None:
            self._silent.discard(number)

    async def totals(self, product_ids: Sequence[int], *, without: int | None = None) -> dict[int, int]:
        """Return the units of products in all partitions and on their way. All partitions must answer.

        `without`: a partition whose part is known already.
        """
        asked = [partition for number, partition in enumerate(self.partitions) if number != without]
        rows = await asyncio.gather(*[partition.units(product_ids) for partition in asked])
        return add_up([dict(zip(product_ids, row, strict=True)) for row in rows])

    async def deliver_all(self, silent: Collection[int] = ()) -> Delivered:
        """Bring all units on their way to where they were sent. Partitions that do not answer delay no others.

        Nothing is lost or doubled if this is done at the same time elsewhere.

        `silent`: partitions that are known not to answer: they are not asked.
        """
        numbers = [number for number in range(len(self.partitions)) if number not in silent]
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
        outgoing = await _named(source, self.partitions[source].outgoing(others))
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
                reason=f"partition {to} has taken in its transfer {taken}, but the last one that it gave is {sent}",
                then="units are there twice, or lost: run holdfast audit, and see docs/scale.md",
            )

    async def close(self) -> None:
        """Cancel all tasks. The sweeper of another worker finishes the transfers that they have begun."""
        tasks = [*self._background, *([self._cycles] if self._cycles else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self) -> None:
        batch: Sequence[Waiting] = ()
        try:
            while self._waiting:
                await asyncio.sleep(0)  # all orders whose replies came together are in the same cycle
                batch = self._next_batch()
                if batch:
                    await self._cycle_without_damage(batch)
                batch = ()
        finally:
            self._cycles = None
            _fail([*batch, *self._waiting], StorageUnavailable("the service is shutting down"))

    async def _cycle_without_damage(self, batch: Sequence[Waiting]) -> None:
        """Bring units to all orders but those whose products are damaged: these fail alone."""
        try:
            await self._cycle(batch)
        except Exception as error:
            left = [order for order in batch if not order.totals.done()]
            half = len(left) // 2
            if isinstance(error, StorageError) or half == 0:
                if not isinstance(error, StorageError):
                    log.exception("exchange_failed")
                _fail(left, StorageUnavailable(f"units could not be moved between partitions: {error}"))
            else:
                await self._cycle_without_damage(left[:half])
                await self._cycle_without_damage(left[half:])

    def _next_batch(self) -> Sequence[Waiting]:
        """Return the orders that share the next cycle. They do not wait any more. Fail those that are overdue."""
        now = asyncio.get_running_loop().time()
        batch: list[Waiting] = []
        lines = count = 0
        while count < len(self._waiting) and lines < MAX_LINES:
            order = self._waiting[count]
            count += 1
            if order.deadline < now:
                _fail([order], StorageUnavailable(TOO_LATE))
            elif not order.totals.done():
                lines += len(order.needs)
                batch.append(order)
        del self._waiting[:count]
        return batch

    async def _cycle(self, batch: Sequence[Waiting]) -> None:
        self._metrics.count(EXCHANGES)
        await self._claim(batch)
        plan = Plan(len(self.partitions))
        ready: list[Waiting] = []
        others: list[Waiting] = []
        for order in batch:
            (ready if self._guess(order, plan) else others).append(order)
        later: list[Waiting] = []
        incomplete: set[int] = set()
        silent: Sequence[int] = ()
        if others:
            product_ids = sorted({product_id for order in others for product_id in order.needs})
            looks = await self.look(product_ids)
            silent = [number for number, look in enumerate(looks) if look is None]
            plan.note(product_ids, looks)
            self._remember(plan)
            for order in others:
                too_few = plan.too_few(order)
                if too_few and not silent:
                    if lacking := plan.incomplete(too_few):
                        incomplete.update(lacking)
                        later.append(order)
                    else:
                        _answer(order, too_few)
                elif plan.add(order):
                    ready.append(order)
                elif silent and (too_few or order.attempt >= CLAIM_FROM_ATTEMPT):
                    _fail([order], StorageUnavailable("a partition that may have units does not answer"))
                else:
                    later.append(order)
        if incomplete:  # an add was interrupted, or is under way: units come with the product
            await self._complete(sorted(incomplete), later)
        elif later and not plan.wishes:  # the units that are left are on their way elsewhere, maybe since long ago
            with suppress(TimeoutError):
                await asyncio.wait_for(self.deliver_all(silent), self._patience)
        await self._move(plan)
        for order in ready:
            _answer(order, None)
        for order in later:
            pause = random.uniform(0, min(_PAUSE_SECONDS * (1 + order.attempt), _MAX_PAUSE_SECONDS))  # noqa: S311
            asyncio.get_running_loop().call_later(pause, _answer, order, None)

    async def _complete(self, product_ids: Sequence[int], orders: Sequence[Waiting]) -> None:
        """Bring products to the partitions that lack them. If that fails, fail the orders that need them."""
        bringing = [asyncio.ensure_future(self._bring(product_id)) for product_id in product_ids]
        self._background.update(bringing)
        for task in bringing:
            task.add_done_callback(self._background.discard)
        _, late = await asyncio.wait(bringing, timeout=self._patience)
        for task in late:
            task.cancel()
        for product_id, task in zip(product_ids, bringing, strict=True):
            if task not in late and _failed(task) and isinstance(error := task.exception(), StorageError):
                _fail([order for order in orders if product_id in order.needs], error)

    async def _claim(self, batch: Sequence[Waiting]) -> None:
        claims: dict[int, set[int]] = {}
        for order in batch:
            if order.attempt >= CLAIM_FROM_ATTEMPT:
                claims.setdefault(order.partition, set()).update(order.needs)
        work = [self.partitions[number].claim(number, sorted(products)) for number, products in claims.items()]
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*work, return_exceptions=True), self._patience)

    def _guess(self, order: Waiting, plan: Plan) -> bool:
        """Plan transfers without a look, if an order can be expected to find its units that way. Return whether so."""
        if order.attempt:
            return False
        count = len(self.partitions)
        sources = []
        for product_id, found in order.found.items():
            seen = self._seen.get(product_id)
            source = product_id % count if seen is None else seen.richest
            is_scarce = seen is not None and seen.total < _PLENTY * count * order.needs[product_id]
            if source == order.partition or source in self._silent or is_scarce:
                return False
            sources.append((source, Wish(product_id, order.needs[product_id] - found, -count, 0)))
        for source, wish in sources:
            plan.ask(source, order.partition, wish)
        return True

    def _remember(self, plan: Plan) -> None:
        if len(self._seen) + len(plan.totals) > _MAX_KNOWN:
            self._seen.clear()
        for product_id, total in plan.totals.items():
            self._seen[product_id] = _Seen(total, plan.richest(product_id))

    async def _move(self, plan: Plan) -> None:
        """Make the planned transfers. The take is sent together with the orders that wait for it."""
        moves = {
            asyncio.ensure_future(
                self.partitions[source].give(to, self._taken.get((source, to), "0"), list(wishes.values()))
            ): (source, to)
            for (source, to), wishes in plan.wishes.items()
        }
        if not moves:
            return
        self._metrics.count(TRANSFERS, len(moves))
        done, late = await asyncio.wait(moves, timeout=self._patience)
        for move in done:
            self._take(*moves[move], move)
        for move in late:
            move.add_done_callback(self._take_later(*moves[move]))

    def _take_later(self, source: int, to: int) -> Callable[["asyncio.Task[list[Transfer]]"], None]:
        return lambda move: self._take(source, to, move)

    def _take(self, source: int, to: int, move: "asyncio.Future[list[Transfer]]") -> None:
        if _failed(move):
            return  # what was given is in `outgoing`: a later transfer, or a sweeper, brings it
        if transfers := move.result():
            task = asyncio.create_task(self._deliver_quietly(source, to, transfers), name="exchange-take")
            self._background.add(task)
            task.add_done_callback(self._background.discard)

    async def _deliver_quietly(self, source: int, to: int, transfers: Sequence[Transfer]) -> None:
        try:
            await self._deliver(source, to, transfers, settles=len(transfers) >= _SETTLE_FROM)
        except StorageError as error:
            log.debug("units_on_their_way", source=source, to=to, reason=error.reason, then="a sweeper brings them")
        except Exception:
            log.exception("exchange_failed")

    async def _deliver(self, source: int, to: int, transfers: Sequence[Transfer], *, settles: bool) -> None:
        taken = await self.partitions[to].take(source, transfers)
        self._metrics.count(TRANSFERRED_UNITS, taken.units)
        self._taken[source, to] = max(self._taken.get((source, to), "0"), taken.id, key=int)
        if settles:
            await self.partitions[source].settle(to, taken.id)


async def _named(partition: int, work: Awaitable[T]) -> T:
    """Return the result of work. If it fails, name the partition in the reason."""
    try:
        return await work
    except StorageError as error:
        raise type(error)(f"partition {partition}: {error.reason}") from error


def _as_id(text: str) -> int:
    """Return the id of a transfer, 0 if the text is none: the audit reports that."""
    return int(text) if text.isdecimal() else 0


def _failed(work: "asyncio.Future[Any]") -> bool:
    """Return whether a script was not run, or its outcome is not known. Raise other errors: they are bugs."""
    if work.cancelled():
        return True
    error = work.exception()
    if error is not None and not isinstance(error, StorageError):
        raise error
    return error is not None


def _answer(order: Waiting, totals: dict[int, int] | None) -> None:
    if not order.totals.done():
        order.totals.set_result(totals)


def _fail(orders: Sequence[Waiting], error: StorageError) -> None:
    for order in orders:
        if not order.totals.done():
            order.totals.set_exception(error)

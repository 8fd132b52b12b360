"""Brings units to the partition where an order needs them.

A partition that has too few units of a product for an order asks the others. All orders of this worker that wait for
units share the next cycle: one look at each partition, and one transfer from one partition to another. docs/scale.md
describes the steps, and what is left if one of them fails.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

from service.domain.errors.storage import Overloaded, StorageError, StorageUnavailable
from service.logger import Logger
from service.metrics.counters import Metrics
from service.metrics.families import EXCHANGES
from service.storage.background import BackgroundTasks, has_failed
from service.storage.exchange_deliveries import Deliveries
from service.storage.exchange_looks import Looks
from service.storage.exchange_plan import Plan, Waiting
from service.storage.transfers import Transfers, Wish

log = Logger()

MAX_LINES: Final = 1000
"""When a cycle has so many order lines, further orders wait for the next cycle: a script with more lines would delay
all other scripts, and a script with 4,000 products would fail."""

MAX_WAITING: Final = 10_000
"""How many orders may wait for units. With more, the last order would wait longer than its client."""

CLAIM_FROM_ATTEMPT: Final = 2
"""From this attempt on, counted from 0, an order claims units: two orders could otherwise take them from each other
for ever."""

_PLENTY: Final = 8
"""A product counts as plentiful if the last look found so many times the units that would be needed if each partition
had such an order."""

_MAX_KNOWN: Final = 100_000
"""Products whose last look is remembered."""

_WAIT_SHARE: Final = 0.5
"""The part of the timeout of a command for which a cycle waits for a partition. After that, it leaves the partition
out."""

_PAUSE_SECONDS: Final = 0.005
"""The longest random pause of an order whose units are on their way elsewhere. It grows with each attempt."""

_MAX_PAUSE_SECONDS: Final = 0.1
"""The longest pause after any number of attempts: when the units arrive, the order must soon see them."""

TOO_LATE: Final = "the units do not come to their partition in time: if this goes on, run holdfast audit"
"""Why an order fails after its deadline."""


class _Seen(NamedTuple):
    """What a look found. `total`: units of all partitions, and those on their way. `richest`: has most units."""

    total: int
    richest: int


class Exchange:
    """Moves units between the partitions of a shop, for the orders of this worker."""

    def __init__(self, timeout: float, metrics: Metrics, bring: Callable[[int], Coroutine[Any, Any, None]]) -> None:
        """Begin without partitions: they are added to `partitions`.

        `timeout`: of a command, in seconds. `bring`: brings a product, as its home has it, to all partitions.
        """
        self.partitions: list[Transfers] = []
        self._metrics = metrics
        self._bring = bring
        self._patience = timeout * _WAIT_SHARE
        self.looks = Looks(self.partitions, self._patience)
        self.deliveries = Deliveries(self.partitions, self._patience, metrics)
        self._waiting: list[Waiting] = []
        self._tasks = BackgroundTasks()
        self._cycles: asyncio.Task[None] | None = None
        self._seen: dict[int, _Seen] = {}

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
            self._cycles = self._tasks.start(self._run(), "exchange")
        return await waiting.totals

    @property
    def is_full(self) -> bool:
        """Whether no further order may wait."""
        return len(self._waiting) >= MAX_WAITING

    async def close(self) -> None:
        """Cancel all tasks. The sweeper of another worker finishes the transfers that they have begun."""
        for part in (self._tasks, self.looks, self.deliveries):
            await part.close()

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
        """Bring units to all orders, except the orders whose products are damaged: only they fail."""
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
            looks = await self.looks.look(product_ids)
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
        elif later and not plan.wishes:  # the units that are left are on their way elsewhere, maybe for a long time
            with suppress(TimeoutError):
                await asyncio.wait_for(self.deliveries.deliver_all(silent), self._patience)
        await self.deliveries.move(plan.wishes)
        for order in ready:
            _answer(order, None)
        for order in later:
            pause = random.uniform(0, min(_PAUSE_SECONDS * (1 + order.attempt), _MAX_PAUSE_SECONDS))  # noqa: S311
            asyncio.get_running_loop().call_later(pause, _answer, order, None)

    async def _complete(self, product_ids: Sequence[int], orders: Sequence[Waiting]) -> None:
        """Bring products to the partitions that lack them. If that fails, fail the orders that need them."""
        bringing = [self._tasks.start(self._bring(product_id), "exchange-bring") for product_id in product_ids]
        _, late = await asyncio.wait(bringing, timeout=self._patience)
        for task in late:
            task.cancel()
        for product_id, task in zip(product_ids, bringing, strict=True):
            if task not in late and has_failed(task) and isinstance(error := task.exception(), StorageError):
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
        """Plan transfers without a look, if an order will probably get its units that way. Return whether they were."""
        if order.attempt:
            return False
        count = len(self.partitions)
        sources = []
        for product_id, found in order.found.items():
            seen = self._seen.get(product_id)
            source = product_id % count if seen is None else seen.richest
            is_scarce = seen is not None and seen.total < _PLENTY * count * order.needs[product_id]
            if source == order.partition or source in self.looks.silent or is_scarce:
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


def _answer(order: Waiting, totals: dict[int, int] | None) -> None:
    if not order.totals.done():
        order.totals.set_result(totals)


def _fail(orders: Sequence[Waiting], error: StorageError) -> None:
    for order in orders:
        if not order.totals.done():
            order.totals.set_exception(error)

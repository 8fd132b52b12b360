"""One partition of a shop, and what it asks the others before it refuses a request."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Final, TypeVar
from zlib import crc32

from service.domain.errors.storage import StorageUnavailable
from service.domain.limits import MAX_STOCK
from service.metrics.counters import Metrics
from service.metrics.families import MISSES, ROUNDS
from service.storage import keys
from service.storage.catalogue_pushes import CataloguePushes
from service.storage.client import RedisClient
from service.storage.exchange import TOO_LATE, Exchange
from service.storage.idempotency import REFUSAL_MS, SHORT_REFUSAL_MS
from service.storage.order_ids import OrderIds
from service.storage.refusals import remembered_text, unknown_reply
from service.storage.summed_products import SummedProducts
from service.storage.transfers import Transfers

if TYPE_CHECKING:
    from service.domain.requests import StockChange, StockCount

T = TypeVar("T")
R = TypeVar("R")

_DECIDED: Final = frozenset({"replayed", "refused", "reused"})
"""First words of replies that were decided by an earlier request."""


class Partitions:
    """All partitions of a shop, as this worker reaches them. Each Store of a partition adds itself."""

    def __init__(self, count: int, *, timeout: float, metrics: Metrics) -> None:
        """`timeout`: of a command, and of all attempts to place an order, in seconds."""
        self.count = count
        self.timeout = timeout
        self.pushes = CataloguePushes()
        self.sums = SummedProducts(count, self.pushes.partitions)
        self.exchange = Exchange(timeout, metrics, self.pushes.bring)
        self.order_ids: list[OrderIds] = []
        """The ids that this worker has reserved, by partition."""
        self._next = 0

    async def add_up(self, product_id: int, fields: Sequence[str]) -> list[int]:
        """Return the sum of each of these fields of a product over all partitions. Raise StorageUnavailable.

        `fields`: `stock` is one of them. In `stock` and `received`, units on their way are counted. The sums are taken
        over a moment. If units were sold between two reads, the sum of the stock would be below 0: it is 0 then, and
        these units do not count as received.
        """
        reads = [
            client.read_confirmed([keys.product(client.shop, product_id)], ("moved", *fields))
            for client in self.pushes.partitions
        ]
        rows = await asyncio.gather(*reads)
        moved, *sums = [
            sum(int(number or 0) for number in column) for column in zip(*[row for [row] in rows], strict=True)
        ]
        moved = min(moved, sums[fields.index("stock")])
        return [
            number - moved if field in ("stock", "received") else number
            for field, number in zip(fields, sums, strict=True)
        ]

    def of_text(self, text: str) -> int:
        """Return the partition of a customer, or of an Idempotency-Key without a customer."""
        return crc32(text.encode()) % self.count

    def of_order(self, order_id: int) -> int:
        """Return the partition of an order."""
        return order_id % self.count

    async def by_order(
        self,
        items: Sequence[T],
        id_of: Callable[[T], int],
        work: Callable[[int, Sequence[T]], Awaitable[Sequence[R]]],
    ) -> list[R]:
        """Let each partition work on the items of its orders. Return the results in the sequence of the items.

        `work`: takes the number of a partition and its items, and returns a result for each. Raise its first error.
        """
        parts: dict[int, list[int]] = {}
        for at, item in enumerate(items):
            parts.setdefault(self.of_order(id_of(item)), []).append(at)
        done = await asyncio.gather(
            *[work(number, [items[at] for at in positions]) for number, positions in parts.items()]
        )
        found = {
            at: result
            for positions, results in zip(parts.values(), done, strict=True)
            for at, result in zip(positions, results, strict=True)
        }
        return [found[at] for at in range(len(items))]

    def newest_order_id(self) -> int:
        """Return about the highest order id that this worker has used in any partition."""
        return max(ids.next for ids in self.order_ids)

    def drop_old_order_ids(self) -> None:
        """Forget reserved ids far below the newest: orders with them would be far down in a list of the newest."""
        newest = self.newest_order_id()
        for ids in self.order_ids:
            if newest - ids.highest > ids.reach:
                ids.drop()

    def deadline(self) -> float:
        """Return until when a request that comes now may be tried, in event-loop time."""
        return asyncio.get_running_loop().time() + self.timeout

    def next(self) -> int:
        """Return any partition: each in turn."""
        self._next = (self._next + 1) % self.count
        return self._next


class Tries:
    """What was tried for a request. `deadline`: until when it may be tried again, in event-loop time."""

    __slots__ = ("attempt", "deadline", "is_current")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.attempt = 0
        self.is_current = False
        """Whether the next try runs on products that are not older than those that their homes had meanwhile."""

    def check_deadline(self) -> None:
        """Raise StorageUnavailable after the deadline."""
        if asyncio.get_running_loop().time() > self.deadline:
            raise StorageUnavailable(TOO_LATE)


class Partition:
    """One partition. Each method also raises what RedisClient raises."""

    def __init__(self, number: int, partitions: Partitions) -> None:
        self.number = number
        self.all = partitions
        self._client: RedisClient

    def join(self, client: RedisClient) -> None:
        """Reach the partition with a client. To be called in the sequence of the partitions."""
        self._client = client
        self.all.exchange.partitions.append(Transfers(client))
        self.all.pushes.partitions.append(client)
        assert len(self.all.pushes.partitions) == self.number + 1

    def begin(self, deadline: float | None = None) -> Tries:
        """Begin to try a request. `deadline`: in event-loop time, if other partitions have tried it before."""
        return Tries(self.all.deadline() if deadline is None else deadline)

    async def settle_order(
        self,
        reply: Sequence[str],
        quantities: Mapping[int, int],
        tries: Tries,
        outcome_key: str | None,
        fingerprint: str,
    ) -> Sequence[str] | None:
        """Turn the reply of lua/place_order.lua, which knows this partition only, into the reply for all partitions.

        None: units, or the newest catalogue, are here now: place the order again.

        Raise StorageUnavailable if that cannot be decided now. Then the order was not placed. Raise OutcomeUnknown if
        its Idempotency-Key may remember a refusal.
        """
        if reply[0] in _DECIDED:
            return reply
        settled = await self._ask_all(reply, quantities, tries)
        if settled is None or outcome_key is None:
            return settled
        remembered = await self.remember(outcome_key, fingerprint, remembered_text(settled, quantities))
        return settled if remembered[0] == "remembered" else remembered

    async def _ask_all(self, reply: Sequence[str], quantities: Mapping[int, int], tries: Tries) -> Sequence[str] | None:
        word = reply[0]
        if word == "too_large":
            return reply
        tries.check_deadline()
        if word == "short":
            found = {int(id_): int(stock) for id_, _, stock in map(str.split, reply[1:])}
            totals = await self.gather(quantities, found, tries)
            return None if totals is None else ["short", *[f"{id_} {quantities[id_]} {n}" for id_, n in totals.items()]]
        if not await self.is_current(quantities, tries):
            return None
        return reply if word == "price_changed" else await self._with_all_units(reply)

    async def _with_all_units(self, reply: Sequence[str]) -> Sequence[str]:
        """Correct the lines that are refused because this partition alone has too few units."""
        rows = [line.split() for line in reply[1:]]
        local = [int(id_) for id_, _, obstacle in rows if obstacle.isdigit()]
        if not local:
            return reply
        totals = await self.all.exchange.looks.totals(local)
        lines = []
        for id_, requested, obstacle in rows:
            total = totals.get(int(id_), 0)
            if not obstacle.isdigit():
                lines.append(f"{id_} {requested} {obstacle}")
            elif total < int(requested):
                lines.append(f"{id_} {requested} {max(0, total)}")
        return [reply[0], *lines]

    async def is_current(self, product_ids: Collection[int], tries: Tries) -> bool:
        """Return whether the last try certainly used current products. If not, bring them here; the caller tries again.

        A check after a try cannot tell: another worker may have brought a product here between the try and the check.
        So the next try decides: it begins after the check.
        """
        if tries.is_current:
            return True
        tries.is_current = True
        return not await self.all.pushes.update(self.number, product_ids)

    async def gather(
        self, quantities: Mapping[int, int], found: Mapping[int, int], tries: Tries
    ) -> dict[int, int] | None:
        """Bring units here, see Exchange.gather."""
        if tries.attempt == 0:
            self._client.metrics.count(MISSES)
        self._client.metrics.count(ROUNDS)
        attempt = tries.attempt
        tries.attempt += 1
        return await self.all.exchange.gather(self.number, quantities, found, attempt, tries.deadline)

    async def remember(self, outcome_key: str, fingerprint: str, text: str) -> Sequence[str]:
        """Remember a refusal under an Idempotency-Key, unless it has an outcome. Return the reply of lua/refuse.lua."""
        client = self._client
        reply: Sequence[str] = await client.run(
            "refuse",
            (keys.refusals(client.shop), outcome_key),
            refuse_args(
                fingerprint=fingerprint,
                refusal=text,
                refusal_ms=REFUSAL_MS,
                short_refusal_ms=SHORT_REFUSAL_MS,
                refusals_max=client.refusals_max,
            ),
        )
        if reply[0] not in ("remembered", "replayed", "refused", "reused"):
            raise unknown_reply("refuse", reply)
        return reply

    async def settle_stock(
        self,
        product_id: int,
        change: "StockChange | StockCount",
        expected_stocks: Collection[int] | None,
    ) -> int | Sequence[str]:
        """Return the units by which a change moves the stock of all partitions; or why it must be refused.

        The refusal is a reply of lua/move_stock.lua. The stock is a sum taken over a moment, so two changes at the same
        moment may both be found to be allowed.
        """
        settled = await self._settle_stock(product_id, change, expected_stocks)
        if isinstance(settled, int) or settled[0] != "short":
            return settled
        await self.all.pushes.finish(product_id)  # units come with a product that is being added
        return await self._settle_stock(product_id, change, expected_stocks)

    async def _settle_stock(
        self,
        product_id: int,
        change: "StockChange | StockCount",
        expected_stocks: Collection[int] | None,
    ) -> int | Sequence[str]:
        stock, held = await self.all.add_up(product_id, ("stock", "held"))
        units = change.change if change.count is None else change.count - stock
        client = self._client
        [[version, withdrawn]] = await client.read_hashes(
            [keys.product(client.shop, product_id)], ("version", "withdrawn")
        )
        if version is None or withdrawn == "1":
            return units  # the script says so, and the request is tried again if the product has just been added
        if expected_stocks is not None and stock not in expected_stocks:
            return ["moved_since", str(stock)]
        if stock + units < 0:
            return ["short", str(stock)]
        if units > 0 and stock + units + held > MAX_STOCK:
            return ["full", str(stock), str(held)]
        return units


def refuse_args(
    *, fingerprint: str, refusal: str, refusal_ms: int, short_refusal_ms: int, refusals_max: int
) -> tuple[str | int, ...]:
    """Return ARGV of lua/refuse.lua."""
    return (fingerprint, refusal, refusal_ms, short_refusal_ms, refusals_max)

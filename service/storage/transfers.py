"""The units and catalogue changes that one partition of a shop exchanges with the others.

docs/scale.md describes how units move: give, take, settle. Each method runs one script in this partition.
"""

import asyncio
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Final, NamedTuple

from service.storage import keys
from service.storage.client import RedisClient
from service.storage.refusals import unknown_reply
from service.storage.replies import read_map, read_scores

MAX_ON_THEIR_WAY: Final = 100
"""Transfers on their way from one partition to another, from which on nothing more is given."""

MAX_PUSHES: Final = 100
"""Products that one look of the sweeper finds whose last change some partitions lack."""

CLAIM_MS: Final = 50
"""How long a claim keeps units from partitions with higher numbers: longer than one exchange takes."""


class Transfer(NamedTuple):
    """Units on their way. `id`: grows with each transfer from one partition to another."""

    id: str
    product_id: int
    units: int


class Wish(NamedTuple):
    """Units that another partition asks for.

    `need`: given, or all if there are fewer. `wish`: the total to give, as long as `keep` units stay; -P: the P-th part
    of the stock.
    """

    product_id: int
    need: int
    wish: int
    keep: int


class Taken(NamedTuple):
    """What was taken in. `id`: of the last transfer from that partition, now or before. `units`: taken in now."""

    id: str
    units: int


class Outgoing(NamedTuple):
    """What the other partitions do not have yet: `product_ids` with changes, and transfers by number of partition.

    `sent`, `taken`: the ids of the last transfers to and from each other partition.
    """

    product_ids: list[int]
    transfers: dict[int, list[Transfer]]
    sent: dict[str, str]
    taken: dict[str, str]


class Units(NamedTuple):
    """Units of a product in a partition. `moved`: units taken in from other partitions, less those given to them.

    stock - moved does not change when units move, so its sum over all partitions counts also those on their way.

    `is_known`: whether the partition has the product. While a product is being added, some do not yet.
    """

    stock: int
    moved: int
    is_known: bool


class Pending(NamedTuple):
    """What the partitions do not have yet: units on their way, and products with a change that some partitions lack.

    The seconds say since when that is so for the oldest of them; 0 if there is none.
    """

    units: int
    units_seconds: float
    products: int
    products_seconds: float


class Transfers:
    """The exchange of one partition with the others. Each method also raises what RedisClient raises."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client
        self._shop = client.shop

    async def units(self, product_ids: Sequence[int]) -> list[Units]:
        """Return the units of products in this partition; zeros for a product that it does not have."""
        names = [keys.product(self._shop, product_id) for product_id in product_ids]
        rows = await self._client.read_confirmed(names, ("stock", "moved", "version"))
        return [Units(int(stock or 0), int(moved or 0), version is not None) for stock, moved, version in rows]

    async def give(self, to: int, settled: str, wishes: Sequence[Wish]) -> list[Transfer]:
        """Give units to another partition. Return all transfers on their way to it, oldest first.

        `settled`: the id of a transfer: that partition has taken this one and all before it.
        """
        reply = await self._client.run(
            "give_units",
            (
                keys.sent(self._shop),
                keys.outgoing(self._shop, to),
                *[keys.product(self._shop, wish.product_id) for wish in wishes],
            ),
            give_units_args(
                to=to, settled=settled, max_on_their_way=MAX_ON_THEIR_WAY, wishes=chain.from_iterable(wishes)
            ),
        )
        match reply:
            case ["outgoing", *rows]:
                return _read_transfers(rows)
            case _:
                raise unknown_reply("give_units", reply)

    async def take(self, source: int, transfers: Sequence[Transfer]) -> Taken:
        """Take in units that another partition gave.

        `transfers`: all that are on their way from it, oldest first. Those that were taken before are left out.
        """
        reply = await self._client.run(
            "take_units",
            (keys.taken(self._shop), *[keys.product(self._shop, transfer.product_id) for transfer in transfers]),
            take_units_args(
                source=source,
                ids_and_units=chain.from_iterable((transfer.id, transfer.units) for transfer in transfers),
            ),
        )
        match reply:
            case ["taken", last_id, units]:
                return Taken(str(last_id), int(units))
            case _:
                raise unknown_reply("take_units", reply)

    async def settle(self, to: int, settled: str) -> None:
        """Forget transfers to another partition: it has taken the one with this id and all before it."""
        await self._client.run("settle_units", (keys.outgoing(self._shop, to),), settle_units_args(settled=settled))

    async def outgoing(self, others: Sequence[int]) -> Outgoing:
        """Return what these partitions do not have yet."""
        reply = await self._client.run(
            "read_outgoing",
            (
                keys.unpropagated(self._shop),
                keys.sent(self._shop),
                keys.taken(self._shop),
                *[keys.outgoing(self._shop, to) for to in others],
            ),
            read_outgoing_args(max_pushes=MAX_PUSHES),
            safe_to_repeat=not self._client.waits_for_replicas,  # units are taken in only when replicas know they left
        )
        match reply:
            case ["outgoing", product_ids, sent, taken, *lists]:
                transfers = {to: _read_transfers(rows) for to, rows in zip(others, lists, strict=True) if rows}
                ids = [int(product_id) for product_id in product_ids]
                return Outgoing(ids, transfers, read_map(sent), read_map(taken))
            case _:
                raise unknown_reply("read_outgoing", reply)

    async def taken(self) -> dict[int, str]:
        """Return the id of the last transfer that was taken in from each other partition."""
        reply = await self._client.send("HGETALL", keys.taken(self._shop), safe_to_repeat=True)
        return {int(source): last_id for source, last_id in read_map(reply).items()}

    async def unpropagated(self) -> tuple[int, list[int]]:
        """Return how many products of this home have a change that some partitions lack, and the version of the oldest.

        The version is in a list, which is empty if there is no such change.
        """
        index = keys.unpropagated(self._shop)
        count = await self._client.send("ZCARD", index, safe_to_repeat=True)
        oldest = await self._client.send(
            "ZRANGEBYSCORE", index, "-inf", "+inf", "WITHSCORES", "LIMIT", 0, 1, safe_to_repeat=True
        )
        return int(count), [int(float(version)) for _, version in read_scores(oldest)]

    async def now(self) -> int:
        """Return the time in us, like the ids of transfers and the versions of products."""
        return 1000 * await self._client.now()

    async def claim(self, partition: int, product_ids: Sequence[int]) -> None:
        """Keep units of these products from partitions with higher numbers than this one, for CLAIM_MS."""
        await self._client.run(
            "claim_units",
            [keys.product(self._shop, product_id) for product_id in product_ids],
            claim_units_args(partition=partition, claim_ms=CLAIM_MS),
        )


async def read_pending(partitions: Sequence[Transfers]) -> Pending:
    """Return what the partitions of a shop do not have yet, read over a moment.

    Raise what Transfers raises, and ValueError if a transfer is damaged.
    """
    numbers = range(len(partitions))
    outgoing = await asyncio.gather(
        *[partitions[source].outgoing([to for to in numbers if to != source]) for source in numbers]
    )
    # What is taken in between the two reads is not on its way any more.
    taken = await asyncio.gather(*[partition.taken() for partition in partitions])
    transfers = [
        transfer
        for source, found in enumerate(outgoing)
        for to, transfers in found.transfers.items()
        for transfer in transfers
        if int(transfer.id) > int(taken[to].get(source, 0))
    ]
    unpropagated = await asyncio.gather(*[partition.unpropagated() for partition in partitions])
    now = await partitions[0].now()
    return Pending(
        sum(transfer.units for transfer in transfers),
        _seconds_since(now, [int(transfer.id) for transfer in transfers]),
        sum(count for count, _ in unpropagated),
        _seconds_since(now, [version for _, oldest in unpropagated for version in oldest]),
    )


def _seconds_since(now: int, times: Sequence[int]) -> float:
    """Return how long ago the first of these times was, which are in us; 0 if there is none."""
    return max(0, now - min(times, default=now)) / 1_000_000


def _read_transfers(rows: Iterable[str]) -> list[Transfer]:
    transfers = []
    for row in rows:
        transfer_id, product_id, units = row.split()
        transfers.append(Transfer(transfer_id, int(product_id), int(units)))
    return transfers


def give_units_args(*, to: int, settled: str, max_on_their_way: int, wishes: Iterable[int]) -> tuple[str | int, ...]:
    """Return ARGV of lua/give_units.lua."""
    return (to, settled, max_on_their_way, *wishes)


def take_units_args(*, source: int, ids_and_units: Iterable[str | int]) -> tuple[str | int, ...]:
    """Return ARGV of lua/take_units.lua."""
    return (source, *ids_and_units)


def settle_units_args(*, settled: str) -> tuple[str | int, ...]:
    """Return ARGV of lua/settle_units.lua."""
    return (settled,)


def read_outgoing_args(*, max_pushes: int) -> tuple[str | int, ...]:
    """Return ARGV of lua/read_outgoing.lua."""
    return (max_pushes,)


def claim_units_args(*, partition: int, claim_ms: int) -> tuple[str | int, ...]:
    """Return ARGV of lua/claim_units.lua."""
    return (partition, claim_ms)

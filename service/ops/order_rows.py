"""Reads some fields of all orders, in bounded batches, each order once."""

from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Final

from service.storage.partitioned import AnyStore
from service.storage.records import HashValues
from service.storage.sender import ErrorReply

BATCH: Final = 500
"""Keys that one script reads: Redis executes nothing else meanwhile."""

_CHUNK: Final = 65_536
"""Order ids that are remembered in one bytearray: an unused range of ids then costs no memory."""


class IdSet:
    """A set of order ids with one bit per id, because a set of a million ids takes 60 MB."""

    def __init__(self) -> None:
        self._chunks: defaultdict[int, bytearray] = defaultdict(lambda: bytearray(_CHUNK // 8))
        self._length = 0

    def add(self, order_id: int) -> bool:
        """Add an id. Return whether it is new."""
        chunk, index, bit = self._chunks[order_id // _CHUNK], order_id % _CHUNK // 8, 1 << order_id % 8
        if chunk[index] & bit:
            return False
        chunk[index] |= bit
        self._length += 1
        return True

    def __contains__(self, order_id: int) -> bool:
        chunk = self._chunks.get(order_id // _CHUNK)
        return chunk is not None and bool(chunk[order_id % _CHUNK // 8] & 1 << order_id % 8)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[int]:
        """Yield all ids, lowest first."""
        for number, chunk in sorted(self._chunks.items()):
            for index, bits in enumerate(chunk):
                for bit in range(8) if bits else ():
                    if bits & 1 << bit:
                        yield number * _CHUNK + index * 8 + bit


async def scan_batches(store: AnyStore, seen: IdSet) -> AsyncIterator[list[int]]:
    """Yield the ids of all orders in batches, each id once. Add them to `seen`."""
    batch: list[int] = []
    async for order_id in store.orders.scan_ids():
        if seen.add(order_id):
            batch.append(order_id)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


async def read_rows(store: AnyStore, order_ids: Sequence[int], fields: Sequence[str]) -> Sequence[HashValues]:
    """Return rows with these fields. The row of a key that is not a hash has no value."""
    try:
        return await store.orders.read_fields(order_ids, fields)
    except ErrorReply as error:
        if error.code != "WRONGTYPE":
            raise
    if len(order_ids) == 1:
        return [(None,) * len(fields)]
    # The error does not say which key it was.
    middle = len(order_ids) // 2
    return [
        *await read_rows(store, order_ids[:middle], fields),
        *await read_rows(store, order_ids[middle:], fields),
    ]

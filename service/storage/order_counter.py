"""The counter of order ids: reserves ids for this worker, and notices when Redis has other data than before."""

from collections.abc import AsyncIterator
from secrets import token_hex
from typing import Final

from service.domain.errors.storage import StorageUnavailable
from service.domain.limits import MAX_ID
from service.logger import Logger
from service.storage import keys
from service.storage.archive import Archive
from service.storage.client import MAX_SCAN_STEP, RedisClient, move_counter_args
from service.storage.id_ranges import IdRanges
from service.storage.inspection import Inspection
from service.storage.order_ids import OrderIds
from service.storage.partition import Partition
from service.storage.sender import ErrorReply

log = Logger()

_ORDER_KIND: Final = "order:"

_MAX_FOLLOWED_ID: Final = MAX_ID // 2
"""No partition catches up with an id above this. Otherwise, one counter set too high would use up the ids of all."""


class OrderCounter:
    """The order ids of a shop. Each method also raises what RedisClient raises.

    `ids`: the ids that this worker has reserved.
    """

    def __init__(
        self, client: RedisClient, archive: Archive, skipped: IdRanges, partition: Partition | None = None
    ) -> None:
        """`partition`: of a shop with several; None: the shop has no partitions."""
        self._client = client
        self._partition = partition
        self._archive = archive
        self._skipped = skipped
        self.ids = OrderIds(self._reserve_ids, step=client.id_step)
        if partition is not None:
            partition.all.order_ids.append(self.ids)
        self._data_id: str | None = None
        """Of the data from which the ids are reserved. None: no ids are reserved, or they are not valid any more."""
        self._counter_is_wrong = False
        client.after_check.append(self.check_ids)

    def report_taken(self, order_id: int) -> None:
        """Drop all reserved ids: there is an order with this one, which was reserved for a new order."""
        if not self.ids.is_dropped(order_id):
            self._drop_ids(f"there is an order {order_id} already")

    async def last_id(self) -> int:
        """Return the last id that a worker reserved, or 0 if there is none. Lower if the counter was set back."""
        return int(await self._client.send("GET", keys.order_ids(self._client.shop), safe_to_repeat=True) or 0)

    async def highest_used_id(self) -> int:
        """Return the highest id that has no order in Redis, but must not be given to one: archived or skipped."""
        return max(await self._archive.highest_id(), await self._skipped.highest_id())

    def ids_up_to(self, last_id: int, count: int) -> range:
        """Return at most `count` ids that orders may have, from `last_id` downwards."""
        step = self._client.id_step
        return range(last_id - (last_id - self._client.id_remainder) % step, 0, -step)[:count]

    async def scan_ids(self) -> AsyncIterator[int]:
        """Yield the ids of all orders in any status, in no order. An id may come twice. The counter is not used."""
        prefix = keys.prefix(self._client.shop) + _ORDER_KIND
        async for names in Inspection(self._client).scan_keys(_ORDER_KIND):
            for name in names:
                text = name.removeprefix(prefix)
                if text.isascii() and text.isdigit() and 1 <= int(text) <= MAX_ID:
                    yield int(text)

    async def check_ids(self) -> None:
        """Reserve other ids if the reserved ids do not belong to the data that Redis has now.

        That is so after FLUSHALL (the data have another random id), and after a backup was restored (the counter is
        lower than before). Called after each check of Redis.
        """
        highest, data_id = self.ids.highest, self._data_id
        if not highest:
            return  # nothing is reserved
        if data_id is not None:
            shop = self._client.shop
            found_id = await self._client.send("HGET", keys.meta(shop), "data_id", safe_to_repeat=True)
            try:
                counter = await self.last_id()
            except (ValueError, ErrorReply):
                counter = 0  # this is not a reason to refuse all requests: the next reservation fails, and says why
            if (found_id == data_id and highest <= counter) or self._data_id != data_id:
                return
            self._drop_ids(
                f"{keys.order_ids(shop)} is {counter}, but id {highest} was reserved"
                if found_id == data_id
                else "Redis has other data than those from which the ids were reserved"
            )
        self.ids.start_refill()  # also without a new order: GET /orders lists orders up to the counter

    def _drop_ids(self, reason: str) -> None:
        log.warning("order_ids_dropped", reason=reason, then="ids above the highest order are reserved")
        self.ids.drop()
        self._data_id = None
        self._counter_is_wrong = True

    async def _reserve_ids(self, count: int) -> int:
        """Reserve `count` order ids that no other worker gets, and return the first."""
        counter = keys.order_ids(self._client.shop)
        distance = count * self._client.id_step
        while True:
            data_id, highest = self._data_id, self.ids.highest
            if data_id is None:
                data_id = await self._read_data_id()
            try:
                if self._data_id is None:  # a new order could get the id of an archived one: no script checks that
                    highest = max(highest, await self.highest_used_id())
                if self._counter_is_wrong:
                    await self._correct_counter(counter, distance)
                if self._partition is not None:
                    await self._catch_up(counter, self._partition.all.newest_order_id())
                last = int(await self._client.send("INCRBY", counter, distance, safe_to_repeat=True))
            except (ErrorReply, ValueError) as error:
                raise StorageUnavailable(f"{counter} cannot be counted up: {error}") from error
            # Not above the ids of this worker: the data were replaced, and no check of Redis has noticed it yet.
            if not highest + distance <= last <= MAX_ID:
                self._counter_is_wrong = True
            if not self._counter_is_wrong:
                self._data_id = data_id
                # The counter may be no multiple of the step: partitions follow each other, or somebody has set it.
                return self._client.next_own_id(last - distance)

    async def _catch_up(self, counter: str, newest: int) -> None:
        """Move the counter up to the newest id in any partition, if it is further below than one block.

        Otherwise an order in a partition that gets fewer orders than others would be far down in a list of the newest.
        """
        if newest - self.ids.highest <= self.ids.reach or newest > _MAX_FOLLOWED_ID:
            return
        found = await self._client.send("GET", counter, safe_to_repeat=True)
        before = int(found or 0)
        if newest - before <= self.ids.reach:
            return
        args = move_counter_args(expected=found or "", step=newest - before)
        if await self._client.run("move_counter", (counter,), args, safe_to_repeat=True) != ["moved"]:
            return  # another worker has moved it
        first, last = self._client.next_own_id(before), self._client.next_own_id(newest) - self._client.id_step
        if (last - first) // self._client.id_step >= MAX_SCAN_STEP:
            await self._skipped.add(first, last)  # so that GET /orders does not look for orders there

    async def _correct_counter(self, counter: str, distance: int) -> None:
        """Move the counter to the highest id of all orders, of archived ones too, and of this worker."""
        highest = max(self.ids.highest, await self.highest_used_id())
        async for order_id in self.scan_ids():
            highest = max(highest, order_id)
        if highest + distance > MAX_ID:
            raise StorageUnavailable(f"no order ids are left: {highest} is in use, and {MAX_ID} is the highest")
        self._counter_is_wrong = not await self._client.move_counter(counter, highest)

    async def _read_data_id(self) -> str:
        """Return the random id of the data. Write it if there is none."""
        meta = keys.meta(self._client.shop)
        if self._partition is not None:
            await self._client.check()  # nothing is written into a partition whose data are lost
        await self._client.send("HSETNX", meta, "data_id", token_hex(8), safe_to_repeat=True)
        return str(await self._client.send("HGET", meta, "data_id", safe_to_repeat=True))

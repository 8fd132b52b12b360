"""Marks a shop that was restored from a backup, so that no id is given away a second time.

A backup does not know which ids were given to orders, products and events after it. So they all continue far above.
"""

from secrets import token_hex
from typing import Final, NamedTuple

from service.domain.errors.storage import StorageUnavailable
from service.domain.event import event_position
from service.domain.limits import MAX_ID
from service.storage import keys
from service.storage.client import RedisClient
from service.storage.events import Events
from service.storage.id_ranges import IdRanges

CLOCK_ERROR_MS: Final = 24 * 60 * 60 * 1000
"""By so much the clock may have been set back between the backup and the restore.

The largest common error is a clock that is set to local time instead of UTC: up to 14 hours.
"""

IDS_PER_MS: Final = 100
"""More ids than any shop gives away: four times as many orders as the fastest engine that was measured places."""

ROUND: Final = 1_000_000_000
"""The first new id is one above a multiple of this, so that people see where a restore was."""


class Marked(NamedTuple):
    """What a mark has changed. `first_skipped`, `last_skipped`: the order ids that no order has or will have."""

    first_skipped: int
    last_skipped: int
    event_id: str


class RestoredShop:
    """A shop after a restore. Each method also raises what RedisClient raises."""

    def __init__(self, client: RedisClient, events: Events, archived: IdRanges, skipped: IdRanges) -> None:
        self._client = client
        self._events = events
        self._archived = archived
        self._skipped = skipped

    async def mark(self, after_order: int = 0, after_event: str = "0-0") -> Marked:
        """Let all ids continue far above those of the backup, and write the event `shop_restored`.

        `after_order`, `after_event`: the highest ids that are known from logs or consumers, if they might be higher
        than what this assumes. No service of the shop may run. Raise StorageUnavailable if one does, if a counter is
        damaged, and if no ids are left.
        """
        client = self._client
        shop = client.shop
        counters = keys.order_ids(shop), keys.product_ids(shop)
        found = [str(await client.send("GET", counter, safe_to_repeat=True) or "") for counter in counters]
        try:
            last_order, last_product = [int(text or 0) for text in found]
        except ValueError as error:
            raise StorageUnavailable(f"a counter of ids is damaged: {error}. `holdfast audit` names it") from error
        last_event = await self._events.last_id()
        now = await client.now()
        used = max(last_order, after_order, await self._archived.highest_id(), await self._skipped.highest_id())
        order_id, product_id = far_above(used, last_event, now), far_above(last_product, last_event, now)
        if max(order_id + client.id_step - 1, product_id) >= MAX_ID:
            raise StorageUnavailable(
                f"no ids are left: {max(order_id, product_id)} would be the next, {MAX_ID} is the last"
            )
        # A partition gives away each P-th id only.
        order_id = -(-order_id // client.id_step) * client.id_step
        first, last = client.next_own_id(max(last_order, 0)), client.next_own_id(order_id) - client.id_step
        marked = Marked(first, last, event_id_above(now, last_event, after_event))
        reply = await client.run(
            "mark_restored",
            (*counters, keys.skipped(shop), keys.meta(shop), keys.events(shop)),
            mark_restored_args(
                expected_order=found[0],
                expected_product=found[1],
                order_step=order_id - last_order,
                product_step=product_id - last_product,
                first_skipped=marked.first_skipped,
                last_skipped=last,
                data_id=token_hex(8),
                last_event=last_event,
                event_id=marked.event_id,
                events_max=client.events_max,
            ),
        )
        if reply != ["marked"]:
            raise StorageUnavailable("the ids of the shop are being counted up: a service is running. Stop it first")
        return marked


def far_above(last_id: int, last_event: str, now_ms: int) -> int:
    """Return a multiple of ROUND that is above all ids that may have been given away after `last_id`.

    `last_event`: of the backup, which was made later. So at least since then, ids may have been given away.
    """
    elapsed_ms = max(now_ms - event_position(last_event)[0], 0) + CLOCK_ERROR_MS
    return -(-(last_id + IDS_PER_MS * elapsed_ms) // ROUND) * ROUND


def event_id_above(now_ms: int, *event_ids: str) -> str:
    """Return an id for an event that is above these ids, and above all that were written by a clock until now."""
    latest_ms = max(now_ms, *[event_position(event_id)[0] for event_id in event_ids])
    return f"{latest_ms + CLOCK_ERROR_MS}-0"


def mark_restored_args(
    *,
    expected_order: str,
    expected_product: str,
    order_step: int,
    product_step: int,
    first_skipped: int,
    last_skipped: int,
    data_id: str,
    last_event: str,
    event_id: str,
    events_max: int,
) -> tuple[str | int, ...]:
    """Return ARGV of lua/mark_restored.lua."""
    return (
        expected_order,
        expected_product,
        order_step,
        product_step,
        first_skipped,
        last_skipped,
        data_id,
        last_event,
        event_id,
        events_max,
    )

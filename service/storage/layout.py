"""The schema version of a shop's data, and the steps that bring older data to the present one: `holdfast upgrade`."""

from collections.abc import Iterable
from typing import Final, NamedTuple

from service.domain.event import Event, event_position
from service.storage import keys
from service.storage.client import RedisClient
from service.storage.requirements import LAYOUT_FIELD, SCHEMA_VERSION, UPGRADE_FIELD

_MOMENT_OF: Final = {"order_completed": "completed_at", "order_returned": "returned_at"}
"""The field of an order that has the moment of an event. Versions before schema version 2 did not write it."""


class Moment(NamedTuple):
    """When something happened to an order: the field of its hash, and its value."""

    order_id: int
    field: str
    milliseconds: int


class Layout:
    """The schema version of a shop. Each method also raises what RedisClient raises."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client
        self._meta = keys.meta(client.shop)

    async def version(self) -> int | None:
        """Return the schema version of the data, None if there are no data."""
        text = await self._client.send("HGET", self._meta, LAYOUT_FIELD, safe_to_repeat=True)
        return None if text is None else int(text)

    async def unfinished(self) -> str | None:
        """Return the last event that a stopped upgrade has looked at, None if no upgrade was stopped."""
        position: str | None = await self._client.send("HGET", self._meta, UPGRADE_FIELD, safe_to_repeat=True)
        return position

    async def begin_upgrade(self) -> None:
        """Write the present schema version, and that the upgrade to it is not finished.

        From now on, programs of older versions refuse the data, and those of this version, too, until it is finished.
        """
        pairs = (LAYOUT_FIELD, SCHEMA_VERSION, UPGRADE_FIELD, "0-0")
        await self._client.send("HSET", self._meta, *pairs, safe_to_repeat=True)

    async def upgrade_orders(self, events: list[Event]) -> int:
        """Write the moments that these events tell, and remember the last one. Return how many were missing."""
        moments = list(moments_of(events))
        shop = self._client.shop
        names = [self._meta, *[keys.order(shop, moment.order_id) for moment in moments]]
        args = upgrade_orders_args(
            position=events[-1].id,
            fields_and_moments=[part for moment in moments for part in (moment.field, moment.milliseconds)],
        )
        _, count = await self._client.run("upgrade_orders", names, args, safe_to_repeat=True)
        return int(count)

    async def finish_upgrade(self) -> None:
        """Let programs of this version use the data."""
        await self._client.send("HDEL", self._meta, UPGRADE_FIELD, safe_to_repeat=True)


def moments_of(events: Iterable[Event]) -> Iterable[Moment]:
    """Yield the moments that events tell. The id of an event is the time of its script. Damaged events tell nothing."""
    for event in events:
        field = _MOMENT_OF.get(event.fields.get("event", ""))
        if field is not None and event.is_known():
            yield Moment(int(event.fields["order"]), field, event_position(event.id)[0])


def upgrade_orders_args(*, position: str, fields_and_moments: Iterable[str | int]) -> tuple[str | int, ...]:
    """Return ARGV of lua/upgrade_orders.lua."""
    return (position, *fields_and_moments)

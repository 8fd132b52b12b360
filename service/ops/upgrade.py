"""Brings the data of an older schema version to the present one, in bounded steps: `holdfast upgrade`."""

from collections.abc import Callable
from typing import Final, NamedTuple

from service.storage.partitioned import AnyStore
from service.storage.requirements import SCHEMA_VERSION
from service.storage.store import Store

EVENTS_PER_STEP: Final = 200
"""Redis needs less than a millisecond for them, and executes nothing else meanwhile."""


class UpgradeReport(NamedTuple):
    """What an upgrade did. `before`: the schema version that it found. `moments`: fields that were added to orders."""

    before: int
    moments: int


async def upgrade_whole_shop(
    store: AnyStore, progress: Callable[[int], object] = lambda count: None
) -> UpgradeReport | None:
    """Upgrade a shop, all partitions of it, one after the other. See `upgrade`."""
    reports = [report for part in store.partitions if (report := await upgrade(part, progress)) is not None]
    if not reports:
        return None
    return UpgradeReport(min(report.before for report in reports), sum(report.moments for report in reports))


async def upgrade(store: Store, progress: Callable[[int], object] = lambda count: None) -> UpgradeReport | None:
    """Upgrade a shop without partitions, or one partition. Return None if there is nothing to do.

    Call `progress` with the number of events of each step.

    No service of the shop may run. A stopped upgrade continues where it was: until it is finished, every other program
    refuses the data.
    """
    version, position = await store.layout.version(), await store.layout.unfinished()
    if version is None or (version == SCHEMA_VERSION and position is None):
        return None
    if position is None:
        await store.layout.begin_upgrade()
        position = "0-0"
    moments = 0
    while events := await store.events.read(position, limit=EVENTS_PER_STEP):
        moments += await store.layout.upgrade_orders(events)
        position = events[-1].id
        progress(len(events))
    await store.layout.finish_upgrade()
    return UpgradeReport(version, moments)

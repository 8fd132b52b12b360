"""How the audit reads a shop: in steps, of which Redis reads the next one while Python checks the one before."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Final, TypeVar

from service.domain.event import Event, event_position
from service.storage.events import Events

BATCH: Final = 500
"""Keys that one script reads: Redis executes nothing else meanwhile."""

BATCHES_AHEAD: Final = 2
"""How many batches are asked for before one is checked. With only one, Redis would often have nothing to do: it would
have read that batch, and the command for the next one would be sent only after the check."""

_Step = TypeVar("_Step")


def batches(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    """Yield the ids in batches that one script may read."""
    for start in range(0, len(ids), BATCH):
        yield ids[start : start + BATCH]


async def events_between(events: Events, position: str, end: str) -> AsyncIterator[list[Event]]:
    """Yield the events after the event `position`, up to and including the event `end`."""
    while event_position(position) < event_position(end) and (found := await events.read(position, end)):
        position = found[-1].id
        yield found


async def let_commands_leave() -> None:
    """Wait until tasks that were just started have sent their commands. Then Redis works while the caller works."""
    await asyncio.sleep(0)  # the tasks begin, and hand their commands to the connection
    await asyncio.sleep(0)  # the connection sends the commands of one turn together, at the beginning of the next one


async def read_ahead(steps: AsyncIterator[_Step]) -> AsyncIterator[_Step]:
    """Yield the same steps. The next one has been asked for when the caller gets this one."""
    following = asyncio.ensure_future(anext(steps, None))
    try:
        while (step := await following) is not None:
            following = asyncio.ensure_future(anext(steps, None))
            await let_commands_leave()
            yield step
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)  # the caller has an error of its own, or has all steps

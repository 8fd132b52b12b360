"""What Redis holds, read key by key without the Store."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from service.storage.sender import CommandSender

KeyContent = tuple[str, object, bool]
"""A key's type and value, and whether the key will expire."""


async def dump(link: CommandSender) -> dict[str, KeyContent]:
    """Return the content of every key."""
    names = sorted(await link.send("KEYS", "*"))
    return dict(zip(names, await asyncio.gather(*(_content(link, name) for name in names)), strict=True))


@asynccontextmanager
async def nothing_changes(link: CommandSender) -> AsyncIterator[None]:
    """Assert that the block leaves Redis as it was. The id counters may move."""
    before = without_id_counters(await dump(link))
    yield
    assert without_id_counters(await dump(link)) == before


def without_id_counters(content: dict[str, KeyContent]) -> dict[str, KeyContent]:
    """Return a dump without the keys `{shop}:ids:*`: a refused request may use up an id."""
    return {name: value for name, value in content.items() if ":ids:" not in name}


async def hash_at(link: CommandSender, name: str) -> dict[str, str]:
    """Return a hash; of an absent key, an empty one."""
    return _fields(await link.send("HGETALL", name))


async def scores_at(link: CommandSender, name: str) -> dict[str, int]:
    """Return a sorted set's entries with their scores; of an absent key, none."""
    reply = await link.send("ZRANGE", name, 0, -1, "WITHSCORES")
    return {entry: int(float(score)) for entry, score in zip(reply[::2], reply[1::2], strict=True)}


async def events_at(link: CommandSender, name: str) -> list[dict[str, str]]:
    """Return a stream's entries, oldest first, without their ids."""
    return [entry for _, entry in await _stream(link, name)]


async def _content(link: CommandSender, name: str) -> KeyContent:
    kind = await link.send("TYPE", name)
    value: object
    match kind:
        case "hash":
            value = await hash_at(link, name)
        case "zset":
            value = await scores_at(link, name)
        case "stream":
            value = await _stream(link, name)
        case _:
            value = await link.send("GET", name)
    return kind, value, await link.send("PTTL", name) > 0


async def _stream(link: CommandSender, name: str) -> list[tuple[str, dict[str, str]]]:
    return [(entry_id, _fields(fields)) for entry_id, fields in await link.send("XRANGE", name, "-", "+")]


def _fields(reply: Any) -> dict[str, str]:
    return dict(zip(reply[::2], reply[1::2], strict=True))

"""The content of Redis, read key by key without the Store."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from service.storage.replies import read_map, read_scores
from service.storage.sender import CommandSender

KeyContent = tuple[str, object, bool]
"""A key's type and value, and whether the key will expire."""


async def dump(sender: CommandSender) -> dict[str, KeyContent]:
    """Return the content of every key."""
    names = sorted(await sender.send("KEYS", "*"))
    return dict(zip(names, await asyncio.gather(*(_content(sender, name) for name in names)), strict=True))


@asynccontextmanager
async def nothing_changes(sender: CommandSender) -> AsyncIterator[None]:
    """Assert that the block changes nothing in Redis, except the id counters."""
    before = without_id_counters(await dump(sender))
    yield
    assert without_id_counters(await dump(sender)) == before


def without_id_counters(content: dict[str, KeyContent]) -> dict[str, KeyContent]:
    """Return a dump without the keys `{shop}:ids:*` and without `data_id`: a refused request may reserve ids."""
    without: dict[str, KeyContent] = {}
    for name, (key_type, value, expires) in content.items():
        if name.endswith(":meta") and isinstance(value, dict):
            value = {field: text for field, text in value.items() if field != "data_id"}
        if ":ids:" not in name:
            without[name] = key_type, value, expires
    return without


async def hash_at(sender: CommandSender, name: str) -> dict[str, str]:
    """Return the fields of a hash. An absent key has none."""
    return read_map(await sender.send("HGETALL", name))


async def scores_at(sender: CommandSender, name: str) -> dict[str, int]:
    """Return the entries of a sorted set with their scores. An absent key has none."""
    reply = await sender.send("ZRANGE", name, 0, -1, "WITHSCORES")
    return {entry: int(float(score)) for entry, score in read_scores(reply)}


async def events_at(sender: CommandSender, name: str) -> list[dict[str, str]]:
    """Return a stream's entries, oldest first, without their ids."""
    return [entry for _, entry in await _stream(sender, name)]


async def _content(sender: CommandSender, name: str) -> KeyContent:
    key_type = await sender.send("TYPE", name)
    value: object
    match key_type:
        case "hash":
            value = await hash_at(sender, name)
        case "zset":
            value = await scores_at(sender, name)
        case "stream":
            value = await _stream(sender, name)
        case _:
            value = await sender.send("GET", name)
    return key_type, value, await sender.send("PTTL", name) > 0


async def _stream(sender: CommandSender, name: str) -> list[tuple[str, dict[str, str]]]:
    return [(entry_id, _fields(fields)) for entry_id, fields in await sender.send("XRANGE", name, "-", "+")]


def _fields(reply: Any) -> dict[str, str]:
    return dict(zip(reply[::2], reply[1::2], strict=True))

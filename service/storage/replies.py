"""Reads replies that have another form on a connection that has changed to RESP3, as those do that list products.

Pure functions. https://valkey.io/topics/protocol/
"""

from collections.abc import Mapping, Sequence
from typing import Any


def read_map(reply: Mapping[str, Any] | Sequence[Any]) -> dict[str, Any]:
    """Return names and values. Before RESP3, they are a list: name, value, name, value, ..."""
    if isinstance(reply, Mapping):
        return dict(reply)
    return dict(zip(reply[::2], reply[1::2], strict=True))


def read_scores(reply: Sequence[Any]) -> list[tuple[str, str]]:
    """Return members and scores. Before RESP3, they are a list of texts: member, score, member, score, ..."""
    if reply and not isinstance(reply[0], str):
        return [(member, f"{score:.17g}") for member, score in reply]
    return list(zip(reply[::2], reply[1::2], strict=True))

"""The part of the audit about keys: their types, their names, and the ids in indexes. Pure functions."""

import re
from collections.abc import Iterable, Sequence

from service.domain.event import Event
from service.ops.audit_report import Finding
from service.storage import keys

is_id = re.compile("[1-9][0-9]{0,15}").fullmatch
_is_number = re.compile("[0-9]{1,18}").fullmatch


def expected_types(shop: str) -> dict[str, str]:
    """Return the keys that exist once per shop and that the audit reads, and the type that each must have."""
    return {
        keys.products(shop): "zset",
        keys.holds(shop): "zset",
        keys.pending(shop): "zset",
        keys.archived(shop): "zset",
        keys.skipped(shop): "zset",
        keys.events(shop): "stream",
        **dict.fromkeys(counters(shop), "string"),
    }


def partition_types(shop: str, number: int, count: int) -> dict[str, str]:
    """Return the same of the keys that only a partition of a shop has. `count`: the number of partitions."""
    return {
        keys.sent(shop): "hash",
        keys.taken(shop): "hash",
        keys.unpropagated(shop): "zset",
        **dict.fromkeys([keys.outgoing(shop, to) for to in range(count) if to != number], "zset"),
    }


def counters(shop: str) -> tuple[str, ...]:
    """Return the keys that are counters."""
    return keys.order_ids(shop), keys.product_ids(shop), keys.refusals(shop)


def check_counter(key: str, value: str | None) -> list[Finding]:
    """Return a finding if a counter has a value that is not a number."""
    return [] if value is None or _is_number(value) else [Finding(key, f"is {value[:100]!r}, not a number")]


def check_event(shop: str, event: Event) -> list[Finding]:
    """Return a finding if Holdfast did not write an entry of the event stream."""
    what = f"has the entry {event.id}, which Holdfast did not write"
    return [] if event.is_known() else [Finding(keys.events(shop), what)]


def check_type(key: str, actual: str, expected: str) -> list[Finding]:
    """Return a finding if a key has another type than expected."""
    text = {"zset": "a sorted set", "stream": "a stream", "string": "a number", "hash": "a hash"}[expected]
    return [] if actual in (expected, "none") else [Finding(key, f"is a {actual}, not {text}")]


def check_names(names: Iterable[str], prefix: str) -> tuple[list[int], list[Finding]]:
    """Return the ids of the keys that begin with this prefix, and which of these keys do not end in an id."""
    ids, others = _ids_in([name.removeprefix(prefix) for name in names if name.startswith(prefix)])
    return ids, [Finding(prefix + text, "does not end in an id") for text in others]


def check_members(index: str, members: Sequence[str]) -> tuple[list[int], list[Finding]]:
    """Return the ids in an index, and which of its members are not ids."""
    ids, others = _ids_in(members)
    return ids, [Finding(index, f"has the member {text!r}, which is not an id") for text in others]


def _ids_in(texts: Sequence[str]) -> tuple[list[int], list[str]]:
    ids = [int(text) for text in texts if is_id(text)]
    return ids, [] if len(ids) == len(texts) else [text for text in texts if not is_id(text)]

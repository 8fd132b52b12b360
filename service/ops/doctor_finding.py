"""The result of a check of `holdfast doctor`, and how times and sizes are written in it."""

import statistics
from collections.abc import Sequence
from typing import Literal, NamedTuple


class Finding(NamedTuple):
    """The result of a check. `commands`: how to mend it. `lines`: what was found, drawn."""

    mark: Literal["ok", "note", "bad"]
    name: str
    sentence: str
    commands: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()


def not_allowed(name: str, right: str) -> Finding:
    """Return the finding of a check that needs a right that the user of Redis does not have."""
    return Finding("note", name, f"Could not be checked: the user may not run {right}.", (f"give it +{right}",))


def percentiles(times: Sequence[float]) -> str:
    """Return a text with the median, the p99 and the longest of some times."""
    ordered = sorted(times)
    p99 = ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
    return f"{as_duration(statistics.median(ordered))} (p99 {as_duration(p99)}, longest {as_duration(ordered[-1])})"


def as_duration(seconds: float) -> str:
    """Return a duration as people read it."""
    return f"{seconds * 1000:.2f} ms" if seconds < 1 else f"{seconds:.1f} s"


def as_size(number: int) -> str:
    """Return a number of bytes as people read it."""
    if number < 1024 * 1024:
        return f"{number / 1024:.0f} KiB"
    return f"{number / 1024 / 1024:,.0f} MiB"


def as_sentence(reason: str) -> str:
    """Return the reason of an error as a sentence."""
    text = reason[0].upper() + reason[1:]
    return text if text.endswith(".") else f"{text}."

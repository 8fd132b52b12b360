"""Times: milliseconds since 1970 in Python and in Redis, a date and time of RFC 3339 in UTC in JSON."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NewType

Milliseconds = NewType("Milliseconds", int)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def format_timestamp(milliseconds: Milliseconds) -> str:
    """Return a moment as the API shows it: `2026-11-26T09:30:00.123Z`."""
    return f"{_format_second(milliseconds // 1000)}.{milliseconds % 1000:03d}Z"


@lru_cache(maxsize=1024)
def _format_second(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).isoformat(timespec="seconds").removesuffix("+00:00")

"""Times: milliseconds since 1970, and the timestamp that JSON shows."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.times import Milliseconds, format_timestamp


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1, "1970-01-01T00:00:00.001Z"),
        (999, "1970-01-01T00:00:00.999Z"),
        (1000, "1970-01-01T00:00:01.000Z"),
        (951_782_400_000, "2000-02-29T00:00:00.000Z"),
        (1_795_685_400_123, "2026-11-26T09:30:00.123Z"),
    ],
)
def test_timestamp_has_milliseconds_and_the_zone_utc(milliseconds: int, text: str) -> None:
    assert format_timestamp(Milliseconds(milliseconds)) == text


@given(st.integers(0, 253_402_300_799_999))
def test_timestamp_up_to_the_year_9999_is_exact(milliseconds: int) -> None:
    moment = datetime.fromisoformat(format_timestamp(Milliseconds(milliseconds)))
    assert moment - datetime(1970, 1, 1, tzinfo=UTC) == timedelta(milliseconds=milliseconds)


@given(st.lists(st.integers(0, 253_402_300_799_999)))
def test_timestamps_have_the_same_order_as_their_times(times: list[int]) -> None:
    assert sorted(map(format_timestamp, map(Milliseconds, times))) == [
        format_timestamp(Milliseconds(milliseconds)) for milliseconds in sorted(times)
    ]

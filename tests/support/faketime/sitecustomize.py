"""Lets Python sleep under libfaketime 0.9.10: its clock_nanosleep() fails if the monotonic clock is left alone."""

import select
import time
from typing import SupportsIndex


def _sleep(seconds: float | SupportsIndex, /) -> None:
    select.select([], [], [], float(seconds))


time.sleep = _sleep

"""A clock that a test sets."""

from service.domain.times import Milliseconds


class Clock:
    """The clock of a Store, in ms since 1970. It stands still until the test moves it."""

    def __init__(self, now: int = 1_800_000_000_000) -> None:
        self.now = Milliseconds(now)

    def __call__(self) -> Milliseconds:
        return self.now

    def forward(self, seconds: float) -> None:
        """Move the clock."""
        self.now = Milliseconds(self.now + round(seconds * 1000))

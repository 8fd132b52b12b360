"""The time, where a test sets it."""

from service.domain.times import Milliseconds


class Clock:
    """A Store's clock that only a test moves, in ms since 1970."""

    def __init__(self, now: int = 1_800_000_000_000) -> None:
        self.now = Milliseconds(now)

    def __call__(self) -> Milliseconds:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now = Milliseconds(self.now + round(seconds * 1000))

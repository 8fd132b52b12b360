"""Decides, before anything is sent, when each purchase of a rehearsal is due and what it buys. Pure functions."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Final, Literal, NamedTuple

PRICE: Final = 20
"""Price of one unit of each product of a rehearsal. Without cents, so that a total is a whole number."""

Course = Literal["buy", "complete", "cancel", "abandon"]
"""What a buyer does: buy at once, or hold the units and then complete, cancel or forget the order."""

Impatience = Literal["none", "twice", "hang up"]
"""What a buyer does before the answer arrives: wait, send the same again, or close the connection and send again."""

_LINES: Final = ((1, 2, 3), (70, 20, 10))
"""Lines of an order, and how many of 100 orders have so many: most carts are small."""

_QUANTITIES: Final = ((1, 2, 3), (80, 15, 5))

_COURSES: Final[tuple[tuple[Course, ...], tuple[int, ...]]] = (("complete", "cancel", "abandon"), (60, 20, 20))
"""Of 100 pending orders."""

_IMPATIENT: Final[tuple[tuple[Impatience, ...], tuple[int, ...]]] = (("none", "twice", "hang up"), (90, 7, 3))
"""Of 100 purchases, with `--retries`."""

_MAX_HANG_UP_SECONDS: Final = 0.004
"""Some hang-ups come before the request has left, some after the answer: the service answers in 1 to 2 ms."""

_MAX_PAUSE_SECONDS: Final = 2.0
"""From the placing of a pending order to its completion. A rehearsal must not last much longer than its load."""


class Purchase(NamedTuple):
    """One purchase: one buyer, one Idempotency-Key, at most one order.

    `units`: by the position of the product among those of the rehearsal.
    `pause`: seconds from the placing of a pending order to its completion or cancellation.
    `hang_up_after`: seconds from the sending to the closing of the connection.
    """

    number: int
    buyer: int
    units: dict[int, int]
    course: Course
    pause: float
    impatience: Impatience
    hang_up_after: float


@dataclass(frozen=True, kw_only=True)
class LoadPlan:
    """What a rehearsal sends. The same plan gives the same purchases at the same times.

    `run_id`: part of all references and names, so that two rehearsals in the same shop have nothing in common.
    `rate`: purchases per second. `duration` in seconds. `stock`: units of each product.
    `hold_share`: the share of orders that are pending at first. `hold_seconds`: how long they hold their units.
    `limit`: units of a product that one customer may have, or None.
    `poisson`: purchases become due at random moments, as those of real buyers. Otherwise, at equal distances.
    """

    run_id: str
    rate: float
    duration: float
    products: int
    stock: int
    buyers: int
    hold_share: float = 0.2
    hold_seconds: int = 5
    limit: int | None = None
    retries: bool = False
    poisson: bool = False
    seed: int = 1

    @property
    def expected_purchases(self) -> int:
        """The number of purchases; with Poisson, about this number."""
        return round(self.rate * self.duration)

    @cached_property
    def _popularity(self) -> list[float]:
        """The weights of the products, added up. By Zipf's law: the second is wanted half as often as the first."""
        return list(accumulate(1 / position for position in range(1, self.products + 1)))

    def due_times(self) -> Iterator[float]:
        """Yield the seconds from the start to the moment when each purchase is due."""
        if not self.poisson:
            for number in range(self.expected_purchases):
                yield number / self.rate
            return
        draw = random.Random(self.seed)
        due = draw.expovariate(self.rate)
        while due < self.duration:
            yield due
            due += draw.expovariate(self.rate)

    def purchase(self, number: int) -> Purchase:
        """Return a purchase. It is drawn anew each time: so it needs no memory until the end of the rehearsal."""
        draw = random.Random((self.seed << 40) + number)
        wanted = min(draw.choices(*_LINES)[0], self.products)
        units: dict[int, int] = {}
        while len(units) < wanted:
            [position] = draw.choices(range(self.products), cum_weights=self._popularity)
            units.setdefault(position, draw.choices(*_QUANTITIES)[0])
        return Purchase(
            number,
            buyer=draw.randrange(self.buyers),
            units=units,
            course=draw.choices(*_COURSES)[0] if draw.random() < self.hold_share else "buy",
            pause=min(self.hold_seconds * draw.uniform(0.05, 0.5), _MAX_PAUSE_SECONDS),
            impatience=draw.choices(*_IMPATIENT)[0] if self.retries else "none",
            hang_up_after=draw.uniform(0, _MAX_HANG_UP_SECONDS),
        )

    def product_name(self, position: int) -> str:
        """Return the name of a product. People who see it must know that nobody sells it."""
        return f"Rehearsal {self.run_id}, product {position + 1}"

    def reference(self, number: int) -> str:
        """Return the reference of a purchase, which is also its Idempotency-Key."""
        return f"rehearsal-{self.run_id}-{number}"

    def customer(self, buyer: int) -> str:
        """Return the customer id of a buyer."""
        return f"rehearsal-{self.run_id}-buyer-{buyer}"

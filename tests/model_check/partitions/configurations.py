"""The shops that are searched. All laws must hold in each of them.

They are small, because a search visits everything: two or three partitions, one or two products, one to three units,
one to three requests. `docs/guarantees.md` says what that leaves out.
"""

from typing import Any

from tests.model_check.partitions.configuration import ClientRequest, Configuration
from tests.model_check.partitions.steps import Add, Change, Move, Place, Withdraw

Line = tuple[int, int]

ONE_EACH: tuple[Line, Line] = ((0, 1), (1, 1))
"""The lines of an order of one unit of each of two products."""


def order(partition: int, *lines: Line, is_pending: bool = False) -> tuple[int, Any, bool]:
    """Return an order of lines of product and units, whose key leads to this partition."""
    return partition, lines, is_pending


def stock_change(partition: int, change: int) -> tuple[int, Any, bool]:
    """Return a change of the stock of product 0, whose key leads to this partition."""
    return partition, change, False


def shop(
    name: str, stock: list[list[int | None]], *requests: tuple[int, Any, bool], **options: Any
) -> Configuration:
    """Return the configuration of a shop. `stock`: by partition and product."""
    clients = []
    for key, (partition, what, is_pending) in enumerate(requests):
        request = Move(key, 0, what) if isinstance(what, int) else Place(key, what, is_pending)
        clients.append(ClientRequest(partition=partition, request=request))
    rows = tuple(tuple(row) for row in stock)
    return Configuration(name=name, stock=rows, requests=tuple(clients), **options)


QUIET = {"loses_replies": False}
TWICE = {"workers": (0, 0)}

SHORT = [
    shop("one unit, elsewhere", [[0], [1]], order(0, (0, 1)), gives=2),
    shop("units of both partitions, sent twice", [[1], [1]], order(0, (0, 2)), **TWICE, gives=2),
    shop("two orders of all units", [[1], [1]], order(0, (0, 2)), order(1, (0, 2)), gives=2, **QUIET),
    shop("two sweepers", [[0], [1]], order(0, (0, 1)), gives=2, sweepers=2),
    shop("three partitions", [[0], [1], [1]], order(0, (0, 2)), gives=2, **QUIET),
    shop("a hold ends", [[0], [1]], order(1, (0, 1), is_pending=True), order(0, (0, 1)), gives=1, holds_expire=True),
    shop("a delivery to a shop that is sold out", [[0], [0]], order(0, (0, 1)), stock_change(1, 1), gives=1),
    shop("units are removed by two keys", [[1], [1]], stock_change(0, -2), stock_change(1, -1), gives=2, **QUIET),
    shop("a failover", [[0], [1]], order(0, (0, 1)), gives=1, failovers=1),
    shop("a failover to a clock that is behind", [[1], [1]], order(0, (0, 2)), gives=1, failovers=1, clocks="behind"),
    shop("a new price", [[1], [1]], order(1, (0, 1)), changes=(Change(0, 5),), attempts=0),
    shop("two new prices and a failover", [[1], [1]], changes=(Change(0, 5), Change(0, 6)), failovers=1),
    shop("a new product", [[None], [None]], order(1, (0, 1)), changes=(Add(0, 5, 2, 1, 1),), gives=1, **QUIET),
    shop("a withdrawn product", [[1], [1]], order(1, (0, 1)), changes=(Withdraw(0),), gives=1, **QUIET),
]
"""Searched by `make test`."""

LONG = [
    # Orders, without failovers
    shop("units of both partitions, sent twice, late gives", [[1], [1]], order(0, (0, 2)), **TWICE, gives=3, attempts=2),
    shop("two orders of all units, all replies lost", [[1], [1]], order(0, (0, 2)), order(1, (0, 2)), gives=2),
    shop("two orders of all units, two attempts", [[1], [1]], order(0, (0, 2)), order(1, (0, 2)), gives=3, attempts=2, **QUIET),
    shop("two-line orders of the last units, crosswise", [[1, 0], [0, 1]], order(0, *ONE_EACH), order(1, *ONE_EACH), gives=2, **QUIET),
    shop("three partitions, two orders", [[0], [1], [1]], order(0, (0, 2)), order(1, (0, 1)), gives=2, **QUIET),
    shop("a hold ends, two units", [[0], [2]], order(1, (0, 2), is_pending=True), order(0, (0, 1)), gives=2, holds_expire=True),
    shop("three orders, two units", [[0], [2]], order(0, (0, 1)), order(0, (0, 1)), order(1, (0, 1)), gives=2, **QUIET),
    shop("one order, sent three times", [[0], [1]], order(0, (0, 1)), workers=(0, 0, 0), gives=2),
    shop("a partition gives more than it must", [[0], [3]], order(0, (0, 1)), order(1, (0, 2)), gives=2, spreads=True),
    shop("the home is asked first", [[2], [0]], order(1, (0, 1)), order(1, (0, 1)), gives=3, attempts=2, guesses=True, **QUIET),
    shop("the home is asked first, and has nothing", [[0], [0], [1]], order(1, (0, 1)), **TWICE, gives=3, attempts=2, guesses=True, **QUIET),
    shop("the home is asked first, crosswise", [[1, 0], [0, 1]], order(0, *ONE_EACH), order(1, *ONE_EACH), gives=2, guesses=True, **QUIET),
    # More than one sweeper
    shop("two sweepers, two orders", [[0], [2]], order(0, (0, 1)), order(0, (0, 1)), gives=2, sweepers=2, **QUIET),
    shop("two sweepers, two orders of all units", [[1], [1]], order(0, (0, 2)), order(1, (0, 2)), gives=2, sweepers=2, **QUIET),
    shop("two sweepers, two new prices", [[1], [1]], order(1, (0, 1)), changes=(Change(0, 5), Change(0, 6)), attempts=0, sweepers=2),
    shop("two sweepers and a failover", [[0], [1]], order(0, (0, 1)), gives=2, failovers=1, sweepers=2),
    # Stock changes
    shop("a delivery, and an order that is sent twice", [[0], [0]], order(0, (0, 1)), stock_change(1, 1), workers=(0, 0, 1), gives=2),
    shop("units are removed, sent twice, and sold", [[0], [2]], stock_change(0, -2), order(1, (0, 1)), workers=(0, 0, 1), gives=2, **QUIET),
    shop("units are removed and delivered", [[0], [1]], stock_change(0, -2), stock_change(1, 1), gives=2),
    shop("units are removed, and a failover", [[0], [1]], stock_change(0, -1), gives=2, failovers=1),
    shop("units are delivered and sold, and a failover", [[0], [0]], stock_change(1, 1), order(0, (0, 1)), gives=1, failovers=1, **QUIET),
    # Failovers
    shop("a failover, units of both partitions", [[1], [1]], order(0, (0, 2)), gives=2, failovers=1),
    shop("a failover, one unit, two orders", [[0], [1]], order(0, (0, 1)), order(1, (0, 1)), gives=1, failovers=1, **QUIET),
    shop("a failover, two orders, a unit each", [[0], [2]], order(0, (0, 1)), order(0, (0, 1)), gives=2, failovers=1, **QUIET),
    shop("a failover, sent twice", [[0], [1]], order(0, (0, 1)), **TWICE, gives=2, failovers=1, **QUIET),
    shop("a failover, a hold ends", [[0], [1]], order(1, (0, 1), is_pending=True), order(0, (0, 1)), gives=1, holds_expire=True, failovers=1, **QUIET),
    shop("a failover, two sources", [[0, 0], [1, 0], [0, 1]], order(0, *ONE_EACH), gives=2, failovers=1, **QUIET),
    shop("two failovers", [[1], [1]], order(0, (0, 2)), gives=1, failovers=2),
    shop("two failovers, sent twice", [[0], [1]], order(0, (0, 1)), **TWICE, gives=1, failovers=2, **QUIET),
    # Clocks that are behind, with WAIT
    shop("clocks are behind from the beginning", [[1], [1]], order(0, (0, 2)), gives=2, failovers=1, clocks="always behind"),
    shop("two failovers to clocks that are behind", [[1], [1]], order(0, (0, 2)), gives=1, failovers=2, clocks="behind"),
    shop("a failover to a clock that is behind, a unit each", [[0], [2]], order(0, (0, 1)), order(0, (0, 1)), gives=2, failovers=1, clocks="behind", **QUIET),
    shop("a failover to a clock that is behind, new prices", [[1], [1]], order(1, (0, 1)), changes=(Change(0, 5), Change(0, 6)), attempts=0, failovers=1, clocks="behind"),
    # The catalogue
    shop("two new prices, an order in each partition", [[1], [1]], order(0, (0, 1)), order(1, (0, 1)), changes=(Change(0, 5), Change(0, 6)), attempts=0),
    shop("the same new price twice", [[1], [1]], order(1, (0, 1)), changes=(Change(0, 5), Change(0, 5)), attempts=0),
    shop("two new prices, three partitions", [[1], [1], [1]], order(1, (0, 1)), changes=(Change(0, 5), Change(0, 6)), attempts=0),
    shop("two products with other homes", [[1, 1], [1, 1]], order(1, *ONE_EACH), changes=(Change(0, 5), Change(1, 6)), attempts=0),
    shop("two new prices, an order and a failover", [[1], [1]], order(1, (0, 1)), changes=(Change(0, 5), Change(0, 6)), attempts=0, failovers=1),
    shop("a new product, its price, two orders", [[None], [None]], order(0, (0, 2)), order(1, (0, 1)), changes=(Add(0, 5, 2, 1, 1), Change(0, 6)), gives=1, **QUIET),
    shop("a new product and a failover", [[None], [None]], order(1, (0, 1)), changes=(Add(0, 5, 2, 1, 1),), gives=1, failovers=1, **QUIET),
    shop("a new product in three partitions", [[None], [None], [None]], order(1, (0, 2)), changes=(Add(0, 5, 3, 2, 1),), gives=2, **QUIET),
    shop("a withdrawn product, two orders", [[1], [1]], order(1, (0, 2)), order(0, (0, 1)), changes=(Withdraw(0),), gives=1, **QUIET),
    shop("a withdrawn product and a failover", [[1], [1]], order(1, (0, 1)), changes=(Withdraw(0),), gives=1, failovers=1, **QUIET),
]  # fmt: skip
"""Searched, with SHORT, by `make model-check`."""

WAITS_FOR_TRANSFERS = {"no_wait_after": ("place", "refuse"), "laws": "units", "failovers": 1, "gives": 2}

LOST_GIVES = {"no_wait_after": ("give", "the sweeper's look"), "laws": "lost", "failovers": 1, "gives": 2}
LOST_PUSHES = {"no_wait_after": ("push", "place", "refuse"), "laws": "lost", "failovers": 1, "gives": 1}

WEAKER = [
    shop("WAIT for transfers alone, two orders", [[0], [2]], order(0, (0, 1)), order(0, (0, 1)), **WAITS_FOR_TRANSFERS, **QUIET),
    shop("WAIT for transfers alone, all units", [[1], [1]], order(0, (0, 2)), order(1, (0, 2)), **WAITS_FOR_TRANSFERS, **QUIET),
    shop("WAIT for transfers alone, a hold ends", [[0], [1]], order(1, (0, 1), is_pending=True), order(0, (0, 1)), holds_expire=True, **WAITS_FOR_TRANSFERS, **QUIET),
    shop("no WAIT for gives: the ids of lost transfers do not come again", [[0, 0], [1, 1]], order(0, (0, 1)), order(0, (1, 1)), **LOST_GIVES, **QUIET),
    shop("WAIT neither for pushes nor for orders: units come before their product", [[None], [None]], order(1, (0, 1)), changes=(Add(0, 5, 1, 1, 0),), **LOST_PUSHES, **QUIET),
]  # fmt: skip
"""Shops that WAIT less. A failover may lose orders, and what else is not replicated, but these laws still hold."""


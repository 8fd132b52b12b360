"""The shops that are searched. All laws must hold in each of them.

They are small, because a search visits everything: two or three partitions, one or two products, one to three units,
one to three requests. `docs/guarantees.md` says what that leaves out.
"""

from typing import Any

from tests.model_check.partitions.configuration import ClientRequest, Configuration
from tests.model_check.partitions.steps import Add, Change, Move, Place, Withdraw

Line = tuple[int, int]


def shop(name: str, stock: str, *requests: str, **options: Any) -> Configuration:
    """Return the configuration of a shop.

    `stock`: the units of each product in each partition: "1,0 0,1" are two products, the first in partition 0, the
    second in partition 1; "-" is a product that is not there yet. A request begins with the partition of its key:
    "0 buys 2", "0 holds 2" (until the hold ends), "0 buys 1+1" (one unit of each of two products), "1 adds 1" and
    "0 removes 2" (changes of the stock of product 0).
    """
    rows = tuple(
        tuple(None if units == "-" else int(units) for units in partition.split(",")) for partition in stock.split()
    )
    return Configuration(name=name, stock=rows, requests=tuple(map(_client, range(len(requests)), requests)), **options)


def _client(key: int, text: str) -> ClientRequest:
    partition, verb, amount = text.split()
    if verb in ("buys", "holds"):
        units = [int(number) for number in amount.split("+")]
        lines = tuple((product, number) for product, number in enumerate(units) if number)
        return ClientRequest(partition=int(partition), request=Place(key, lines, verb == "holds"))
    sign = {"adds": 1, "removes": -1}[verb]
    return ClientRequest(partition=int(partition), request=Move(key, 0, sign * int(amount)))


QUIET: dict[str, Any] = {"loses_replies": False}
TWICE: dict[str, Any] = {"workers": (0, 0)}
TWO_PRICES: dict[str, Any] = {"changes": (Change(0, 5), Change(0, 6)), "attempts": 0}
BEHIND: dict[str, Any] = {"failovers": 1, "clocks": "behind"}

SHORT = [
    shop("one unit, elsewhere", "0 1", "0 buys 1", gives=2),
    shop("units of both partitions, sent twice", "1 1", "0 buys 2", **TWICE, gives=2),
    shop("two orders of all units", "1 1", "0 buys 2", "1 buys 2", gives=2, **QUIET),
    shop("two sweepers", "0 1", "0 buys 1", gives=2, sweepers=2),
    shop("three partitions", "0 1 1", "0 buys 2", gives=2, **QUIET),
    shop("a partition is silent", "0 1 1", "0 buys 1", gives=2, silent=2, **QUIET),
    shop("a hold ends", "0 1", "1 holds 1", "0 buys 1", gives=1, holds_expire=True),
    shop("a delivery to a shop that is sold out", "0 0", "0 buys 1", "1 adds 1", gives=1),
    shop("units are removed by two keys", "1 1", "0 removes 2", "1 removes 1", gives=2, **QUIET),
    shop("a failover", "0 1", "0 buys 1", gives=1, failovers=1),
    shop("a failover to a clock that is behind", "1 1", "0 buys 2", gives=1, **BEHIND),
    shop("a new price", "1 1", "1 buys 1", changes=(Change(0, 5),), attempts=0),
    shop("two new prices and a failover", "1 1", **TWO_PRICES, failovers=1),
    shop("a new product", "- -", "1 buys 1", changes=(Add(0, 5, 2, 1, 1),), gives=1, **QUIET),
    shop("a withdrawn product", "1 1", "1 buys 1", changes=(Withdraw(0),), gives=1, **QUIET),
]
"""Searched by `make test`."""

LONG = [
    # Orders, without failovers
    shop("units of both partitions, sent twice, late gives", "1 1", "0 buys 2", **TWICE, gives=3, attempts=2),
    shop("two orders of all units, all replies lost", "1 1", "0 buys 2", "1 buys 2", gives=2),
    shop("two orders of all units, two attempts", "1 1", "0 buys 2", "1 buys 2", gives=3, attempts=2, **QUIET),
    shop("two-line orders of the last units, crosswise", "1,0 0,1", "0 buys 1+1", "1 buys 1+1", gives=2, **QUIET),
    shop(
        "two-line orders, crosswise, two attempts", "1,0 0,1", "0 buys 1+1", "1 buys 1+1", gives=3, attempts=2, **QUIET
    ),
    shop("three partitions, all units", "1 1 1", "0 buys 2", "1 buys 2", gives=3, **QUIET),
    shop("three partitions, two orders", "0 1 1", "0 buys 2", "1 buys 1", gives=2, **QUIET),
    shop("a partition is silent, two orders", "1 1 1", "0 buys 2", "1 buys 1", gives=3, silent=2, **QUIET),
    shop("a hold ends, two units", "0 2", "1 holds 2", "0 buys 1", gives=2, holds_expire=True),
    shop("three orders, two units", "0 2", "0 buys 1", "0 buys 1", "1 buys 1", gives=2, **QUIET),
    shop("one order, sent three times", "0 1", "0 buys 1", workers=(0, 0, 0), gives=2),
    shop("a partition gives more than it must", "0 3", "0 buys 1", "1 buys 2", gives=2, spreads=True),
    shop("the home is asked first", "2 0", "1 buys 1", "1 buys 1", gives=3, attempts=2, guesses=True, **QUIET),
    shop(
        "the home is asked first, and has nothing",
        "0 0 1",
        "1 buys 1",
        **TWICE,
        gives=3,
        attempts=2,
        guesses=True,
        **QUIET,
    ),
    shop(
        "the home is asked first, crosswise",
        "1,0 0,1",
        "0 buys 1+1",
        "1 buys 1+1",
        gives=3,
        attempts=2,
        guesses=True,
        **QUIET,
    ),
    # More than one sweeper
    shop("two sweepers, two orders", "0 2", "0 buys 1", "0 buys 1", gives=2, sweepers=2, **QUIET),
    shop("two sweepers, two orders of all units", "1 1", "0 buys 2", "1 buys 2", gives=2, sweepers=2, **QUIET),
    shop("two sweepers, two new prices", "1 1", "1 buys 1", **TWO_PRICES, sweepers=2),
    shop("two sweepers and a failover", "0 1", "0 buys 1", gives=2, failovers=1, sweepers=2),
    # Stock changes
    shop("a delivery, and an order that is sent twice", "0 0", "0 buys 1", "1 adds 1", workers=(0, 0, 1), gives=2),
    shop(
        "units are removed, sent twice, and sold", "0 2", "0 removes 2", "1 buys 1", workers=(0, 0, 1), gives=2, **QUIET
    ),
    shop("units are removed and delivered", "0 1", "0 removes 2", "1 adds 1", gives=2),
    shop("units are removed, and a failover", "0 1", "0 removes 1", gives=2, failovers=1),
    shop("units are delivered and sold, and a failover", "0 0", "1 adds 1", "0 buys 1", gives=1, failovers=1, **QUIET),
    # Failovers
    shop("a failover, units of both partitions", "1 1", "0 buys 2", gives=2, failovers=1),
    shop("a failover, one unit, two orders", "0 1", "0 buys 1", "1 buys 1", gives=1, failovers=1, **QUIET),
    shop("a failover, two orders, a unit each", "0 2", "0 buys 1", "0 buys 1", gives=2, failovers=1, **QUIET),
    shop("a failover, two orders of all units", "1 1", "0 buys 2", "1 buys 2", gives=2, failovers=1, **QUIET),
    shop("a failover, three partitions", "0 1 1", "0 buys 2", gives=3, attempts=2, failovers=1, **QUIET),
    shop("a failover, sent twice", "0 1", "0 buys 1", **TWICE, gives=2, failovers=1, **QUIET),
    shop("a failover, a hold ends", "0 1", "1 holds 1", "0 buys 1", gives=1, holds_expire=True, failovers=1, **QUIET),
    shop("a failover, two sources", "0,0 1,0 0,1", "0 buys 1+1", gives=2, failovers=1, **QUIET),
    shop("two failovers", "1 1", "0 buys 2", gives=1, failovers=2),
    shop("two failovers, sent twice", "0 1", "0 buys 1", **TWICE, gives=1, failovers=2, **QUIET),
    # Clocks that are behind, with WAIT
    shop("clocks are behind from the beginning", "1 1", "0 buys 2", gives=2, failovers=1, clocks="always behind"),
    shop("two failovers to clocks that are behind", "1 1", "0 buys 2", gives=1, failovers=2, clocks="behind"),
    shop(
        "a failover to a clock that is behind, a unit each", "0 2", "0 buys 1", "0 buys 1", gives=2, **BEHIND, **QUIET
    ),
    shop("a failover to a clock that is behind, new prices", "1 1", "1 buys 1", **TWO_PRICES, **BEHIND),
    # The catalogue
    shop("two new prices, an order in each partition", "1 1", "0 buys 1", "1 buys 1", **TWO_PRICES),
    shop("the same new price twice", "1 1", "1 buys 1", changes=(Change(0, 5), Change(0, 5)), attempts=0),
    shop("two new prices, three partitions", "1 1 1", "1 buys 1", **TWO_PRICES),
    shop("two products with other homes", "1,1 1,1", "1 buys 1+1", changes=(Change(0, 5), Change(1, 6)), attempts=0),
    shop("two new prices, an order and a failover", "1 1", "1 buys 1", **TWO_PRICES, failovers=1),
    shop(
        "a new product, its price, two orders",
        "- -",
        "0 buys 2",
        "1 buys 1",
        changes=(Add(0, 5, 2, 1, 1), Change(0, 6)),
        gives=1,
        **QUIET,
    ),
    shop(
        "a new product and a failover", "- -", "1 buys 1", changes=(Add(0, 5, 2, 1, 1),), gives=1, failovers=1, **QUIET
    ),
    shop("a new product in three partitions", "- - -", "1 buys 2", changes=(Add(0, 5, 3, 2, 1),), gives=2, **QUIET),
    shop("two new prices, two orders and a failover", "1 1", "0 buys 1", "1 buys 1", **TWO_PRICES, failovers=1),
    shop("a withdrawn product, two orders", "1 1", "1 buys 2", "0 buys 1", changes=(Withdraw(0),), gives=1, **QUIET),
    shop(
        "a withdrawn product and a failover", "1 1", "1 buys 1", changes=(Withdraw(0),), gives=1, failovers=1, **QUIET
    ),
]
"""Searched, with SHORT, by `make model-check`."""

WAITS_FOR_TRANSFERS: dict[str, Any] = {
    "no_wait_after": ("place", "refuse"),
    "laws": "units",
    "failovers": 1,
    "gives": 2,
}

LOST_GIVES: dict[str, Any] = {
    "no_wait_after": ("give", "the sweeper's look"),
    "laws": "lost",
    "failovers": 1,
    "gives": 2,
}
LOST_PUSHES: dict[str, Any] = {"no_wait_after": ("push", "place", "refuse"), "laws": "lost", "failovers": 1, "gives": 1}

WEAKER = [
    shop("WAIT for transfers alone, two orders", "0 2", "0 buys 1", "0 buys 1", **WAITS_FOR_TRANSFERS, **QUIET),
    shop("WAIT for transfers alone, all units", "1 1", "0 buys 2", "1 buys 2", **WAITS_FOR_TRANSFERS, **QUIET),
    shop(
        "WAIT for transfers alone, a hold ends",
        "0 1",
        "1 holds 1",
        "0 buys 1",
        holds_expire=True,
        **WAITS_FOR_TRANSFERS,
        **QUIET,
    ),
    shop(
        "no WAIT for gives: the ids of lost transfers do not come again",
        "0,0 1,1",
        "0 buys 1",
        "0 buys 0+1",
        **LOST_GIVES,
        **QUIET,
    ),
    shop(
        "WAIT neither for pushes nor for orders: units come before their product",
        "- -",
        "1 buys 1",
        changes=(Add(0, 5, 1, 1, 0),),
        **LOST_PUSHES,
        **QUIET,
    ),
]
"""Shops that WAIT less. A failover may lose orders, and what else is not replicated, but these laws still hold."""

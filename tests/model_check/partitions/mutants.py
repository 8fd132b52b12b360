"""Shops without one of their safeguards. The search must find for each which law it breaks then."""

from dataclasses import dataclass, replace
from typing import Any

from tests.model_check.partitions.configuration import Configuration
from tests.model_check.partitions.configurations import (
    LOST_GIVES,
    LOST_PUSHES,
    QUIET,
    TWICE,
    TWO_PRICES,
    shop,
)
from tests.model_check.partitions.laws import NOT_DELIVERED, NOT_PUSHED
from tests.model_check.partitions.shop import OLD_PRICE, REFUSED_WRONGLY, Sent
from tests.model_check.partitions.steps import (
    Add,
    Change,
    Give,
    Move,
    Partition,
    Place,
    Propagated,
    Push,
    Refuse,
    Result,
    Take,
    change,
    give,
    move,
    place,
    propagated,
    push,
    put,
    take,
)

LOST, DOUBLED = "units are lost", "units are doubled"
MOVED, ORDERED = "the moved units of all partitions are not zero", "held and sold are not what the orders say"
GONE = "a confirmed request is gone"
NOT_REFUSED = "a refused request was done, or can still be done"


def take_without_mark(partition: Partition, request: Take, now: int) -> Result:
    """Take in whatever comes, also what was taken in before."""
    after, reply = take(partition._replace(taken=(-1,) * len(partition.taken)), request, now)
    return after._replace(taken=put(partition.taken, request.source, after.taken[request.source])), reply


@dataclass(frozen=True, slots=True)
class Forget:
    """Not a request of the product: lets a partition forget which transfers it has taken in."""

    source: int


def forget(partition: Partition, request: Forget, now: int) -> Result:
    """Forget the last transfer that was taken in."""
    return partition._replace(taken=put(partition.taken, request.source, 0)), ("forgotten",)


def place_and_remember(partition: Partition, request: Place, now: int) -> Result:
    """Remember at once that there are too few units in this partition."""
    after, reply = place(partition, request, now)
    if reply == ("short",):
        after = after._replace(outcomes=put(after.outcomes, request.key, "refused"))
    return after, reply


def move_without_key(partition: Partition, request: Move, now: int) -> Result:
    """Change the stock, whatever the Idempotency-Key remembers."""
    return move(partition._replace(outcomes=put(partition.outcomes, request.key, "")), request, now)


def refuse_always(partition: Partition, request: Refuse, now: int) -> Result:
    """Remember the refusal, whatever the Idempotency-Key remembers."""
    return partition._replace(outcomes=put(partition.outcomes, request.key, "refused")), ("remembered",)


def give_and_reply_the_own_transfer(partition: Partition, request: Give, now: int) -> Result:
    """Give, and reply only what this request gave."""
    after, (word, transfers) = give(partition, request, now)
    return after, (word, tuple(one for one in transfers if one not in partition.outgoing[request.to]))


def change_without_entry(partition: Partition, request: Change, now: int) -> Result:
    """Change a product, and do not note that the others do not have it."""
    after, reply = change(partition, request, now)
    return after._replace(unpropagated=partition.unpropagated), reply


def push_any_version(partition: Partition, request: Push, now: int) -> Result:
    """Take the pushed version, also if it is older."""
    product = partition.products[request.product]
    before = put(partition.products, request.product, product._replace(version=min(1, product.version)))
    return push(partition._replace(products=before), request, now)


def push_with_a_share_each_time(partition: Partition, request: Push, now: int) -> Result:
    """Add the share at each push."""
    after, reply = push(partition, request, now)
    if reply == ("pushed",) and partition.products[request.product].version:
        product = after.products[request.product]
        product = product._replace(
            stock=product.stock + (request.share or 0), received=product.received + (request.share or 0)
        )
        after = after._replace(products=put(after.products, request.product, product))
    return after, reply


def push_over_what_is_there(partition: Partition, request: Push, now: int) -> Result:
    """Begin a product with its share, whatever units came before it."""
    after, reply = push(partition, request, now)
    if not partition.products[request.product].version:
        product = after.products[request.product]._replace(stock=request.share or 0, received=request.share or 0)
        after = after._replace(products=put(after.products, request.product, product))
    return after, reply


def clear_any_version(partition: Partition, request: Propagated, now: int) -> Result:
    """Note that all have a product, also if there is a newer version."""
    return propagated(partition, replace(request, version=1 << 60), now)


Mutant = tuple[Configuration, str]
"""A shop, and the law that it breaks."""


def _mutant(name: str, expected: str, stock: str, *requests: str, **options: Any) -> Mutant:
    return shop(name, stock, *requests, **options), expected


ELSEWHERE = ("0 1", "0 buys 1")
TWO_ELSEWHERE = ("0 2", "0 buys 1", "0 buys 1")
PRICED = ("1 1", "1 buys 1")
FAILOVER: dict[str, Any] = {"gives": 2, "failovers": 1}


def _forgets(take: Sent) -> tuple[Sent, ...]:
    return (Sent(take.at, Forget(take.request.source)),)


MUTANTS: list[Mutant] = [
    # Transfers
    _mutant("a take is applied each time", MOVED, *ELSEWHERE, gives=2, steps={Take: take_without_mark}),
    _mutant(
        "the last transfer is forgotten when it is settled",
        DOUBLED,
        *ELSEWHERE,
        gives=2,
        steps={Forget: forget},
        sends_after_take=_forgets,
    ),
    _mutant("settled before it was taken in", LOST, *ELSEWHERE, gives=2, dropped="what is settled was taken in"),
    _mutant(
        "a give replies its own transfer alone",
        LOST,
        *TWO_ELSEWHERE,
        gives=2,
        steps={Give: give_and_reply_the_own_transfer},
    ),
    _mutant("no sweeper", NOT_DELIVERED, *ELSEWHERE, gives=2, sweepers=0),
    # Refusals
    _mutant(
        "one partition alone refuses",
        REFUSED_WRONGLY,
        *ELSEWHERE,
        gives=2,
        dropped="one partition alone refuses nothing",
    ),
    _mutant(
        "one partition alone refuses a stock change",
        REFUSED_WRONGLY,
        "0 1",
        "0 removes 1",
        gives=2,
        dropped="one partition alone refuses nothing",
    ),
    _mutant("the first refusal is remembered", REFUSED_WRONGLY, *ELSEWHERE, gives=2, steps={Place: place_and_remember}),
    _mutant(
        "a look counts the stock alone",
        REFUSED_WRONGLY,
        *ELSEWHERE,
        **TWICE,
        gives=2,
        dropped="a look counts what is on its way",
    ),
    _mutant(
        "a request gets the result of a look that began before it",
        REFUSED_WRONGLY,
        "0 0",
        "0 buys 1",
        "1 adds 1",
        gives=1,
        dropped="a look begins after the request",
    ),
    _mutant(
        "a request is refused though a partition is silent",
        REFUSED_WRONGLY,
        "0 1",
        "0 buys 1",
        silent=1,
        dropped="a look at some partitions refuses nothing",
    ),
    _mutant(
        "a refusal replaces the order of its key", ORDERED, *ELSEWHERE, **TWICE, gives=2, steps={Refuse: refuse_always}
    ),
    _mutant(
        "the key of a stock change is not remembered",
        LOST,
        "2 0",
        "0 removes 1",
        **TWICE,
        steps={Move: move_without_key},
    ),
    # The catalogue
    _mutant(
        "a price is answered before all have it",
        OLD_PRICE,
        *PRICED,
        **TWO_PRICES,
        dropped="a change is answered when all have it",
    ),
    _mutant(
        "a change to the same price is answered without a push",
        OLD_PRICE,
        *PRICED,
        changes=(Change(0, 5), Change(0, 5)),
        attempts=0,
        dropped="an equal change is pushed, too",
    ),
    _mutant("a push replaces a newer version", NOT_PUSHED, *PRICED, **TWO_PRICES, steps={Push: push_any_version}),
    _mutant(
        "a push removes the note of a newer version",
        NOT_PUSHED,
        *PRICED,
        **TWO_PRICES,
        steps={Propagated: clear_any_version},
    ),
    _mutant(
        "a change is not noted as unpropagated", NOT_PUSHED, *PRICED, **TWO_PRICES, steps={Change: change_without_entry}
    ),
    _mutant(
        "each push adds the first units again",
        DOUBLED,
        "- -",
        changes=(Add(0, 5, 2, 1, 1), Change(0, 6)),
        steps={Push: push_with_a_share_each_time},
    ),
    _mutant(
        "a new product overwrites units that came before it",
        LOST,
        "- -",
        "1 buys 1",
        changes=(Add(0, 5, 1, 1, 0),),
        **LOST_PUSHES,
        **QUIET,
        steps={Push: push_over_what_is_there},
    ),
    # WAIT
    _mutant("no WAIT at all", DOUBLED, *ELSEWHERE, **FAILOVER, waits="none"),
    _mutant("WAIT only after writes", GONE, "1 0", "0 buys 1", **TWICE, failovers=1, waits="writes"),
    *[
        _mutant(f"no WAIT after {kind}", fault, *ELSEWHERE, **FAILOVER, no_wait_after=(kind,))
        for kind, fault in (("place", GONE), ("give", DOUBLED), ("take", LOST), ("the sweeper's look", DOUBLED))
    ],
    _mutant(
        "no WAIT after refuse",
        NOT_REFUSED,
        "1 0",
        "0 holds 1",
        "1 buys 1",
        workers=(0, 1, 1),
        **FAILOVER,
        holds_expire=True,
        no_wait_after=("refuse",),
    ),
    _mutant("no WAIT after push", NOT_PUSHED, *PRICED, **TWO_PRICES, failovers=1, no_wait_after=("push",)),
    _mutant(
        "no WAIT after a change, and a clock that is behind",
        NOT_PUSHED,
        *PRICED,
        **TWO_PRICES,
        failovers=1,
        clocks="behind",
        no_wait_after=("change", "read at home", "the sweeper's look"),
    ),
    _mutant(
        "no WAIT after give, and a clock that is behind",
        LOST,
        "0,0 1,1",
        "0 buys 1",
        "0 buys 0+1",
        **LOST_GIVES,
        **QUIET,
        clocks="behind",
    ),
]
"""Each safeguard, dropped alone."""

ANOMALY: list[Mutant] = [
    _mutant(
        "a hold ends behind the look, and another order buys the last unit before it",
        REFUSED_WRONGLY,
        "1 1 0",
        "0 holds 1",
        "1 buys 1",
        "2 buys 1",
        holds_expire=True,
        **QUIET,
    ),
]
"""What the product accepts: see docs/guarantees.md. Two looks that must agree would end it, and cost a look more."""

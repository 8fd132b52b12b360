"""The steps of the model of partitions do to random partitions what the scripts in lua/ do."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.storage.sender import CommandSender
from tests.model_check.partitions.in_redis import KEYS, PARTITIONS, PRODUCTS, read, run, write
from tests.model_check.partitions.steps import (
    ABSENT,
    STEPS,
    Add,
    Change,
    Claim,
    ClaimUnits,
    Give,
    Move,
    Partition,
    Place,
    Product,
    Propagated,
    Push,
    Refuse,
    Settle,
    Take,
    Transfer,
    Withdraw,
)
from tests.support.fake_redis import FakeRedis

pytestmark = pytest.mark.slow

HERE = 1
"""The number of the partition. It exchanges units with the others."""

FUTURE = 2**52
"""Far above the time in microseconds: as if the clock of the engine had been set back."""

WORDS = {
    Place: {"placed", "replayed", "refused", "unknown", "short"},
    Move: {"moved", "replayed", "refused", "absent", "short"},
    Refuse: {"remembered", "replayed", "refused"},
    Give: {"outgoing"},
    Take: {"taken"},
    Settle: {"settled"},
    ClaimUnits: {"claimed"},
    Add: {"added", "taken"},
    Change: {"changed", "absent"},
    Withdraw: {"withdrawn", "absent"},
    Push: {"pushed", "known", "lost"},
    Propagated: {"propagated", "newer"},
}
"""The replies that must occur. Otherwise the test would compare less than it seems to."""

others = st.sampled_from([number for number in range(PARTITIONS) if number != HERE])
numbers = st.sampled_from(range(PRODUCTS))
ids = st.one_of(st.integers(1, 9), st.integers(FUTURE, FUTURE + 9))
ids_or_none = st.one_of(st.just(0), ids)
units = st.integers(1, 5)
counts = st.integers(0, 9)
prices = st.integers(1, 3)
claims = st.builds(Claim, st.sampled_from([1000, FUTURE, FUTURE]), st.sampled_from(range(PARTITIONS)))
moved = st.integers(-9, 9)
shares = st.one_of(st.none(), counts)
is_withdrawn = st.sampled_from([False, False, False, True])
known_products = st.builds(
    Product, counts, counts, counts, counts, moved, ids, prices, shares, is_withdrawn, st.one_of(st.none(), claims)
)
units_without_product = st.builds(
    lambda stock, claim: Product(stock=stock, received=stock, moved=stock, claim=claim), units, st.none() | claims
)
# hypothesis draws each alternative of one_of() equally often, also if it is named twice.
products = st.sampled_from([known_products] * 4 + [units_without_product, st.just(ABSENT)]).flatmap(lambda kind: kind)
outcomes_of_orders = st.sampled_from(["", "", "completed", "pending", "refused"])
outcomes_of_changes = st.sampled_from(["", "", "moved", "refused"])


@st.composite
def transfers(draw: st.DrawFn, min_size: int = 0) -> tuple[Transfer, ...]:
    """Draw transfers, the oldest first."""
    drawn = sorted(draw(st.sets(ids, min_size=min_size, max_size=4)))
    return tuple(Transfer(id_, draw(numbers), draw(units)) for id_ in drawn)


@st.composite
def partitions(draw: st.DrawFn) -> Partition:
    """Draw a partition. The last id that was sent is not below those on their way."""
    outgoing = [draw(transfers()) if number != HERE else () for number in range(PARTITIONS)]
    last = [waiting[-1].id if waiting else 0 for waiting in outgoing]
    return Partition(
        products=tuple(draw(products) for _ in range(PRODUCTS)),
        sent=tuple(max(id_, draw(ids_or_none)) if number != HERE else 0 for number, id_ in enumerate(last)),
        outgoing=tuple(outgoing),
        taken=tuple(draw(ids_or_none) if number != HERE else 0 for number in range(PARTITIONS)),
        unpropagated=tuple(draw(ids_or_none) for _ in range(PRODUCTS)),
        outcomes=(*[draw(outcomes_of_orders) for _ in range(KEYS - 1)], draw(outcomes_of_changes)),
    )


lines = st.lists(st.tuples(numbers, units), min_size=1, max_size=2, unique_by=lambda line: line[0]).map(tuple)
wishes = st.lists(
    st.tuples(numbers, counts, st.integers(-4, 9), counts), min_size=1, max_size=2, unique_by=lambda wish: wish[0]
).map(tuple)

REQUESTS: dict[type, st.SearchStrategy[Any]] = {
    Place: st.builds(Place, st.integers(0, KEYS - 2), lines, st.booleans()),
    Move: st.builds(Move, st.just(KEYS - 1), numbers, st.integers(-9, 5)),
    Refuse: st.builds(Refuse, st.integers(0, KEYS - 1)),
    Give: st.builds(Give, others, wishes, ids_or_none, st.sampled_from([100, 100, 2])),
    Take: st.builds(Take, others, transfers(min_size=1)),
    Settle: st.builds(Settle, others, ids_or_none),
    ClaimUnits: st.builds(ClaimUnits, st.sampled_from([(0,), (1,), (0, 1)]), st.just(HERE), st.integers(0, 100)),
    Add: st.builds(Add, numbers, prices, st.integers(9, 20), st.just(PARTITIONS - 1), st.integers(0, 3)),
    Change: st.builds(Change, numbers, prices),
    Withdraw: st.builds(Withdraw, numbers),
    Push: st.builds(Push, numbers, ids, shares, st.booleans(), prices),
    Propagated: st.builds(Propagated, numbers, ids),
}


async def time_us(redis: CommandSender) -> int:
    seconds, microseconds = await redis.send("TIME")
    return int(seconds) * 1_000_000 + int(microseconds)


def time_in(partition: Partition, earliest: int, latest: int, request: Any) -> int:
    """Return the time that a script has read, from what it wrote. If it wrote none, any time is as good."""
    for product in partition.products:
        if type(request) is ClaimUnits and product.claim:
            until = product.claim.until_ms - request.ms
            if earliest // 1000 <= until <= latest // 1000:
                return until * 1000
    written = [product.version for product in partition.products]
    written += [transfer.id for waiting in partition.outgoing for transfer in waiting]
    return min((number for number in written if earliest <= number <= latest), default=earliest)


async def compare(redis: CommandSender, kind: type, data: st.DataObject) -> str:
    """Run a random request of one kind on a random partition, and in the model. Return the first word of the reply."""
    before, request = data.draw(partitions()), data.draw(REQUESTS[kind])
    await redis.send("FLUSHALL")
    await write(redis, before)
    assert await read(redis) == before
    earliest = await time_us(redis)
    reply = await run(redis, request)
    latest = await time_us(redis)
    after = await read(redis)
    expected = STEPS[kind](before, request, time_in(after, earliest, latest, request))
    assert (after, reply) == expected
    return str(reply[0])


def examples(count: int) -> settings:
    return settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture
def words(kind: type) -> Iterator[set[str]]:
    """The first words of all replies to one kind of request."""
    found: set[str] = set()
    yield found
    assert found == WORDS[kind]


@pytest.mark.parametrize("kind", STEPS, ids=lambda kind: kind.__name__)
@examples(35)
@given(data=st.data())
async def test_a_step_of_the_model_does_what_the_script_does_on_the_engine(
    engine: CommandSender, kind: type, words: set[str], data: st.DataObject
) -> None:
    words.add(await compare(engine, kind, data))


@examples(20)
@given(kind=st.sampled_from(sorted(STEPS, key=lambda kind: kind.__name__)), data=st.data())
async def test_a_step_of_the_model_does_what_the_script_does_on_fakeredis(kind: type, data: st.DataObject) -> None:
    await compare(FakeRedis(), kind, data)

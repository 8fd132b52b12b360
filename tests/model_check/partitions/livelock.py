"""Looks for orders that take units from each other for ever: without faults, and without a limit on their attempts.

A live-lock is a strongly connected part of the graph of states in which each order under way takes a step, so that the
run is fair, and none ends. To look at all partitions is one step, and so is each transfer; what was given is taken in
with the next attempt, in one step, because both leave in one write.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tests.model_check.partitions.configurations import Line
from tests.model_check.partitions.steps import (
    ClaimUnits,
    Give,
    Partition,
    Product,
    claim_units,
    give,
    partition_of,
    put,
)

ONE_EACH: tuple[Line, ...] = ((0, 1), (1, 1))
"""The lines of an order of one unit of each of two products."""

CLAIM_FROM_ATTEMPT = 2
"""As in service/storage/exchange.py, counted from 0."""

TIME = -1
"""Takes a step when a claim ends."""


@dataclass(frozen=True)
class Contest:
    """Orders that contend for units. `orders`: partition and lines of each."""

    name: str
    stock: tuple[tuple[int, ...], ...]
    orders: tuple[tuple[int, tuple[Line, ...]], ...]
    claims: bool = True


def contests(*, claims: bool) -> list[Contest]:
    """Return the contests that are searched, with claims or without."""
    two: tuple[Line, ...] = ((0, 2),)
    one: tuple[Line, ...] = ((0, 1),)
    cases = [
        ("two orders of 2, a unit in each partition", ((1,), (1,)), ((0, two), (1, two))),
        ("three orders of 2, three units", ((1,), (1,), (1,)), ((0, two), (1, two), (2, two))),
        ("two-line orders, a unit each, crosswise", ((1, 0), (0, 1)), ((0, ONE_EACH), (1, ONE_EACH))),
        ("three two-line orders, two units each", ((1, 1), (1, 0), (0, 1)), tuple((p, ONE_EACH) for p in range(3))),
        ("two orders of 2, and one of 1", ((1,), (1,)), ((0, two), (1, two), (0, one))),
        ("three orders of 1, two units elsewhere", ((0,), (2,), (0,)), ((0, one), (2, one), (0, one))),
    ]
    return [Contest(name, stock, orders, claims) for name, stock, orders in cases]


class _Order(NamedTuple):
    """`asks`: source, product and units that are still to be asked for. `given`: product and units to be taken in."""

    phase: str = "placing"
    attempt: int = 0
    asks: tuple[tuple[int, int, int], ...] = ()
    given: tuple[Line, ...] = ()


class _State(NamedTuple):
    partitions: tuple[Partition, ...]
    orders: tuple[_Order, ...]


class _Edge(NamedTuple):
    actor: int
    ends: bool
    to: int


class Result(NamedTuple):
    """`live_locks`: parts of the graph in which orders go on for ever. `stuck`: states in which no step is possible."""

    states: int
    live_locks: int
    stuck: int


def explore(contest: Contest) -> Result:
    """Visit all states of a contest."""
    first = _State(
        tuple(
            partition_of(tuple(Product(units, version=1, withdrawn=False) for units in row), len(contest.stock), 0)
            for row in contest.stock
        ),
        tuple(_Order() for _ in contest.orders),
    )
    numbers, states, edges = {first: 0}, [first], []
    for state in states:
        out = []
        for actor, ends, after in _steps(contest, state):
            if after not in numbers:
                numbers[after] = len(states)
                states.append(after)
            out.append(_Edge(actor, ends, numbers[after]))
        edges.append(out)
    stuck = sum(not out and bool(_under_way(state)) for state, out in zip(states, edges, strict=True))
    return Result(len(states), sum(1 for _ in _live_locks(states, edges)), stuck)


def _under_way(state: _State) -> set[int]:
    return {number for number, order in enumerate(state.orders) if order.phase != "ended"}


def _steps(contest: Contest, state: _State) -> Iterator[tuple[int, bool, _State]]:
    for number in _under_way(state):
        order = state.orders[number]
        to, lines = contest.orders[number]
        partitions, ends = state.partitions, False
        products = partitions[to].products
        if order.phase == "placing":
            for product, units in order.given:
                products = put(products, product, products[product].adding(units))
            if all(products[product].stock >= units for product, units in lines):
                for product, units in lines:
                    products = put(products, product, products[product]._replace(stock=products[product].stock - units))
                after, ends = _Order("ended"), True
            else:
                after = _Order("looking", min(order.attempt + 1, CLAIM_FROM_ATTEMPT + 1))
                if contest.claims and order.attempt >= CLAIM_FROM_ATTEMPT:
                    claim = ClaimUnits(tuple(product for product, _ in lines), to, ms=1)
                    products = claim_units(partitions[to]._replace(products=products), claim, 0)[0].products
            partitions = put(partitions, to, partitions[to]._replace(products=products))
        elif order.phase == "looking":
            after, ends = _look(state, order, to, lines)
        else:
            (source, product, units), *rest = order.asks
            gave, (_, transfers) = give(partitions[source], Give(to, ((product, units, 0, 0),)), 0)
            # Delivered at once, so that ids do not grow: states would never be the same again.
            sent, outgoing = partitions[source].sent, partitions[source].outgoing
            partitions = put(partitions, source, gave._replace(sent=sent, outgoing=outgoing))
            given = order.given + tuple((one.product, one.units) for one in transfers)
            after = _Order("asking" if rest else "placing", order.attempt, tuple(rest), given)
        yield number, ends, _State(partitions, put(state.orders, number, after))
    for at, product in _claims_that_may_end(contest, state):
        partition = state.partitions[at]
        products = put(partition.products, product, partition.products[product]._replace(claim=None))
        yield TIME, False, state._replace(partitions=put(state.partitions, at, partition._replace(products=products)))


def _look(state: _State, order: _Order, to: int, lines: tuple[Line, ...]) -> tuple[_Order, bool]:
    """Return what an order does after it has looked at all partitions, and whether that ends it."""
    on_their_way = [given for other in state.orders for given in other.given]
    stocks = [[product.stock for product in partition.products] for partition in state.partitions]
    asks = []
    for product, units in lines:
        total = sum(row[product] for row in stocks) + sum(given for number, given in on_their_way if number == product)
        if total < units:
            return _Order("ended"), True
        need = units - stocks[to][product]
        for source in sorted(set(range(len(stocks))) - {to}, key=lambda number: -stocks[number][product]):
            if need > 0 and stocks[source][product] > 0:
                asks.append((source, product, min(need, stocks[source][product])))
                need -= stocks[source][product]
    return _Order("asking" if asks else "placing", order.attempt, tuple(asks)), False


def _claims_that_may_end(contest: Contest, state: _State) -> Iterator[tuple[int, int]]:
    """Yield the claims of orders that have ended. A claim lives longer than a cycle, so the others are renewed."""
    claiming = {
        (contest.orders[number][0], product)
        for number in _under_way(state)
        if state.orders[number].attempt > CLAIM_FROM_ATTEMPT
        for product, _ in contest.orders[number][1]
    }
    for at, partition in enumerate(state.partitions):
        for product, counters in enumerate(partition.products):
            if counters.claim and (at, product) not in claiming:
                yield at, product


def _live_locks(states: list[_State], edges: list[list[_Edge]]) -> Iterator[list[int]]:
    """Yield each strongly connected part in which all who can take a step take one, and no order ends."""
    for part in _strongly_connected(edges):
        inside = set(part)
        actors = {edge.actor for number in part for edge in edges[number] if edge.to in inside and not edge.ends}
        # Time goes on: if a claim could end in each of the states, it ends.
        time_is_stopped = TIME not in actors and all(any(e.actor == TIME for e in edges[number]) for number in part)
        under_way = _under_way(states[part[0]])
        if under_way and actors >= under_way and not time_is_stopped:
            yield part


def _strongly_connected(edges: list[list[_Edge]]) -> Iterator[list[int]]:
    """Yield the strongly connected parts of a graph (Tarjan's algorithm, without recursion)."""
    numbers: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    for root in range(len(edges)):
        if root in numbers:
            continue
        work = [(root, 0)]
        while work:
            node, position = work.pop()
            if position == 0:
                numbers[node] = low[node] = len(numbers)
                stack.append(node)
                on_stack.add(node)
            for following in range(position, len(edges[node])):
                other = edges[node][following].to
                if other not in numbers:
                    work += [(node, following + 1), (other, 0)]
                    break
                if other in on_stack:
                    low[node] = min(low[node], numbers[other])
            else:
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == numbers[node]:
                    part: list[int] = []
                    while not part or part[-1] != node:
                        part.append(stack.pop())
                        on_stack.discard(part[-1])
                    yield part

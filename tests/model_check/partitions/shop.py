"""A shop with several partitions: its states, and the requests that run in them.

Every request, once sent, may run never, late, or any number of times, in any order, and its reply may be lost. A worker
that stops is one that takes no further step, so it needs no step of its own: each beginning of a run is searched.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from tests.model_check.partitions.configuration import Configuration
from tests.model_check.partitions.steps import (
    ABSENT,
    STEPS,
    Add,
    Change,
    Give,
    Move,
    Partition,
    Place,
    Product,
    Propagated,
    Push,
    Refuse,
    Reply,
    Settle,
    Take,
    Withdraw,
    partition_of,
    put,
)

REFUSED_WRONGLY = "a request was refused, and at no moment since it arrived were there too few units"
OLD_PRICE = "an order was sold at an old price, after the new one was answered"


class Sent(NamedTuple):
    """A request on its way to a partition."""

    at: int
    request: Any


class Worker(NamedTuple):
    """What a worker is doing for a client request, or for a change of the catalogue.

    `phase`: new, placing, looking, giving, taking, refusing, updating, done; or new, reading, pushing, done.
    """

    phase: str = "new"
    attempt: int = 0
    seen: tuple[Any, ...] = ()
    """What a look has found until now, one entry per partition."""
    seen_before: tuple[Any, ...] = ()
    """What the look before has found, if several must agree."""
    left: tuple[Sent, ...] = ()
    """The requests of this phase to which there is no reply yet."""
    to_take: tuple[Sent, ...] = ()
    """What was given, to be taken in."""
    is_current: bool = False
    """Whether it has compared the products with their homes before it sent the request."""


class Sweeper(NamedTuple):
    """What a sweeper is doing: it brings transfers or a product to where they are not yet, and then notes that."""

    left: tuple[Sent, ...] = ()
    then: Sent | None = None


class Facts(NamedTuple):
    """What the laws need to know of the past, and what may still happen. A set of requests is a number, by bits."""

    failovers_left: int
    gives: int = 0
    changes: int = 0
    behind: int = 0
    """Partitions whose clock is behind."""
    confirmed: int = 0
    """Requests that were answered with success."""
    refused: int = 0
    """Requests that were answered with a refusal for lack of units, or of the product."""
    too_few: int = 0
    """Requests that had, at one moment since they arrived, too few units anywhere."""
    answered: tuple[int, ...] = ()
    """The version of each product of which a client was told that it is everywhere."""
    known: tuple[tuple[int, ...], ...] = ()
    """What `answered` was when each client request arrived; empty: it has not arrived."""


class State(NamedTuple):
    """A state of the whole shop. A partition is the number of its state: see Shop.partition()."""

    partitions: tuple[int, ...]
    replicas: tuple[int, ...]
    """What the replica of each partition has; empty: no failover can come any more."""
    workers: tuple[Worker, ...]
    sweepers: tuple[Sweeper, ...]
    sent: frozenset[Sent]
    """All requests that may still run, late or again."""
    facts: Facts


class Step(NamedTuple):
    """Something that may happen. `label`: a text with its arguments. `fault`: the law that it breaks, or empty."""

    label: tuple[Any, ...]
    state: State
    fault: str


class Shop:
    """The shop of a configuration. It remembers what each request does to each state of a partition."""

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self.count = len(configuration.stock)
        self.products = range(len(configuration.stock[0]))
        self.drives = configuration.drives
        self._steps = {**STEPS, **configuration.steps}
        self._partitions: list[Partition] = []
        self._numbers: dict[Partition, int] = {}
        self._results: dict[tuple[int, Any, int], tuple[int, Reply]] = {}
        self._dead: dict[tuple[Sent, int], bool] = {}
        self._available: dict[tuple[tuple[int, ...], int], int] = {}

    def partition(self, number: int) -> Partition:
        """Return the state of a partition that has this number."""
        return self._partitions[number]

    def first_state(self) -> State:
        """Return the state at the beginning: nobody has done anything."""
        numbers = []
        for row in self.configuration.stock:
            products = tuple(
                ABSENT if units is None else Product(units, received=units, withdrawn=False, version=1) for units in row
            )
            numbers.append(self.number(partition_of(products, self.count, len(self.configuration.requests))))
        partitions, failovers = tuple(numbers), self.configuration.failovers
        behind = (1 << self.count) - 1 if self.configuration.clocks == "always behind" else 0
        nobody = tuple(() for _ in self.configuration.requests)
        answered = tuple(max(row[product] is not None for row in self.configuration.stock) for product in self.products)
        workers = (Worker(),) * (len(self.drives) + len(self.configuration.changes))
        facts = Facts(failovers, behind=behind, answered=answered, known=nobody)
        sweepers = (Sweeper(),) * self.configuration.sweepers
        return State(partitions, partitions if failovers else (), workers, sweepers, frozenset(), facts)

    def run(self, state: State, sent: Sent) -> tuple[State, Reply]:
        """Run a request in its partition. Nobody has heard the reply yet."""
        at, request = sent
        facts = state.facts
        is_change = isinstance(request, Add | Change | Withdraw)
        now = 1
        if not facts.behind >> at & 1:
            now = facts.changes + 2 if is_change else facts.gives + 1  # the version at the beginning is 1
        if type(request) is Give and facts.gives >= self.configuration.gives:
            request = replace(request, max_waiting=0)
        if type(request) is not Give and not is_change:
            now = 1  # the other scripts do not ask for the time
        before = state.partitions[at]
        after, reply = self._result(before, request, now)
        if after == before:
            return state, reply
        if type(request) is Give and self.partition(after).sent != self.partition(before).sent:
            facts = facts._replace(gives=facts.gives + 1)
        elif is_change:
            facts = facts._replace(changes=facts.changes + 1)
        return state._replace(partitions=put(state.partitions, at, after), facts=facts), reply

    def step(self, label: tuple[Any, ...], before: State, after: State, fault: str = "") -> Step:
        """Return a step, with what it adds to the facts, and without requests that can do nothing any more."""
        facts = after.facts
        if after.partitions != before.partitions or after.workers != before.workers:
            too_few = facts.too_few
            for worker, number in zip(after.workers, self.drives, strict=False):
                if not too_few >> number & 1 and worker.phase not in ("new", "done"):
                    needs = self.configuration.requests[number].needs
                    if any(self.available(after.partitions, product) < units for product, units in needs):
                        too_few |= 1 << number
            if too_few != facts.too_few:
                after = after._replace(facts=facts._replace(too_few=too_few))
        if after.replicas and not facts.failovers_left:
            after = after._replace(replicas=())
        if after.sent and not facts.failovers_left and self.configuration.is_faithful:
            dead = [sent for sent in after.sent if self._is_dead(sent, after)]
            if dead:
                after = after._replace(sent=after.sent.difference(dead))
        return Step(label, after, fault)

    def synced(self, state: State, at: int, kind: str, *, wrote: bool = True) -> State:
        """Return the state after a WAIT for the replica of a partition, if there is one after this kind of step."""
        configuration = self.configuration
        if not state.replicas or configuration.waits == "none" or kind in configuration.no_wait_after:
            return state
        if configuration.waits == "writes" and not wrote:
            return state
        return state._replace(replicas=put(state.replicas, at, state.partitions[at]))

    def hear(self, state: State, sent: Sent, kind: str) -> tuple[State, Reply]:
        """Run a request, WAIT, and hear the reply."""
        after, reply = self.run(state, sent)
        return self.synced(after, sent.at, kind, wrote=after.partitions != state.partitions), reply

    def available(self, partitions: tuple[int, ...], product: int) -> int:
        """Return the units in stock anywhere and on their way; 0 if the product is not on sale in all partitions.

        A new product is answered when all have it. An order that came before that may be told that there is none.
        """
        known = self._available.get((partitions, product))
        if known is None:
            states = [self.partition(number) for number in partitions]
            known = 0
            if not any(state.products[product].withdrawn for state in states):
                known = sum(state.products[product].stock for state in states)
                known += sum(
                    transfer.units
                    for source, state in enumerate(states)
                    for to, transfers in enumerate(state.outgoing)
                    for transfer in transfers
                    if transfer.product == product and transfer.id > states[to].taken[source]
                )
            self._available[partitions, product] = known
        return known

    def late_runs(self, state: State) -> Iterator[Step]:
        """Yield what happens if a request runs whose reply nobody hears: late, again, or with the reply lost."""
        for sent in state.sent:
            after, _ = self.run(state, sent)
            if after.partitions != state.partitions:
                fault = self.fault_of(sent, state, after)
                yield self.step(("nobody hears that this runs: {}", sent), state, after, fault)

    def fault_of(self, sent: Sent, before: State, after: State) -> str:
        """Return the law that a request has broken by what it wrote, or empty."""
        if after.partitions == before.partitions:
            return ""
        at, request = sent
        if not isinstance(request, Place | Move | Refuse):
            return ""
        outcome = self.partition(after.partitions[at]).outcomes[request.key]
        if outcome == "refused" and not before.facts.too_few >> request.key & 1:
            return REFUSED_WRONGLY
        if outcome != "refused" and type(request) is Place:
            products = self.partition(before.partitions[at]).products
            for product, _ in request.lines:
                if products[product].version < before.facts.known[request.key][product]:
                    return OLD_PRICE
        return ""

    def number(self, partition: Partition) -> int:
        number = self._numbers.setdefault(partition, len(self._partitions))
        if number == len(self._partitions):
            self._partitions.append(partition)
        return number

    def _result(self, number: int, request: Any, now: int) -> tuple[int, Reply]:
        known = self._results.get((number, request, now))
        if known is None:
            partition, reply = self._steps[type(request)](self.partition(number), request, now)
            known = self._results[number, request, now] = self.number(partition), reply
        return known

    def _is_dead(self, sent: Sent, state: State) -> bool:
        """Return whether a request can never change anything any more, if there is no failover."""
        at, request = sent
        if type(request) is Give:
            return state.facts.gives >= self.configuration.gives
        if type(request) is Settle and self.configuration.clocks != "right":
            return False
        known = self._dead.get((sent, state.partitions[at]))
        if known is None:
            known = self._dead[sent, state.partitions[at]] = _does_nothing(
                request, self.partition(state.partitions[at])
            )
        return known


def _does_nothing(request: Any, partition: Partition) -> bool:
    match request:
        case Place() | Move() | Refuse():
            return bool(partition.outcomes[request.key])
        case Take():
            return request.transfers[-1].id <= partition.taken[request.source]
        case Settle():
            return all(transfer.id > request.settled for transfer in partition.outgoing[request.to])
        case Push():
            return request.version <= partition.products[request.product].version
        case Propagated():
            return partition.unpropagated[request.product] != request.version
    return False

"""What workers do: for an order or a stock change, and for a change of the catalogue."""

from collections.abc import Iterator
from typing import Any

from tests.model_check.partitions.configuration import ClientRequest
from tests.model_check.partitions.shop import Sent, Shop, State, Step, Worker
from tests.model_check.partitions.steps import Give, Propagated, Push, Refuse, Settle, Take, put


def worker_steps(shop: Shop, state: State) -> Iterator[Step]:
    """Yield every step that a worker can take."""
    for number, worker in enumerate(state.workers):
        if worker.phase == "done":
            continue
        if number < len(shop.drives):
            yield from _REQUEST_PHASES[worker.phase](_Call(shop, state, number))
        else:
            yield from _CHANGE_PHASES[worker.phase](_Call(shop, state, number))


class _Call:
    """A worker with a client request or a change, in a state of the shop."""

    def __init__(self, shop: Shop, state: State, number: int) -> None:
        self.shop, self.state, self.number = shop, state, number
        self.worker = state.workers[number]
        self.dropped = shop.configuration.dropped

    @property
    def key(self) -> int:
        return self.shop.drives[self.number]

    @property
    def client(self) -> ClientRequest:
        return self.shop.configuration.requests[self.key]

    def with_worker(self, worker: Worker) -> "_Call":
        """Return the same call, with a worker that knows something else."""
        return _Call(self.shop, self.state._replace(workers=put(self.state.workers, self.number, worker)), self.number)

    @property
    def first(self) -> Sent:
        """The request that the worker sends first, and again."""
        return Sent(self.client.partition, self.client.request)

    def go(
        self,
        label: str,
        *args: Any,
        worker: Worker,
        after: State | None = None,
        sends: tuple[Sent, ...] = (),
        **facts: Any,
    ) -> Step:
        """Return a step: what the worker does next, what it sends, and what changes in the facts."""
        after = self.state if after is None else after
        after = after._replace(
            workers=put(after.workers, self.number, worker),
            sent=after.sent.union(sends) if sends else after.sent,
            facts=after.facts._replace(**facts) if facts else after.facts,
        )
        return self.shop.step((f"worker {self.number} {label}", *args), self.state, after)

    def confirmed(self, label: str, after: State) -> Step:
        """Return the step that ends a client request with success."""
        return self.go(label, worker=DONE, after=after, confirmed=after.facts.confirmed | 1 << self.key)

    def refused(self, label: str, after: State) -> Step:
        """Return the step that ends a client request with a refusal."""
        return self.go(label, worker=DONE, after=after, refused=after.facts.refused | 1 << self.key)

    def place_again(self, label: str, *args: Any) -> Step:
        return self.go(label, *args, worker=Worker("placing", self.worker.attempt + 1), sends=(self.first,))

    def send_refusal(self, label: str, *args: Any) -> Step:
        refuse = Sent(self.client.partition, Refuse(self.key))
        return self.go(label, *args, worker=Worker("refusing"), sends=(refuse,))


DONE = Worker("done")


# Client requests


def _arrive(call: _Call) -> Iterator[Step]:
    shop, known = call.shop, call.state.facts.known
    if not known[call.key]:
        known = put(known, call.key, call.state.facts.answered)
    yield call.go("gets request {}, sends it", call.key, worker=Worker("placing"), sends=(call.first,), known=known)
    if call.dropped == "a look begins after the request":
        totals = _totals([_look_at(call, number) for number in range(shop.count)], call.dropped)
        if not call.worker.seen and _is_too_few(call, totals):
            yield call.go("will get the result of a look that ended now: {}", totals, worker=Worker(seen=totals))
        if call.worker.seen:
            yield call.send_refusal("gets request {}, refuses it after somebody else's look", call.key)


def _place(call: _Call) -> Iterator[Step]:
    configuration = call.shop.configuration
    after, reply = call.shop.hear(call.state, call.first, "place")
    fault = call.shop.fault_of(call.first, call.state, after)
    attempt = call.worker.attempt
    if reply[0] in ("placed", "moved", "replayed"):
        yield call.confirmed(f"hears {reply[0]}, confirms", after)._replace(fault=fault)
    elif reply[0] == "refused":
        yield call.refused("hears that it was refused before", after)
    elif reply[0] in ("unknown", "absent") and call.worker.is_current:
        refuse = Sent(call.client.partition, Refuse(call.key))
        yield call.go("hears {}, refuses", reply[0], worker=Worker("refusing"), after=after, sends=(refuse,))
    elif reply[0] in ("unknown", "absent"):
        yield call.go("hears {}", reply[0], worker=Worker("updating", attempt), after=after)
    elif call.dropped == "one partition alone refuses nothing":
        refuse = Sent(call.client.partition, Refuse(call.key))
        yield call.go("hears short, refuses", worker=Worker("refusing"), after=after, sends=(refuse,))
    elif configuration.guesses and not attempt and (asks := _asks_at_home(call)):
        yield call.go(
            "hears short, asks {}", asks, worker=Worker("giving", left=asks), after=after, sends=asks
        )._replace(fault=fault)
    elif attempt < configuration.attempts:
        yield call.go("hears short", worker=Worker("looking", attempt), after=after)._replace(fault=fault)
    else:
        yield call.go("hears short, answers 503", worker=DONE, after=after)._replace(fault=fault)


def _look(call: _Call) -> Iterator[Step]:
    worker = call.worker
    if len(worker.seen) < call.shop.count:
        number = len(worker.seen)
        seen = (*worker.seen, _look_at(call, number))
        yield call.go("looks at partition {}", number, worker=worker._replace(seen=seen))
        if number == call.shop.configuration.silent:
            yield call.go("gets no answer from partition {}", number, worker=worker._replace(seen=(*worker.seen, ())))
        return
    is_partial = () in worker.seen
    if is_partial:
        nothing = ((0, 0),) * len(call.client.needs)
        worker = worker._replace(seen=tuple(look or nothing for look in worker.seen))
        call = call.with_worker(worker)
    totals = _totals(worker.seen, call.dropped)
    if is_partial and call.dropped != "a look at some partitions refuses nothing":
        if not _has_all_units(call):
            yield call.go("has not found enough, and not all have answered: answers 503", worker=DONE)
            return
    elif _is_too_few(call, totals):
        if call.shop.configuration.looks == 1 or worker.seen_before == worker.seen:
            yield call.send_refusal("has found {}: too few, refuses", totals)
        elif not worker.seen_before:
            again = Worker("looking", worker.attempt, seen_before=worker.seen)
            yield call.go("has found {}: too few, looks again", totals, worker=again)
        else:
            yield call.place_again("has found {}, and something else before: places again", totals)
        return
    asks = _asks(call)
    here = worker.seen[call.client.partition]
    if asks:
        giving = Worker("giving", worker.attempt, left=asks)
        yield call.go("has found {}, asks {}", totals, asks, worker=giving, sends=asks)
    elif all(stock >= units for (stock, _), (_, units) in zip(here, call.client.needs, strict=True)):
        yield call.place_again("has found that all units are here now")
    else:
        # A worker of the product brings what is on its way, and tries again. That is what the sweeper does here.
        yield call.go("has found that all units are on their way elsewhere, answers 503", worker=DONE)


def _receive(call: _Call) -> Iterator[Step]:
    """Hear the replies of those that give, in any order. Then send what is taken in, and the request, in one write."""
    loses_replies = call.shop.configuration.loses_replies
    for ask in call.worker.left if loses_replies else call.worker.left[:1]:
        after, reply = call.shop.hear(call.state, ask, "give")
        yield _with_gift(call, ask, reply[1], after)
        if loses_replies:
            yield _with_gift(call, ask, (), call.state)


def _with_gift(call: _Call, ask: Sent, transfers: tuple[Any, ...], after: State) -> Step:
    worker = call.worker
    left = tuple(other for other in worker.left if other is not ask)
    to_take = worker.to_take
    if transfers:
        to_take += (Sent(call.client.partition, Take(ask.at, transfers)),)
    if left:
        next_worker = worker._replace(left=left, to_take=to_take)
        return call.go("hears of {}: {}", ask, transfers, worker=next_worker, after=after)
    next_worker = Worker("placing", worker.attempt + 1)
    if to_take:
        next_worker = Worker("taking", worker.attempt, to_take=to_take)
    sends = (*to_take, call.first)
    if call.dropped == "what is settled was taken in":
        sends += tuple(Sent(one.request.source, Settle(one.at, one.request.transfers[-1].id)) for one in to_take)
    label = "hears of {}: {}, sends what is taken in and the request"
    return call.go(label, ask, transfers, worker=next_worker, after=after, sends=sends)


def _take_in(call: _Call) -> Iterator[Step]:
    first, *rest = call.worker.to_take
    after, reply = call.shop.hear(call.state, first, "take")
    next_worker = Worker("placing", call.worker.attempt + 1)
    if rest:
        next_worker = call.worker._replace(to_take=tuple(rest))
    sends = after_take(call.shop, first, reply[1])
    yield call.go("hears of {}, settles", first, worker=next_worker, after=after, sends=sends)


def after_take(shop: Shop, take: Sent, last: int) -> tuple[Sent, ...]:
    """Return what is sent after units were taken in."""
    settle = Sent(take.request.source, Settle(take.at, last))
    return (settle, *shop.configuration.sends_after_take(take)) if shop.configuration.sends_after_take else (settle,)


def _refuse(call: _Call) -> Iterator[Step]:
    refuse = Sent(call.client.partition, Refuse(call.key))
    after, reply = call.shop.hear(call.state, refuse, "refuse")
    if reply[0] == "replayed":
        yield call.confirmed("hears that the request was done before, confirms", after)
    else:
        fault = call.shop.fault_of(refuse, call.state, after)
        yield call.refused("has refused", after)._replace(fault=fault)


def _update(call: _Call) -> Iterator[Step]:
    """Bring products here that are newer at home, and send the request again: the next refusal is right."""
    shop, state, at = call.shop, call.state, call.client.partition
    numbers = [product for product, _ in call.client.needs]
    if all(number % shop.count == at for number in numbers):
        yield call.send_refusal("refuses: this is the home")
        return
    if not call.worker.seen:
        here = tuple(shop.partition(state.partitions[at]).products[number].version for number in numbers)
        yield call.go("reads the versions here", worker=call.worker._replace(seen=here))
        return
    pushes = []
    for number, version in zip(numbers, call.worker.seen, strict=True):
        home = number % shop.count
        product = shop.partition(state.partitions[home]).products[number]
        if product.version > version:
            state = shop.synced(state, home, "read at home", wrote=False)
            pushes.append(Sent(at, Push(number, product.version, product.share, product.withdrawn, product.price)))
    for push in pushes:
        state, _ = shop.hear(state, push, "push")
    again = Worker("placing", call.worker.attempt, is_current=True)
    yield call.go("brings {} here, places again", pushes, worker=again, after=state, sends=(*pushes, call.first))


def _look_at(call: _Call, number: int) -> tuple[tuple[int, int], ...]:
    """Return stock and moved units of the products that the request needs, in one partition."""
    products = call.shop.partition(call.state.partitions[number]).products
    return tuple((products[product].stock, products[product].moved) for product, _ in call.client.needs)


def _totals(seen: Any, dropped: str) -> tuple[int, ...]:
    """Return the units of each product that a look has found. `stock - moved` counts those on their way, too."""
    counts_moved = dropped != "a look counts what is on its way"
    return tuple(sum(stock - moved * counts_moved for stock, moved in column) for column in zip(*seen, strict=True))


def _is_too_few(call: _Call, totals: tuple[int, ...]) -> bool:
    return any(total < units for total, (_, units) in zip(totals, call.client.needs, strict=True))


def _has_all_units(call: _Call) -> bool:
    """Return whether the partitions that have answered have the units in stock."""
    stocks = [sum(look[line][0] for look in call.worker.seen) for line in range(len(call.client.needs))]
    return all(stock >= units for stock, (_, units) in zip(stocks, call.client.needs, strict=True))


def _asks(call: _Call) -> tuple[Sent, ...]:
    """Ask the partitions with most units first."""
    to, seen, asks = call.client.partition, call.worker.seen, []
    for line, (product, units) in enumerate(call.client.needs):
        need = units - seen[to][line][0]
        others = [number for number in range(call.shop.count) if number != to]
        for source in sorted(others, key=lambda number: -seen[number][line][0]):
            stock = seen[source][line][0]
            if need > 0 and stock > 0:
                asks.append(_ask(call, source, product, min(need, stock)))
                need -= stock
    return tuple(asks)


def _asks_at_home(call: _Call) -> tuple[Sent, ...]:
    to, asks = call.client.partition, []
    for product, units in call.client.needs:
        stock = call.shop.partition(call.state.partitions[to]).products[product].stock
        if stock < units and product % call.shop.count != to:
            asks.append(_ask(call, product % call.shop.count, product, units - stock))
    return tuple(asks)


def _ask(call: _Call, source: int, product: int, need: int) -> Sent:
    wish = -call.shop.count if call.shop.configuration.spreads else 0
    return Sent(source, Give(call.client.partition, ((product, need, wish, 0),)))


_REQUEST_PHASES = {
    "new": _arrive,
    "placing": _place,
    "looking": _look,
    "giving": _receive,
    "taking": _take_in,
    "refusing": _refuse,
    "updating": _update,
}


# Changes of the catalogue


def _change(call: _Call) -> Iterator[Step]:
    change, home = _change_of(call)
    sent = Sent(home, change)
    unheard, _ = call.shop.run(call.state, sent)
    yield call.go("sends {}, and stops", change, worker=DONE, after=unheard)
    after, reply = call.shop.hear(call.state, sent, "change")
    if reply[0] in ("absent", "taken"):
        yield call.go("hears {}", reply[0], worker=DONE, after=after)
    elif after.partitions == call.state.partitions and call.dropped == "an equal change is pushed, too":
        version = call.shop.partition(after.partitions[home]).products[change.product].version
        yield _answered(call, after, change.product, version)
    else:
        yield call.go("has made {}", change, worker=Worker("reading"), after=after)


def _read_home(call: _Call) -> Iterator[Step]:
    """Read the product at its home, where it may be newer by now, and push it to all others."""
    change, home = _change_of(call)
    state = call.shop.synced(call.state, home, "read at home", wrote=False)
    pushes = pushes_of(call.shop, state, change.product)
    if call.dropped == "a change is answered when all have it":
        yield _answered(call, state, change.product, pushes[0].request.version, pushes)
    else:
        yield call.go("pushes {}", pushes, worker=Worker("pushing", left=pushes), after=state, sends=pushes)


def _push(call: _Call) -> Iterator[Step]:
    for push in call.worker.left:
        after, _ = call.shop.hear(call.state, push, "push")
        left = tuple(other for other in call.worker.left if other is not push)
        if left:
            yield call.go("hears of {}", push, worker=Worker("pushing", left=left), after=after)
        else:
            product, version = push.request.product, push.request.version
            done = Sent(product % call.shop.count, Propagated(product, version))
            yield _answered(call, after, product, version, (done,))


def pushes_of(shop: Shop, state: State, product: int) -> tuple[Sent, ...]:
    """Return the pushes that bring a product, as its home has it now, to all others."""
    home = product % shop.count
    found = shop.partition(state.partitions[home]).products[product]
    push = Push(product, found.version, found.share, found.withdrawn, found.price)
    return tuple(Sent(number, push) for number in range(shop.count) if number != home)


def _answered(call: _Call, after: State, product: int, version: int, sends: tuple[Sent, ...] = ()) -> Step:
    answered = after.facts.answered
    answered = put(answered, product, max(version, answered[product]))
    return call.go("answers, all have version {}", version, worker=DONE, after=after, sends=sends, answered=answered)


def _change_of(call: _Call) -> tuple[Any, int]:
    change = call.shop.configuration.changes[call.number - len(call.shop.drives)]
    return change, change.product % call.shop.count


_CHANGE_PHASES = {"new": _change, "reading": _read_home, "pushing": _push}

"""What happens beside the workers: sweepers, holds that end, replication and failovers."""

from collections.abc import Iterator

from tests.model_check.partitions.shop import Sent, Shop, State, Step, Sweeper
from tests.model_check.partitions.steps import Place, Propagated, Take, put
from tests.model_check.partitions.workers import after_take, pushes_of

LOOK = "the sweeper's look"


def sweeper_steps(shop: Shop, state: State) -> Iterator[Step]:
    """Yield every step of the sweepers. They may run at any time, and may stop and begin again between two steps."""
    for number, sweeper in enumerate(state.sweepers):
        name = f"sweeper {number}"

        def to(
            label: tuple[object, ...], after: State, then: Sweeper, sends: tuple[Sent, ...] = (), number: int = number
        ) -> Step:
            sweepers = put(after.sweepers, number, then)
            sweepers = tuple(sorted(sweepers, key=hash))  # they are alike, so their sequence means nothing
            return shop.step(label, state, after._replace(sweepers=sweepers, sent=after.sent.union(sends)))

        if not sweeper.left:
            for source, partition in enumerate(map(shop.partition, state.partitions)):
                after = shop.synced(state, source, LOOK, wrote=False)
                for destination, transfers in enumerate(partition.outgoing):
                    if transfers:
                        take = Sent(destination, Take(source, transfers))
                        yield to((f"{name} finds {{}}", take), after, Sweeper((take,)), (take,))
                for product, version in enumerate(partition.unpropagated):
                    if version:
                        pushes = pushes_of(shop, state, product)
                        done = Sent(source, Propagated(product, pushes[0].request.version))
                        yield to((f"{name} finds {{}}", pushes), after, Sweeper(pushes, done), pushes)
            continue
        first, *rest = sweeper.left
        is_take = isinstance(first.request, Take)
        after, reply = shop.hear(state, first, "take" if is_take else "push")
        sends = after_take(shop, first, reply[1]) if is_take else ()
        if not rest and sweeper.then:
            sends = (sweeper.then,)
        left = Sweeper(tuple(rest), sweeper.then) if rest else Sweeper()
        yield to((f"{name} hears of {{}}", first), after, left, sends)
        yield to((f"{name} stops, and begins again",), state, Sweeper())


def hold_steps(shop: Shop, state: State) -> Iterator[Step]:
    """Yield the end of each hold: it may come at any time."""
    if not shop.configuration.holds_expire:
        return
    for key, client in enumerate(shop.configuration.requests):
        partition = shop.partition(state.partitions[client.partition])
        if partition.outcomes[key] == "pending" and isinstance(client.request, Place):
            products = partition.products
            for number, units in client.request.lines:
                product = products[number]
                product = product._replace(stock=product.stock + units, held=product.held - units)
                products = put(products, number, product)
            after = partition._replace(products=products, outcomes=put(partition.outcomes, key, "expired"))
            partitions = put(state.partitions, client.partition, shop.number(after))
            yield shop.step(("the hold of request {} expires", key), state, state._replace(partitions=partitions))


def failover_steps(shop: Shop, state: State) -> Iterator[Step]:
    """Yield replication, and failovers: a partition falls back to what its replica has."""
    facts = state.facts
    if not facts.failovers_left:
        return
    for number, (primary, replica) in enumerate(zip(state.partitions, state.replicas, strict=True)):
        if primary != replica:
            replicated = state._replace(replicas=put(state.replicas, number, primary))
            yield shop.step(("partition {} is replicated", number), state, replicated)
        behind = facts.behind | (1 << number if shop.configuration.clocks == "behind" else 0)
        if primary != replica or behind != facts.behind:
            after = state._replace(
                partitions=put(state.partitions, number, replica),
                facts=facts._replace(failovers_left=facts.failovers_left - 1, behind=behind),
            )
            yield shop.step(("FAILOVER of partition {}", number), state, after)

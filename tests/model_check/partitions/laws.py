"""What must hold in every state of a shop."""

from collections.abc import Iterator

from tests.model_check.partitions.shop import Facts, Sent, Shop, State
from tests.model_check.partitions.steps import Add, Move, Partition, Place, Settle, Take
from tests.model_check.partitions.workers import pushes_of

NOT_DELIVERED = "a transfer stays on its way for ever"
NOT_PUSHED = "a partition never gets the newest version of a product"


class Laws:
    """The laws of the shop of a configuration. The same partitions are judged only once."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self._configuration = shop.configuration
        self._faults: dict[tuple[int, ...], str] = {}

    def fault_in(self, state: State) -> str:
        """Return the first law that a state breaks, or empty."""
        fault = self._faults.get(state.partitions)
        if fault is None:
            fault = self._faults[state.partitions] = next(self._faults_of_partitions(state), "")
        if not fault and self._configuration.laws == "all":
            fault = next(self._faults_of_answers(state), "")
        return fault

    def _faults_of_partitions(self, state: State) -> Iterator[str]:
        partitions = [self._shop.partition(number) for number in state.partitions]
        for product in self._shop.products:
            brought = sum(self._brought(number, partition, product) for number, partition in enumerate(partitions))
            there = self._there(partitions, product)
            if there < brought:
                yield "units are lost"
            if self._configuration.laws == "lost":
                continue
            if there > brought:
                yield "units are doubled"
            if sum(partition.products[product].held + partition.products[product].sold for partition in partitions) > (
                brought
            ):
                yield "a product is oversold"
        if self._configuration.laws != "lost":
            for number, partition in enumerate(partitions):
                yield from self._faults_in_books(number, partition)
            yield from self._faults_after_sweep(state)

    def _brought(self, number: int, partition: Partition, product: int) -> int:
        """Return the units that were brought into a partition, without transfers."""
        units = self._configuration.stock[number][product] or 0
        for key, client in enumerate(self._configuration.requests):
            if client.partition == number and partition.outcomes[key] == "moved" and isinstance(client.request, Move):
                units += client.request.change * (client.request.product == product)
        for change in self._configuration.changes:
            if isinstance(change, Add) and change.product == product and partition.products[product].version:
                is_home = product % self._shop.count == number
                units += change.stock - change.others * change.share if is_home else change.share
        return units

    def _there(self, partitions: list[Partition], product: int) -> int:
        """Return the units in all partitions and on their way, sold and held ones included."""
        units = sum(sum(partition.products[product][:3]) for partition in partitions)
        for source, partition in enumerate(partitions):
            for to, transfers in enumerate(partition.outgoing):
                taken = partitions[to].taken[source]
                units += sum(one.units for one in transfers if one.product == product and one.id > taken)
        return units

    def _faults_in_books(self, number: int, partition: Partition) -> Iterator[str]:
        """Compare the counters of a partition with each other and with its orders: what the audit does today."""
        for product, counters in enumerate(partition.products):
            if counters.stock < 0:
                yield "a stock is below zero"
            if counters.received != counters.stock + counters.held + counters.sold:
                yield "received is not stock + held + sold"
            if counters.received != self._brought(number, partition, product) + counters.moved:
                yield "received is not what was brought and moved"
            ordered = {"pending": 0, "completed": 0}
            for key, client in enumerate(self._configuration.requests):
                outcome = partition.outcomes[key]
                if isinstance(client.request, Place) and outcome in ordered:
                    ordered[outcome] += sum(units for line, units in client.request.lines if line == product)
            if (counters.held, counters.sold) != (ordered["pending"], ordered["completed"]):
                yield "held and sold are not what the orders say"

    def _faults_of_answers(self, state: State) -> Iterator[str]:
        facts: Facts = state.facts
        for key, client in enumerate(self._configuration.requests):
            confirmed, refused = facts.confirmed >> key & 1, facts.refused >> key & 1
            if not confirmed and not refused:
                continue
            outcome = self._shop.partition(state.partitions[client.partition]).outcomes[key]
            if confirmed and refused:
                yield "a client was told yes and no"
            if confirmed and outcome in ("", "refused"):
                yield "a confirmed request is gone"
            if refused and outcome != "refused":
                yield "a refused request was done, or can still be done"

    def _faults_after_sweep(self, state: State) -> Iterator[str]:
        """Let all workers stop here. A sweeper alone must end all transfers and pushes."""
        shop = self._shop
        if self._configuration.sweepers:
            for source in range(shop.count):
                for to, transfers in enumerate(shop.partition(state.partitions[source]).outgoing):
                    if transfers:
                        state, reply = shop.run(state, Sent(to, Take(source, transfers)))
                        state, _ = shop.run(state, Sent(source, Settle(to, reply[1])))
            for product in shop.products:
                if shop.partition(state.partitions[product % shop.count]).unpropagated[product]:
                    for push in pushes_of(shop, state, product):
                        state, _ = shop.run(state, push)
        partitions = [shop.partition(number) for number in state.partitions]
        if any(any(partition.outgoing) for partition in partitions):
            yield NOT_DELIVERED
        for product in shop.products:
            if sum(partition.products[product].moved for partition in partitions):
                yield "the moved units of all partitions are not zero"
            newest = partitions[product % shop.count].products[product]
            if any(
                (one.version, one.price) != (newest.version, newest.price)
                for one in (partition.products[product] for partition in partitions)
            ):
                yield NOT_PUSHED

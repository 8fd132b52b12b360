"""What each script does to one partition: a pure function of the partition, the request and the time.

tests/model_check/test_partition_steps.py compares each of them with the script in lua/ on random partitions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple


class Claim(NamedTuple):
    """Until `until_ms`, a partition gives no units of a product to partitions with a higher number than `by`."""

    until_ms: int
    by: int


class Product(NamedTuple):
    """A product in one partition. `version` 0: the partition does not know the product; it may have units of it."""

    stock: int = 0
    held: int = 0
    sold: int = 0
    received: int = 0
    moved: int = 0
    version: int = 0
    price: int = 0
    share: int | None = None
    """Only at home, until all partitions have had it: the units with which the product begins in each of them."""
    withdrawn: bool = True
    claim: Claim | None = None

    def adding(self, units: int) -> "Product":
        """Return the product after a transfer of units to this partition; below zero: from it."""
        return self._replace(stock=self.stock + units, received=self.received + units, moved=self.moved + units)


ABSENT = Product()


class Transfer(NamedTuple):
    """Units on their way to another partition."""

    id: int
    product: int
    units: int


class Partition(NamedTuple):
    """One partition. Each tuple is by product, by partition or by client request: the position is the number."""

    products: tuple[Product, ...]
    sent: tuple[int, ...]
    """The last transfer to each partition; 0: none."""
    outgoing: tuple[tuple[Transfer, ...], ...]
    """The transfers to each partition that are not settled, oldest first."""
    taken: tuple[int, ...]
    """The last transfer that was taken in from each partition; 0: none."""
    unpropagated: tuple[int, ...]
    """The version of each product that not all partitions may have; 0: all have it."""
    outcomes: tuple[str, ...]
    """What became of each client request: completed, pending, expired, moved or refused; empty: nothing."""


def partition_of(products: tuple[Product, ...], partitions: int, requests: int) -> Partition:
    """Return a partition with these products, without transfers and requests."""
    none = (0,) * partitions
    return Partition(products, none, ((),) * partitions, none, (0,) * len(products), ("",) * requests)


# Requests, one class per script. No tuples: two requests of different classes are never equal.


@dataclass(frozen=True, slots=True)
class Place:
    """lua/place_order.lua with an Idempotency-Key that does not remember a refusal. A line: a product, and units."""

    key: int
    lines: tuple[tuple[int, int], ...]
    is_pending: bool = False


@dataclass(frozen=True, slots=True)
class Move:
    """lua/move_stock.lua with an Idempotency-Key that does not remember a refusal."""

    key: int
    product: int
    change: int


@dataclass(frozen=True, slots=True)
class Refuse:
    """lua/refuse.lua."""

    key: int


@dataclass(frozen=True, slots=True)
class Give:
    """lua/give_units.lua. A wish: product, need, wish, keep."""

    to: int
    wishes: tuple[tuple[int, int, int, int], ...]
    settled: int = 0
    max_waiting: int = 100


@dataclass(frozen=True, slots=True)
class Take:
    """lua/take_units.lua."""

    source: int
    transfers: tuple[Transfer, ...]


@dataclass(frozen=True, slots=True)
class Settle:
    """lua/settle_units.lua."""

    to: int
    settled: int


@dataclass(frozen=True, slots=True)
class ClaimUnits:
    """lua/claim_units.lua."""

    products: tuple[int, ...]
    by: int
    ms: int


@dataclass(frozen=True, slots=True)
class Add:
    """lua/add_product.lua of a shop with several partitions."""

    product: int
    price: int
    stock: int
    others: int
    share: int


@dataclass(frozen=True, slots=True)
class Change:
    """lua/change_product.lua of a shop with several partitions."""

    product: int
    price: int


@dataclass(frozen=True, slots=True)
class Withdraw:
    """lua/withdraw_product.lua of a shop with several partitions."""

    product: int


@dataclass(frozen=True, slots=True)
class Push:
    """lua/push_product.lua."""

    product: int
    version: int
    share: int | None
    withdrawn: bool
    price: int


@dataclass(frozen=True, slots=True)
class Propagated:
    """lua/note_propagated.lua."""

    product: int
    version: int


Reply = tuple[Any, ...]
"""A word, and what comes with it."""

Result = tuple[Partition, Reply]


def place(partition: Partition, request: Place, now: int) -> Result:
    """Take the units of all lines, or of none."""
    if outcome := partition.outcomes[request.key]:
        return partition, (("refused",) if outcome == "refused" else ("replayed",))
    products = partition.products
    if any(products[product].withdrawn for product, _ in request.lines):
        return partition, ("unknown",)
    if any(products[product].stock < units for product, units in request.lines):
        return partition, ("short",)
    for number, units in request.lines:
        product = products[number]
        held, sold = (units, 0) if request.is_pending else (0, units)
        product = product._replace(stock=product.stock - units, held=product.held + held, sold=product.sold + sold)
        products = put(products, number, product)
    outcome = "pending" if request.is_pending else "completed"
    return partition._replace(products=products, outcomes=put(partition.outcomes, request.key, outcome)), ("placed",)


def move(partition: Partition, request: Move, now: int) -> Result:
    """Change the stock of a product, unless it would be below zero."""
    if outcome := partition.outcomes[request.key]:
        return partition, (("refused",) if outcome == "refused" else ("replayed",))
    product = partition.products[request.product]
    if product.withdrawn:
        return partition, ("absent",)
    if product.stock + request.change < 0:
        return partition, ("short",)
    product = product._replace(stock=product.stock + request.change, received=product.received + request.change)
    products = put(partition.products, request.product, product)
    return partition._replace(products=products, outcomes=put(partition.outcomes, request.key, "moved")), ("moved",)


def refuse(partition: Partition, request: Refuse, now: int) -> Result:
    """Remember a refusal, unless the request has an outcome."""
    if outcome := partition.outcomes[request.key]:
        return partition, (("refused",) if outcome == "refused" else ("replayed",))
    return partition._replace(outcomes=put(partition.outcomes, request.key, "refused")), ("remembered",)


def give(partition: Partition, request: Give, now: int) -> Result:
    """Begin a transfer of each product of which there are units to give. `now`: in µs."""
    to = request.to
    waiting = tuple(transfer for transfer in partition.outgoing[to] if transfer.id > request.settled)
    products, given = partition.products, []
    next_id = max(partition.sent[to] + 1, request.settled + 1, now)
    for number, need, wish, keep in request.wishes if len(waiting) < request.max_waiting else ():
        product = products[number]
        wish = product.stock // -wish if wish < 0 else wish
        units = min(product.stock, max(need, min(wish, product.stock - keep)))
        claim = product.claim
        if units > 0 and not (claim and claim.until_ms > now // 1000 and claim.by < to):
            given.append(Transfer(next_id, number, units))
            products = put(products, number, product.adding(-units))
            next_id += 1
    waiting += tuple(given)
    sent = put(partition.sent, to, given[-1].id) if given else partition.sent
    after = partition._replace(products=products, sent=sent, outgoing=put(partition.outgoing, to, waiting))
    return after, ("outgoing", waiting)


def take(partition: Partition, request: Take, now: int) -> Result:
    """Take in the transfers that come after the last one that was taken in."""
    products, last, units = partition.products, partition.taken[request.source], 0
    for transfer in request.transfers:
        if transfer.id > last:
            products = put(products, transfer.product, products[transfer.product].adding(transfer.units))
            last = transfer.id
            units += transfer.units
    after = partition._replace(products=products, taken=put(partition.taken, request.source, last))
    return after, ("taken", last, units)


def settle(partition: Partition, request: Settle, now: int) -> Result:
    """Forget the transfers up to one."""
    left = tuple(transfer for transfer in partition.outgoing[request.to] if transfer.id > request.settled)
    return partition._replace(outgoing=put(partition.outgoing, request.to, left)), ("settled",)


def claim_units(partition: Partition, request: ClaimUnits, now: int) -> Result:
    """Claim products that this partition has units or knowledge of. `now`: in µs."""
    products = partition.products
    for number in request.products:
        if products[number]._replace(claim=None) != ABSENT:
            claim = Claim(now // 1000 + request.ms, request.by)
            products = put(products, number, products[number]._replace(claim=claim))
    return partition._replace(products=products), ("claimed",)


def add(partition: Partition, request: Add, now: int) -> Result:
    """Add a product at its home, with what its shares in the other partitions leave. `now`: in µs."""
    if partition.products[request.product]._replace(claim=None) != ABSENT:
        return partition, ("taken",)
    stock = request.stock - request.others * request.share
    product = Product(stock, received=stock, version=now, price=request.price, share=request.share, withdrawn=False)
    return _at_home(partition, request.product, product), ("added",)


def change(partition: Partition, request: Change, now: int) -> Result:
    """Change the price of a product at its home, if it is another one. `now`: in µs."""
    product = partition.products[request.product]
    if product.withdrawn:
        return partition, ("absent",)
    if product.price == request.price:
        return partition, ("changed",)
    product = product._replace(price=request.price, version=max(product.version + 1, now))
    return _at_home(partition, request.product, product), ("changed",)


def withdraw(partition: Partition, request: Withdraw, now: int) -> Result:
    """Withdraw a product at its home. `now`: in µs."""
    product = partition.products[request.product]
    if product._replace(claim=None) == ABSENT:
        return partition, ("absent",)
    if product.withdrawn:
        return partition, ("withdrawn",)
    product = product._replace(withdrawn=True, version=max(product.version + 1, now))
    return _at_home(partition, request.product, product), ("withdrawn",)


def push(partition: Partition, request: Push, now: int) -> Result:
    """Bring the catalogue part of a product into another partition, unless a newer one is there."""
    product = partition.products[request.product]
    if product.version >= request.version:
        return partition, ("known",)
    if not product.version and request.share is None:
        return partition, ("lost",)
    begun = 0 if product.version else request.share or 0
    product = product._replace(
        stock=product.stock + begun,
        received=product.received + begun,
        version=request.version,
        price=request.price,
        withdrawn=request.withdrawn,
    )
    return partition._replace(products=put(partition.products, request.product, product)), ("pushed",)


def propagated(partition: Partition, request: Propagated, now: int) -> Result:
    """Note that all partitions have a version, and so have had their units; and that it is the newest, if it is."""
    product = partition.products[request.product]._replace(share=None)
    partition = partition._replace(products=put(partition.products, request.product, product))
    if partition.unpropagated[request.product] > request.version:
        return partition, ("newer",)
    return partition._replace(unpropagated=put(partition.unpropagated, request.product, 0)), ("propagated",)


STEPS: dict[type, Callable[[Partition, Any, int], Result]] = {
    Place: place,
    Move: move,
    Refuse: refuse,
    Give: give,
    Take: take,
    Settle: settle,
    ClaimUnits: claim_units,
    Add: add,
    Change: change,
    Withdraw: withdraw,
    Push: push,
    Propagated: propagated,
}
"""The function of each class of requests."""


def put(things: tuple[Any, ...], position: int, thing: Any) -> tuple[Any, ...]:
    """Return a tuple with another thing at a position."""
    return (*things[:position], thing, *things[position + 1 :])


def _at_home(partition: Partition, number: int, product: Product) -> Partition:
    return partition._replace(
        products=put(partition.products, number, product),
        unpropagated=put(partition.unpropagated, number, product.version),
    )

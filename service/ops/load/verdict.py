"""Compares what buyers were told with what the service shows afterwards. Pure functions."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from service.ops.load.outcomes import ALLOWED_STATUSES, Outcome
from service.ops.load.plan import PRICE
from service.ops.load.shop import SeenOrder, StockLevel

FindingKind = Literal["oversold", "lost", "double", "unwanted", "contradiction", "stock"]

MAX_EXAMPLES: Final = 20
"""Findings of one kind that are kept as text. All are counted."""


class Finding(NamedTuple):
    """One thing that must not be."""

    kind: FindingKind
    sentence: str


@dataclass
class Units:
    """The units of a product in living orders: at least `sure`, at most `sure + unsure`.

    Unsure: the order was still pending when it was read, so it may expire at any moment, or its buyer got no answer
    and it was not there, so it may be placed late.
    """

    sure: int = 0
    unsure: int = 0


@dataclass
class Verdict:
    """What the comparison found. `examples` has at most MAX_EXAMPLES sentences of each kind."""

    counts: Counter[FindingKind] = field(default_factory=Counter)
    examples: dict[FindingKind, list[str]] = field(default_factory=dict)
    acknowledged: int = 0
    """Orders that the service acknowledged."""
    purchases: int = 0
    unknown: int = 0
    """Purchases whose answer was lost. `unknown_placed`: those that have an order."""
    unknown_placed: int = 0
    stocked: int = 0
    levels: list[StockLevel] = field(default_factory=list)
    unsure_units: int = 0

    @property
    def word(self) -> Literal["good", "bad", "none"]:
        """`none`: no order was accepted, so nothing was tested."""
        return "bad" if self.counts else "good" if self.acknowledged else "none"

    def add(self, findings: Iterable[Finding]) -> None:
        """Add what was found."""
        for kind, sentence in findings:
            self.counts[kind] += 1
            sentences = self.examples.setdefault(kind, [])
            if len(sentences) < MAX_EXAMPLES:
                sentences.append(sentence)


def check_purchase(
    reference: str,
    wanted: Mapping[int, int],
    outcome: Outcome,
    acknowledged: SeenOrder | None,
    listed: Sequence[SeenOrder],
) -> list[Finding]:
    """Return what is wrong with one purchase.

    `wanted`: units by product id. `acknowledged`: the order that the buyer was told of, as it is now.
    `listed`: the pending and completed orders with the reference of the purchase.
    """
    findings: list[Finding] = []
    if acknowledged is not None:
        findings += _check_acknowledged(reference, wanted, outcome, acknowledged)
    own = acknowledged.id if acknowledged is not None else None
    others = sorted({order.id for order in listed} - {own})
    if own is not None and others:
        findings.append(Finding("double", f"{reference} has the orders {_listed([own, *others])}"))
    elif len(others) > 1:
        findings.append(Finding("double", f"{reference} has the orders {_listed(others)}"))
    if outcome is Outcome.REFUSED and others:
        findings.append(Finding("unwanted", f"{reference} was refused, but has the order {others[0]}"))
    if outcome is Outcome.UNKNOWN:
        for order in listed[:1]:
            if wrong := _differs(wanted, order):
                findings.append(Finding("lost", f"the order {order.id} of {reference} {wrong}"))
    is_listed = any(order.id == own for order in listed)
    if acknowledged is not None and acknowledged.status == "completed" and not is_listed:
        findings.append(Finding("lost", f"the order {own} is not in the list of {reference}"))
    return findings


def _check_acknowledged(
    reference: str, wanted: Mapping[int, int], outcome: Outcome, order: SeenOrder
) -> Iterable[Finding]:
    allowed = ALLOWED_STATUSES[outcome]
    if order.status == "missing":
        yield Finding("lost", f"the order {order.id} of {reference} was acknowledged, but is not there")
    elif order.status not in allowed:
        expected = " or ".join(sorted(allowed))
        yield Finding("lost", f"the order {order.id} of {reference} is {order.status} instead of {expected}")
    elif wrong := _differs(wanted, order):
        yield Finding("lost", f"the order {order.id} of {reference} {wrong}")


def _differs(wanted: Mapping[int, int], order: SeenOrder) -> str:
    """Return how an order differs from the purchase, or an empty text."""
    if order.units != wanted:
        return f"has the units {dict(sorted(order.units.items()))} instead of {dict(sorted(wanted.items()))}"
    total = sum(wanted.values()) * PRICE
    return "" if order.total == total else f"has the total {order.total} instead of {total}"


def add_units(
    units: Mapping[int, Units],
    wanted: Mapping[int, int],
    outcome: Outcome,
    acknowledged: SeenOrder | None,
    listed: Sequence[SeenOrder],
) -> None:
    """Add the units of all orders of a purchase to those of the products."""
    # The acknowledged order was read last.
    orders = {order.id: order for order in (*listed, acknowledged) if order is not None}
    for order in orders.values():
        for product_id, count in order.units.items():
            if product_id in units and order.status == "completed":
                units[product_id].sure += count
            elif product_id in units and order.status == "pending":
                units[product_id].unsure += count
    if outcome is Outcome.UNKNOWN and not orders:
        for product_id, count in wanted.items():
            units[product_id].unsure += count


def check_stock(product_id: int, stocked: int, units: Units, level: StockLevel) -> list[Finding]:
    """Return what is wrong with the stock of a product that was added with `stocked` units."""
    name, findings = f"the product {product_id}", []
    if units.sure > stocked or level.held + level.sold > stocked or level.stock < 0:
        counted = max(units.sure, level.held + level.sold)
        findings.append(Finding("oversold", f"{name}: {counted} units in orders, of {stocked}; {_shown(level)}"))
    if level.received != stocked or level.stock + level.held + level.sold != level.received:
        findings.append(
            Finding("stock", f"{name}: {_shown(level)}, but {stocked} were added, and the first three must add up")
        )
    taken, most = level.held + level.sold, units.sure + units.unsure
    if not units.sure <= taken <= most:
        expected = str(units.sure) if units.sure == most else f"{units.sure} to {most}"
        findings.append(Finding("stock", f"{name}: {taken} units are held or sold, but orders have {expected}"))
    return findings


def _shown(level: StockLevel) -> str:
    return ", ".join(f"{name} {value}" for name, value in level._asdict().items())


def _listed(numbers: Iterable[Any]) -> str:
    return ", ".join(map(str, numbers))

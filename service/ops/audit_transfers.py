"""The part of the audit about what the partitions of a shop exchange: units on their way, and catalogue versions.

Pure functions: nothing is read here. `Seen` is what one read of all partitions found. The partitions are read one at a
moment of its own, while units move; the functions say what can be said in spite of that.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from service.ops.audit_report import Finding
from service.storage import keys
from service.storage.inspection import CatalogueRow, PartitionRows, Unreadable
from service.storage.transfers import Transfer

_as_transfer = re.compile("([1-9][0-9]{0,17}) ([1-9][0-9]{0,15}) ([1-9][0-9]{0,17})").fullmatch
_is_id = re.compile("[1-9][0-9]{0,17}").fullmatch
_is_whole = re.compile("-?[0-9]{1,18}").fullmatch

_COMPARED: Final = ("name", "price", "sale_rules", "withdrawn")


class Seen(NamedTuple):
    """All partitions, by number, and the products whose rows were read."""

    shop: str
    product_ids: Sequence[int]
    partitions: Sequence[PartitionRows]

    def key(self, number: int, product_id: int) -> str:
        """Return the key of a product in a partition."""
        return keys.product(keys.partition(self.shop, number), product_id)

    def home(self, product_id: int) -> int:
        """Return the partition where a product is changed."""
        return product_id % len(self.partitions)

    def sent(self, source: int, to: int) -> int:
        """Return the id of the last transfer that was given."""
        return _id(self.partitions[source].sent.get(str(to)))

    def taken(self, source: int, to: int) -> int:
        """Return the id of the last transfer that was taken in."""
        return _id(self.partitions[to].taken.get(str(source)))

    def pairs(self) -> Iterator[tuple[int, int]]:
        """Yield source and destination of all transfers that there can be."""
        numbers = range(len(self.partitions))
        return ((source, to) for source in numbers for to in numbers if source != to)

    def rows(self) -> Iterator[tuple[int, list[CatalogueRow | Unreadable]]]:
        """Yield each product with its rows, by partition."""
        for at, product_id in enumerate(self.product_ids):
            yield product_id, [partition.products[at] for partition in self.partitions]


def check_marks(seen: Seen) -> list[Finding]:
    """Return damaged transfers, and damaged ids of transfers."""
    findings = []
    count = len(seen.partitions)
    for number, partition in enumerate(seen.partitions):
        name = keys.partition(seen.shop, number)
        for key, marks in ((keys.sent(name), partition.sent), (keys.taken(name), partition.taken)):
            for other, text in marks.items():
                if other not in map(str, range(count)) or other == str(number):
                    findings.append(Finding(key, f"has the field {other[:100]!r}, which is no other partition"))
                elif not _is_id(text):
                    findings.append(Finding(key, f"has {text[:100]!r} for partition {other}, not the id of a transfer"))
        for to, members in partition.outgoing.items():
            for member, score in members:
                found = _as_transfer(member)
                if found is None or float(found[1]) != float(score):
                    what = f"has the member {member[:100]!r} with the score {score}, which is no transfer"
                    findings.append(Finding(keys.outgoing(name, to), what))
    return findings


def is_one_moment(seen: Seen) -> bool:
    """Return whether each transfer that was taken in had been given when its source was read.

    Otherwise it was given after that, and its units are counted twice.
    """
    return all(seen.taken(source, to) <= seen.sent(source, to) for source, to in seen.pairs())


def check_sent(before: Seen, seen: Seen) -> list[Finding]:
    """Return transfers that were taken in before all partitions were read again, but that nobody has given."""
    return [
        Finding(
            keys.taken(keys.partition(seen.shop, to)),
            f"has the transfer {before.taken(source, to)} of partition {source}, "
            f"but {keys.sent(keys.partition(seen.shop, source))} is only {seen.sent(source, to)}",
        )
        for source, to in seen.pairs()
        if before.taken(source, to) > seen.sent(source, to)
    ]


def excess_units(seen: Seen) -> dict[int, int]:
    """Return how many units there are too many of each product: below 0, if some were lost. Without products of 0."""
    excess = {product_id: sum(map(_moved, rows)) for product_id, rows in seen.rows()}
    for source, to in seen.pairs():
        for transfer in transfers_on_their_way(seen, source, to):
            if transfer.product_id in excess:
                excess[transfer.product_id] += transfer.units
    return {product_id: units for product_id, units in excess.items() if units}


def transfers_on_their_way(seen: Seen, source: int, to: int) -> list[Transfer]:
    """Return the transfers that a partition has given to another one, and that were not taken in yet."""
    found = [_as_transfer(member) for member, _ in seen.partitions[source].outgoing[to]]
    transfers = [Transfer(match[1], int(match[2]), int(match[3])) for match in found if match]
    return [transfer for transfer in transfers if int(transfer.id) > seen.taken(source, to)]


def excess_finding(seen: Seen, product_id: int, excess: int) -> Finding:
    """Return the finding about a product of which units were lost or doubled."""
    reason = (
        "more were given away than arrived or are on their way" if excess < 0 else "more arrived than were given away"
    )
    what = f"is off by {excess:+} units in all partitions together: {reason}"
    return Finding(seen.key(seen.home(product_id), product_id), what)


def check_moved(seen: Seen) -> list[Finding]:
    """Return products whose units that were moved are no number."""
    return [
        Finding(seen.key(number, product_id), f"has moved {row.moved[:100]!r}, expected a whole number")
        for product_id, rows in seen.rows()
        for number, row in enumerate(rows)
        if isinstance(row, CatalogueRow) and row.moved is not None and not _is_whole(row.moved)
    ]


def is_current(seen: Seen) -> bool:
    """Return whether all partitions have the same catalogue."""
    return not check_catalogue(seen, seen)


def check_catalogue(before: Seen, seen: Seen) -> list[Finding]:
    """Return products that are in a partition with another version than at home.

    Each partition was read in `before`, and then each again: so a version that home had, and that it had brought to all
    partitions, must be there now; and one that was in a partition before must be at home now.
    """
    findings = []
    for (product_id, rows_before), (_, rows) in zip(before.rows(), seen.rows(), strict=True):
        home = seen.home(product_id)
        for number, row in enumerate(rows):
            if number != home:
                what = _difference(rows_before[home], rows[home], rows_before[number], row)
                if what:
                    where = seen.key(home, product_id)
                    findings.append(Finding(seen.key(number, product_id), what.replace("HOME", where)))
    return findings


def _difference(
    home_before: CatalogueRow | Unreadable,
    home: CatalogueRow | Unreadable,
    row_before: CatalogueRow | Unreadable,
    row: CatalogueRow | Unreadable,
) -> str | None:
    for each in (home_before, home, row_before, row):
        if isinstance(each, Unreadable):
            return None  # the audit of the partition reports it
    assert isinstance(home_before, CatalogueRow)
    assert isinstance(home, CatalogueRow)
    assert isinstance(row_before, CatalogueRow)
    assert isinstance(row, CatalogueRow)
    if row.version is None and row.withdrawn is not None and home.version is None:
        return "has units, but HOME does not exist"
    if _id(row.version) < _id(home_before.version) and home_before.unpropagated is None:
        return f"has the catalogue version {row.version or 'none'}, but HOME has {home_before.version}"
    if _id(row_before.version) > _id(home.version):
        return f"has the catalogue version {row_before.version}, but HOME has {home.version or 'none'}"
    if row.version is not None and row.version == home.version:
        for name in _COMPARED:
            if getattr(row, name) != getattr(home, name):
                return f"has {name} {getattr(row, name)!r}, but HOME has {getattr(home, name)!r} in the same version"
    return None


def _id(text: str | None) -> int:
    return int(text) if text is not None and _is_id(text) else 0


def _moved(row: CatalogueRow | Unreadable) -> int:
    return int(row.moved) if isinstance(row, CatalogueRow) and row.moved and _is_whole(row.moved) else 0

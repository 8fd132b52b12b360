"""What an import did, and what is wrong with its rows: some messages of each kind, and how many more there are."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from service.ops.catalogue_rows import BadRow

MAX_MESSAGES: Final = 20
"""Messages of one kind: the same mistake in each row of a long file must not hide the other mistakes."""

_MAX_KINDS: Final = 100
"""Kinds that are told apart, so that the messages about any file fit into memory and can be read."""


@dataclass
class ImportReport:
    """The number of rows by what became of them, and messages about those that did not get into the shop.

    `present`: the product exists as the row says. `different`: it exists, but is not as the row says.
    `stopped`: why the rest of the file was not read; None: all of it was read.
    """

    added: int = 0
    changed: int = 0
    present: int = 0
    different: int = 0
    bad: int = 0
    messages: list[tuple[int, str, str]] = field(default_factory=list)
    """Line number, message, kind."""
    counts: Counter[str] = field(default_factory=Counter)
    """How many rows had something wrong, by kind."""
    stopped: str | None = None

    @property
    def passed(self) -> bool:
        """Whether the shop now has all that the file says."""
        return not (self.different or self.bad or self.stopped)

    def add_bad(self, line_number: int, bad: BadRow) -> None:
        """Note a row that cannot be used."""
        self.bad += 1
        self._add_message(line_number, bad)

    def add_different(self, line_number: int, difference: BadRow) -> None:
        """Note a row whose product exists, but is not as the row says."""
        self.different += 1
        self._add_message(line_number, difference)

    def _add_message(self, line_number: int, bad: BadRow) -> None:
        kind = bad.kind if bad.kind in self.counts or len(self.counts) < _MAX_KINDS else ""
        self.counts[kind] += 1
        if self.counts[kind] <= MAX_MESSAGES:
            self.messages.append((line_number, bad.message, kind))

    def lines(self, name: str) -> Iterator[str]:
        """Yield the messages in the order of the file. `name`: of the file."""
        shown: Counter[str] = Counter()
        for line_number, message, kind in sorted(self.messages):
            yield f"{name}:{line_number}: {message}"
            shown[kind] += 1
            if shown[kind] == MAX_MESSAGES and (more := self.counts[kind] - MAX_MESSAGES):
                yield f"... and {more:,} more like this"

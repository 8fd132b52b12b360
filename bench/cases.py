"""What the benchmark measures: the cases, and the groups in which they are compared."""

import statistics
from dataclasses import asdict, dataclass
from typing import Any

from bench.backends import Durability
from bench.load import LoadKind
from bench.servers import ServerName

Row = dict[str, Any]
"""A case, its runs, and the medians of the runs, as in results.json."""


@dataclass(frozen=True, slots=True)
class Case:
    """One server under one load."""

    server: ServerName
    load: LoadKind = "orders"
    lines: int = 2
    products: int = 100
    orders: int = 0
    """Orders that are stored before the measurement."""
    connections: int = 64
    workers: int = 1
    durability: Durability = "always"

    @property
    def begins_sold_out(self) -> bool:
        """Return whether the stock of all products is 0 before the measurement."""
        return self.load in ("flash", "sold_out")


@dataclass(slots=True)
class Group:
    """Cases whose servers run at the same time and are measured one after the other."""

    name: str
    title: str
    cases: list[Case]
    repeats: int | None = None
    """The number of rounds, if the group needs fewer than the others."""


_OUTCOMES: tuple[LoadKind, ...] = ("orders", "keyed", "sold_out", "replay")
_READS: tuple[LoadKind, ...] = ("page", "pages", "product")

ALL_SERVERS: list[ServerName] = ["ceiling", "holdfast", "pool", "postgres"]
SERVERS_WITH_BACKEND: list[ServerName] = ["holdfast", "pool", "postgres"]


def groups(full: bool) -> list[Group]:
    """Return the groups of `make bench`, or all groups."""
    if not full:
        return [
            Group(
                "orders",
                "1,000 products",
                [
                    *(Case(server, products=1000) for server in ALL_SERVERS),
                    *(Case(server, workers=2, products=1000) for server in ("holdfast", "postgres")),
                    Case("holdfast", "product", workers=2, products=1000),
                    *(Case(server, "page", products=1000) for server in ("ceiling", "holdfast", "postgres")),
                    Case("holdfast", "pages", products=1000),
                    *(Case(server, "product", products=1000) for server in ("ceiling", "holdfast", "postgres")),
                    *(Case(server, "mixed", products=1000) for server in ("ceiling", "holdfast", "postgres")),
                ],
            ),
            Group(
                "flash",
                "Flash sale: one product, with units for 5 % of the orders",
                [Case(s, "flash") for s in SERVERS_WITH_BACKEND],
            ),
        ]
    return [
        *(
            Group(
                f"orders-{products}",
                f"Orders, {products:,} products",
                [Case(server, lines=lines, products=products) for lines in (1, 2, 5) for server in ALL_SERVERS],
            )
            for products in (100, 100_000)
        ),
        Group(
            "flash",
            "Flash sale: one product, with units for 5 % of the orders",
            [Case(s, "flash") for s in SERVERS_WITH_BACKEND],
        ),
        Group(
            "outcomes",
            "New orders, refusals and replays, 100 products",
            [Case("ceiling"), *(Case("holdfast", kind) for kind in _OUTCOMES)],
        ),
        Group(
            "reads",
            "Reads, 100,000 products",
            [
                *(Case(s, kind, products=100_000) for kind in _READS for s in ALL_SERVERS),
                # As many orders as products: the load draws both from the same numbers.
                Case("holdfast", "order_pages", products=100_000, orders=100_000),
            ],
        ),
        Group("mixed", "90 % reads, 10 % orders", [Case(server, "mixed") for server in ALL_SERVERS]),
        Group(
            "workers",
            "Workers",
            [
                *(Case(s, workers=workers) for workers in (1, 2, 4) for s in ("ceiling", "holdfast", "postgres")),
                *(Case("holdfast", "product", workers=workers) for workers in (1, 2, 4)),
            ],
            3,
        ),
        Group(
            "connections",
            "Connections",
            [Case(server, connections=connections) for connections in (8, 64, 512, 4096) for server in ALL_SERVERS],
            3,
        ),
        Group(
            "sizes",
            "Stored products and orders",
            [
                Case(s, products=size, orders=size)
                for size in (100, 10_000, 1_000_000)
                for s in ("holdfast", "postgres")
            ],
            3,
        ),
        Group(
            "durability",
            "Durability",
            [
                *(Case("holdfast", durability=durability) for durability in ("off", "everysec", "always")),
                *(Case("postgres", durability=durability) for durability in ("off", "always")),
            ],
            3,
        ),
    ]


def result_row(case: Case, runs: list[Row], **more: object) -> Row:
    """Return a row of results.json, with the medians of all numbers of the runs."""
    names = {name for run in runs for name in run}
    medians = {name: statistics.median(run[name] for run in runs if name in run) for name in sorted(names)}
    return {**asdict(case), **more, "median": medians, "runs": runs}

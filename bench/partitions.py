"""Measures what orders, refusals and pages cost in a shop with 1 to 16 partitions: CPU time and scripts.

    .venv/bin/python -m bench.partitions [--seconds 3] [--repeats 3] [--only "sold out"]

Each partition has an embedded engine of its own, which writes its file with `everysec`. The Store runs in this
process, without HTTP, and 64 callers for each partition wait for their replies. All cases are measured in turn; the
table has the medians. The engines share the cores of this machine with the Store: add up CPU times to see what a larger
machine could do.

"In turn": 64 callers use one partition after the other, each for an equal part of the time. So the others are idle, and
the one that works has the core for itself, as it would on a machine with enough cores.

bench/served_partitions.py measures `holdfast serve` over HTTP.
"""

import argparse
import asyncio
import itertools
import logging
import os
import random
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple
from zlib import crc32

import redis.asyncio
import structlog

from service.domain.errors.order_refusals import InsufficientStock
from service.domain.errors.storage import Overloaded
from service.domain.requests import NewOrder, NewOrderLine, NewProduct, ProductsQuery, StockChange
from service.engine.launcher import run_engines
from service.partition_url import partition_url
from service.settings import Settings
from service.storage.opening import open_store
from service.storage.partitioned import AnyStore

CALLERS: Final = 64
"""For each partition: so the turns of all engines are equally long."""

PAGE_CALLERS: Final = 16
"""For pages, of which each needs all partitions."""

PLENTY: Final = 10**9


class Cost(NamedTuple):
    """CPU time per call in microseconds, scripts per call, and calls per second."""

    engines: float
    store: float
    scripts: float
    rate: float


class Case(NamedTuple):
    """What is measured. `call` makes one call; `products` and `stock`: what is added before."""

    name: str
    partitions: int
    products: int
    stock: int
    call: Callable[[AnyStore, "Case"], Awaitable[None]]
    in_turn: bool = False
    """Whether all calls are for one partition, and then all for the next."""
    sale: int = 0
    """If it is not 0: how many units come to the home of product 1 before each measurement, which ends with them."""

    @property
    def callers(self) -> int:
        """How many calls are made at the same time."""
        reads_pages = self.call in (read_page, read_page_or_order)
        return PAGE_CALLERS if reads_pages else CALLERS * (1 if self.in_turn else self.partitions)


def order_of(*lines: tuple[int, int], customer: str | None = None) -> NewOrder:
    """Return an order that is stored as completed."""
    products = [NewOrderLine.model_construct(product_id=product_id, quantity=units) for product_id, units in lines]
    return NewOrder.model_construct(
        products=products, status="completed", hold_seconds=900, total_price=None, reference=None, customer=customer
    )


async def place_two_lines(store: AnyStore, case: Case) -> None:
    """Order a unit of each of two products."""
    first, second = random.sample(range(1, case.products + 1), 2)
    await store.orders.place(order_of((first, 1), (second, 1)))


@cache
def customers_of(partition: int, partitions: int) -> list[str]:
    """Return some customers whose orders are placed in this partition, as `Partitions.of_text` says."""
    names = [f"customer-{number}" for number in range(100 * partitions)]
    return [name for name in names if crc32(name.encode()) % partitions == partition]


_busy_partition = 0
"""In which partition orders are placed now, if they are placed in one after the other."""


async def place_for_customer(store: AnyStore, case: Case) -> None:
    """Order a unit of each of two products for a customer of the partition whose turn it is."""
    first, second = random.sample(range(1, case.products + 1), 2)
    customer = random.choice(customers_of(_busy_partition, case.partitions))
    await store.orders.place(order_of((first, 1), (second, 1), customer=customer))


async def place_one_line(store: AnyStore, case: Case) -> None:
    """Order a unit of one product; it may be sold out."""
    with suppress(InsufficientStock):
        await store.orders.place(order_of((random.randint(1, case.products), 1)))


_keys = itertools.count()


async def place_with_key(store: AnyStore, case: Case) -> None:
    """Order a unit with a new Idempotency-Key; it may be sold out."""
    with suppress(InsufficientStock):
        await store.orders.place(order_of((random.randint(1, case.products), 1)), f"key-{next(_keys)}")


async def read_page(store: AnyStore, _: Case) -> None:
    """Read a page of 100 products."""
    await store.products.list(ProductsQuery.model_construct(limit=100, after=0, in_stock=None))


_calls = itertools.count()


async def read_page_or_order(store: AnyStore, case: Case) -> None:
    """Read a page of 100 products; every tenth call is an order, which changes two of them."""
    await (read_page if next(_calls) % 10 else place_two_lines)(store, case)


CASES: Final = (
    *[Case("orders of 2 lines, 100 products", count, 100, PLENTY, place_two_lines) for count in (1, 2, 4, 8, 16)],
    *[
        Case("orders of 2 lines with a customer, in turn", count, 100, PLENTY, place_for_customer, in_turn=True)
        for count in (1, 2, 4, 8, 16)
    ],
    *[Case("orders of one hot product", count, 1, PLENTY, place_one_line) for count in (1, 4)],
    *[Case("sale of 20,000 units, all at home", count, 1, 0, place_one_line, sale=20_000) for count in (1, 4, 16)],
    *[Case("orders of 2 lines, 100,000 products", count, 100_000, PLENTY, place_two_lines) for count in (1, 4)],
    *[Case("orders of 1 line, 20,000 products with 5 units", count, 20_000, 5, place_one_line) for count in (1, 4)],
    *[Case("sold out, no key", count, 1, 0, place_one_line) for count in (1, 4, 16)],
    *[Case("sold out, with keys", count, 1, 0, place_with_key) for count in (1, 4, 16)],
    *[Case("page of 100 products", count, 100, 1000, read_page) for count in (1, 4, 16)],
    *[Case("page of 100 products, 10 % orders", count, 100, PLENTY, read_page_or_order) for count in (1, 4, 16)],
)


class Running:
    """A shop for a case, with engines of its own."""

    def __init__(self, case: Case, store: AnyStore, url: str, pids: list[int]) -> None:
        self.case = case
        self.store = store
        self._urls = [partition_url(url, number) for number in range(case.partitions)]
        self._pids = pids

    async def measure(self, seconds: float) -> Cost:
        """Make calls for some seconds, or until the units are sold, and return what a call costs."""
        global _busy_partition
        calls, most_calls = 0, self.case.sale or PLENTY
        turns = self.case.partitions if self.case.in_turn else 1

        async def caller() -> None:
            nonlocal calls
            while time.perf_counter() < ends_at and calls < most_calls:
                try:
                    await self.case.call(self.store, self.case)
                    calls += 1
                except Overloaded:  # other programs use the cores
                    await asyncio.sleep(0.02)

        if self.case.sale:
            seconds = 60
            await self.store.stock.change(
                1, StockChange.model_validate({"change": self.case.sale, "reason": "delivery"})
            )
        engines, scripts = self._engine_seconds(), await self._scripts()
        cpu, started = time.process_time(), time.perf_counter()
        for turn in range(turns):
            _busy_partition = turn
            ends_at = time.perf_counter() + seconds / turns
            await asyncio.gather(*[caller() for _ in range(self.case.callers)])
        elapsed, cpu = time.perf_counter() - started, time.process_time() - cpu
        engines, scripts = self._engine_seconds() - engines, await self._scripts() - scripts
        return Cost(engines / calls * 1e6, cpu / calls * 1e6, scripts / calls, calls / elapsed)

    def _engine_seconds(self) -> float:
        ticks = [sum(map(int, Path(f"/proc/{pid}/stat").read_text().split()[13:15])) for pid in self._pids]
        return sum(ticks) / os.sysconf("SC_CLK_TCK")

    async def _scripts(self) -> int:
        total = 0
        for url in self._urls:
            async with redis.asyncio.from_url(url, decode_responses=True) as client:
                stats = await client.info("commandstats")
                total += stats.get("cmdstat_evalsha", {}).get("calls", 0)
        return total


@asynccontextmanager
async def running(case: Case, url: str) -> AsyncIterator[Running]:
    """Yield a case with its products."""
    settings = replace(Settings(), redis_url=url, partitions=case.partitions, durability="none", max_in_flight=100_000)
    async with open_store(settings) as store:
        for start in range(1, case.products + 1, 500):
            ids = range(start, min(start + 500, case.products + 1))
            await asyncio.gather(*[store.products.add(_product(id_, case.stock)) for id_ in ids])
        pids = []
        for number in range(case.partitions):
            async with redis.asyncio.from_url(partition_url(url, number), decode_responses=True) as client:
                pids.append(int((await client.info("server"))["process_id"]))
        yield Running(case, store, url, pids)


def _product(product_id: int, stock: int) -> NewProduct:
    return NewProduct.model_validate({"id": product_id, "name": "Mug", "description": "", "price": 5, "stock": stock})


async def measure_all(urls: list[str], cases: list[Case], seconds: float, repeats: int) -> list[Cost]:
    """Return the medians of all cases, which are measured in turn."""
    async with AsyncExitStack() as stack:
        shops = [await stack.enter_async_context(running(case, url)) for case, url in zip(cases, urls, strict=True)]
        costs: list[list[Cost]] = [[] for _ in shops]
        for _ in range(repeats):
            for shop, found in zip(shops, costs, strict=True):
                found.append(await shop.measure(seconds))
    return [Cost(*map(statistics.median, zip(*found, strict=True))) for found in costs]


def main() -> None:
    """Measure the cases with the same calls together, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default="", help="measure only the cases with this text in their name")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    print("| calls | partitions | engines | to one | Store | scripts | calls/s |\n|---|---|---|---|---|---|---|")
    for name, group in itertools.groupby(CASES, key=lambda case: case.name):
        if options.only not in name:
            continue
        cases = list(group)
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            urls = [
                stack.enter_context(run_engines(folder / str(case.partitions), case.partitions, "everysec"))
                for case in cases
            ]
            costs = asyncio.run(measure_all(urls, cases, options.seconds, options.repeats))
        for case, cost in zip(cases, costs, strict=True):
            ratio = cost.engines / costs[0].engines
            print(
                f"| {name} | {case.partitions} | {cost.engines:.1f} µs | {ratio:.2f} | {cost.store:.1f} µs "
                f"| {cost.scripts:.2f} | {cost.rate:,.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
